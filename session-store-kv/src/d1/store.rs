//! The store: each operation is a batch.

use std::time::Duration;

use async_trait::async_trait;
use session_store_core::{
    Account, CacheName, CacheRegistration, Cascade, Census, Deleted, Drained, Found, Inserted,
    Listing, LogId, LogPromise, NewSession, Page, PrimaryPromise, PrimaryStore, Reason, Result,
    RevokedSessions, Selection, Session, SessionChange, SessionId, SweepBounds, Swept, Timestamp,
    Touch, Touched, Update, User, UserChange, UserId, UserUpdate, Which,
};
use worker::Env;
use worker::d1::D1Database;

use super::config::D1Config;
use super::database::Database;
use super::error::{NAME, no_binding};
use super::write::MAX_DATA_BYTES;
use super::{ending, log, migrate, read, users, write};

/// Users and sessions in a D1 database.
///
/// A batch whose answer is lost may have happened, which is `Timeout`. A handle may not outlive its
/// request.
#[derive(Clone, Debug)]
pub struct D1Store {
    database: Database,
    config: D1Config,
}

impl D1Store {
    /// The database behind the binding that `config` names.
    ///
    /// A binding that is not there, or a `table_prefix` that is no word, is `Configuration`. Nothing is
    /// asked yet: a database without tables shows by `SchemaMismatch`. One of another version does when
    /// a cache is registered, which [`Layered::register`](session_store_core::Layered::register) tells
    /// its caller before anything is done, and by [`check`](Self::check).
    pub fn from_env(env: &Env, config: &D1Config) -> Result<Self> {
        let d1 = env.d1(&config.binding).map_err(|error| no_binding(&config.binding, &error))?;
        Self::new(d1, config)
    }

    /// The database behind a binding that was found already.
    pub fn new(d1: D1Database, config: &D1Config) -> Result<Self> {
        let database = Database::new(d1, config.prefix()?);
        Ok(Self { database, config: config.clone() })
    }

    /// The statements of the schema, for a file of `wrangler d1 migrations`.
    pub fn migration_sql(config: &D1Config) -> Result<String> {
        Ok(migrate::script(config.prefix()?))
    }

    /// Makes the tables if there are none. A schema of another version is `SchemaMismatch`.
    pub async fn migrate(&self) -> Result<()> {
        migrate::migrate(&self.database).await
    }

    /// Refuses a database whose schema is missing or of another version, by `SchemaMismatch`.
    pub async fn check(&self) -> Result<()> {
        migrate::check(&self.database).await
    }

    #[cfg(feature = "conformance")]
    pub(crate) fn database(&self) -> &Database {
        &self.database
    }
}

#[async_trait]
impl PrimaryStore for D1Store {
    fn promise(&self) -> PrimaryPromise {
        PrimaryPromise {
            name: NAME,
            precision: Duration::from_millis(1),
            cascade: Cascade::Native,
            list_lag: Duration::ZERO,
            log: LogPromise::Complete,
            max_data_bytes: MAX_DATA_BYTES,
            durable: true,
        }
    }

    async fn insert_user(&self, user: &User, now: Timestamp) -> Result<()> {
        users::insert(&self.database, user, now).await
    }

    async fn find_user(&self, id: &UserId) -> Result<Option<Account>> {
        users::find(&self.database, id).await
    }

    async fn find_user_by_email(&self, normalized: &str) -> Result<Option<Account>> {
        users::find_by_email(&self.database, normalized).await
    }

    async fn update_user(
        &self,
        id: &UserId,
        version: u64,
        change: &UserChange,
    ) -> Result<UserUpdate> {
        users::update(&self.database, (id, version), change).await
    }

    async fn delete_user(
        &self,
        id: &UserId,
        quarantine_until: Timestamp,
    ) -> Result<Option<Deleted>> {
        users::delete(&self.database, id, quarantine_until).await
    }

    async fn settle_deletion(
        &self,
        id: &UserId,
        held_until: Timestamp,
        quarantine_until: Timestamp,
    ) -> Result<()> {
        users::settle(&self.database, id, (held_until, quarantine_until)).await
    }

    async fn list_users(&self, page: &Page) -> Result<Listing<User>> {
        users::list(&self.database, page).await
    }

    async fn count_users(&self) -> Result<u64> {
        users::count(&self.database).await
    }

    async fn insert(&self, new: &NewSession, now: Timestamp) -> Result<Inserted> {
        write::insert(&self.database, new, now).await
    }

    async fn find(&self, id: &SessionId) -> Result<Found> {
        read::find(&self.database, &self.config, id).await
    }

    async fn update(
        &self,
        id: &SessionId,
        version: u64,
        change: &SessionChange,
        now: Timestamp,
    ) -> Result<Update> {
        write::update(&self.database, &self.config, (id, version), change, now).await
    }

    async fn touch(&self, touches: &[Touch]) -> Result<Vec<Touched>> {
        write::touch(&self.database, touches).await
    }

    async fn revoke(
        &self,
        selection: &Selection,
        reason: Reason,
        now: Timestamp,
    ) -> Result<RevokedSessions> {
        ending::revoke(&self.database, selection, reason, now).await
    }

    async fn list(&self, user: &UserId, which: Which, page: &Page) -> Result<Listing<Session>> {
        read::list(&self.database, user, which, page).await
    }

    async fn sweep(&self, bounds: &SweepBounds, limit: u32) -> Result<Swept> {
        ending::sweep(&self.database, bounds, limit).await
    }

    async fn census(&self, now: Timestamp, user: Option<&UserId>) -> Result<Census> {
        read::census(&self.database, now, user).await
    }

    async fn register(&self, cache: &CacheRegistration) -> Result<()> {
        log::register(&self.database, cache).await
    }

    async fn unregister(&self, cache: &CacheName) -> Result<()> {
        log::unregister(&self.database, cache).await
    }

    async fn caches(&self) -> Result<Vec<CacheRegistration>> {
        log::registrations(&self.database).await
    }

    async fn drain(&self, cache: &CacheName, limit: u32) -> Result<Drained> {
        log::drain(&self.database, cache, limit).await
    }

    async fn acknowledge(&self, cache: &CacheName, entries: &[LogId]) -> Result<()> {
        log::acknowledge(&self.database, cache, entries).await
    }
}

/// The handle moves between threads wherever the trait asks for it.
const _: () = {
    const fn is_send<T: Send + Sync>() {}
    is_send::<D1Store>();
};
