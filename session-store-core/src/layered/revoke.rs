//! Revocation: commit, then remove, then say what was achieved.

use std::collections::HashSet;
use std::time::Duration;

use futures_util::future::join;

use super::drain::Bounds;
use super::{Layered, OnCacheFailure, Revoked, Visibility};
use crate::error::Result;
use crate::host::Host;
use crate::primary::{PrimaryStore, Selection};
use crate::secondary::{CacheKey, SecondaryStore};
use crate::session::{Reason, SessionIds};
use crate::time::Timestamp;
use crate::user::UserId;

/// How often a `WaitDrain` looks again.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// How much of the log a `WaitDrain` reads at a time.
const LOG_PAGE: u32 = 1000;
/// How much longer than needed an id rests until the deletion of its user is known to be over.
const UNSETTLED: Duration = Duration::from_hours(1);

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
    /// The id can't be registered again before every entry of before has died, however long the deletion
    /// itself has taken: it may wait for a lock, or its host stand still, and what is read meanwhile may
    /// be cached. So the id rests for an hour more, until the deletion is known to be over; where nobody
    /// comes to know that, as after a crash or a reply that was lost, it rests the hour out. Of a deletion
    /// that takes longer than that hour, the id is free for the moment between its commit and the next
    /// statement; if that fails, it is an error. All this is by the clock of this host: one that is ahead
    /// of it lets the id be registered as much earlier.
    ///
    /// # Contract
    /// - No session of the user is accepted afterwards, on any node \[K6-A01 K6-A02 L-26\].
    /// - A stale entry never logs the deleted user into an account created later \[K6-A03\], also if it
    ///   was put while the deletion waited \[X8-L-41\].
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
            let mut rest = Rest::begin(&inner.host, (now, bounds.longest()));
            match inner.primary.delete_user(&id, rest.held_until).await {
                Ok(Some(deleted)) => {
                    rest.end(&inner.host);
                    let sessions: SessionIds = deleted.sessions;
                    let removal = this.forget(inner.keys(&sessions), Purpose::Revocation);
                    let (visibility, settled) = join(removal, this.settle_rest(&id, rest)).await;
                    settled?;
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

    /// Lets the id of a user who is deleted now rest as long as entries of before may live, counted from
    /// the end of the deletion. An error only if it would be free too early.
    async fn settle_rest(&self, id: &UserId, rest: Rest) -> Result<()> {
        let primary = &self.inner.primary;
        // Asked after the commit: a cache that came while the deletion waited may have been filled.
        let caches = primary.caches().await;
        let bound = match &caches {
            Ok(caches) => self.reckon(caches).longest(),
            Err(_) => rest.bound,
        };
        let until = rest.over.plus(bound);
        let settled = match caches {
            Err(error) if until <= rest.held_until => Err(error),
            _ => primary.settle_deletion(id, rest.held_until, until).await,
        };
        match settled {
            Err(error) if until <= rest.held_until => {
                tracing::warn!(%error, "the id of a deleted user rests for longer than it must");
                Ok(())
            }
            settled => settled,
        }
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

/// For how long the id of a user who is being deleted rests.
#[derive(Clone, Copy, Debug)]
struct Rest {
    /// How long entries of before may live after the deletion, as far as was known before it.
    bound: Duration,
    /// The end that is written with the deletion.
    held_until: Timestamp,
    /// A moment by when the deletion was over; by when it had not begun, until that is known.
    over: Timestamp,
    began: Duration,
}

impl Rest {
    fn begin(host: &Host, (now, bound): (Timestamp, Duration)) -> Self {
        let held_until = now.plus(bound).plus(UNSETTLED);
        Self { bound, held_until, over: now, began: host.clock.monotonic() }
    }

    /// By the clock that says more: one stands still while the machine sleeps, one may be set back.
    fn end(&mut self, host: &Host) {
        let taken = host.clock.monotonic().saturating_sub(self.began);
        self.over = self.over.plus(taken).max(host.now());
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
