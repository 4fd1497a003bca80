//! Revocation: commit, then remove, then say what was achieved.

use std::collections::HashSet;
use std::time::Duration;

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
    /// - A removal that failed is never `Immediate` \[K6-R10\].
    /// - A caller that goes away at any moment leaves no entry of a revoked session behind
    ///   \[K6-R13\].
    /// - With `WaitOut` or `WaitDrain` it returns once the old entry can't be served any more
    ///   \[K6-R11\].
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
            let all: HashSet<_> = sessions.iter().chain(earlier).chain(&named).collect();
            let visibility = this.forget(this.inner.keys(all)).await;
            outcome?;
            Ok(Revoked { count: sessions.len() as u64, sessions, visibility })
        })
        .await
    }

    /// Removes a user with every session; `None` when there is no such user.
    ///
    /// The id can't be registered again before every entry of before has died.
    ///
    /// # Contract
    /// - No session of the user is accepted afterwards, on any node \[K6-A01 K6-A02 L-26\].
    /// - A stale entry never logs the deleted user into an account created later \[K6-A03\].
    pub async fn delete_user(&self, id: &UserId, now: Timestamp) -> Result<Option<Revoked>> {
        let (this, id) = (self.clone(), id.clone());
        self.detached(async move {
            let bound = this.inner.failure_bound().max(this.bound_of_others().await.bound());
            let deleted = this.inner.primary.delete_user(&id, now.plus(bound)).await?;
            let Some(deleted) = deleted else {
                return Ok(None);
            };
            let sessions: SessionIds = deleted.sessions;
            let visibility = this.forget(this.inner.keys(&sessions)).await;
            Ok(Some(Revoked { count: sessions.len() as u64, sessions, visibility }))
        })
        .await
    }

    /// Makes every cache forget `keys`, as far as this node can, and says how far that is.
    pub(super) async fn forget(&self, keys: Vec<CacheKey>) -> Visibility {
        let inner = &self.inner;
        let removed = inner.leases.shield.remove(&keys).await;
        if let Some(near) = &inner.near {
            // After the shared removal: purged before, the near cache could read the old entry back.
            near.purge(&keys);
        }
        let own = match removed {
            Ok(()) => self.after_removal().await,
            Err(_) => self.after_failure(&keys).await,
        };
        own.weaker(self.bound_of_others().await)
    }

    /// What is left when the cache has forgotten: near caches of other processes, or caches that
    /// can't be reached at all.
    async fn after_removal(&self) -> Visibility {
        let inner = &self.inner;
        match (inner.healthy(), inner.config.on_cache_failure) {
            (Visibility::Within(bound), OnCacheFailure::WaitOut) => {
                inner.host.runtime.sleep(bound).await;
                Visibility::Immediate
            }
            (healthy, _) => healthy,
        }
    }

    async fn after_failure(&self, keys: &[CacheKey]) -> Visibility {
        let inner = &self.inner;
        let runtime = &inner.host.runtime;
        match inner.config.on_cache_failure {
            OnCacheFailure::Report => Visibility::Within(inner.failure_bound()),
            OnCacheFailure::WaitOut => {
                runtime.sleep(inner.failure_bound()).await;
                Visibility::Immediate
            }
            OnCacheFailure::WaitDrain(patience) => {
                let end = inner.host.clock.monotonic() + patience;
                while inner.host.clock.monotonic() < end {
                    runtime.sleep(LOOK_AGAIN).await;
                    if inner.leases.shield.remove(keys).await.is_ok() || self.is_drained(keys).await
                    {
                        return inner.healthy();
                    }
                }
                Visibility::Within(inner.failure_bound())
            }
        }
    }

    /// Whether another node has removed `keys` and said so in the log.
    async fn is_drained(&self, keys: &[CacheKey]) -> bool {
        let inner = &self.inner;
        let Ok(drained) = inner.primary.drain(&inner.config.cache_name, LOG_PAGE).await else {
            return false;
        };
        let pending: HashSet<_> =
            drained.entries.iter().flat_map(|entry| inner.keys(&entry.sessions)).collect();
        !drained.more && keys.iter().all(|key| !pending.contains(key))
    }
}
