#![cfg_attr(docsrs, feature(doc_cfg))]
//! Memory back ends for `session-store`: [`MemoryStore`], a primary store for tests and mock mode
//! that can be filled with users beforehand, and [`MemoryCache`], a bounded cache inside the
//! process.
//!
//! ```
//! use session_store_core::{Timestamp, User, UserId};
//! use session_store_memory::MemoryStore;
//!
//! let ada = User::new(UserId::new("ada")?, Timestamp::EPOCH);
//! let store = MemoryStore::with_users([ada])?;
//! # Ok::<(), session_store_core::Error>(())
//! ```

mod config;

// The truth.
mod store;
mod tables;
mod users;
mod sessions;
mod ending;
mod page;
mod log;

// The cache.
mod cache;
mod shard;
mod pool;

#[cfg(test)]
mod host;

pub use cache::MemoryCache;
pub use config::{MemoryCacheConfig, MemoryConfig};
pub use store::MemoryStore;
