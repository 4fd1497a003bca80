//! Revocation: commit, then remove, then say what was achieved.

use std::collections::HashSet;
use std::time::Duration;

use super::drain::Bounds;
use super::{Layered, OnCacheFailure, Revoked, Visibility};
use crate::error::Result;
use crate::primary::{PrimaryStore, Selection};
use crate::secondary::{CacheKey, SecondaryStore};
use crate::session::{Reason, SessionIds};
use crate::time::Timestamp;
use crate::user::UserId;

/// How often a `WaitDrain` looks again.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// How much of the log a `WaitDrain` reads at a time.
const LOG_PAGE: u32 = 1000;

impl<P: PrimaryStore + 'static, S: SecondaryStore + 'static> Layered<P, S> {
    /// Ends the selected sessions.
    ///
    /// Runs beside the caller: a dropped request can't stop it between the commit and the removal.
    ///
    /// # Contract
    /// - The removal is sent only after the commit was acknowledged \[K6-R06\].
    /// - It is sent also when nothing was left to revoke, or when the outcome of the commit is
    ///   unknown \[K6-R07 K6-R08 K6-R09\].
    /// - A removal that failed is never `Immediate`, nor is the repetition of a call whose removal
    ///   failed and that finds nothing left to end \[K6-R10 X8-L-17\].
    /// - After the cache has come back with another past, as after a failover, it is not `Immediate`
    ///   until every entry of before has died: another node may not know yet \[X8-L-35\].
    /// - Entries of a longer TTL, which a node of an earlier configuration may still put, are reckoned
    ///   with as long as their registration stands \[X8-G-10\].
    /// - Near caches and caches that only other nodes have are reckoned with, also while the list of them
    ///   can't be read \[X8-G-12 X8-G-13\].
    /// - A caller that goes away at any moment leaves no entry of a revoked session behind
    ///   \[K6-R13\].
    /// - With `WaitOut` or `WaitDrain` it returns once the old entry can't be served any more; a log
    ///   that says nothing of the session is no proof, one that has named it and does no more is
    ///   \[K6-R11 X8-L-21 X8-L-30\].
    pub async fn revoke(
        &self,
        selection: Selection,
        reason: Reason,
        now: Timestamp,
    ) -> Result<Revoked> {
        let this = self.clone();
        self.detached(async move {
            let named = match &selection {
                Selection::One { id, .. } => vec![*id],
                Selection::Ids(ids) => ids.clone(),
                Selection::AllOf(_) | Selection::AllBut(..) | Selection::Everyone { .. } => vec![],
            };
            let outcome = this.inner.primary.revoke(&selection, reason, now).await;
            let (sessions, earlier) = match &outcome {
                Ok(done) => (done.revoked.clone(), done.earlier.as_slice()),
                Err(_) => (vec![], [].as_slice()),
            };
            // Whoever is told of an error need not wait until it is over.
            let purpose = if outcome.is_ok() { Purpose::Revocation } else { Purpose::Change };
            let all: HashSet<_> = sessions.iter().chain(earlier).chain(&named).collect();
            let visibility = match &selection {
                Selection::AllOf(_) | Selection::AllBut(..) | Selection::Everyone { .. }
                    if all.is_empty() =>
                {
                    this.vouch(purpose).await
                }
                _ => this.forget(this.inner.keys(all), purpose).await,
            };
            outcome?;
            Ok(Revoked { count: sessions.len() as u64, sessions, visibility })
        })
        .await
    }

    /// Removes a user with every session. `None` when there is no such user; if entries of an
    /// earlier deletion may be left, no session and the bound instead.
    ///
    /// The id can't be registered again before every entry of before has died.
    ///
    /// # Contract
    /// - No session of the user is accepted afterwards, on any node \[K6-A01 K6-A02 L-26\].
    /// - A stale entry never logs the deleted user into an account created later \[K6-A03\].
    /// - While nobody can say for how long entries of before may live, it is an error, and nothing is
    ///   deleted \[X8-G-13\].
    /// - A deletion that is repeated because the outcome of the first one is unknown, or because
    ///   its removal failed, holds like one that succeeded at once \[X8-L-17\].
    pub async fn delete_user(&self, id: &UserId, now: Timestamp) -> Result<Option<Revoked>> {
        let (this, id) = (self.clone(), id.clone());
        self.detached(async move {
            let inner = &this.inner;
            // Nothing is done yet: what is not known would let the id be taken too early.
            let bounds = this.reckon(&inner.primary.caches().await?);
            let bound = bounds.own.max(bounds.others.bound());
            match inner.primary.delete_user(&id, now.plus(bound)).await {
                Ok(Some(deleted)) => {
                    let sessions: SessionIds = deleted.sessions;
                    let keys = inner.keys(&sessions);
                    let visibility = this.forget(keys, Purpose::Revocation).await;
                    Ok(Some(Revoked { count: sessions.len() as u64, sessions, visibility }))
                }
                Ok(None) => {
                    let visibility = this.vouch(Purpose::Revocation).await;
                    let settled = inner.after_telling(bounds).weaker(bounds.others);
                    let is_settled = visibility.bound() <= settled.bound();
                    let rest = Revoked { count: 0, sessions: Vec::new(), visibility };
                    Ok((!is_settled).then_some(rest))
                }
                Err(error) => {
                    let _ = this.forget_user(&id).await;
                    Err(error)
                }
            }
        })
        .await
    }

    /// Makes every cache forget `keys`, as far as this node can, and says how far that is.
    pub(super) async fn forget(&self, keys: Vec<CacheKey>, purpose: Purpose) -> Visibility {
        if keys.is_empty() {
            return Visibility::Immediate;
        }
        let inner = &self.inner;
        let removed = inner.leases.shield.remove(&keys).await;
        if let Some(near) = &inner.near {
            // After the shared removal: purged before, the near cache could read the old entry back.
            near.purge(&keys);
        }
        let bounds = self.bounds().await;
        let own = match (removed, purpose) {
            (Ok(()), _) => self.after_removal(purpose, bounds).await,
            (Err(_), Purpose::Revocation) => self.after_failure(&keys, bounds).await,
            (Err(_), Purpose::Change) => Visibility::Within(bounds.own),
        };
        own.weaker(bounds.others)
    }

    /// What is left when the cache has forgotten: near caches of other processes, or caches that
    /// can't be reached at all.
    pub(super) async fn after_removal(&self, purpose: Purpose, bounds: Bounds) -> Visibility {
        let inner = &self.inner;
        let mut told = inner.after_telling(bounds);
        if inner.leases.shield.is_in_doubt() {
            told = told.weaker(Visibility::Within(bounds.own));
        }
        match (told, inner.config.on_cache_failure, purpose) {
            (Visibility::Within(bound), OnCacheFailure::WaitOut, Purpose::Revocation) => {
                inner.host.runtime.sleep(bound).await;
                Visibility::Immediate
            }
            (told, ..) => told,
        }
    }

    /// What is left when nothing is known of the cache.
    pub(super) async fn after_bound(&self, purpose: Purpose, own: Duration) -> Visibility {
        let inner = &self.inner;
        match (inner.config.on_cache_failure, purpose) {
            (OnCacheFailure::Report | OnCacheFailure::WaitDrain(_), _) | (_, Purpose::Change) => {
                Visibility::Within(own)
            }
            (OnCacheFailure::WaitOut, Purpose::Revocation) => {
                inner.host.runtime.sleep(own).await;
                Visibility::Immediate
            }
        }
    }

    async fn after_failure(&self, keys: &[CacheKey], bounds: Bounds) -> Visibility {
        let inner = &self.inner;
        let OnCacheFailure::WaitDrain(patience) = inner.config.on_cache_failure else {
            return self.after_bound(Purpose::Revocation, bounds.own).await;
        };
        let end = inner.host.clock.monotonic() + patience;
        let mut waiting = Waiting { keys, seen: HashSet::new() };
        while inner.host.clock.monotonic() < end {
            waiting.look(self).await;
            inner.host.runtime.sleep(LOOK_AGAIN).await;
            if inner.leases.shield.remove(keys).await.is_ok() || waiting.look(self).await {
                return self.after_removal(Purpose::Revocation, bounds).await;
            }
        }
        Visibility::Within(bounds.own)
    }
}

/// Why a cache is to forget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Nobody may be let in any more: the caller may have asked to wait for that.
    Revocation,
    /// Something is shown that has changed.
    Change,
}

/// Keys that another node may remove, and say so in the log.
struct Waiting<'a> {
    keys: &'a [CacheKey],
    /// Those that were pending at some time: only of them does their absence say something.
    seen: HashSet<CacheKey>,
}

impl Waiting<'_> {
    /// Whether all of them were pending, and none is any more.
    async fn look<P, S>(&mut self, layered: &Layered<P, S>) -> bool
    where
        P: PrimaryStore + 'static,
        S: SecondaryStore + 'static,
    {
        let inner = &layered.inner;
        let Some(name) = layered.log_name() else { return false };
        let Ok(drained) = inner.primary.drain(&name, LOG_PAGE).await else {
            return false;
        };
        let pending: HashSet<_> =
            drained.entries.iter().flat_map(|entry| inner.keys(&entry.sessions)).collect();
        self.seen.extend(self.keys.iter().filter(|key| pending.contains(*key)).cloned());
        !drained.more
            && self.keys.iter().all(|key| self.seen.contains(key) && !pending.contains(key))
    }
}
