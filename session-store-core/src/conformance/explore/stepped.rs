//! The stores as the explorer sees them: each operation is one step, kept or broken as the
//! scenario says.

use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;

use super::quirk::Quirk;
use super::schedule::Gate;
use super::world::World;
use crate::error::{Error, ErrorKind, Result};
use crate::primary::{
    CacheName, CacheRegistration, Census, Deleted, Drained, Found, Inserted, Listing, LogId, Page,
    PrimaryPromise, PrimaryStore, RevokedSessions, Selection, SessionChange, SweepBounds, Swept,
    Touch, Touched, Update, Which,
};
use crate::secondary::{CacheKey, Record, Reservation, SecondaryPromise, SecondaryStore, SwapTtl};
use crate::session::{NewSession, Reason, Session};
use crate::time::{Timestamp, Ttl};
use crate::token::SessionId;
use crate::user::{Account, User, UserChange, UserId, UserUpdate};

/// A primary store, one step per operation.
#[derive(Debug)]
pub(super) struct SteppedPrimary {
    pub(super) inner: Arc<dyn PrimaryStore>,
    pub(super) world: Arc<World>,
    /// An entry of the log that becomes visible after the first drain, as one of a transaction
    /// that commits late does.
    pub(super) hidden: Mutex<Option<LogId>>,
}

#[async_trait]
impl PrimaryStore for SteppedPrimary {
    fn promise(&self) -> PrimaryPromise {
        self.inner.promise()
    }

    async fn insert_user(&self, user: &User, now: Timestamp) -> Result<()> {
        self.inner.insert_user(user, now).await
    }

    async fn find_user(&self, id: &UserId) -> Result<Option<Account>> {
        self.inner.find_user(id).await
    }

    async fn find_user_by_email(&self, normalized: &str) -> Result<Option<Account>> {
        self.inner.find_user_by_email(normalized).await
    }

    async fn update_user(
        &self,
        id: &UserId,
        version: u64,
        change: &UserChange,
    ) -> Result<UserUpdate> {
        Gate.await;
        self.inner.update_user(id, version, change).await
    }

    async fn delete_user(
        &self,
        id: &UserId,
        quarantine_until: Timestamp,
    ) -> Result<Option<Deleted>> {
        Gate.await;
        self.world.log("user deleted");
        self.inner.delete_user(id, quarantine_until).await
    }

    async fn settle_deletion(
        &self,
        id: &UserId,
        held_until: Timestamp,
        quarantine_until: Timestamp,
    ) -> Result<()> {
        Gate.await;
        self.inner.settle_deletion(id, held_until, quarantine_until).await
    }

    async fn list_users(&self, page: &Page) -> Result<Listing<User>> {
        self.inner.list_users(page).await
    }

    async fn count_users(&self) -> Result<u64> {
        self.inner.count_users().await
    }

    async fn insert(&self, new: &NewSession, now: Timestamp) -> Result<Inserted> {
        Gate.await;
        self.world.log("session inserted");
        self.inner.insert(new, now).await
    }

    async fn find(&self, id: &SessionId) -> Result<Found> {
        Gate.await;
        self.world.count_read();
        let found = self.inner.find(id).await;
        self.world.log("primary read");
        found
    }

    async fn update(
        &self,
        id: &SessionId,
        version: u64,
        change: &SessionChange,
        now: Timestamp,
    ) -> Result<Update> {
        Gate.await;
        self.world.log("session updated");
        self.inner.update(id, version, change, now).await
    }

    async fn touch(&self, touches: &[Touch]) -> Result<Vec<Touched>> {
        Gate.await;
        self.world.log("session touched");
        self.inner.touch(touches).await
    }

    async fn revoke(
        &self,
        selection: &Selection,
        reason: Reason,
        now: Timestamp,
    ) -> Result<RevokedSessions> {
        if self.world.quirk() == Quirk::RemoveBeforeCommit {
            Gate.await;
            self.world.forget_everything().await;
            self.world.log("cache removed before the commit");
        }
        Gate.await;
        let done = self.inner.revoke(selection, reason, now).await;
        self.world.log("revocation committed");
        if self.world.loses_reply() {
            return Err(Error::new(ErrorKind::Timeout, "explore"));
        }
        done
    }

    async fn list(&self, user: &UserId, which: Which, page: &Page) -> Result<Listing<Session>> {
        self.inner.list(user, which, page).await
    }

    async fn sweep(&self, bounds: &SweepBounds, limit: u32) -> Result<Swept> {
        Gate.await;
        self.inner.sweep(bounds, limit).await
    }

    async fn census(&self, now: Timestamp, user: Option<&UserId>) -> Result<Census> {
        self.inner.census(now, user).await
    }

    // These change nothing that another task sees, so they need no step of their own.
    async fn register(&self, cache: &CacheRegistration) -> Result<()> {
        self.inner.register(cache).await
    }

    async fn unregister(&self, cache: &CacheName) -> Result<()> {
        self.inner.unregister(cache).await
    }

    async fn caches(&self) -> Result<Vec<CacheRegistration>> {
        self.inner.caches().await
    }

    async fn drain(&self, cache: &CacheName, limit: u32) -> Result<Drained> {
        Gate.await;
        let mut drained = self.inner.drain(cache, limit).await?;
        let mut hidden = self.hidden.lock();
        if self.world.hides_an_entry() && hidden.is_none() && drained.entries.len() > 1 {
            *hidden = Some(drained.entries.remove(0).id);
        }
        self.world.log("log drained");
        Ok(drained)
    }

    async fn acknowledge(&self, cache: &CacheName, entries: &[LogId]) -> Result<()> {
        Gate.await;
        let mut all = entries.to_vec();
        if self.world.quirk() == Quirk::HighWaterMark {
            let last = entries.iter().max().copied();
            let older = *self.hidden.lock();
            all.extend(older.filter(|older| Some(*older) < last));
        }
        self.world.log("log acknowledged");
        self.inner.acknowledge(cache, &all).await
    }
}

/// A secondary store, one step per operation.
#[derive(Debug)]
pub(super) struct SteppedSecondary {
    pub(super) inner: Arc<dyn SecondaryStore>,
    pub(super) world: Arc<World>,
}

impl SteppedSecondary {
    fn disguise(&self, record: Record) -> Record {
        let alike = self.world.quirk() == Quirk::FlightsBySession && record.is_lease();
        if alike { Record::lease(b"the lease of this session") } else { record }
    }

    /// The record behind a disguised one.
    async fn reveal(&self, key: &CacheKey, expected: &Record) -> Result<Record> {
        if self.world.quirk() == Quirk::FlightsBySession && expected.is_lease() {
            let found = self.inner.get(key).await?;
            return Ok(found.filter(Record::is_lease).unwrap_or_else(|| expected.clone()));
        }
        Ok(expected.clone())
    }

    async fn put_blindly(
        &self,
        key: &CacheKey,
        new: Option<&Record>,
        ttl: SwapTtl,
    ) -> Result<bool> {
        self.inner.remove(std::slice::from_ref(key)).await?;
        let Some(lease_ttl) = Ttl::new(std::time::Duration::from_secs(3)) else { return Ok(false) };
        match self.inner.reserve(key, lease_ttl).await? {
            Reservation::Granted(lease) => self.inner.swap(key, &lease, new, ttl).await,
            Reservation::Occupied(_) => Ok(false),
        }
    }
}

#[async_trait]
impl SecondaryStore for SteppedSecondary {
    fn promise(&self) -> SecondaryPromise {
        self.inner.promise()
    }

    fn epoch(&self) -> u64 {
        self.inner.epoch()
    }

    async fn get(&self, key: &CacheKey) -> Result<Option<Record>> {
        Gate.await;
        let found = self.inner.get(key).await?;
        self.world.log(&format!("cache get: {found:?}"));
        Ok(found.map(|record| self.disguise(record)))
    }

    async fn reserve(&self, key: &CacheKey, ttl: Ttl) -> Result<Reservation> {
        Gate.await;
        let granted = self.inner.reserve(key, ttl).await?;
        self.world.log(&format!("cache reserve: {granted:?}"));
        Ok(match granted {
            Reservation::Granted(lease) => Reservation::Granted(self.disguise(lease)),
            Reservation::Occupied(record) => Reservation::Occupied(self.disguise(record)),
        })
    }

    async fn swap(
        &self,
        key: &CacheKey,
        expected: &Record,
        new: Option<&Record>,
        ttl: SwapTtl,
    ) -> Result<bool> {
        if self.world.quirk() == Quirk::LandsBeforeSwap {
            let (inner, world, key) = (self.inner.clone(), self.world.clone(), key.clone());
            let (expected, new) = (expected.clone(), new.cloned());
            self.world.spawn(Box::pin(async move {
                Gate.await;
                let done = inner.swap(&key, &expected, new.as_ref(), ttl).await;
                world.log(&format!("cache swap, late: {done:?}"));
            }));
            return Ok(true);
        }
        Gate.await;
        self.world.remember_swap(key, expected, new, ttl);
        let done = if self.world.quirk() == Quirk::NaiveFill && expected.is_lease() {
            self.put_blindly(key, new, ttl).await
        } else {
            let expected = self.reveal(key, expected).await?;
            self.inner.swap(key, &expected, new, ttl).await
        };
        self.world.log(&format!("cache swap to {new:?}: {done:?}"));
        done
    }

    async fn remove(&self, keys: &[CacheKey]) -> Result<()> {
        Gate.await;
        match self.world.quirk() {
            Quirk::RemoveBeforeCommit => return Ok(()),
            Quirk::SwallowedRemoveError if self.world.fails_removal() => return Ok(()),
            _ => {}
        }
        if self.world.fails_removal() {
            self.world.owns_up();
            self.world.log("cache remove fails");
            return Err(Error::new(ErrorKind::Unavailable, "explore"));
        }
        self.world.log("cache remove");
        self.inner.remove(keys).await
    }
}
