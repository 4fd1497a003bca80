//! The two bounds of a cache: one for values, one for leases and negatives.

use std::sync::atomic::{AtomicUsize, Ordering};

use session_store_core::Record;

/// Which bound an entry counts against. Entries of one kind never push out the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A session that somebody logged in for.
    Value = 0,
    /// A lease or a negative, which a stranger can cause for any id.
    Pending = 1,
}

impl Kind {
    /// The kind of `record`, by its first byte.
    pub(crate) fn of(record: &Record) -> Self {
        match record.as_bytes().first() {
            Some(&(Record::LEASE | b'N')) => Self::Pending,
            _ => Self::Value,
        }
    }
}

/// What all entries of one kind take, and may take.
#[derive(Debug)]
pub(crate) struct Pool {
    max_entries: usize,
    max_bytes: usize,
    entries: AtomicUsize,
    bytes: AtomicUsize,
}

impl Pool {
    pub(crate) fn new(max_entries: usize, max_bytes: usize) -> Self {
        Self {
            max_entries: max_entries.max(1),
            max_bytes,
            entries: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
        }
    }

    // The counters guard no other memory: every entry is behind the lock of its shard.
    pub(crate) fn add(&self, bytes: usize) {
        self.entries.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn sub(&self, bytes: usize) {
        self.entries.fetch_sub(1, Ordering::Relaxed);
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    pub(crate) fn is_over(&self) -> bool {
        self.len() > self.max_entries || self.bytes.load(Ordering::Relaxed) > self.max_bytes
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.load(Ordering::Relaxed)
    }
}
