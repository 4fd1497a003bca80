//! The invalidation log. An entry is kept until every registered shared cache has acknowledged it,
//! or until everything it could concern has outlived its TTL.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use session_store_core::{
    CacheName, CacheRegistration, CacheScope, LogId, SessionId, Timestamp, UserId,
};

/// What caches must forget.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Subject {
    /// One session.
    Session(SessionId),
    /// Every session of a user; expanded when drained, so that later logins are among them.
    User(UserId),
}

/// The entries and the caches they are for.
#[derive(Debug, Default)]
pub(crate) struct Log {
    last: i64,
    rows: BTreeMap<LogId, Row>,
    caches: BTreeMap<CacheName, CacheRegistration>,
}

#[derive(Debug)]
struct Row {
    subject: Subject,
    acknowledged: BTreeSet<CacheName>,
    /// The bound of the first sweep that saw this row: it was written before that sweep.
    swept_at: Option<Timestamp>,
}

impl Log {
    /// Writes an entry, if there is a cache that will need it.
    pub(crate) fn append(&mut self, subject: Subject) {
        if !self.is_needed() {
            return;
        }
        self.last += 1;
        let row = Row { subject, acknowledged: BTreeSet::new(), swept_at: None };
        self.rows.insert(LogId(self.last), row);
    }

    /// Every registered cache.
    pub(crate) fn caches(&self) -> Vec<CacheRegistration> {
        self.caches.values().cloned().collect()
    }

    /// Forgets a cache, and the entries that only waited for it.
    pub(crate) fn unregister(&mut self, cache: &CacheName) {
        self.caches.remove(cache);
        self.purge();
    }

    /// Replaces the cache of that name, keeping the longer TTL.
    pub(crate) fn register(&mut self, cache: &CacheRegistration) {
        let mut entry = cache.clone();
        if let Some(old) = self.caches.get(&cache.name) {
            entry.ttl = entry.ttl.max(old.ttl);
        }
        self.caches.insert(entry.name.clone(), entry);
        self.purge();
    }

    /// The entries that `cache` has not acknowledged, oldest first.
    pub(crate) fn pending(&self, cache: &CacheName) -> impl Iterator<Item = (LogId, &Subject)> {
        self.rows
            .iter()
            .filter(|(_, row)| !row.acknowledged.contains(cache))
            .map(|(id, row)| (*id, &row.subject))
    }

    /// Marks exactly these entries as done by `cache`.
    pub(crate) fn acknowledge(&mut self, cache: &CacheName, entries: &[LogId]) {
        let shared = shared(&self.caches);
        for id in entries {
            if let Some(row) = self.rows.get_mut(id) {
                row.acknowledged.insert(cache.clone());
                if shared.iter().all(|name| row.acknowledged.contains(*name)) {
                    self.rows.remove(id);
                }
            }
        }
    }

    /// Forgets the entries that concern nothing any more, seen from a sweep up to `bound`.
    ///
    /// A store owns no clock, so an entry counts as written when the first sweep after it ran.
    /// Sweeps look back by a constant length, which cancels out.
    pub(crate) fn age(&mut self, bound: Timestamp) {
        let longest = self
            .caches
            .values()
            .map(|cache| cache.ttl.as_duration())
            .fold(Duration::ZERO, Duration::max);
        self.rows.retain(|_, row| {
            let seen = *row.swept_at.get_or_insert(bound);
            bound <= seen.plus(longest)
        });
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    fn is_needed(&self) -> bool {
        self.caches.values().any(|cache| cache.scope == CacheScope::Shared)
    }

    fn purge(&mut self) {
        let shared = shared(&self.caches);
        self.rows.retain(|_, row| !shared.iter().all(|name| row.acknowledged.contains(*name)));
    }
}

fn shared(caches: &BTreeMap<CacheName, CacheRegistration>) -> Vec<&CacheName> {
    caches
        .values()
        .filter(|cache| cache.scope == CacheScope::Shared)
        .map(|cache| &cache.name)
        .collect()
}
