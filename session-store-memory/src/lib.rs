//! Memory back ends for `session-store`: [`MemoryStore`], a primary store for tests and mock mode
//! that can be filled with users beforehand, and [`MemoryCache`], a bounded cache inside the
//! process.
//!
//! ```
//! use session_store_core::{Page, PrimaryStore, Timestamp, User, UserId};
//! use session_store_memory::MemoryStore;
//!
//! # #[tokio::main]
//! # async fn main() -> session_store_core::Result<()> {
//! let now = Timestamp::from_millis(1_800_000_000_000);
//! let users = [UserId::new("ada")?, UserId::new("bob")?];
//! let store = MemoryStore::with_users(users.map(|id| User::new(id, now)))?;
//! assert_eq!(store.count_users().await?, 2);
//! let first = store.list_users(&Page::first(1)).await?;
//! assert_eq!(first.items[0].id.as_str(), "ada");
//! assert!(first.next.is_some());
//! # Ok(())
//! # }
//! ```

#![cfg_attr(docsrs, feature(doc_cfg))]

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

#[cfg(feature = "conformance")]
mod harness;

pub use cache::MemoryCache;
pub use config::{MemoryCacheConfig, MemoryConfig};
#[cfg(feature = "conformance")]
pub use harness::{MemoryCacheHarness, MemoryHarness};
pub use store::MemoryStore;
