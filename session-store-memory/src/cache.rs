//! A bounded cache inside the process.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::RwLock;
use session_store_core::{
    CacheClass, CacheKey, CacheScope, Clock, Error, ErrorKind, Record, Reservation, Result,
    SecondaryPromise, SecondaryStore, SwapTtl, Ttl,
};

use crate::config::MemoryCacheConfig;
use crate::shard::{Deadline, Moment, Room, Shard};

const NAME: &str = "memory-cache";
const SHARDS: usize = 64;
const MAX_RECORD_BYTES: usize = 1024 * 1024;

/// Distinguishes the leases of two caches of one process.
static CACHES: AtomicU64 = AtomicU64::new(0);

/// A linearizable cache that belongs to one process.
///
/// Bounded in entries and bytes; the least recently used goes first, and unknown ids can't push out
/// live sessions. A clone is another handle on the same entries.
#[derive(Clone, Debug)]
pub struct MemoryCache {
    shards: Arc<[RwLock<Shard>]>,
    hasher: RandomState,
    clock: Arc<dyn Clock>,
    leases: Arc<AtomicU64>,
    number: u64,
}

impl MemoryCache {
    /// An empty cache whose time is that of `clock`.
    pub fn new(config: &MemoryCacheConfig, clock: Arc<dyn Clock>) -> Self {
        let share = |total: usize| total.div_ceil(SHARDS).max(1);
        let values = Room {
            entries: share(config.max_entries),
            bytes: share(config.max_bytes),
        };
        // Leases and negatives are short and short-lived: a quarter of the entries is plenty.
        let rest = Room {
            entries: share(config.max_entries / 4),
            bytes: share(config.max_bytes / 4),
        };
        Self {
            shards: (0..SHARDS)
                .map(|_| RwLock::new(Shard::new(values, rest)))
                .collect(),
            hasher: RandomState::new(),
            clock,
            leases: Arc::new(AtomicU64::new(0)),
            number: CACHES.fetch_add(1, Ordering::Relaxed),
        }
    }

    /// How many entries are kept, those whose time is over but that are still in memory included.
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.read().len()).sum()
    }

    /// Whether nothing is kept.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Forgets one entry, as lack of room could at any moment.
    pub fn evict(&self, key: &CacheKey) {
        self.shard(key).write().remove(key);
    }

    /// Forgets everything, as a restart does.
    pub fn flush(&self) {
        for shard in self.shards.iter() {
            shard.write().clear();
        }
    }

    fn shard(&self, key: &CacheKey) -> &RwLock<Shard> {
        let hash = self.hasher.hash_one(key) % SHARDS as u64;
        &self.shards[usize::try_from(hash).unwrap_or(0)]
    }

    fn now(&self) -> Moment {
        Moment {
            wall: self.clock.now(),
            monotonic: self.clock.monotonic(),
        }
    }

    /// A lease that was never granted before and never will be again.
    fn mint(&self) -> Record {
        let mut token = [0; 16];
        let count = self.leases.fetch_add(1, Ordering::Relaxed);
        token[..8].copy_from_slice(&self.number.to_be_bytes());
        token[8..].copy_from_slice(&count.to_be_bytes());
        Record::lease(&token)
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
            max_record_bytes: MAX_RECORD_BYTES,
            max_batch: usize::MAX,
        }
    }

    fn epoch(&self) -> u64 {
        0
    }

    async fn get(&self, key: &CacheKey) -> Result<Option<Record>> {
        let now = self.now();
        Ok(self.shard(key).read().get(key, now).cloned())
    }

    async fn reserve(&self, key: &CacheKey, ttl: Ttl) -> Result<Reservation> {
        let now = self.now();
        let mut shard = self.shard(key).write();
        if let Some(record) = shard.get(key, now) {
            return Ok(Reservation::Occupied(record.clone()));
        }
        let lease = self.mint();
        shard.put(
            key,
            lease.clone(),
            Deadline::after(now, ttl.as_duration()),
            now,
        );
        Ok(Reservation::Granted(lease))
    }

    async fn swap(
        &self,
        key: &CacheKey,
        expected: &Record,
        new: Option<&Record>,
        ttl: SwapTtl,
    ) -> Result<bool> {
        let limit = MAX_RECORD_BYTES;
        if new.is_some_and(|record| record.as_bytes().len() > limit) {
            return Err(Error::new(
                ErrorKind::TooLarge {
                    what: "cache record",
                    limit,
                },
                NAME,
            ));
        }
        let now = self.now();
        let mut shard = self.shard(key).write();
        if shard.get(key, now) != Some(expected) {
            return Ok(false);
        }
        match (new, ttl, shard.deadline(key)) {
            (None, ..) => shard.remove(key),
            (Some(record), SwapTtl::Set(ttl), _) => {
                let deadline = Deadline::after(now, ttl.as_duration());
                shard.put(key, record.clone(), deadline, now);
            }
            (Some(record), SwapTtl::Keep, Some(deadline)) => {
                shard.put(key, record.clone(), deadline, now);
            }
            (Some(_), SwapTtl::Keep, None) => return Ok(false),
        }
        Ok(true)
    }

    async fn remove(&self, keys: &[CacheKey]) -> Result<()> {
        for key in keys {
            self.shard(key).write().remove(key);
        }
        Ok(())
    }
}
