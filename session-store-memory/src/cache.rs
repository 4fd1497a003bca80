//! A bounded cache in the memory of one process. Each key lives in one shard, and each operation on
//! a key is one critical section of that shard, so that operations on a key are linearizable.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::RwLock;
use session_store_core::{
    CacheClass, CacheKey, CacheScope, Clock, Error, ErrorKind, Moment, Record, Reservation, Result,
    SecondaryPromise, SecondaryStore, SwapTtl, Ttl,
};

use crate::config::MemoryCacheConfig;
use crate::pool::{Kind, Pool};
use crate::shard::{Dead, OVERHEAD, Seen, Shard, Write};

const NAME: &str = "memory-cache";
const SHARDS: usize = 64;
/// After so many shards where everything is in use, something in use has to go.
const PATIENCE: usize = 8;
const MIN_BYTES: usize = 8 << 10;
const MAX_RECORD_BYTES: usize = 1 << 20;

/// Numbers every lease of this process, so that no two are alike whichever cache granted them.
static LEASES: AtomicU64 = AtomicU64::new(0);

/// A bounded, evicting cache that belongs to one process.
///
/// Entries end exactly when asked, by the wall clock or the monotonic clock, whichever comes first.
/// A clone is another handle on the same entries.
///
/// Leases and negatives are bounded apart from values: whoever presents 100 000 unknown ids pushes
/// out other unknown ids and no session.
#[derive(Clone, Debug)]
pub struct MemoryCache {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    shards: Box<[RwLock<Shard>]>,
    pools: Arc<[Pool; 2]>,
    hasher: RandomState,
    clock: Arc<dyn Clock>,
    max_record_bytes: usize,
    /// Tells the leases of this cache from those of another process.
    nonce: u64,
    /// Which shard gives up an entry next.
    hand: AtomicUsize,
}

impl MemoryCache {
    /// An empty cache that reads the time from `clock`.
    pub fn new(config: &MemoryCacheConfig, clock: Arc<dyn Clock>) -> Self {
        let bytes = config.max_bytes.max(MIN_BYTES);
        // Leases and negatives are short and short-lived: a quarter is plenty.
        let pending = bytes / 4;
        let pools = Arc::new([
            Pool::new(config.max_entries, bytes),
            Pool::new(config.max_entries / 4, pending),
        ]);
        let hasher = RandomState::new();
        let shards = (0..SHARDS)
            .map(|_| RwLock::new(Shard::new(hasher.clone(), Arc::clone(&pools))))
            .collect();
        let inner = Inner {
            shards,
            pools,
            nonce: RandomState::new().hash_one(NAME),
            hasher,
            clock,
            max_record_bytes: MAX_RECORD_BYTES.min(pending - OVERHEAD - CacheKey::MAX_BYTES),
            hand: AtomicUsize::new(0),
        };
        Self { inner: Arc::new(inner) }
    }

    /// How many entries there are, those included whose time is over and whose memory is not
    /// reclaimed yet.
    pub fn len(&self) -> usize {
        self.inner.pools.iter().map(Pool::len).sum()
    }

    /// Whether there is no entry at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Removes the entry at `key` as if room had been needed; whether there was one.
    pub fn evict(&self, key: &CacheKey) -> bool {
        self.inner.shard(key).write().remove(key)
    }

    /// Removes every entry that was there before the call.
    pub fn flush(&self) {
        for shard in &self.inner.shards {
            shard.write().clear();
        }
    }
}

#[async_trait]
impl SecondaryStore for MemoryCache {
    fn promise(&self) -> SecondaryPromise {
        SecondaryPromise {
            name: NAME,
            class: CacheClass::Linearizable,
            scope: CacheScope::Process,
            may_roll_back: false,
            min_ttl: Duration::ZERO,
            ttl_granularity: Duration::from_millis(1),
            overrun: Duration::ZERO,
            rollback_slack: Duration::ZERO,
            max_record_bytes: self.inner.max_record_bytes,
            max_batch: usize::MAX,
        }
    }

    fn epoch(&self) -> u64 {
        0
    }

    async fn get(&self, key: &CacheKey) -> Result<Option<Record>> {
        let now = self.inner.now();
        let shard = self.inner.shard(key);
        let found = shard.read().get(key, now);
        Ok(found.unwrap_or_else(|Dead| {
            // Another record may have come between the two locks; only a dead one is dropped.
            shard.write().write(key, now, |_| Write::Nothing);
            None
        }))
    }

    async fn reserve(&self, key: &CacheKey, ttl: Ttl) -> Result<Reservation> {
        let now = self.inner.now();
        let lease = self.inner.mint();
        let mut occupied = None;
        self.inner.write(key, now, |seen| match seen {
            None => Write::Put(lease.clone(), now.plus(ttl)),
            Some(seen) => {
                occupied = Some(seen.record.clone());
                Write::Nothing
            }
        });
        Ok(occupied.map_or(Reservation::Granted(lease), Reservation::Occupied))
    }

    async fn swap(
        &self,
        key: &CacheKey,
        expected: &Record,
        new: Option<&Record>,
        ttl: SwapTtl,
    ) -> Result<bool> {
        let limit = self.inner.max_record_bytes;
        if new.is_some_and(|record| record.as_bytes().len() > limit) {
            let what = "cache record";
            return Err(Error::new(ErrorKind::TooLarge { what, limit }, NAME));
        }
        let now = self.inner.now();
        let mut swapped = false;
        self.inner.write(key, now, |seen| {
            let Some(seen) = seen.filter(|seen| seen.record == expected) else {
                return Write::Nothing;
            };
            swapped = true;
            let deadline = match ttl {
                SwapTtl::Set(ttl) => now.plus(ttl),
                SwapTtl::Keep => seen.deadline,
            };
            new.map_or(Write::Remove, |record| Write::Put(record.clone(), deadline))
        });
        Ok(swapped)
    }

    async fn remove(&self, keys: &[CacheKey]) -> Result<()> {
        for key in keys {
            self.inner.shard(key).write().remove(key);
        }
        Ok(())
    }
}

impl Inner {
    fn now(&self) -> Moment {
        Moment::now(&*self.clock)
    }

    fn shard(&self, key: &CacheKey) -> &RwLock<Shard> {
        // The maps inside the shards use the low and the highest bits of the same hash.
        let hash = self.hasher.hash_one(key) >> 32;
        &self.shards[usize::try_from(hash).unwrap_or(0) % SHARDS]
    }

    fn mint(&self) -> Record {
        let mut token = [0; 16];
        token[..8].copy_from_slice(&self.nonce.to_be_bytes());
        let number = LEASES.fetch_add(1, Ordering::Relaxed);
        token[8..].copy_from_slice(&number.to_be_bytes());
        Record::lease(&token)
    }

    /// One step on the shard of `key`; then, without its lock, room is made for what was put.
    fn write(&self, key: &CacheKey, now: Moment, decide: impl FnOnce(Option<Seen<'_>>) -> Write) {
        let put = self.shard(key).write().write(key, now, decide);
        if let Some(kind) = put {
            self.make_room(kind, key, now);
        }
    }

    /// Evicts entries of `kind`, other than `keep`, until they are within their bound.
    fn make_room(&self, kind: Kind, keep: &CacheKey, now: Moment) {
        let pool = &self.pools[kind as usize];
        let mut refusals = 0;
        while pool.is_over() && refusals < PATIENCE + SHARDS {
            let next = self.hand.fetch_add(1, Ordering::Relaxed) % SHARDS;
            let force = refusals >= PATIENCE;
            if self.shards[next].write().evict(kind, keep, now, force) {
                refusals = 0;
            } else {
                refusals += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests;
