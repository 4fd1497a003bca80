//! One of the maps a cache is made of. Every entry has a place in the ring of its kind, and the
//! pool of its kind counts it.

use std::collections::HashMap;
use std::hash::RandomState;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use session_store_core::{CacheKey, Moment, Record};

use crate::pool::{Kind, Pool};

/// What an entry takes beside its key and its record: places in map and ring, headers of both
/// allocations, and the slack of growing tables.
pub(crate) const OVERHEAD: usize = 208;

/// What a write does to the entry of a key.
#[derive(Debug)]
pub(crate) enum Write {
    /// Leave it.
    Nothing,
    /// Remove it.
    Remove,
    /// Put this record there.
    Put(Record, Moment),
}

/// The entry of a key as a write finds it; never a dead one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen<'a> {
    pub(crate) record: &'a Record,
    pub(crate) deadline: Moment,
}

/// A map with second-chance eviction.
#[derive(Debug)]
pub(crate) struct Shard {
    entries: HashMap<CacheKey, Entry, RandomState>,
    rings: [Ring; 2],
    pools: Arc<[Pool; 2]>,
}

#[derive(Debug)]
struct Entry {
    record: Record,
    deadline: Moment,
    place: usize,
    used: AtomicBool,
}

#[derive(Debug, Default)]
struct Ring {
    keys: Vec<CacheKey>,
    hand: usize,
}

impl Shard {
    pub(crate) fn new(hasher: RandomState, pools: Arc<[Pool; 2]>) -> Self {
        Self { entries: HashMap::with_hasher(hasher), rings: <[Ring; 2]>::default(), pools }
    }

    /// The record at `key`; `Err` when there is one whose time is over.
    pub(crate) fn get(&self, key: &CacheKey, now: Moment) -> Result<Option<Record>, Dead> {
        let Some(entry) = self.entries.get(key) else {
            return Ok(None);
        };
        if now.has_reached(entry.deadline) {
            return Err(Dead);
        }
        // Looking first keeps the line shared between the readers of a popular key.
        if !entry.used.load(Ordering::Relaxed) {
            entry.used.store(true, Ordering::Relaxed);
        }
        Ok(Some(entry.record.clone()))
    }

    /// Shows `decide` what is at `key` and does what it says; the whole call is one step.
    ///
    /// Returns the kind of a record that was put.
    pub(crate) fn write(
        &mut self,
        key: &CacheKey,
        now: Moment,
        decide: impl FnOnce(Option<Seen<'_>>) -> Write,
    ) -> Option<Kind> {
        let seen = self.entries.get(key);
        let live = seen.filter(|entry| !now.has_reached(entry.deadline));
        let is_dead = seen.is_some() && live.is_none();
        let write =
            decide(live.map(|entry| Seen { record: &entry.record, deadline: entry.deadline }));
        if is_dead || !matches!(write, Write::Nothing) {
            self.remove(key);
        }
        let Write::Put(record, deadline) = write else {
            return None;
        };
        Some(self.put(key, record, deadline))
    }

    /// Removes the entry at `key`; whether there was one.
    pub(crate) fn remove(&mut self, key: &CacheKey) -> bool {
        let Some(entry) = self.entries.remove(key) else {
            return false;
        };
        let kind = Kind::of(&entry.record);
        self.pools[kind as usize].sub(size(key, &entry.record));
        let ring = &mut self.rings[kind as usize];
        ring.keys.swap_remove(entry.place);
        if let Some(moved) = ring.keys.get(entry.place).and_then(|key| self.entries.get_mut(key)) {
            moved.place = entry.place;
        }
        true
    }

    /// Removes one entry of `kind`, but not `keep`: a dead one, or the next that was not used since
    /// the hand passed it, or with `force` any. Whether there was one to remove.
    pub(crate) fn evict(&mut self, kind: Kind, keep: &CacheKey, now: Moment, force: bool) -> bool {
        let ring = &mut self.rings[kind as usize];
        let mut victim = None;
        // The first round takes the second chance from everybody, so another one finds somebody.
        for _ in 0..ring.keys.len() * (1 + usize::from(force)) {
            if ring.hand >= ring.keys.len() {
                ring.hand = 0;
            }
            let key = &ring.keys[ring.hand];
            ring.hand += 1;
            let spared = self.entries.get(key).is_some_and(|entry| {
                entry.used.swap(false, Ordering::Relaxed) && !now.has_reached(entry.deadline)
            });
            if key != keep && !spared {
                victim = Some(key.clone());
                break;
            }
        }
        victim.is_some_and(|key| self.remove(&key))
    }

    /// Removes everything.
    pub(crate) fn clear(&mut self) {
        for (key, entry) in self.entries.drain() {
            self.pools[Kind::of(&entry.record) as usize].sub(size(&key, &entry.record));
        }
        self.rings = <[Ring; 2]>::default();
    }

    fn put(&mut self, key: &CacheKey, record: Record, deadline: Moment) -> Kind {
        let kind = Kind::of(&record);
        self.pools[kind as usize].add(size(key, &record));
        let ring = &mut self.rings[kind as usize];
        let entry =
            Entry { record, deadline, place: ring.keys.len(), used: AtomicBool::new(false) };
        ring.keys.push(key.clone());
        self.entries.insert(key.clone(), entry);
        kind
    }
}

/// There is an entry, but its time is over.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dead;

fn size(key: &CacheKey, record: &Record) -> usize {
    OVERHEAD + key.as_str().len() + record.as_bytes().len()
}
