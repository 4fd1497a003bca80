//! Postgres as the primary store of `session-store`: locks in one order, an invalidation log that SQL
//! typed by hand writes to as well, and sweeps in bounded statements.
//!
//! [`PostgresStore::connect`] makes a pool of its own; [`PostgresStore::over`] takes the application's.
//!
//! # Poolers
//!
//! Behind PgBouncer in transaction or statement mode a prepared statement may be answered by another
//! client's SQL text. [`PostgresStore`] notices such a pooler when it connects, and refuses it: use
//! session mode, or connect to the server itself.
//!
//! # SQL typed by hand
//!
//! Triggers log every `DELETE`, `UPDATE` and `TRUNCATE` of sessions, and every change of a projected
//! field of a user, inside the same transaction. An `UPDATE` that does what a touch does is left out: of
//! `last_seen_at`, and of an `expires_at` that moves away. Users that are deleted take their sessions
//! along.
//!
//! They write only while a shared cache is registered. A transaction that was open already when the
//! first one registered writes nothing, and what it changed lives in caches until the end of their TTL.
//!
//! # Crashes of the server
//!
//! With `synchronous_commit = off`, what is confirmed may be forgotten: logins, touches, what the
//! application keeps in a session, and that a cache is no longer registered. What ends sessions, evictions
//! included, what changes credentials, deadlines or secrets, and the registration of a user or of a cache
//! are committed with it on, and are not.

#![cfg_attr(docsrs, feature(doc_cfg))]

mod config;
mod store;
mod schema;
mod migrate;
mod pooler;
mod transaction;
mod read;
mod write;
mod touch;
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
