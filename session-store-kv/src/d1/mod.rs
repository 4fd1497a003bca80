//! D1 as the primary store of a Worker.
//!
//! D1 has no transactions that a program can hold open, but it runs a batch of statements as one. So
//! every operation is a batch, and one that depends on what is stored begins with a guard: a statement
//! that aborts the batch by a constraint unless user, epoch and limit are as they must be.
//!
//! Nothing is read from a replica: this crate never opens a D1 session, so every statement goes to the
//! primary database.
//!
//! ```no_run
//! use session_store_core::PrimaryStore;
//! use session_store_kv::d1::{D1Config, D1Store};
//!
//! # async fn example(env: &worker::Env) -> session_store_core::Result<()> {
//! let store = D1Store::from_env(env, &D1Config::default())?;
//! assert!(store.promise().durable);
//! # Ok(())
//! # }
//! ```
//!
//! The tables come from [`D1Store::migration_sql`], put into a file for `wrangler d1 migrations apply`,
//! or from [`D1Store::migrate`].

mod config;
mod store;
mod database;
mod migrate;
mod read;
mod write;
mod ending;
mod users;
mod log;
mod row;
mod error;

#[cfg(feature = "conformance")]
mod harness;

pub use config::D1Config;
#[cfg(feature = "conformance")]
pub use harness::D1Harness;
pub use store::D1Store;
