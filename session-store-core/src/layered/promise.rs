//! What a layered store returns and guarantees.

use std::sync::Arc;
use std::time::Duration;

use crate::primary::Update;
use crate::secondary::Record;
use crate::session::{SessionIds, Snapshot};

/// From when on no node accepts a revoked session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Visibility {
    /// From now on.
    Immediate,
    /// At the latest this long from now.
    Within(Duration),
}

impl Visibility {
    /// The longer of two bounds.
    pub fn weaker(self, other: Self) -> Self {
        match (self, other) {
            (Self::Within(a), Self::Within(b)) => Self::Within(a.max(b)),
            (Self::Immediate, weak) | (weak, Self::Immediate) => weak,
        }
    }

    /// The bound; zero for `Immediate`.
    pub fn bound(self) -> Duration {
        match self {
            Self::Immediate => Duration::ZERO,
            Self::Within(bound) => bound,
        }
    }
}

/// What a revocation achieved.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct Revoked {
    /// How many active sessions were ended by this call.
    pub count: u64,
    /// Which.
    pub sessions: SessionIds,
    /// From when on no node accepts them, nor any that an earlier call ended.
    pub visibility: Visibility,
}

/// What became of an update, and from when on every node sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changed<U = Update> {
    /// What became of it.
    pub update: U,
    /// From when on no node sees the old version.
    pub visibility: Visibility,
}

/// Where an answer came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// The near cache of this process.
    Near,
    /// The cache.
    Secondary,
    /// The database.
    Primary,
    /// The database, through a read that another request of this process had begun.
    Joined,
}

/// What a lookup found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The session; `None` when there is none.
    pub snapshot: Option<Arc<Snapshot>>,
    /// Where the answer came from.
    pub source: Source,
    /// The record that was seen in the cache, for an update that follows.
    pub seen: Option<Record>,
    /// Whether the cache was in trouble and the database answered instead.
    pub degraded: bool,
}

/// The numbers behind the promises, computed from the configuration: docs, logs and tests quote
/// this one source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Guarantee {
    /// What a revocation returns while everything works.
    pub healthy: Visibility,
    /// The bound when the cache can't be told: lease, entry, what clocks may add to it, and near
    /// cache added up. If it comes back with another past before that, `rollback` counts.
    pub cache_failure: Duration,
    /// The bound when the cache comes back with old entries, if it can, which is `cache_failure` and what
    /// the cache declares for nodes that notice late and servers whose clocks differ: nodes that were
    /// there pass the cache by for so long \[X8-L-34\], and none of them says `Immediate` \[X8-L-35\]. A process that
    /// asks the cache for the first time after it came back has seen no change, so it may believe an
    /// entry for so long that was removed before, and say `Immediate` while others have not noticed yet.
    pub rollback: Option<Duration>,
    /// The bound for changes made by hand-typed SQL while nobody drains the log.
    pub out_of_band: Duration,
}

/// Counters since the start.
///
/// # Contract
/// - Each counter counts its own event, once \[L-59\].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Lookups answered by the near cache.
    pub near_hits: u64,
    /// Lookups answered by the cache.
    pub hits: u64,
    /// Lookups answered by a cached "there is no such session".
    pub negative_hits: u64,
    /// Reads of the primary.
    pub primary_reads: u64,
    /// Lookups answered by another request's read.
    pub joined: u64,
    /// Reads of the primary that confirmed or corrected a "no".
    pub confirms: u64,
    /// Records put into the cache.
    pub fills: u64,
    /// Fills that the cache refused because the lease was gone.
    pub fills_refused: u64,
    /// Fills dropped because too many were running.
    pub fills_dropped: u64,
    /// Operations of the cache that failed or were too slow.
    pub cache_errors: u64,
    /// Lookups that went past the cache.
    pub bypassed: u64,
    /// Reads refused because too many were waiting.
    pub reads_refused: u64,
    /// Removals that failed.
    pub removals_failed: u64,
    /// Records that could not be read.
    pub foreign: u64,
    /// Reads of the primary that showed this host's clock to be wrong by more than `max_skew`,
    /// which closes a cache of class Eventual.
    pub skewed: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longer_bound_counts() {
        let within = |seconds| Visibility::Within(Duration::from_secs(seconds));
        let now = Visibility::Immediate;
        assert_eq!(now.weaker(now), now);
        assert_eq!((now.weaker(within(1)), within(1).weaker(now)), (within(1), within(1)));
        assert_eq!(
            (within(2).weaker(within(1)), within(1).weaker(within(2))),
            (within(2), within(2))
        );
        assert_eq!((now.bound(), within(3).bound()), (Duration::ZERO, Duration::from_secs(3)));
    }
}
