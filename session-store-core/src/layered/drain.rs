//! The invalidation log: removals that failed, and SQL typed by hand, reach the cache through it.

use std::collections::BTreeSet;
use std::time::Duration;

use super::register::NEAR;
use super::revoke::Purpose;
use super::{Layered, Visibility};
use crate::error::Result;
use crate::primary::{
    CacheName, CacheRegistration, CacheScope, LogEntry, LogPromise, Page, PrimaryStore, Which,
};
use crate::secondary::SecondaryStore;
use crate::time::Timestamp;
use crate::user::UserId;

/// How long after a commit old entries may be served.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// From this cache, unless it was told to forget and can: a node of a configuration of before may
    /// put entries of a longer TTL, which it has registered.
    pub(super) own: Duration,
    /// From near caches of other processes, told or not; zero where there are none.
    pub(super) near: Duration,
    /// From caches that this handle can't reach.
    pub(super) others: Visibility,
}

impl Bounds {
    /// From any cache, told or not.
    pub(super) fn longest(self) -> Duration {
        self.own.max(self.others.bound())
    }
}

/// The most entries one round of draining takes.
const PAGE: u32 = 500;
/// How many removals are made before entries are acknowledged. A host that may ask so often only, as a Worker, gets on by rounds.
const REMOVALS: usize = 4;

impl<P: PrimaryStore + 'static, S: SecondaryStore + 'static> Layered<P, S> {
    /// Removes from the cache what the log names, and acknowledges exactly the entries whose
    /// removal succeeded. Returns how many that were.
    ///
    /// # Contract
    /// - A revocation whose removal failed, and a change made by hand-typed SQL, reach the cache
    ///   \[K6-A05\].
    /// - An entry whose removal failed is not acknowledged \[X8-G-05\].
    /// - It ends when nothing is left, however long the log is \[X8-G-11\].
    /// - A session that several entries name is removed once \[X8-G-14\].
    /// - An entry of more sessions than can be removed in one call holds up no other, and repeated
    ///   calls remove all of them \[X8-G-15\]. Where one call never can, the entry is never acknowledged,
    ///   and goes when its sessions have died in every cache.
    pub async fn drain(&self) -> Result<u64> {
        let inner = &self.inner;
        let Some(name) = self.log_name() else {
            return Ok(0);
        };
        let batch = inner.leases.shield.promise().max_batch;
        let mut count = 0;
        loop {
            let drained = inner.primary.drain(&name, PAGE).await?;
            if drained.entries.is_empty() {
                return Ok(count);
            }
            for portion in portions(drained.entries, batch.saturating_mul(REMOVALS)) {
                self.settle(&name, &portion).await?;
                count += portion.len() as u64;
            }
            if !drained.more {
                return Ok(count);
            }
        }
    }

    /// Removes what `entries` name, and acknowledges them.
    async fn settle(&self, name: &CacheName, entries: &[LogEntry]) -> Result<()> {
        let inner = &self.inner;
        // A cache may take only so many writes of a key per second.
        let ids: BTreeSet<_> = entries.iter().flat_map(|entry| &entry.sessions).collect();
        let mut keys = inner.keys(ids);
        // Where they are too many for one call, it is not always the same ones that are left.
        let first = scattered(inner.host.now(), keys.len());
        keys.rotate_left(first);
        inner.leases.shield.remove(&keys).await?;
        if let Some(near) = &inner.near {
            near.purge(&keys);
        }
        let entries: Vec<_> = entries.iter().map(|entry| entry.id).collect();
        inner.primary.acknowledge(name, &entries).await
    }

    /// Under which name this cache drains the log; `None` when no log is kept for it.
    pub(super) fn log_name(&self) -> Option<CacheName> {
        let own = self.registration()?;
        let has_log = self.inner.primary.promise().log != LogPromise::None;
        (has_log && own.scope == CacheScope::Shared).then_some(own.name)
    }

    /// What the database knows of old entries. Asked after the commit: whoever registers later reads
    /// later too.
    pub(super) async fn bounds(&self) -> Bounds {
        match self.inner.primary.caches().await {
            Ok(caches) => self.reckon(&caches),
            Err(error) => {
                tracing::warn!(%error, "registered caches unknown");
                let known = *self.inner.reckoned.lock();
                let mut bounds = known.unwrap_or(self.inner.own_bounds());
                bounds.others = bounds.others.weaker(Visibility::Within(bounds.own));
                bounds
            }
        }
    }

    /// What `caches`, all of them, add up to. From then on it is reckoned with.
    pub(super) fn reckon(&self, caches: &[CacheRegistration]) -> Bounds {
        let inner = &self.inner;
        let name = self.registration().map(|own| own.name);
        let near = inner.config.cache_name.of_kind(NEAR);
        let mut bounds = inner.own_bounds();
        for cache in caches {
            let bound = cache.ttl.as_duration();
            if Some(&cache.name) == name.as_ref() {
                bounds.own = bounds.own.max(bound);
            } else if cache.name == near {
                bounds.near = bounds.near.max(bound);
            } else {
                bounds.others = bounds.others.weaker(Visibility::Within(bound));
            }
        }
        inner.leases.shield.reckon_with(bounds.own);
        *inner.reckoned.lock() = Some(bounds);
        bounds
    }

    /// Says for a revocation that named no session what is known of those that were ended before:
    /// their entries are gone if nothing is left in the log.
    pub(super) async fn vouch(&self, purpose: Purpose) -> Visibility {
        let is_cacheless = self.inner.is_cacheless();
        let is_drained = !is_cacheless && self.log_name().is_some() && self.drain().await.is_ok();
        let bounds = self.bounds().await;
        let own = if is_cacheless {
            Visibility::Immediate
        } else if is_drained {
            self.after_removal(purpose, bounds).await
        } else {
            self.after_bound(purpose, bounds.own).await
        };
        own.weaker(bounds.others)
    }

    /// Makes the caches forget whatever the database still knows of a user's sessions, after an
    /// operation whose outcome is unknown, or that somebody else made.
    pub(super) async fn forget_user(&self, user: &UserId) -> Visibility {
        let inner = &self.inner;
        let mut ids = Vec::new();
        let mut page = Page::first(PAGE);
        while let Ok(listed) = inner.primary.list(user, Which::All, &page).await {
            ids.extend(listed.items.iter().map(|session| session.id));
            let Some(next) = listed.next else { break };
            page = page.behind(next);
        }
        let known = self.forget(inner.keys(&ids), Purpose::Change).await;
        known.weaker(self.vouch(Purpose::Change).await)
    }
}

/// `entries` in portions that name `most` sessions at most, unless one entry alone names more. Such
/// come last: a host that gives up there has done the others.
fn portions(mut entries: Vec<LogEntry>, most: usize) -> Vec<Vec<LogEntry>> {
    entries.sort_by_key(|entry| entry.sessions.len());
    let mut portions: Vec<Vec<LogEntry>> = Vec::new();
    let mut room = 0;
    for entry in entries {
        match (portions.last_mut(), entry.sessions.len()) {
            (Some(portion), count) if count <= room => {
                room -= count;
                portion.push(entry);
            }
            (_, count) => {
                room = most.saturating_sub(count);
                portions.push(vec![entry]);
            }
        }
    }
    portions
}

/// A number below `count` that is another one a moment later; 0 if `count` is.
fn scattered(now: Timestamp, count: usize) -> usize {
    // What one handle remembers is lost where a host lives for one call, so the clock must do.
    let spread = now.as_millis().unsigned_abs().wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
    usize::try_from(spread).unwrap_or_default().checked_rem(count).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::primary::LogId;
    use crate::token::SessionId;

    #[test]
    fn long_entries_come_last_and_alone() {
        let entry = |id, count| LogEntry {
            id: LogId(id),
            sessions: vec![SessionId::from_bytes([0; 16]); count],
        };
        let entries = vec![entry(1, 9), entry(2, 1), entry(3, 0), entry(4, 3), entry(5, 2)];
        let ids = |most: usize| -> Vec<Vec<i64>> {
            let portions = portions(entries.clone(), most);
            portions.iter().map(|portion| portion.iter().map(|one| one.id.0).collect()).collect()
        };
        assert_eq!(ids(4), [vec![3, 2, 5], vec![4], vec![1]]);
        assert_eq!(ids(usize::MAX), [[3, 2, 5, 4, 1]]);
        assert_eq!(ids(0), [vec![3], vec![2], vec![5], vec![4], vec![1]]);
    }

    #[test]
    fn minutes_are_scattered() {
        let at = |minute: i64| scattered(Timestamp::from_millis(minute * 60_000), 1200);
        let tenths: BTreeSet<_> = (0..100).map(|minute| at(minute) / 120).collect();
        assert_eq!(tenths.len(), 10);
        assert_eq!(scattered(Timestamp::from_millis(7), 0), 0);
    }
}
