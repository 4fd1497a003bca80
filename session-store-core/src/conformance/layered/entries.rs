//! What a cache of a case keeps: it loses nothing, and nothing expires. The case adds what goes wrong.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;

use crate::primary::CacheScope;
use crate::secondary::{CacheClass, CacheKey, Record, Reservation, SecondaryPromise};

pub(super) type Kept = HashMap<CacheKey, Record>;

/// The entries of a linearizable cache.
#[derive(Debug, Default)]
pub(super) struct Entries(pub(super) Mutex<Kept>);

impl Entries {
    /// What a cache over such entries promises, unless the case wants something else.
    pub(super) fn promise(name: &'static str) -> SecondaryPromise {
        SecondaryPromise {
            name,
            class: CacheClass::Linearizable,
            scope: CacheScope::Shared,
            may_roll_back: false,
            min_ttl: Duration::ZERO,
            ttl_granularity: Duration::from_millis(1),
            overrun: Duration::ZERO,
            rollback_slack: Duration::ZERO,
            max_record_bytes: 1 << 20,
            max_batch: 100,
        }
    }

    pub(super) fn get(&self, key: &CacheKey) -> Option<Record> {
        self.0.lock().get(key).cloned()
    }

    pub(super) fn reserve(&self, key: &CacheKey) -> Reservation {
        let mut kept = self.0.lock();
        if let Some(found) = kept.get(key) {
            return Reservation::Occupied(found.clone());
        }
        let lease = Record::lease(&key.as_str().as_bytes()[..16]);
        kept.insert(key.clone(), lease.clone());
        Reservation::Granted(lease)
    }

    /// Whether `expected` was there, and is replaced.
    pub(super) fn swap(&self, key: &CacheKey, expected: &Record, new: Option<&Record>) -> bool {
        let mut kept = self.0.lock();
        if kept.get(key) != Some(expected) {
            return false;
        }
        match new {
            Some(new) => kept.insert(key.clone(), new.clone()),
            None => kept.remove(key),
        };
        true
    }

    pub(super) fn remove(&self, keys: &[CacheKey]) {
        let mut kept = self.0.lock();
        for key in keys {
            kept.remove(key);
        }
    }
}
