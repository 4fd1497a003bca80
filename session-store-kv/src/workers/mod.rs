//! Workers KV as a cache, and what `Layered` needs of a Worker as its host.
//!
//! A Worker may do no I/O on behalf of another request, so everything is made per request: the
//! [`host`](worker_host), the cache and the layered store over them. They are cheap, and no read is
//! shared by two requests. What a process would remember between requests is not: an isolate that has
//! registered its cache once, and compared its clock with the database's then, says so with
//! `registered_before`, and a hit is one read of KV. A near cache is of no use here. Bulkheads, the
//! breaker and the limit on confirmations see one request only; Cloudflare's rate limits see the location.
//!
//! ```no_run
//! use session_store_core::{Layered, LayeredConfig, PrimaryStore, Ttl};
//! use session_store_kv::workers::{WorkersKvCache, WorkersKvConfig, worker_host};
//!
//! # fn example(
//! #     primary: impl PrimaryStore + 'static,
//! #     env: &worker::Env,
//! #     context: &worker::Context,
//! # ) -> session_store_core::Result<()> {
//! let host = worker_host(context);
//! let cache = WorkersKvCache::from_env(env, &WorkersKvConfig::default(), host.clock.clone())?;
//! let mut config = LayeredConfig::default();
//! config.cache_ttl = Ttl::new(std::time::Duration::from_secs(60));
//! let store = Layered::new(primary, cache, config, host)?;
//! // A minute for the entry, another one for clocks that differ.
//! assert_eq!(store.guarantee().healthy.bound().as_secs(), 120);
//! # Ok(())
//! # }
//! ```

mod config;
mod cache;
mod row;
mod error;
mod host;

#[cfg(feature = "conformance")]
mod edge;
#[cfg(feature = "conformance")]
mod harness;
#[cfg(feature = "conformance")]
mod locations;
#[cfg(feature = "conformance")]
mod bounds;

pub use cache::WorkersKvCache;
pub use config::WorkersKvConfig;
#[cfg(feature = "conformance")]
pub use edge::EdgeCached;
#[cfg(feature = "conformance")]
pub use harness::{KvClock, WorkersKvHarness};
pub use host::{WorkerClock, WorkerRuntime, scheduled_host, worker_host};
#[cfg(feature = "conformance")]
pub use locations::{EdgeHarness, edge_cases, run_edge};
