//! How the conformance suite gets at a KV namespace, from inside a Worker.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use session_store_core::conformance::{Guard, SecondaryHarness, TestClock};
use session_store_core::{BoxFuture, CacheKey, Clock, Result, SecondaryStore};
use worker::Delay;
use worker::kv::KvStore;
use worker::send::SendFuture;

use super::{EdgeCached, WorkersKvCache, WorkersKvConfig};

/// How long a case may take.
const PATIENCE: Duration = Duration::from_mins(2);

/// How time passes for the namespace itself, which counts its TTLs by a clock of its own.
#[async_trait]
pub trait KvClock: fmt::Debug + Send + Sync {
    /// Lets `length` pass.
    async fn pass(&self, length: Duration) -> Result<()>;
}

/// A namespace of a running Worker.
#[derive(Debug)]
pub struct WorkersKvHarness {
    name: &'static str,
    kv: KvStore,
    time: Arc<dyn KvClock>,
    /// Whether it is seen through a location of the edge.
    through_edge: bool,
}

impl WorkersKvHarness {
    /// The namespace `kv`, whose time passes by `time`.
    pub fn new(kv: KvStore, time: Arc<dyn KvClock>) -> Self {
        Self { name: "workers-kv", kv, time, through_edge: false }
    }

    /// The same, seen through a location of the edge that keeps what it has read for a minute.
    #[must_use]
    pub fn through_edge(self) -> Self {
        Self { name: "workers-kv-edge", through_edge: true, ..self }
    }
}

#[async_trait]
impl SecondaryHarness for WorkersKvHarness {
    fn name(&self) -> &'static str {
        self.name
    }

    async fn open(&self, clock: &Arc<TestClock>) -> Result<(Arc<dyn SecondaryStore>, Guard)> {
        let clock: Arc<dyn Clock> = clock.clone();
        let config = WorkersKvConfig::default();
        let cache = WorkersKvCache::new(self.kv.clone(), &config, Arc::clone(&clock))?;
        let store: Arc<dyn SecondaryStore> = if self.through_edge {
            Arc::new(EdgeCached::new(cache, clock))
        } else {
            Arc::new(cache)
        };
        Ok((store, Box::new(())))
    }

    async fn pass_time(&self, clock: &TestClock, length: Duration) {
        clock.advance(length);
        // A clock that can't be moved shows as a record that outlives its time, or as none.
        let _ = self.time.pass(length).await;
    }

    async fn evict(&self, store: &Arc<dyn SecondaryStore>, key: &CacheKey) -> Result<bool> {
        store.remove(std::slice::from_ref(key)).await?;
        Ok(true)
    }

    fn patience(&self) -> BoxFuture<'static, ()> {
        Box::pin(SendFuture::new(Delay::from(PATIENCE)))
    }
}
