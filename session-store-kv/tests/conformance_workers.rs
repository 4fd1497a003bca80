//! What the suite asks of a cache of class Eventual holds for a blind cache in memory: the bounds come
//! from the stamps of the layered store, not from Workers KV. The real ones run inside workerd:
//! `cargo xtask conformance --adapter workers-kv --adapter d1 --adapter layered:d1+workers-kv`.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use session_store_core::conformance::{Guard, PrimaryHarness, SecondaryHarness, TestClock};
use session_store_core::{
    BoxFuture, CacheClass, CacheKey, CacheScope, Clock, Error, ErrorKind, Record, Reservation,
    Result, SecondaryPromise, SecondaryStore, SwapTtl, Timestamp, Ttl, conformance_tests,
};
use session_store_kv::workers::{EdgeHarness, edge_cases, run_edge};
use session_store_memory::MemoryHarness;

const MAX_RECORD: usize = 100_000;

/// A cache without a comparison, as blind as Workers KV is.
#[derive(Debug)]
struct Blind {
    clock: Arc<TestClock>,
    leases: AtomicU64,
    entries: Arc<Mutex<Entries>>,
}

/// A record, when it was written, and when it ends.
type Entries = HashMap<CacheKey, (Record, Timestamp, Timestamp)>;

impl Blind {
    fn read(&self, key: &CacheKey) -> Option<(Record, Timestamp)> {
        let now = self.clock.now();
        let (record, written, end) = self.entries.lock().get(key).cloned()?;
        (written <= now && now < end).then_some((record, end))
    }
}

#[async_trait]
impl SecondaryStore for Blind {
    fn promise(&self) -> SecondaryPromise {
        SecondaryPromise {
            name: "blind",
            class: CacheClass::Eventual,
            scope: CacheScope::Shared,
            may_roll_back: true,
            min_ttl: Duration::ZERO,
            ttl_granularity: Duration::from_millis(1),
            overrun: Duration::ZERO,
            rollback_slack: Duration::ZERO,
            max_record_bytes: MAX_RECORD,
            max_batch: 100,
        }
    }

    fn epoch(&self) -> u64 {
        0
    }

    async fn get(&self, key: &CacheKey) -> Result<Option<Record>> {
        Ok(self.read(key).map(|(record, _)| record))
    }

    async fn reserve(&self, _: &CacheKey, _: Ttl) -> Result<Reservation> {
        let number = self.leases.fetch_add(1, Ordering::SeqCst);
        Ok(Reservation::Granted(Record::lease(&number.to_be_bytes())))
    }

    async fn swap(
        &self,
        key: &CacheKey,
        expected: &Record,
        new: Option<&Record>,
        ttl: SwapTtl,
    ) -> Result<bool> {
        if new.is_some_and(|record| record.as_bytes().len() > MAX_RECORD) {
            let kind = ErrorKind::TooLarge { what: "cache record", limit: MAX_RECORD };
            return Err(Error::new(kind, "blind"));
        }
        let now = self.clock.now();
        let mut end = now;
        if !expected.is_lease() {
            match self.read(key) {
                Some((seen, until)) if seen == *expected => end = until,
                _ => return Ok(false),
            }
        }
        if let SwapTtl::Set(ttl) = ttl {
            end = now.plus(ttl.as_duration());
        }
        match new {
            Some(record) => {
                self.entries.lock().insert(key.clone(), (record.clone(), now, end));
            }
            None if expected.is_lease() => {}
            None => drop(self.entries.lock().remove(key)),
        }
        Ok(true)
    }

    async fn remove(&self, keys: &[CacheKey]) -> Result<()> {
        let mut entries = self.entries.lock();
        for key in keys {
            entries.remove(key);
        }
        Ok(())
    }
}

#[derive(Debug, Default)]
struct BlindHarness {
    namespaces: Mutex<HashMap<String, Arc<Mutex<Entries>>>>,
}

impl EdgeHarness for BlindHarness {
    fn name(&self) -> &'static str {
        "blind"
    }

    fn at(&self, namespace: &str, clock: &Arc<TestClock>) -> Result<Arc<dyn SecondaryStore>> {
        let mut namespaces = self.namespaces.lock();
        let entries = Arc::clone(namespaces.entry(namespace.to_owned()).or_default());
        Ok(Arc::new(Blind { clock: Arc::clone(clock), leases: AtomicU64::new(0), entries }))
    }
}

#[async_trait]
impl SecondaryHarness for BlindHarness {
    fn name(&self) -> &'static str {
        "blind"
    }

    async fn open(&self, clock: &Arc<TestClock>) -> Result<(Arc<dyn SecondaryStore>, Guard)> {
        let (clock, leases) = (Arc::clone(clock), AtomicU64::new(0));
        Ok((Arc::new(Blind { clock, leases, entries: Arc::default() }), Box::new(())))
    }

    async fn pass_time(&self, clock: &TestClock, length: Duration) {
        clock.advance(length);
    }

    async fn evict(&self, store: &Arc<dyn SecondaryStore>, key: &CacheKey) -> Result<bool> {
        store.remove(std::slice::from_ref(key)).await?;
        Ok(true)
    }

    fn patience(&self) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(Duration::from_mins(1)))
    }
}

static MEMORY: LazyLock<MemoryHarness> = LazyLock::new(MemoryHarness::default);
static BLIND: LazyLock<BlindHarness> = LazyLock::new(BlindHarness::default);

conformance_tests!(secondary: &*BLIND);
conformance_tests!(layered: &*MEMORY, &*BLIND);

#[tokio::test]
async fn two_locations_of_an_edge_keep_the_bound() {
    let primary: &dyn PrimaryHarness = &*MEMORY;
    let report = run_edge(primary, &*BLIND, None).await;
    report.assert_conforms();
    assert_eq!(report.cases.len(), edge_cases().len());
}
