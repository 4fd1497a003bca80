//! The store: each operation is a job for one of the threads.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use session_store_core::{
    Account, CacheName, CacheRegistration, Cascade, Census, Deleted, Drained, Error, Found,
    Inserted, Listing, LogId, LogPromise, NewSession, Page, PrimaryPromise, PrimaryStore, Reason,
    Result, RevokedSessions, Selection, Session, SessionChange, SessionId, SweepBounds, Swept,
    Timestamp, Touch, Touched, Update, User, UserChange, UserId, UserUpdate, Which,
};

use crate::config::{Access, SqliteConfig};
use crate::error::NAME;
use crate::schema::Schema;
use crate::thread::{self, Threads};
use crate::write::MAX_DATA_BYTES;
use crate::{ending, log, migrate, read, users, write};

/// Users and sessions in an SQLite file.
///
/// A clone is another handle on the same threads. Acknowledged writes are on the disk
/// (`synchronous = FULL`).
#[derive(Clone, Debug)]
pub struct SqliteStore {
    threads: Arc<Threads>,
    schema: Arc<Schema>,
    /// As found when this handle was opened.
    log: LogPromise,
}

impl SqliteStore {
    /// Opens the database and, if the configuration allows it, brings the schema up to date.
    ///
    /// A file that can't be opened or written is `Configuration`; one that is no database, a schema
    /// of another version, or a users table that is not there is `SchemaMismatch`.
    pub fn open(config: &SqliteConfig) -> Result<Self> {
        let schema = Schema::new(config)?;
        let path = config.path.to_string_lossy();
        if path.is_empty() || path.starts_with(":memory:") || path.starts_with("file:") {
            let what = "path: a file is needed; every connection would have a memory of its own";
            return Err(Error::configuration(NAME, what));
        }
        let (writer, log) = match config.access {
            Access::ReadOnly => {
                let connection = thread::open_reader(config)?;
                migrate::check(&connection, &schema)?;
                (None, migrate::log_promise(&connection, &schema)?)
            }
            Access::ReadWrite => {
                let connection = thread::open_writer(config)?;
                migrate::check(&connection, &schema)?;
                let log = migrate::log_promise(&connection, &schema)?;
                (Some(connection), log)
            }
            Access::Migrate => {
                let mut connection = thread::open_writer(config)?;
                migrate::migrate(&mut connection, &schema)?;
                let log = migrate::log_promise(&connection, &schema)?;
                (Some(connection), log)
            }
        };
        let threads = Arc::new(Threads::start(config, writer)?);
        Ok(Self { threads, schema: Arc::new(schema), log })
    }

    /// The statements of the schema, for people who own their migrations.
    pub fn migration_sql(config: &SqliteConfig) -> Result<String> {
        Ok(migrate::script(&Schema::new(config)?))
    }

    /// The triggers on the table of users, for people who put them there themselves instead of
    /// setting [`ExistingUsers::triggers`](crate::ExistingUsers::triggers).
    pub fn user_triggers_sql(config: &SqliteConfig) -> Result<String> {
        Ok(migrate::user_triggers(&Schema::new(config)?))
    }
}

#[async_trait]
impl PrimaryStore for SqliteStore {
    fn promise(&self) -> PrimaryPromise {
        PrimaryPromise {
            name: NAME,
            precision: Duration::from_millis(1),
            cascade: Cascade::Native,
            list_lag: Duration::ZERO,
            log: self.log,
            max_data_bytes: MAX_DATA_BYTES,
            durable: true,
        }
    }

    async fn insert_user(&self, user: &User, now: Timestamp) -> Result<()> {
        let (schema, user) = (Arc::clone(&self.schema), user.clone());
        self.threads.write(move |on| users::insert(on, &schema, &user, now)).await
    }

    async fn find_user(&self, id: &UserId) -> Result<Option<Account>> {
        let (schema, id) = (Arc::clone(&self.schema), id.clone());
        self.threads.read(move |on| users::find(on, &schema, &id)).await
    }

    async fn find_user_by_email(&self, normalized: &str) -> Result<Option<Account>> {
        let (schema, email) = (Arc::clone(&self.schema), normalized.to_owned());
        self.threads.read(move |on| users::find_by_email(on, &schema, &email)).await
    }

    async fn update_user(
        &self,
        id: &UserId,
        version: u64,
        change: &UserChange,
    ) -> Result<UserUpdate> {
        let (schema, id, change) = (Arc::clone(&self.schema), id.clone(), change.clone());
        self.threads.write(move |on| users::update(on, &schema, (&id, version), &change)).await
    }

    async fn delete_user(
        &self,
        id: &UserId,
        quarantine_until: Timestamp,
    ) -> Result<Option<Deleted>> {
        let (schema, id) = (Arc::clone(&self.schema), id.clone());
        self.threads.write(move |on| users::delete(on, &schema, &id, quarantine_until)).await
    }

    async fn settle_deletion(
        &self,
        id: &UserId,
        held_until: Timestamp,
        quarantine_until: Timestamp,
    ) -> Result<()> {
        let (schema, id) = (Arc::clone(&self.schema), id.clone());
        let ends = (held_until, quarantine_until);
        self.threads.write(move |on| users::settle(on, &schema, &id, ends)).await
    }

    async fn list_users(&self, page: &Page) -> Result<Listing<User>> {
        let (schema, page) = (Arc::clone(&self.schema), page.clone());
        self.threads.read(move |on| users::list(on, &schema, &page)).await
    }

    async fn count_users(&self) -> Result<u64> {
        let schema = Arc::clone(&self.schema);
        self.threads.read(move |on| users::count(on, &schema)).await
    }

    async fn insert(&self, new: &NewSession, now: Timestamp) -> Result<Inserted> {
        let (schema, new) = (Arc::clone(&self.schema), new.clone());
        self.threads.write(move |on| write::insert(on, &schema, &new, now)).await
    }

    async fn find(&self, id: &SessionId) -> Result<Found> {
        let inline = self.threads.read_inline(|on| read::find(on, &self.schema, id));
        let snapshot = if let Some(found) = inline {
            found
        } else {
            let (schema, id) = (Arc::clone(&self.schema), *id);
            self.threads.read(move |on| read::find(on, &schema, &id)).await?
        };
        // The host's clock is the only one there is.
        Ok(Found { snapshot, server_time: None })
    }

    async fn update(
        &self,
        id: &SessionId,
        version: u64,
        change: &SessionChange,
        now: Timestamp,
    ) -> Result<Update> {
        let (schema, id, change) = (Arc::clone(&self.schema), *id, change.clone());
        self.threads.write(move |on| write::update(on, &schema, (&id, version), &change, now)).await
    }

    async fn touch(&self, touches: &[Touch]) -> Result<Vec<Touched>> {
        if touches.is_empty() {
            return Ok(Vec::new());
        }
        let (schema, touches) = (Arc::clone(&self.schema), touches.to_vec());
        self.threads.write(move |on| write::touch(on, &schema, &touches)).await
    }

    async fn revoke(
        &self,
        selection: &Selection,
        reason: Reason,
        now: Timestamp,
    ) -> Result<RevokedSessions> {
        let (schema, selection) = (Arc::clone(&self.schema), selection.clone());
        self.threads.write(move |on| ending::revoke(on, &schema, &selection, reason, now)).await
    }

    async fn list(&self, user: &UserId, which: Which, page: &Page) -> Result<Listing<Session>> {
        let Some(key) = self.schema.key(user) else {
            return Ok(Listing { items: Vec::new(), next: None });
        };
        let (schema, page) = (Arc::clone(&self.schema), page.clone());
        self.threads.read(move |on| read::list(on, &schema, &key, which, &page)).await
    }

    async fn sweep(&self, bounds: &SweepBounds, limit: u32) -> Result<Swept> {
        let (schema, bounds) = (Arc::clone(&self.schema), *bounds);
        self.threads.write(move |on| ending::sweep(on, &schema, &bounds, limit)).await
    }

    async fn census(&self, now: Timestamp, user: Option<&UserId>) -> Result<Census> {
        let key = match user.map(|user| self.schema.key(user)) {
            Some(None) => return Ok(Census::default()),
            other => other.flatten(),
        };
        let schema = Arc::clone(&self.schema);
        self.threads.read(move |on| read::census(on, &schema, now, key.as_ref())).await
    }

    async fn register(&self, cache: &CacheRegistration) -> Result<()> {
        let (schema, cache) = (Arc::clone(&self.schema), cache.clone());
        self.threads.write(move |on| log::register(on, &schema, &cache)).await
    }

    async fn unregister(&self, cache: &CacheName) -> Result<()> {
        let (schema, cache) = (Arc::clone(&self.schema), cache.clone());
        self.threads.write(move |on| log::unregister(on, &schema, &cache)).await
    }

    async fn caches(&self) -> Result<Vec<CacheRegistration>> {
        let schema = Arc::clone(&self.schema);
        self.threads.read(move |on| log::registrations(on, &schema)).await
    }

    async fn drain(&self, cache: &CacheName, limit: u32) -> Result<Drained> {
        let (schema, cache) = (Arc::clone(&self.schema), cache.clone());
        self.threads.read(move |on| log::drain(on, &schema, &cache, limit)).await
    }

    async fn acknowledge(&self, cache: &CacheName, entries: &[LogId]) -> Result<()> {
        let (schema, cache) = (Arc::clone(&self.schema), cache.clone());
        let entries = entries.to_vec();
        self.threads.write(move |on| log::acknowledge(on, &schema, &cache, &entries)).await
    }
}
