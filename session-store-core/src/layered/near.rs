//! The near cache: entries of the shared cache, kept inside the process for a second or so.
//!
//! An entry's time runs from **before** the shared read that brought it, and it is kept only if
//! its key was not purged since: so a revocation on this node is seen at once, and one on another
//! node within the TTL.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::RwLock;

use crate::secondary::CacheKey;
use crate::session::Snapshot;
use crate::time::Ttl;

const GENERATIONS: usize = 1024;
const CAPACITY: usize = 10_000;

/// A bounded map of entries that die young.
#[derive(Debug)]
pub(crate) struct Near {
    ttl: Duration,
    hasher: RandomState,
    generations: Vec<AtomicU64>,
    entries: RwLock<HashMap<CacheKey, (Duration, Arc<Snapshot>)>>,
}

/// Taken before a shared read, handed back with what it brought.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Permit {
    generation: u64,
    deadline: Duration,
}

impl Near {
    pub(crate) fn new(ttl: Ttl) -> Self {
        Self {
            ttl: ttl.as_duration(),
            hasher: RandomState::new(),
            generations: (0..GENERATIONS).map(|_| AtomicU64::new(0)).collect(),
            entries: RwLock::default(),
        }
    }

    fn generation(&self, key: &CacheKey) -> &AtomicU64 {
        let slot = usize::try_from(self.hasher.hash_one(key) % GENERATIONS as u64).unwrap_or(0);
        &self.generations[slot]
    }

    pub(crate) fn get(&self, key: &CacheKey, now: Duration) -> Option<Arc<Snapshot>> {
        let entries = self.entries.read();
        entries.get(key).filter(|(deadline, _)| now < *deadline).map(|(_, hit)| Arc::clone(hit))
    }

    /// To be called before the shared read.
    pub(crate) fn permit(&self, key: &CacheKey, now: Duration) -> Permit {
        let generation = self.generation(key).load(Ordering::Acquire);
        Permit { generation, deadline: now + self.ttl }
    }

    /// Keeps `snapshot` unless the key was purged since `permit` was given.
    pub(crate) fn insert(&self, key: &CacheKey, permit: Permit, snapshot: &Arc<Snapshot>) {
        let mut entries = self.entries.write();
        if self.generation(key).load(Ordering::Acquire) != permit.generation {
            return;
        }
        if entries.len() >= CAPACITY {
            // Everything in here dies within a second or so: forgetting it early is cheaper than
            // remembering an order.
            entries.clear();
        }
        entries.insert(key.clone(), (permit.deadline, Arc::clone(snapshot)));
    }

    /// Forgets `keys`, and refuses what reads from before would bring. To be called after the
    /// shared removal.
    pub(crate) fn purge(&self, keys: &[CacheKey]) {
        let mut entries = self.entries.write();
        for key in keys {
            self.generation(key).fetch_add(1, Ordering::AcqRel);
            entries.remove(key);
        }
    }
}
