//! One part of a memory cache: a map, and two rings that decide who goes when there is no room.
//!
//! Values and the rest (leases, negatives) have room of their own, so that a flood of unknown ids
//! can't push out a live session.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use session_store_core::{CacheKey, Record, Timestamp};

/// The present moment by both clocks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    pub(crate) wall: Timestamp,
    pub(crate) monotonic: Duration,
}

/// When an entry dies: by whichever clock says so first. A suspended machine stops the one, a
/// correction of the time sets back the other.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline {
    pub(crate) wall: Timestamp,
    pub(crate) monotonic: Duration,
}

impl Deadline {
    pub(crate) fn after(now: Moment, length: Duration) -> Self {
        Self {
            wall: now.wall.plus(length),
            monotonic: now.monotonic.saturating_add(length),
        }
    }

    fn has_come(self, now: Moment) -> bool {
        self.wall <= now.wall || self.monotonic <= now.monotonic
    }
}

#[derive(Debug)]
struct Entry {
    record: Record,
    deadline: Deadline,
    /// Its place in a ring; an older place of the same key is void.
    place: u64,
    /// Read since the hand last passed: gets a second chance.
    used: AtomicBool,
}

/// How much one shard may hold of one kind.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Room {
    pub(crate) entries: usize,
    pub(crate) bytes: usize,
}

#[derive(Debug)]
struct Ring {
    room: Room,
    order: VecDeque<(CacheKey, u64)>,
    entries: usize,
    bytes: usize,
}

impl Ring {
    fn new(room: Room) -> Self {
        Self {
            room,
            order: VecDeque::new(),
            entries: 0,
            bytes: 0,
        }
    }

    fn has_room(&self) -> bool {
        self.entries <= self.room.entries && self.bytes <= self.room.bytes
    }
}

/// One part of the cache.
#[derive(Debug)]
pub(crate) struct Shard {
    map: HashMap<CacheKey, Entry>,
    values: Ring,
    rest: Ring,
    places: u64,
}

fn is_value(record: &Record) -> bool {
    record.as_bytes().first() == Some(&b'V')
}

fn size(key: &CacheKey, record: &Record) -> usize {
    key.as_str().len() + record.as_bytes().len()
}

impl Shard {
    pub(crate) fn new(values: Room, rest: Room) -> Self {
        let (values, rest) = (Ring::new(values), Ring::new(rest));
        Self {
            map: HashMap::new(),
            values,
            rest,
            places: 0,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.map.len()
    }

    /// The record at `key`, if its time is not over.
    pub(crate) fn get(&self, key: &CacheKey, now: Moment) -> Option<&Record> {
        let entry = self
            .map
            .get(key)
            .filter(|entry| !entry.deadline.has_come(now))?;
        entry.used.store(true, Ordering::Relaxed);
        Some(&entry.record)
    }

    /// Until when the record at `key` lives.
    pub(crate) fn deadline(&self, key: &CacheKey) -> Option<Deadline> {
        self.map.get(key).map(|entry| entry.deadline)
    }

    /// Puts `record` at `key` and makes room for it.
    pub(crate) fn put(&mut self, key: &CacheKey, record: Record, deadline: Deadline, now: Moment) {
        self.remove(key);
        self.places += 1;
        let place = self.places;
        let bytes = size(key, &record);
        let of_values = is_value(&record);
        let ring = self.ring(of_values);
        ring.order.push_back((key.clone(), place));
        ring.entries += 1;
        ring.bytes += bytes;
        let used = AtomicBool::new(false);
        self.map.insert(
            key.clone(),
            Entry {
                record,
                deadline,
                place,
                used,
            },
        );
        self.make_room(of_values, now);
    }

    /// Removes whatever is at `key`.
    pub(crate) fn remove(&mut self, key: &CacheKey) {
        if let Some(entry) = self.map.remove(key) {
            let ring = self.ring(is_value(&entry.record));
            ring.entries -= 1;
            ring.bytes -= size(key, &entry.record);
        }
    }

    pub(crate) fn clear(&mut self) {
        let (values, rest) = (self.values.room, self.rest.room);
        let places = self.places;
        *self = Self::new(values, rest);
        // Places go on, so that nothing of before is taken for something of after.
        self.places = places;
    }

    fn ring(&mut self, of_values: bool) -> &mut Ring {
        if of_values {
            &mut self.values
        } else {
            &mut self.rest
        }
    }

    /// Second chance: the oldest entry goes, unless it was read since it last stood in front.
    fn make_room(&mut self, of_values: bool, now: Moment) {
        loop {
            let ring = self.ring(of_values);
            let is_littered = ring.order.len() > 2 * ring.entries + 16;
            if ring.has_room() && !is_littered {
                return;
            }
            let Some((key, place)) = ring.order.pop_front() else {
                return;
            };
            let Some(entry) = self.map.get(&key).filter(|entry| entry.place == place) else {
                continue;
            };
            let is_dead = entry.deadline.has_come(now);
            if !is_dead && (entry.used.swap(false, Ordering::Relaxed) || is_littered) {
                self.ring(of_values).order.push_back((key, place));
            } else {
                self.remove(&key);
            }
        }
    }
}
