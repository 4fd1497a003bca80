//! SQLite as the primary store of `session-store`: durable by default, fast by group commit, and
//! with an invalidation log that SQL typed by hand writes to as well.
//!
//! ```
//! use session_store_core::PrimaryStore;
//! use session_store_sqlite::{SqliteConfig, SqliteStore};
//!
//! # let folder = tempfile::tempdir()?;
//! # let path = folder.path().join("sessions.db");
//! let store = SqliteStore::open(&SqliteConfig::new(path))?;
//! assert!(store.promise().durable);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![cfg_attr(docsrs, feature(doc_cfg))]

mod config;
mod store;
mod thread;
mod schema;
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

pub use config::{Access, ExistingUsers, IdType, InvalidationLog, SqliteConfig, Users};
#[cfg(feature = "conformance")]
pub use harness::SqliteHarness;
pub use store::SqliteStore;
