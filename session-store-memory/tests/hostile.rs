//! Adapters that panic, hang or return garbage: their cases fail by name, and the run goes on.
#![expect(clippy::panic, reason = "that is what a hostile adapter does")]

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use session_store_core::conformance::{
    AdapterReport, Filter, Guard, SecondaryHarness, TestClock, Verdict, run_secondary,
};
use session_store_core::{
    BoxFuture, CacheKey, Record, Reservation, Result, SecondaryPromise, SecondaryStore, SwapTtl,
    Ttl,
};
use session_store_memory::MemoryCacheHarness;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    PanicsWhenOpened,
    HangsWhenOpened,
    PanicsOnGet,
    HangsOnGet,
    ReturnsGarbage,
}

/// A memory cache that misbehaves.
#[derive(Debug)]
struct Hostile(How, Arc<dyn SecondaryStore>);

#[async_trait]
impl SecondaryStore for Hostile {
    fn promise(&self) -> SecondaryPromise {
        self.1.promise()
    }

    fn epoch(&self) -> u64 {
        self.1.epoch()
    }

    async fn get(&self, key: &CacheKey) -> Result<Option<Record>> {
        match self.0 {
            How::PanicsOnGet => panic!("no idea about {key:?}"),
            How::HangsOnGet => std::future::pending().await,
            How::ReturnsGarbage => Ok(Some(Record::new(vec![0xff; 9]))),
            _ => self.1.get(key).await,
        }
    }

    async fn reserve(&self, key: &CacheKey, ttl: Ttl) -> Result<Reservation> {
        self.1.reserve(key, ttl).await
    }

    async fn swap(
        &self,
        key: &CacheKey,
        expected: &Record,
        new: Option<&Record>,
        ttl: SwapTtl,
    ) -> Result<bool> {
        self.1.swap(key, expected, new, ttl).await
    }

    async fn remove(&self, keys: &[CacheKey]) -> Result<()> {
        self.1.remove(keys).await
    }
}

struct Harness(How);

#[async_trait]
impl SecondaryHarness for Harness {
    fn name(&self) -> &'static str {
        "hostile"
    }

    async fn open(&self, clock: &Arc<TestClock>) -> Result<(Arc<dyn SecondaryStore>, Guard)> {
        match self.0 {
            How::PanicsWhenOpened => panic!("there is no such server"),
            How::HangsWhenOpened => std::future::pending().await,
            how => {
                let (store, guard) = MemoryCacheHarness.open(clock).await?;
                Ok((Arc::new(Hostile(how, store)), guard))
            }
        }
    }

    async fn pass_time(&self, clock: &TestClock, length: Duration) {
        MemoryCacheHarness.pass_time(clock, length).await;
    }

    async fn evict(&self, store: &Arc<dyn SecondaryStore>, key: &CacheKey) -> Result<bool> {
        MemoryCacheHarness.evict(store, key).await
    }

    fn patience(&self) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(Duration::from_millis(20)))
    }
}

async fn run(how: How) -> AdapterReport {
    run_secondary(Box::leak(Box::new(Harness(how))), &Filter::All).await
}

fn details(report: &AdapterReport) -> Vec<&str> {
    let verdicts = report.cases.iter().map(|case| &case.verdict);
    verdicts
        .filter_map(|verdict| match verdict {
            Verdict::Fail { detail } => Some(detail.as_str()),
            _ => None,
        })
        .collect()
}

#[tokio::test]
async fn what_fails_to_open_fails_every_case_by_name() {
    for (how, said) in [
        (How::PanicsWhenOpened, "panicked: there is no such server"),
        (How::HangsWhenOpened, "did not end in time"),
    ] {
        let report = run(how).await;
        assert_eq!(report.counts(), (0, report.cases.len()));
        for detail in details(&report) {
            assert!(detail.contains(said), "{detail}");
        }
    }
}

#[tokio::test]
async fn what_misbehaves_fails_its_cases_and_no_others() {
    let sane = run_secondary(&MemoryCacheHarness, &Filter::All).await.cases.len();
    for (how, said) in [
        (How::PanicsOnGet, "panicked: no idea about"),
        (How::HangsOnGet, "did not end in time"),
        (How::ReturnsGarbage, "got Some(Record"),
    ] {
        let report = run(how).await;
        let (passed, failed) = report.counts();
        assert_eq!(passed + failed, sane, "{how:?}");
        assert!(passed > 0 && failed > 0, "{how:?}: {passed} passed, {failed} failed");
        assert!(details(&report).iter().any(|detail| detail.contains(said)), "{how:?}");
    }
}
