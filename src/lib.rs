//! Everything of `session-store`, by feature.
//!
#![cfg_attr(docsrs, feature(doc_cfg))]
#![doc = include_str!("../README.md")]

mod host;

pub use host::{SystemClock, TokioRuntime, tokio_host};
pub use session_store_core::*;
#[cfg(feature = "memory")]
pub use session_store_memory as memory;
#[cfg(feature = "postgres")]
pub use session_store_postgres as postgres;
#[cfg(any(feature = "redis", feature = "fred"))]
pub use session_store_redis as redis;
#[cfg(feature = "sqlite")]
pub use session_store_sqlite as sqlite;
