//! A cache that somebody else wrote, in sixty lines, and the run of the suite that proves it.
//!
//! `cargo run -p session-store-core --features conformance --example third_party`
#![expect(clippy::print_stdout, reason = "an example talks to a person")]

use std::collections::HashMap;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use session_store_core::conformance::{
    Filter, Guard, Report, SecondaryHarness, TestClock, run_secondary,
};
use session_store_core::{
    BoxFuture, CacheClass, CacheKey, CacheScope, Clock, Error, ErrorKind, Record, Reservation,
    Result, SecondaryPromise, SecondaryStore, SwapTtl, Ttl,
};

const MAX_RECORD: usize = 64 * 1024;

#[derive(Debug, Default)]
struct Entries {
    /// Each with the moment of its end.
    map: HashMap<CacheKey, (Record, Duration)>,
    leases: u64,
}

#[derive(Debug)]
struct MapCache {
    entries: Mutex<Entries>,
    clock: Arc<dyn Clock>,
}

impl MapCache {
    /// The entries, without the one at `key` if its time is over, and the present moment.
    fn lock(&self, key: &CacheKey) -> (MutexGuard<'_, Entries>, Duration) {
        let now = self.clock.monotonic();
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if entries.map.get(key).is_some_and(|(_, end)| *end <= now) {
            entries.map.remove(key);
        }
        (entries, now)
    }
}

#[async_trait]
impl SecondaryStore for MapCache {
    fn promise(&self) -> SecondaryPromise {
        SecondaryPromise {
            name: "map",
            class: CacheClass::Linearizable,
            scope: CacheScope::Process,
            may_roll_back: false,
            min_ttl: Duration::ZERO,
            ttl_granularity: Duration::from_millis(1),
            overrun: Duration::ZERO,
            rollback_slack: Duration::ZERO,
            max_record_bytes: MAX_RECORD,
            max_batch: usize::MAX,
        }
    }

    fn epoch(&self) -> u64 {
        0
    }

    async fn get(&self, key: &CacheKey) -> Result<Option<Record>> {
        Ok(self.lock(key).0.map.get(key).map(|(record, _)| record.clone()))
    }

    async fn reserve(&self, key: &CacheKey, ttl: Ttl) -> Result<Reservation> {
        let (mut entries, now) = self.lock(key);
        if let Some((record, _)) = entries.map.get(key) {
            return Ok(Reservation::Occupied(record.clone()));
        }
        entries.leases += 1;
        let lease = Record::lease(&entries.leases.to_be_bytes());
        entries.map.insert(key.clone(), (lease.clone(), now + ttl.as_duration()));
        Ok(Reservation::Granted(lease))
    }

    async fn swap(
        &self,
        key: &CacheKey,
        expected: &Record,
        new: Option<&Record>,
        ttl: SwapTtl,
    ) -> Result<bool> {
        if new.is_some_and(|new| new.as_bytes().len() > MAX_RECORD) {
            let kind = ErrorKind::TooLarge { what: "record", limit: MAX_RECORD };
            return Err(Error::new(kind, "map"));
        }
        let (mut entries, now) = self.lock(key);
        let Some((found, end)) = entries.map.get_mut(key) else { return Ok(false) };
        if found != expected {
            return Ok(false);
        }
        if let SwapTtl::Set(ttl) = ttl {
            *end = now + ttl.as_duration();
        }
        match new {
            Some(new) => *found = new.clone(),
            None => drop(entries.map.remove(key)),
        }
        Ok(true)
    }

    async fn remove(&self, keys: &[CacheKey]) -> Result<()> {
        for key in keys {
            self.lock(key).0.map.remove(key);
        }
        Ok(())
    }
}

/// How the suite gets at it.
struct MapHarness;

#[async_trait]
impl SecondaryHarness for MapHarness {
    fn name(&self) -> &'static str {
        "map"
    }

    async fn open(&self, clock: &Arc<TestClock>) -> Result<(Arc<dyn SecondaryStore>, Guard)> {
        let cache = MapCache { entries: Mutex::default(), clock: clock.clone() };
        Ok((Arc::new(cache), Box::new(())))
    }

    async fn pass_time(&self, clock: &TestClock, length: Duration) {
        clock.advance(length);
    }

    async fn evict(&self, store: &Arc<dyn SecondaryStore>, key: &CacheKey) -> Result<bool> {
        store.remove(std::slice::from_ref(key)).await?;
        Ok(true)
    }

    fn patience(&self) -> BoxFuture<'static, ()> {
        Box::pin(futures_timer::Delay::new(Duration::from_secs(10)))
    }
}

fn main() -> ExitCode {
    let run = run_secondary(&MapHarness, &Filter::All);
    let report = Report { adapters: vec![futures_executor::block_on(run)] };
    println!("{}", report.text());
    ExitCode::from(u8::from(report.counts().1 > 0))
}

#[cfg(test)]
mod tests {
    use super::MapHarness;

    session_store_core::conformance_tests!(secondary: &MapHarness);
}
