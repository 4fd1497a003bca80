//! Changes: the truth first, then the cache forgets, or learns by compare-and-set.

use super::revoke::Purpose;
use super::{Changed, Layered, Visibility};
use crate::codec;
use crate::error::Result;
use crate::primary::{Inserted, PrimaryStore, SessionChange, Touch, Touched, Update, Updated};
use crate::secondary::{CacheKey, Record, SecondaryStore, SwapTtl};
use crate::session::NewSession;
use crate::time::Timestamp;
use crate::token::SessionId;
use crate::user::{UserChange, UserId, UserUpdate};

impl<P: PrimaryStore + 'static, S: SecondaryStore + 'static> Layered<P, S> {
    /// Stores a new session. The cache is never filled here, only made to forget.
    ///
    /// # Contract
    /// - A cached "there is no such session" does not survive \[K6-N01 K6-N02\].
    /// - A session that was revoked before this returned is not brought back \[K6-N03\].
    /// - Sessions evicted to keep the limit are revoked like any other, also when the reply was
    ///   lost \[L-23 X8-L-20\].
    pub async fn insert(&self, new: NewSession, now: Timestamp) -> Result<Changed<Inserted>> {
        let this = self.clone();
        self.detached(async move {
            let inner = &this.inner;
            let update = match inner.primary.insert(&new, now).await {
                Ok(update) => update,
                Err(error) => {
                    if let (Some(_), Some(user)) = (new.limit, &new.session.user_id)
                        && error.is_retryable()
                    {
                        // It may have been stored, and others ended for it.
                        let _ = this.forget_user(user).await;
                    }
                    return Err(error);
                }
            };
            if inner.negative_ttl().is_some() {
                // Ids can't be guessed before they exist, so a failure here hurts nobody.
                let _ = inner.leases.shield.remove(&[inner.key(&new.session.id)]).await;
            }
            let visibility = if update.evicted.is_empty() {
                Visibility::Immediate
            } else {
                this.forget(inner.keys(&update.evicted), Purpose::Revocation).await
            };
            Ok(Changed { update, visibility })
        })
        .await
    }

    /// Changes a session; `seen` is the record that the lookup before saw in the cache.
    ///
    /// # Contract
    /// - A version that is not current is a conflict, and the cache keeps what it has \[P-36\].
    /// - Whatever else comes of it, no older version is found afterwards \[K6-U01 K6-U02 K6-U03 L-37\].
    /// - An update that shortens a session removes the entry \[K6-U05\].
    /// - Sessions evicted by a promotion are revoked like any other, also when the reply was lost
    ///   \[X8-L-28\].
    /// - An update that found nothing to change removes the entry and revives nothing \[K6-U06\].
    pub async fn update(
        &self,
        (id, version): (SessionId, u64),
        change: SessionChange,
        seen: Option<Record>,
        now: Timestamp,
    ) -> Result<Changed> {
        let this = self.clone();
        self.detached(async move {
            let inner = &this.inner;
            let key = inner.key(&id);
            let outcome = inner.primary.update(&id, version, &change, now).await;
            if let Ok(Update::Conflict { .. }) = outcome {
                // Whoever was faster tells the cache.
                return outcome.map(|update| Changed { update, visibility: Visibility::Immediate });
            }
            if let Ok(Update::Updated(updated)) = &outcome
                && updated.evicted.is_empty()
                && let Some(seen) = &seen
                && this.replace(&key, seen, updated).await
            {
                let bounds = this.bounds().await;
                let told = this.after_removal(Purpose::Change, bounds).await;
                let visibility = told.weaker(bounds.others);
                return outcome.map(|update| Changed { update, visibility });
            }
            // An error leaves the outcome unknown, so the cache must forget in any case.
            let mut visibility = this.forget(vec![key], Purpose::Change).await;
            match (&outcome, &change.promotion) {
                (Ok(Update::Updated(updated)), _) => {
                    let evicted = inner.keys(&updated.evicted);
                    let ended = this.forget(evicted, Purpose::Revocation).await;
                    visibility = visibility.weaker(ended);
                }
                (Err(error), Some(promotion)) if error.is_retryable() => {
                    let _ = this.forget_user(&promotion.user_id).await;
                }
                _ => {}
            }
            outcome.map(|update| Changed { update, visibility })
        })
        .await
    }

    /// Replaces exactly the record that was seen, if the session didn't get shorter.
    async fn replace(&self, key: &CacheKey, seen: &Record, updated: &Updated) -> bool {
        let inner = &self.inner;
        let codec::Entry::Value(old, _) = codec::decode(seen) else {
            return false;
        };
        let is_shorter = updated.snapshot.session.expires_at < old.session.expires_at;
        if is_shorter || !inner.leases.shield.is_linearizable() {
            return false;
        }
        let Ok(new) = codec::encode(&updated.snapshot, None) else {
            return false;
        };
        let swapped = inner.leases.shield.swap(key, seen, Some(&new), SwapTtl::Keep).await;
        let done = matches!(swapped, Ok(true));
        if done && let Some(near) = &inner.near {
            near.purge(std::slice::from_ref(key));
        }
        done
    }

    /// Records use. Entries stay as they are: a longer deadline is found when the shorter one is
    /// about to be denied.
    ///
    /// # Contract
    /// - A touch removes nothing from the cache, and a hit past the cached deadline is confirmed by
    ///   the primary \[X8-L-13\].
    /// - A touch that arrives after a revocation changes nothing \[L-52\].
    pub async fn touch(&self, touches: &[Touch]) -> Result<Vec<Touched>> {
        self.inner.primary.touch(touches).await
    }

    /// Changes a user and makes the cache forget every session that shows them.
    ///
    /// # Contract
    /// - No session shows the old projection afterwards, also when the reply was lost and the call
    ///   is repeated \[K6-U01 X8-L-20\].
    pub async fn update_user(
        &self,
        id: &UserId,
        version: u64,
        change: UserChange,
    ) -> Result<Changed<UserUpdate>> {
        let (this, id) = (self.clone(), id.clone());
        self.detached(async move {
            let inner = &this.inner;
            let update = inner.primary.update_user(&id, version, &change).await;
            let visibility = match &update {
                Ok(UserUpdate::Updated { sessions, .. }) => {
                    this.forget(inner.keys(sessions), Purpose::Change).await
                }
                Ok(UserUpdate::Missing) => Visibility::Immediate,
                // The faster one may have been this very change, whose reply was lost.
                Ok(UserUpdate::Conflict { .. }) | Err(_) => this.forget_user(&id).await,
            };
            update.map(|update| Changed { update, visibility })
        })
        .await
    }
}
