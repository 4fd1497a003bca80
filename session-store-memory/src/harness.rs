//! How the conformance suite gets at memory stores and caches.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use session_store_core::conformance::{Deed, Guard, PrimaryHarness, SecondaryHarness, TestClock};
use session_store_core::{BoxFuture, CacheKey, Clock, PrimaryStore, Result, SecondaryStore};

use crate::{MemoryCache, MemoryCacheConfig, MemoryStore};

/// How long a case may take, a hundred thousand questions one after the other.
const PATIENCE: Duration = Duration::from_mins(5);

/// Memory stores, one per namespace.
#[derive(Debug, Default)]
pub struct MemoryHarness {
    stores: Mutex<HashMap<String, MemoryStore>>,
}

#[async_trait]
impl PrimaryHarness for MemoryHarness {
    fn name(&self) -> &'static str {
        "memory"
    }

    async fn open(&self, namespace: &str) -> Result<(Arc<dyn PrimaryStore>, Guard)> {
        let store = MemoryStore::new();
        self.stores.lock().insert(namespace.to_owned(), store.clone());
        Ok((Arc::new(store), Box::new(())))
    }

    async fn reopen(&self, namespace: &str) -> Result<Arc<dyn PrimaryStore>> {
        Ok(Arc::new(self.stores.lock().entry(namespace.to_owned()).or_default().clone()))
    }

    async fn by_hand(&self, _namespace: &str, _deed: &Deed) -> Result<bool> {
        // There is no shell into the memory of a process.
        Ok(false)
    }

    async fn dump(&self, _namespace: &str) -> Result<Option<Vec<u8>>> {
        Ok(None)
    }

    fn patience(&self) -> BoxFuture<'static, ()> {
        Box::pin(futures_timer::Delay::new(PATIENCE))
    }
}

/// Memory caches whose time is the case's.
#[derive(Clone, Copy, Debug, Default)]
pub struct MemoryCacheHarness;

#[async_trait]
impl SecondaryHarness for MemoryCacheHarness {
    fn name(&self) -> &'static str {
        "memory-cache"
    }

    async fn open(&self, clock: &Arc<TestClock>) -> Result<(Arc<dyn SecondaryStore>, Guard)> {
        let clock: Arc<dyn Clock> = clock.clone();
        let cache = MemoryCache::new(&MemoryCacheConfig::default(), clock);
        Ok((Arc::new(cache), Box::new(())))
    }

    async fn pass_time(&self, clock: &TestClock, length: Duration) {
        clock.advance(length);
    }

    async fn evict(&self, store: &Arc<dyn SecondaryStore>, key: &CacheKey) -> Result<bool> {
        // What lack of room takes away is gone just as after a removal.
        store.remove(std::slice::from_ref(key)).await?;
        Ok(true)
    }

    fn patience(&self) -> BoxFuture<'static, ()> {
        Box::pin(futures_timer::Delay::new(PATIENCE))
    }
}
