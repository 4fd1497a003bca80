//! The store: the contract of a primary, one table of one region.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_dynamodb::Client;
use session_store_core::{
    Account, CacheName, CacheRegistration, Cascade, Census, Deleted, Drained, Found, Inserted,
    Listing, LogId, LogPromise, NewSession, Page, PrimaryPromise, PrimaryStore, Reason, Result,
    RevokedSessions, Selection, Session, SessionChange, SessionId, SweepBounds, Swept, Timestamp,
    Touch, Touched, Update, User, UserChange, UserId, UserUpdate, Which,
};

use super::call::Calls;
use super::config::DynamoConfig;
use super::error::NAME;
use super::key::{CACHES, Key};
use super::write::MAX_DATA_BYTES;

/// Users and sessions in one DynamoDB table.
///
/// A clone is another handle on the same table, over the same client.
#[derive(Clone, Debug)]
pub struct DynamoStore {
    pub(super) calls: Calls,
    pub(super) config: Arc<DynamoConfig>,
    pub(super) unreadable: Arc<AtomicU64>,
}

impl DynamoStore {
    /// The store in the table that `config` names, over the application's own client.
    ///
    /// Reads one item, to learn now and not at the first login that the table is missing or has other
    /// keys (`SchemaMismatch`), that the credentials are refused or have expired (`Configuration`), or
    /// that nobody listens (`Unavailable`). Numbers that can't work are `Configuration`.
    pub async fn connect(client: Client, config: &DynamoConfig) -> Result<Self> {
        config.calls.check(&config.table)?;
        let calls = Calls::new(client, &config.table, &config.calls);
        calls.get(&Key { pk: CACHES.to_owned(), sk: "?".to_owned() }).await?;
        Ok(Self { calls, config: Arc::new(config.clone()), unreadable: Arc::default() })
    }

    /// How many items the latest sweep of this handle passed by because it could not read them: they
    /// were damaged, or written by another version. Each sweep also logs it.
    pub fn unreadable(&self) -> u64 {
        self.unreadable.load(Ordering::Relaxed)
    }

    /// The client that the store was made with.
    pub fn client(&self) -> &Client {
        &self.calls.client
    }
}

#[async_trait]
impl PrimaryStore for DynamoStore {
    fn promise(&self) -> PrimaryPromise {
        PrimaryPromise {
            name: NAME,
            precision: Duration::from_millis(1),
            cascade: Cascade::Emulated,
            list_lag: Duration::ZERO,
            log: LogPromise::None,
            max_data_bytes: MAX_DATA_BYTES,
            durable: true,
        }
    }

    async fn insert_user(&self, user: &User, now: Timestamp) -> Result<()> {
        self.insert_user(user, now).await
    }

    async fn find_user(&self, id: &UserId) -> Result<Option<Account>> {
        self.find_user(id).await
    }

    async fn find_user_by_email(&self, normalized: &str) -> Result<Option<Account>> {
        self.find_user_by_email(normalized).await
    }

    async fn update_user(
        &self,
        id: &UserId,
        version: u64,
        change: &UserChange,
    ) -> Result<UserUpdate> {
        self.update_user(id, version, change).await
    }

    async fn delete_user(
        &self,
        id: &UserId,
        quarantine_until: Timestamp,
    ) -> Result<Option<Deleted>> {
        self.delete_user(id, quarantine_until).await
    }

    async fn settle_deletion(
        &self,
        id: &UserId,
        held_until: Timestamp,
        quarantine_until: Timestamp,
    ) -> Result<()> {
        self.settle_deletion(id, (held_until, quarantine_until)).await
    }

    async fn list_users(&self, page: &Page) -> Result<Listing<User>> {
        self.list_users(page).await
    }

    async fn count_users(&self) -> Result<u64> {
        self.count_users().await
    }

    async fn insert(&self, new: &NewSession, now: Timestamp) -> Result<Inserted> {
        self.insert(new, now).await
    }

    async fn find(&self, id: &SessionId) -> Result<Found> {
        self.find(id).await
    }

    async fn update(
        &self,
        id: &SessionId,
        version: u64,
        change: &SessionChange,
        now: Timestamp,
    ) -> Result<Update> {
        self.update(id, version, change, now).await
    }

    async fn touch(&self, touches: &[Touch]) -> Result<Vec<Touched>> {
        self.touch(touches).await
    }

    async fn revoke(
        &self,
        selection: &Selection,
        reason: Reason,
        now: Timestamp,
    ) -> Result<RevokedSessions> {
        self.revoke(selection, reason, now).await
    }

    async fn list(&self, user: &UserId, which: Which, page: &Page) -> Result<Listing<Session>> {
        self.list(user, which, page).await
    }

    async fn sweep(&self, bounds: &SweepBounds, limit: u32) -> Result<Swept> {
        self.sweep(bounds, limit).await
    }

    async fn census(&self, now: Timestamp, user: Option<&UserId>) -> Result<Census> {
        self.census(now, user).await
    }

    async fn register(&self, cache: &CacheRegistration) -> Result<()> {
        self.register(cache).await
    }

    async fn unregister(&self, cache: &CacheName) -> Result<()> {
        self.unregister(cache).await
    }

    async fn caches(&self) -> Result<Vec<CacheRegistration>> {
        self.caches().await
    }

    async fn drain(&self, _cache: &CacheName, _limit: u32) -> Result<Drained> {
        // No log is kept: nothing in DynamoDB would write what is typed by hand.
        Ok(Drained::default())
    }

    async fn acknowledge(&self, _cache: &CacheName, _entries: &[LogId]) -> Result<()> {
        Ok(())
    }
}
