//! How the conformance suite gets at a KV namespace, from inside a Worker.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use session_store_core::conformance::{Guard, SecondaryHarness, TestClock};
use session_store_core::{BoxFuture, CacheKey, Clock, Error, ErrorKind, Result, SecondaryStore};
use worker::Delay;
use worker::kv::KvStore;
use worker::send::SendFuture;

use super::error::NAME;
use super::{WorkersKvCache, WorkersKvConfig};

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
    kv: KvStore,
    time: Arc<dyn KvClock>,
}

impl WorkersKvHarness {
    /// The namespace `kv`, whose time passes by `time`.
    pub fn new(kv: KvStore, time: Arc<dyn KvClock>) -> Self {
        Self { kv, time }
    }
}

#[async_trait]
impl SecondaryHarness for WorkersKvHarness {
    fn name(&self) -> &'static str {
        NAME
    }

    async fn open(&self, clock: &Arc<TestClock>) -> Result<(Arc<dyn SecondaryStore>, Guard)> {
        let clock: Arc<dyn Clock> = clock.clone();
        let config = WorkersKvConfig::default();
        let cache = WorkersKvCache::new(self.kv.clone(), &config, clock)?;
        // Cases share the namespace, and some of their keys.
        let mut random = [0; 8];
        getrandom::fill(&mut random).map_err(|_| Error::new(ErrorKind::Unavailable, NAME))?;
        let prefix = format!("{:016x}:", u64::from_be_bytes(random));
        Ok((Arc::new(cache.prefixed(&prefix)), Box::new(())))
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
