//! The cases of [`SecondaryStore`](crate::SecondaryStore).

mod basics;
mod lease;
mod ttl;
mod twins;

use std::sync::Arc;
use std::time::Duration;

use super::harness::SecondaryHarness;
use super::host::TestClock;
use super::report::{AdapterReport, Violation};
use super::runner::{Case, Filter, Outcome, Weakness, judge, unopened};
use super::sample::NOW;
use crate::error::Result;
use crate::secondary::{CacheKey, Record, Reservation, SecondaryStore, SwapTtl};
use crate::time::Ttl;

/// What a case works with: a store, and keys of its own.
#[derive(Debug)]
pub(in crate::conformance) struct SecondaryBench {
    pub(super) store: Arc<dyn SecondaryStore>,
    pub(super) harness: Harness,
    pub(super) clock: Arc<TestClock>,
    pub(super) namespace: String,
    pub(super) weakness: Weakness,
}

/// The harness, which has no `Debug` of its own.
pub(super) struct Harness(&'static dyn SecondaryHarness);

impl std::fmt::Debug for Harness {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0.name())
    }
}

impl SecondaryBench {
    pub(super) fn key(&self, name: &str) -> std::result::Result<CacheKey, Violation> {
        Ok(CacheKey::new(format!("{}:{name}", self.namespace))?)
    }

    /// Puts a value the only way there is: under a lease.
    pub(super) async fn put(&self, key: &CacheKey, value: &Record, ttl: Ttl) -> Outcome {
        let Reservation::Granted(lease) = self.store.reserve(key, seconds(3)).await? else {
            return Err(Violation::new("the key is occupied"));
        };
        let swapped = self.store.swap(key, &lease, Some(value), SwapTtl::Set(ttl)).await?;
        super::report::ensure(swapped, "an own lease could not be filled")
    }

    pub(super) async fn pass(&self, length: Duration) {
        self.harness.0.pass_time(&self.clock, length).await;
    }

    pub(super) async fn evict(&self, key: &CacheKey) -> Result<bool> {
        self.harness.0.evict(&self.store, key).await
    }
}

pub(super) fn value(text: &str) -> Record {
    Record::new([b"V", text.as_bytes()].concat())
}

pub(super) fn seconds(count: u32) -> Ttl {
    Ttl::from_secs_const(count)
}

fn cases() -> impl Iterator<Item = &'static Case<SecondaryBench>> {
    [basics::CASES, lease::CASES, ttl::CASES].into_iter().flatten()
}

/// The names of all cases.
pub fn names() -> Vec<&'static str> {
    cases().map(|case| case.name).collect()
}

/// Runs every admitted case against the secondary store behind `harness`.
pub async fn run(harness: &'static dyn SecondaryHarness, filter: &Filter) -> AdapterReport {
    let mut report =
        AdapterReport { name: harness.name().to_owned(), role: "secondary", cases: Vec::new() };
    for case in cases().filter(|case| filter.admits(case)) {
        let work = async {
            let clock = TestClock::at(NOW);
            let opened = harness.open(&clock).await;
            let (store, _guard) = opened.map_err(|error| unopened(&error))?;
            let (namespace, weakness) = (case.namespace('c'), Weakness::default());
            let harness = Harness(harness);
            let bench = SecondaryBench { store, harness, clock, namespace, weakness };
            let run = twins::instead(&bench, case.name).unwrap_or(case.run);
            run(&bench).await?;
            Ok(bench.weakness.taken())
        };
        report.cases.push(judge(case, || harness.patience(), work).await);
    }
    report
}
