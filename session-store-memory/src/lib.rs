#![cfg_attr(docsrs, feature(doc_cfg))]
//! Memory back ends for `session-store`: a primary store for tests and mock mode.
//!
//! ```
//! use session_store_core::{Page, PrimaryStore, Timestamp, User, UserId};
//! use session_store_memory::MemoryStore;
//!
//! # #[tokio::main]
//! # async fn main() -> session_store_core::Result<()> {
//! let now = Timestamp::from_millis(1_800_000_000_000);
//! let store = MemoryStore::with_users([
//!     User::new(UserId::new("ada")?, now),
//!     User::new(UserId::new("bob")?, now),
//! ])?;
//! assert_eq!(store.count_users().await?, 2);
//! let listing = store.list_users(&Page::first(10)).await?;
//! assert_eq!(listing.items[0].id.as_str(), "ada");
//! # Ok(())
//! # }
//! ```

mod store;
mod tables;
mod users;
mod sessions;
mod ending;
mod log;
mod page;
mod config;

pub use config::MemoryConfig;
pub use store::MemoryStore;
