//! How the conformance suite gets at a KV namespace, from inside a Worker.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use session_store_core::conformance::{Guard, SecondaryHarness, TestClock};
use session_store_core::{BoxFuture, CacheKey, Clock, Error, ErrorKind, Result, SecondaryStore};
use worker::Delay;
use worker::kv::KvStore;
use worker::send::SendFuture;

use super::error::NAME;
use super::locations::EdgeHarness;
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
    stopped: Mutex<Option<Error>>,
}

impl WorkersKvHarness {
    /// The namespace `kv`, whose time passes by `time`.
    pub fn new(kv: KvStore, time: Arc<dyn KvClock>) -> Self {
        Self { kv, time, stopped: Mutex::default() }
    }

    /// Why time did not pass when a case wanted it to. That case has shown nothing: entries carry their
    /// own end, and seem to end in time all the same.
    pub fn stopped(&self) -> Option<Error> {
        self.stopped.lock().clone()
    }
}

impl EdgeHarness for WorkersKvHarness {
    fn name(&self) -> &'static str {
        NAME
    }

    fn at(&self, namespace: &str, clock: &Arc<TestClock>) -> Result<Arc<dyn SecondaryStore>> {
        let clock: Arc<dyn Clock> = clock.clone();
        let cache = WorkersKvCache::new(self.kv.clone(), &WorkersKvConfig::default(), clock)?;
        Ok(Arc::new(cache.prefixed(&format!("{namespace}:"))))
    }
}

#[async_trait]
impl SecondaryHarness for WorkersKvHarness {
    fn name(&self) -> &'static str {
        NAME
    }

    async fn open(&self, clock: &Arc<TestClock>) -> Result<(Arc<dyn SecondaryStore>, Guard)> {
        // Cases share the namespace, and some of their keys.
        let mut random = [0; 8];
        getrandom::fill(&mut random).map_err(|_| Error::new(ErrorKind::Unavailable, NAME))?;
        let namespace = format!("{:016x}", u64::from_be_bytes(random));
        Ok((self.at(&namespace, clock)?, Box::new(())))
    }

    async fn pass_time(&self, clock: &TestClock, length: Duration) {
        clock.advance(length);
        if let Err(stopped) = self.time.pass(length).await {
            *self.stopped.lock() = Some(stopped);
        }
    }

    async fn evict(&self, store: &Arc<dyn SecondaryStore>, key: &CacheKey) -> Result<bool> {
        store.remove(std::slice::from_ref(key)).await?;
        Ok(true)
    }

    fn patience(&self) -> BoxFuture<'static, ()> {
        Box::pin(SendFuture::new(Delay::from(PATIENCE)))
    }
}
