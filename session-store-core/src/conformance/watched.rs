//! Stores on a [`Wire`]: the real ones, with trouble on command.

use std::sync::Arc;

use async_trait::async_trait;

use super::wire::{Op, Wire};
use crate::error::Result;
use crate::primary::{
    CacheName, CacheRegistration, CacheScope, Census, Deleted, Drained, Found, Inserted, Listing,
    LogId, LogPromise, Page, PrimaryPromise, PrimaryStore, RevokedSessions, Selection,
    SessionChange, SweepBounds, Swept, Touch, Touched, Update, Which,
};
use crate::secondary::{CacheKey, Record, Reservation, SecondaryPromise, SecondaryStore, SwapTtl};
use crate::session::{NewSession, Reason, Session};
use crate::time::{Timestamp, Ttl};
use crate::token::SessionId;
use crate::user::{Account, User, UserChange, UserId, UserUpdate};

/// A primary store on a wire.
#[derive(Clone, Debug)]
pub struct WatchedPrimary {
    /// The store itself.
    pub store: Arc<dyn PrimaryStore>,
    /// What happens to calls.
    pub wire: Wire,
}

/// A secondary store on a wire.
#[derive(Clone, Debug)]
pub struct WatchedSecondary {
    /// The store itself.
    pub store: Arc<dyn SecondaryStore>,
    /// What happens to calls.
    pub wire: Wire,
    /// Whether it is declared shared: several nodes of a case use one object.
    pub is_shared: bool,
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl PrimaryStore for WatchedPrimary {
    fn promise(&self) -> PrimaryPromise {
        let mut promise = self.store.promise();
        if self.wire.is_logless() {
            promise.log = LogPromise::None;
        }
        promise
    }

    async fn insert_user(&self, user: &User, now: Timestamp) -> Result<()> {
        self.wire.carry(Op::Other, self.store.insert_user(user, now)).await
    }

    async fn find_user(&self, id: &UserId) -> Result<Option<Account>> {
        self.wire.carry(Op::Other, self.store.find_user(id)).await
    }

    async fn find_user_by_email(&self, normalized: &str) -> Result<Option<Account>> {
        self.wire.carry(Op::Other, self.store.find_user_by_email(normalized)).await
    }

    async fn update_user(
        &self,
        id: &UserId,
        version: u64,
        change: &UserChange,
    ) -> Result<UserUpdate> {
        self.wire.carry(Op::UpdateUser, self.store.update_user(id, version, change)).await
    }

    async fn delete_user(
        &self,
        id: &UserId,
        quarantine_until: Timestamp,
    ) -> Result<Option<Deleted>> {
        self.wire.carry(Op::DeleteUser, self.store.delete_user(id, quarantine_until)).await
    }

    async fn settle_deletion(
        &self,
        id: &UserId,
        held_until: Timestamp,
        quarantine_until: Timestamp,
    ) -> Result<()> {
        let settled = self.store.settle_deletion(id, held_until, quarantine_until);
        self.wire.carry(Op::SettleDeletion, settled).await
    }

    async fn list_users(&self, page: &Page) -> Result<Listing<User>> {
        self.wire.carry(Op::Other, self.store.list_users(page)).await
    }

    async fn count_users(&self) -> Result<u64> {
        self.wire.carry(Op::Other, self.store.count_users()).await
    }

    async fn insert(&self, new: &NewSession, now: Timestamp) -> Result<Inserted> {
        self.wire.carry(Op::Insert, self.store.insert(new, now)).await
    }

    async fn find(&self, id: &SessionId) -> Result<Found> {
        let found = self.wire.carry(Op::Find, self.store.find(id)).await?;
        Ok(Found { server_time: self.wire.server_time().or(found.server_time), ..found })
    }

    async fn update(
        &self,
        id: &SessionId,
        version: u64,
        change: &SessionChange,
        now: Timestamp,
    ) -> Result<Update> {
        self.wire.carry(Op::Update, self.store.update(id, version, change, now)).await
    }

    async fn touch(&self, touches: &[Touch]) -> Result<Vec<Touched>> {
        self.wire.carry(Op::Touch, self.store.touch(touches)).await
    }

    async fn revoke(
        &self,
        selection: &Selection,
        reason: Reason,
        now: Timestamp,
    ) -> Result<RevokedSessions> {
        self.wire.carry(Op::Revoke, self.store.revoke(selection, reason, now)).await
    }

    async fn list(&self, user: &UserId, which: Which, page: &Page) -> Result<Listing<Session>> {
        self.wire.carry(Op::Other, self.store.list(user, which, page)).await
    }

    async fn sweep(&self, bounds: &SweepBounds, limit: u32) -> Result<Swept> {
        self.wire.carry(Op::Sweep, self.store.sweep(bounds, limit)).await
    }

    async fn census(&self, now: Timestamp, user: Option<&UserId>) -> Result<Census> {
        self.wire.carry(Op::Other, self.store.census(now, user)).await
    }

    async fn register(&self, cache: &CacheRegistration) -> Result<()> {
        self.wire.carry(Op::Register, self.store.register(cache)).await
    }

    async fn unregister(&self, cache: &CacheName) -> Result<()> {
        self.wire.carry(Op::Other, self.store.unregister(cache)).await
    }

    async fn caches(&self) -> Result<Vec<CacheRegistration>> {
        self.wire.carry(Op::Other, self.store.caches()).await
    }

    async fn drain(&self, cache: &CacheName, limit: u32) -> Result<Drained> {
        let drained = self.wire.carry(Op::Drain, self.store.drain(cache, limit)).await?;
        Ok(if self.wire.is_logless() { Drained::default() } else { drained })
    }

    async fn acknowledge(&self, cache: &CacheName, entries: &[LogId]) -> Result<()> {
        self.wire.carry(Op::Acknowledge, self.store.acknowledge(cache, entries)).await
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl SecondaryStore for WatchedSecondary {
    fn promise(&self) -> SecondaryPromise {
        let mut promise = self.store.promise();
        if self.is_shared {
            promise.scope = CacheScope::Shared;
        }
        promise
    }

    fn epoch(&self) -> u64 {
        self.store.epoch()
    }

    async fn get(&self, key: &CacheKey) -> Result<Option<Record>> {
        self.wire.carry(Op::Get, self.store.get(key)).await
    }

    async fn reserve(&self, key: &CacheKey, ttl: Ttl) -> Result<Reservation> {
        self.wire.carry(Op::Reserve, self.store.reserve(key, ttl)).await
    }

    async fn swap(
        &self,
        key: &CacheKey,
        expected: &Record,
        new: Option<&Record>,
        ttl: SwapTtl,
    ) -> Result<bool> {
        self.wire.carry(Op::Swap, self.store.swap(key, expected, new, ttl)).await
    }

    async fn remove(&self, keys: &[CacheKey]) -> Result<()> {
        self.wire.carry(Op::Remove, self.store.remove(keys)).await
    }
}
