//! The cache that keeps nothing, for a primary store that stands alone.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;

use crate::error::Result;
use crate::primary::CacheScope;
use crate::secondary::{
    CacheClass, CacheKey, Record, Reservation, SecondaryPromise, SecondaryStore, SwapTtl,
};
use crate::time::Ttl;

/// A linearizable cache that evicts everything at once: every lookup asks the primary.
///
/// # Contract
/// - A revocation is immediate in any topology, and no cache is known to the database \[X8-L-25\].
#[derive(Debug, Default)]
pub struct NoCache {
    leases: AtomicU64,
}

impl NoCache {
    /// The name in its promise.
    pub(super) const NAME: &str = "no-cache";

    /// A cache that keeps nothing.
    pub const fn new() -> Self {
        Self { leases: AtomicU64::new(0) }
    }
}

#[async_trait]
impl SecondaryStore for NoCache {
    fn promise(&self) -> SecondaryPromise {
        SecondaryPromise {
            name: Self::NAME,
            class: CacheClass::Linearizable,
            scope: CacheScope::Shared,
            may_roll_back: false,
            min_ttl: Duration::ZERO,
            ttl_granularity: Duration::from_millis(1),
            overrun: Duration::ZERO,
            rollback_slack: Duration::ZERO,
            max_record_bytes: usize::MAX,
            max_batch: usize::MAX,
        }
    }

    fn epoch(&self) -> u64 {
        0
    }

    async fn get(&self, _key: &CacheKey) -> Result<Option<Record>> {
        Ok(None)
    }

    async fn reserve(&self, _key: &CacheKey, _ttl: Ttl) -> Result<Reservation> {
        let lease = self.leases.fetch_add(1, Ordering::Relaxed);
        Ok(Reservation::Granted(Record::lease(&lease.to_be_bytes())))
    }

    async fn swap(
        &self,
        _key: &CacheKey,
        _expected: &Record,
        _new: Option<&Record>,
        _ttl: SwapTtl,
    ) -> Result<bool> {
        Ok(false)
    }

    async fn remove(&self, _keys: &[CacheKey]) -> Result<()> {
        Ok(())
    }
}
