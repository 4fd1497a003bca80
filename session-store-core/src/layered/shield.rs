//! The secondary store behind deadlines, a breaker and a watch on its epoch.

use std::pin::pin;
use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::{Either, select};
use parking_lot::Mutex;

use super::counters::Counters;
use crate::error::{Error, ErrorKind, Result};
use crate::host::Host;
use crate::primary::CacheScope;
use crate::secondary::{
    CacheClass, CacheKey, Record, Reservation, SecondaryPromise, SecondaryStore, SwapTtl,
};
use crate::time::{Timestamp, Ttl};

/// How many failures in a row open a breaker.
const TRIPS: u32 = 5;
/// The most keys one removal names, whatever the adapter could take.
const BATCH: usize = 10_000;

/// A secondary store that answers in time or not at all.
#[derive(Debug)]
pub(crate) struct Shield<S> {
    pub(super) inner: S,
    promise: SecondaryPromise,
    host: Host,
    deadline: Duration,
    pause: Duration,
    /// How long after a lost stretch no entry of before can be left, in milliseconds, where all nodes
    /// notice at once.
    quarantine: AtomicU64,
    epoch: AtomicU64,
    failures: AtomicU32,
    /// Monotonic time until which reads go past the cache.
    closed_until: Mutex<Duration>,
    /// Counted apart: a cache that refuses to be written may still be read.
    failed_writes: AtomicU32,
    /// Monotonic time until which no lookup asks for a lease.
    unleased_until: Mutex<Duration>,
    /// Likewise, because of a lost stretch.
    in_doubt_until: Mutex<Duration>,
    /// By how many milliseconds the server's clock is ahead of this host's, by the latest read that told;
    /// zero while they differ by `max_skew` or less.
    behind: AtomicI64,
    pub(super) counters: Counters,
}

/// The times a shield works with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ShieldTimes {
    /// For one operation.
    pub(crate) deadline: Duration,
    /// After several failures.
    pub(crate) pause: Duration,
    /// After a change of the epoch.
    pub(crate) quarantine: Duration,
}

impl<S: SecondaryStore> Shield<S> {
    pub(crate) fn new(inner: S, host: Host, times: ShieldTimes) -> Self {
        Self {
            promise: inner.promise(),
            epoch: AtomicU64::new(inner.epoch()),
            inner,
            host,
            deadline: times.deadline,
            pause: times.pause,
            quarantine: AtomicU64::new(millis(times.quarantine)),
            failures: AtomicU32::new(0),
            closed_until: Mutex::new(Duration::ZERO),
            failed_writes: AtomicU32::new(0),
            unleased_until: Mutex::new(Duration::ZERO),
            in_doubt_until: Mutex::new(Duration::ZERO),
            behind: AtomicI64::new(0),
            counters: Counters::default(),
        }
    }

    pub(crate) fn promise(&self) -> &SecondaryPromise {
        &self.promise
    }

    pub(crate) fn is_linearizable(&self) -> bool {
        self.promise.class == CacheClass::Linearizable
    }

    pub(crate) fn is_shared(&self) -> bool {
        self.promise.scope == CacheScope::Shared
    }

    /// Whether reads may use the cache now. Removals are tried in any case.
    pub(crate) fn is_open(&self) -> bool {
        self.watch_epoch();
        self.is_clock_right() && self.host.clock.monotonic() >= *self.closed_until.lock()
    }

    /// Whether a lease is worth asking for now.
    pub(crate) fn may_lease(&self) -> bool {
        self.host.clock.monotonic() >= *self.unleased_until.lock()
    }

    /// Whether another node may still use what this cache was before it lost a stretch of time, and
    /// so not know of a removal that was acknowledged now.
    pub(crate) fn is_in_doubt(&self) -> bool {
        self.watch_epoch();
        self.host.clock.monotonic() < *self.in_doubt_until.lock()
    }

    fn watch_epoch(&self) {
        let epoch = self.inner.epoch();
        if self.epoch.load(Ordering::Acquire) == epoch {
            return;
        }
        tracing::warn!(store = self.promise.name, "cache lost a stretch of time");
        if self.promise.may_roll_back {
            // Closed first: whoever sees the new epoch sees a closed cache. One that comes back
            // without what was removed, or not at all, may be used at once.
            self.close_for(self.quarantine());
            let until = self.host.clock.monotonic().saturating_add(self.quarantine());
            let mut in_doubt_until = self.in_doubt_until.lock();
            *in_doubt_until = until.max(*in_doubt_until);
        }
        self.epoch.store(epoch, Ordering::Release);
    }

    /// Whether entries may be judged by this host's clock, as far as is known.
    pub(crate) fn is_clock_right(&self) -> bool {
        let clock = &self.host.clock;
        self.is_linearizable() || clock.monotonic() >= clock.distrusted_until()
    }

    /// The moment that this host calls `now`, by the server's clock, where the two are known to differ by
    /// more than `max_skew`.
    pub(super) fn by_the_server(&self, now: Timestamp) -> Option<Timestamp> {
        let behind = self.behind.load(Ordering::Relaxed);
        let moment = now.as_millis().saturating_add(behind);
        (behind != 0).then(|| Timestamp::from_millis(moment))
    }

    /// Where freshness is told by clocks, one that is wrong must not tell it. Asked at every read of
    /// the primary, so a clock that was set right is noticed too. Returns whether it may.
    pub(crate) fn compare_clocks(
        &self,
        own: Timestamp,
        server: Timestamp,
        max_skew: Duration,
    ) -> bool {
        let differs = own.distance(server) > max_skew;
        let behind = if differs { server.as_millis() - own.as_millis() } else { 0 };
        self.behind.store(behind, Ordering::Relaxed);
        let is_wrong = !self.is_linearizable() && differs;
        if is_wrong {
            tracing::warn!(?own, ?server, "clock differs by more than max_skew: cache bypassed");
            self.counters.skewed.add();
            self.close_for(self.quarantine());
            let until = self.host.clock.monotonic().saturating_add(self.quarantine());
            self.host.clock.distrust(until);
        }
        !is_wrong
    }

    /// Reckons with entries that live for `bound`, as those of another configuration may.
    pub(super) fn reckon_with(&self, bound: Duration) {
        self.quarantine.fetch_max(millis(bound), Ordering::Relaxed);
    }

    fn quarantine(&self) -> Duration {
        // Who has not noticed yet may remove where nobody looks any more, and a process that begins may
        // put meanwhile what was read before that.
        let own = Duration::from_millis(self.quarantine.load(Ordering::Relaxed));
        own.saturating_add(self.promise.rollback_slack)
    }

    fn close_for(&self, length: Duration) {
        let until = self.host.clock.monotonic().saturating_add(length);
        let mut closed_until = self.closed_until.lock();
        *closed_until = until.max(*closed_until);
    }

    pub(crate) async fn get(&self, key: &CacheKey) -> Result<Option<Record>> {
        let got = self.timed(self.inner.get(key)).await;
        if Self::trips(&self.failures, &got) {
            self.close_for(self.pause);
        }
        got
    }

    pub(crate) async fn reserve(&self, key: &CacheKey, ttl: Ttl) -> Result<Reservation> {
        let reserved = self.timed(self.inner.reserve(key, ttl)).await;
        // A blind one asks nobody.
        if self.is_linearizable() { self.written(reserved) } else { reserved }
    }

    pub(crate) async fn swap(
        &self,
        key: &CacheKey,
        expected: &Record,
        new: Option<&Record>,
        ttl: SwapTtl,
    ) -> Result<bool> {
        self.written(self.timed(self.inner.swap(key, expected, new, ttl)).await)
    }

    /// Removes `keys` in batches. The first failure is returned, after every batch was tried.
    pub(crate) async fn remove(&self, keys: &[CacheKey]) -> Result<()> {
        let mut outcome = Ok(());
        for batch in keys.chunks(self.promise.max_batch.clamp(1, BATCH)) {
            let removed = self.timed(self.inner.remove(batch)).await;
            if let Err(error) = self.written(removed) {
                self.counters.removals_failed.add();
                tracing::warn!(store = self.promise.name, %error, "cache removal failed");
                outcome = outcome.and(Err(error));
            }
        }
        outcome
    }

    async fn timed<T>(&self, call: impl Future<Output = Result<T>>) -> Result<T> {
        let result = within(&self.host, self.deadline, call).await;
        if result.is_err() {
            self.counters.cache_errors.add();
        }
        result
    }

    /// Notes how a write went.
    fn written<T>(&self, result: Result<T>) -> Result<T> {
        if Self::trips(&self.failed_writes, &result) {
            *self.unleased_until.lock() = self.host.clock.monotonic().saturating_add(self.pause);
        }
        result
    }

    /// Whether `result` is one failure too many in a row, by the count of its kind.
    fn trips<T>(failures: &AtomicU32, result: &Result<T>) -> bool {
        match result {
            Ok(_) => failures.store(0, Ordering::Relaxed),
            Err(error) if error.is_retryable() => {
                if failures.fetch_add(1, Ordering::Relaxed) + 1 >= TRIPS {
                    failures.store(0, Ordering::Relaxed);
                    return true;
                }
            }
            Err(_) => {}
        }
        false
    }
}

fn millis(length: Duration) -> u64 {
    u64::try_from(length.as_millis()).unwrap_or(u64::MAX)
}

/// Runs `call` for at most `deadline`; the timer is made only when the first poll didn't answer.
pub(crate) async fn within<T>(
    host: &Host,
    deadline: Duration,
    call: impl Future<Output = Result<T>>,
) -> Result<T> {
    let mut call = pin!(call);
    if let std::task::Poll::Ready(result) = futures_util::poll!(call.as_mut()) {
        return result;
    }
    match select(call, host.runtime.sleep(deadline)).await {
        Either::Left((result, _)) => result,
        Either::Right(((), _)) => Err(Error::new(ErrorKind::Timeout, "core")),
    }
}
