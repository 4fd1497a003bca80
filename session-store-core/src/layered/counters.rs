//! What happened, counted.

use std::sync::atomic::{AtomicU64, Ordering};

use super::promise::Stats;

/// One counter.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn read(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Every counter of [`Stats`].
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) near_hits: Counter,
    pub(crate) hits: Counter,
    pub(crate) negative_hits: Counter,
    pub(crate) primary_reads: Counter,
    pub(crate) joined: Counter,
    pub(crate) confirms: Counter,
    pub(crate) fills: Counter,
    pub(crate) fills_refused: Counter,
    pub(crate) fills_dropped: Counter,
    pub(crate) cache_errors: Counter,
    pub(crate) bypassed: Counter,
    pub(crate) reads_refused: Counter,
    pub(crate) removals_failed: Counter,
    pub(crate) foreign: Counter,
    pub(crate) skewed: Counter,
}

impl Counters {
    pub(crate) fn snapshot(&self) -> Stats {
        Stats {
            near_hits: self.near_hits.read(),
            hits: self.hits.read(),
            negative_hits: self.negative_hits.read(),
            primary_reads: self.primary_reads.read(),
            joined: self.joined.read(),
            confirms: self.confirms.read(),
            fills: self.fills.read(),
            fills_refused: self.fills_refused.read(),
            fills_dropped: self.fills_dropped.read(),
            cache_errors: self.cache_errors.read(),
            bypassed: self.bypassed.read(),
            reads_refused: self.reads_refused.read(),
            removals_failed: self.removals_failed.read(),
            foreign: self.foreign.read(),
            skewed: self.skewed.read(),
        }
    }
}
