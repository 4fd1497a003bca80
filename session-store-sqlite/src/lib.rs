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
//!
//! # Threads
//!
//! One thread writes. It commits everything that is queued at once, so that many callers share the
//! price of one `fsync`, and a savepoint per operation lets a bad one fail alone. Some threads read,
//! each batch in a snapshot opened after its last question was asked. `find` answers on the caller's
//! own thread when it can: readers of a write-ahead log wait for no writer. A dropped future stops
//! nothing. [`SqliteStore::open`] blocks, at most for the busy timeout.
//!
//! # SQL typed by hand
//!
//! The triggers need no more than SQLite 3.38, so that the shell of the system will do, also with
//! its foreign keys off. What they can't see is `REPLACE`: SQLite runs no delete triggers for it
//! unless `recursive_triggers` is on. Use `UPDATE`, or `INSERT .. ON CONFLICT DO UPDATE`.

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
