//! Postgres as the primary store of `session-store`: locks in one order, an invalidation log that SQL
//! typed by hand writes to as well, and sweeps in bounded statements.
//!
//! [`PostgresStore::connect`] makes a pool of its own; [`PostgresStore::over`] takes the application's.
//!
//! # Poolers
//!
//! Behind PgBouncer in transaction mode a prepared statement may be answered by another client's SQL
//! text. [`PostgresStore`] notices such a pooler when it connects, and refuses it: use session mode, or
//! connect to the server itself.
//!
//! # SQL typed by hand
//!
//! Triggers log every `DELETE`, `UPDATE` and `TRUNCATE` of sessions, and every change of a projected
//! field of a user, inside the same transaction. Users that are deleted take their sessions along.

#![cfg_attr(docsrs, feature(doc_cfg))]

mod config;
mod store;
mod schema;
mod migrate;
mod pooler;
mod transaction;
mod read;
mod write;
mod ending;
mod users;
mod log;
mod row;
mod error;

#[cfg(feature = "conformance")]
mod harness;

pub use config::{Access, ExistingUsers, IdType, InvalidationLog, PostgresConfig, Users};
#[cfg(feature = "conformance")]
pub use harness::PostgresHarness;
pub use store::PostgresStore;
