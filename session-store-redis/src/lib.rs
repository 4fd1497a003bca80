//! Redis and Valkey as the cache of `session-store`: one server, Sentinel or Cluster, through the
//! client library `redis` or `fred`.
//!
//! The library only carries commands over one connection to one server. When to connect, to whom,
//! and what a lost answer means is decided here, once for both: no command is ever sent twice by
//! anything below, since a reservation that is applied twice could bring a session back.
//!
//! ```no_run
//! use session_store_redis::{RedisCache, RedisConfig};
//!
//! # async fn run() -> Result<(), session_store_core::Error> {
//! let cache = RedisCache::connect(&RedisConfig::parse("redis://127.0.0.1:6379")?).await?;
//! # Ok(())
//! # }
//! ```
//!
//! # Advice for operators
//!
//! - Save nothing (`save ""`, `appendonly no`): a cache that restarts empty is harmless, one that
//!   restarts from a file brings removed sessions back. Then say so: [`Rollback::Impossible`].
//! - Any eviction policy will do; `noeviction` makes fills fail when memory is full, and reads go on.
//! - A user with the rights of [`RedisConfig::acl_rules`] is enough.
#![cfg_attr(docsrs, feature(doc_cfg))]
#![cfg_attr(
    not(any(feature = "redis", feature = "fred")),
    expect(dead_code, reason = "without a client library nothing connects")
)]

mod acl;
mod cache;
mod cluster;
mod config;
mod driver;
mod error;
#[cfg(feature = "conformance")]
mod harness;
mod identity;
mod key;
mod line;
mod link;
mod route;
mod script;
mod seal;
mod sentinel;
mod slots;
#[cfg(feature = "rustls")]
mod tls;
mod url;
mod wait;

pub use cache::RedisCache;
pub use config::{Client, RecordKeys, RedisConfig, Rollback, Servers, Wait};
#[cfg(feature = "conformance")]
pub use harness::RedisHarness;
pub use url::{Address, Credentials};
