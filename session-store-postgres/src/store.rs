//! [`PostgresStore`]: the operations, one transaction each.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use session_store_core::{
    Account, CacheName, CacheRegistration, Cascade, Census, Deleted, Drained, ErrorKind, Found,
    Inserted, Listing, LogId, LogPromise, NewSession, Page, PrimaryPromise, PrimaryStore, Reason,
    Result, RevokedSessions, Selection, Session, SessionChange, SessionId, SweepBounds, Swept,
    Timestamp, Touch, Touched, Update, User, UserChange, UserId, UserUpdate, Which,
};
use sqlx::pool::PoolConnection;
use sqlx::{PgPool, Postgres};

use crate::config::{Access, PostgresConfig};
use crate::error::{NAME, classify, error};
use crate::schema::Schema;
use crate::transaction::{self, Tries, begin, begin_lasting, finish, on_open_connection};
use crate::write::{self, MAX_DATA_BYTES};
use crate::{ending, log, migrate, pooler, read, touch, users};

/// Users and sessions in Postgres.
///
/// A cheap handle; clones share the pool.
#[derive(Clone, Debug)]
pub struct PostgresStore {
    pool: PgPool,
    schema: Arc<Schema>,
    log: LogPromise,
    deadline: Duration,
    /// The statement of the hot path, made once.
    find: Arc<str>,
}

impl PostgresStore {
    /// Connects and, if the configuration allows it, brings the schema up to date.
    ///
    /// A URL that can't be read, wrong credentials, a missing database, a standby and a pooler in
    /// transaction or statement mode are `Configuration`, and so are times that don't fit each other; a
    /// schema of another version, or one from before the first release, or a users table that is not
    /// there, is `SchemaMismatch`; a server that can't be
    /// reached is `Unavailable`, and so is a lock that somebody else holds for as long as
    /// `connect_timeout` while the schema is brought up to date: the source says which process. No
    /// message holds the password.
    ///
    /// Each connection that the pool makes later is asked again whether it is to a standby, and not
    /// used if it is: the call that it was made for fails at once with `Unavailable`, and the source
    /// says why. A server that refuses connections, or has none left, is asked again until
    /// `connect_timeout`.
    ///
    /// A transaction of this store that says nothing for 5 s is ended by the server, with its locks, and
    /// a node that only stood still begins it again. What was in the middle of a statement when the
    /// network went silent, and a connection that nobody used, are given up by a server on Linux after
    /// 20 s. Until then, a node that vanished may keep a user from logging out, and takes up connections
    /// of the server. A pooler or a proxy in between has to notice by itself that a node is gone.
    ///
    /// A touch waits 2 s for a session that somebody else has locked, and is `Unavailable` then; others
    /// that were to be touched with it are written all the same.
    pub async fn connect(config: &PostgresConfig) -> Result<Self> {
        config.check()?;
        Self::over(config.pool()?, config).await
    }

    /// The same over a pool of the application's, whose settings are the application's too: when the
    /// network goes silent, how long abandoned connections stay with the pool is up to it, and so is
    /// how long they stay with the server, with the locks of a statement that was under way: without
    /// `tcp_keepalives_idle` and `tcp_user_timeout`, for more than two hours. So is where its connections
    /// lead after a failover: a standby, which would be read as if it were the truth, is noticed here and
    /// not later. All of it is seen to if the pool was made of options that [`PostgresConfig::guard`] has
    /// returned. That a transaction ends after 5 s without a word holds for every pool.
    pub async fn over(pool: PgPool, config: &PostgresConfig) -> Result<Self> {
        config.check()?;
        let schema = Schema::new(config)?;
        let patience = config.connect_timeout;
        let probe = tokio::time::timeout(patience, pooler::probe(&pool.connect_options())).await;
        probe.map_err(|_| classify(sqlx::Error::PoolTimedOut))??;
        let ready = tokio::time::timeout(config.deadline, ready(&pool, &schema, config)).await;
        let log = ready.unwrap_or_else(|_| Err(error(ErrorKind::Timeout)))?;
        let find = read::find_sql(&schema).into();
        Ok(Self { pool, schema: Arc::new(schema), log, deadline: config.deadline, find })
    }

    /// The statements of the schema, for people who own their migrations.
    pub fn migration_sql(config: &PostgresConfig) -> Result<String> {
        Ok(migrate::script(&Schema::new(config)?))
    }

    /// The trigger on the table of users, for people who put it there themselves instead of setting
    /// [`ExistingUsers::triggers`](crate::ExistingUsers::triggers).
    pub fn user_trigger_sql(config: &PostgresConfig) -> Result<String> {
        Ok(migrate::user_trigger(&Schema::new(config)?))
    }

    /// Ends `work` when it has taken too long: the server's own timeout says nothing when the network
    /// is gone.
    async fn within<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let late = |_| Err(error(ErrorKind::Timeout));
        tokio::time::timeout(self.deadline, work).await.unwrap_or_else(late)
    }

    async fn open(&self) -> Result<PoolConnection<Postgres>> {
        transaction::open(&self.pool).await
    }

    /// The same for work that changes nothing, or nothing more when it is done again.
    async fn reading<T, F: Future<Output = Result<T>>>(&self, work: impl Fn() -> F) -> Result<T> {
        self.within(on_open_connection(&self.pool, work)).await
    }

    /// The pool, for an orderly shutdown.
    pub fn pool(&self) -> &PgPool {
        &self.pool
    }
}

/// Brings the schema up to date, if that is wanted, and checks it; what its triggers add up to.
async fn ready(pool: &PgPool, schema: &Schema, config: &PostgresConfig) -> Result<LogPromise> {
    if config.access == Access::Migrate {
        migrate::migrate(pool, schema, config.connect_timeout).await?;
    }
    let mut on = transaction::open(pool).await?;
    migrate::check(&mut on, schema).await?;
    migrate::log_promise(&mut on, schema).await
}

#[async_trait]
impl PrimaryStore for PostgresStore {
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
        self.within(async {
            let what = "registering users in the application's own table";
            users::needs_own_table(&self.schema, what)?;
            let mut tries = Tries::default();
            loop {
                let mut on = begin_lasting(&self.pool).await?;
                let outcome = users::insert(&mut on, &self.schema, user, now).await;
                if let ControlFlow::Break(done) = finish(on, outcome, &mut tries).await? {
                    return Ok(done);
                }
            }
        })
        .await
    }

    async fn find_user(&self, id: &UserId) -> Result<Option<Account>> {
        self.reading(|| async { users::find(&mut *self.open().await?, &self.schema, id).await })
            .await
    }

    async fn find_user_by_email(&self, normalized: &str) -> Result<Option<Account>> {
        self.reading(|| async {
            users::find_by_email(&mut *self.open().await?, &self.schema, normalized).await
        })
        .await
    }

    async fn update_user(
        &self,
        id: &UserId,
        version: u64,
        change: &UserChange,
    ) -> Result<UserUpdate> {
        self.within(async {
            users::needs_own_table(&self.schema, "changing users in the application's own table")?;
            let mut tries = Tries::default();
            loop {
                let mut on = begin_lasting(&self.pool).await?;
                let outcome = users::update(&mut on, &self.schema, (id, version), change).await;
                // A change that was not made must not bump the epoch.
                if let Ok(UserUpdate::Missing | UserUpdate::Conflict { .. }) = &outcome {
                    on.rollback().await.map_err(classify)?;
                    return outcome;
                }
                if let ControlFlow::Break(done) = finish(on, outcome, &mut tries).await? {
                    return Ok(done);
                }
            }
        })
        .await
    }

    async fn delete_user(
        &self,
        id: &UserId,
        quarantine_until: Timestamp,
    ) -> Result<Option<Deleted>> {
        self.within(async {
            let mut tries = Tries::default();
            loop {
                let mut on = begin_lasting(&self.pool).await?;
                let outcome = users::delete(&mut on, &self.schema, id, quarantine_until).await;
                if let ControlFlow::Break(done) = finish(on, outcome, &mut tries).await? {
                    return Ok(done);
                }
            }
        })
        .await
    }

    async fn settle_deletion(&self, id: &UserId, held: Timestamp, until: Timestamp) -> Result<()> {
        self.within(users::settle(&self.pool, &self.schema, id, (held, until))).await
    }

    async fn list_users(&self, page: &Page) -> Result<Listing<User>> {
        self.reading(|| async { users::list(&mut *self.open().await?, &self.schema, page).await })
            .await
    }

    async fn count_users(&self) -> Result<u64> {
        self.reading(|| async { users::count(&mut *self.open().await?, &self.schema).await }).await
    }

    async fn insert(&self, new: &NewSession, now: Timestamp) -> Result<Inserted> {
        self.within(async {
            write::check_new(&new.session, now)?;
            if new.session.user_id.is_none() {
                return write::insert_guest(&mut *self.open().await?, &self.schema, &new.session)
                    .await;
            }
            let mut tries = Tries::default();
            loop {
                let mut on = begin(&self.pool).await?;
                let outcome = write::insert(&mut on, &self.schema, new, now).await;
                if let ControlFlow::Break(done) = finish(on, outcome, &mut tries).await? {
                    return Ok(done);
                }
            }
        })
        .await
    }

    async fn find(&self, id: &SessionId) -> Result<Found> {
        self.reading(|| async {
            read::find(&mut *self.open().await?, &self.schema, &self.find, id).await
        })
        .await
    }

    async fn update(
        &self,
        id: &SessionId,
        version: u64,
        change: &SessionChange,
        now: Timestamp,
    ) -> Result<Update> {
        self.within(async {
            write::check_change(change, now)?;
            let mut tries = Tries::default();
            loop {
                let mut on = if write::is_lasting(change) {
                    begin_lasting(&self.pool).await?
                } else {
                    begin(&self.pool).await?
                };
                let outcome =
                    write::update(&mut on, &self.schema, (id, version), change, now).await;
                // Whoever was evicted for a promotion that was not made, stays.
                if let Ok(Update::Missing | Update::Conflict { .. }) = &outcome {
                    on.rollback().await.map_err(classify)?;
                    return outcome;
                }
                if let ControlFlow::Break(done) = finish(on, outcome, &mut tries).await? {
                    return Ok(done);
                }
            }
        })
        .await
    }

    async fn touch(&self, touches: &[Touch]) -> Result<Vec<Touched>> {
        self.within(touch::touch(&self.pool, &self.schema, touches)).await
    }

    async fn revoke(
        &self,
        selection: &Selection,
        reason: Reason,
        now: Timestamp,
    ) -> Result<RevokedSessions> {
        self.within(async {
            let mut tries = Tries::default();
            loop {
                let mut on = begin_lasting(&self.pool).await?;
                let outcome = ending::revoke(&mut on, &self.schema, selection, reason, now).await;
                if let ControlFlow::Break(done) = finish(on, outcome, &mut tries).await? {
                    return Ok(done);
                }
            }
        })
        .await
    }

    async fn list(&self, user: &UserId, which: Which, page: &Page) -> Result<Listing<Session>> {
        if !self.schema.is_key(user) {
            return Ok(Listing { items: Vec::new(), next: None });
        }
        self.reading(|| async {
            read::list(&mut *self.open().await?, &self.schema, user, which, page).await
        })
        .await
    }

    async fn sweep(&self, bounds: &SweepBounds, limit: u32) -> Result<Swept> {
        self.within(async {
            // First, or its failure would hide what was removed.
            let more = log::purge(&self.pool, &self.schema).await?;
            let mut tries = Tries::default();
            loop {
                let mut on = begin(&self.pool).await?;
                let outcome = ending::sweep(&mut on, &self.schema, bounds, limit).await;
                if let ControlFlow::Break(done) = finish(on, outcome, &mut tries).await? {
                    return Ok(Swept { more: done.more || more, ..done });
                }
            }
        })
        .await
    }

    async fn census(&self, now: Timestamp, user: Option<&UserId>) -> Result<Census> {
        if user.is_some_and(|user| !self.schema.is_key(user)) {
            return Ok(Census::default());
        }
        self.reading(|| async {
            read::census(&mut *self.open().await?, &self.schema, now, user).await
        })
        .await
    }

    async fn register(&self, cache: &CacheRegistration) -> Result<()> {
        self.within(async {
            let mut tries = Tries::default();
            loop {
                let mut on = begin_lasting(&self.pool).await?;
                let outcome = log::register(&mut on, &self.schema, cache).await;
                if let ControlFlow::Break(done) = finish(on, outcome, &mut tries).await? {
                    return Ok(done);
                }
            }
        })
        .await
    }

    async fn unregister(&self, cache: &CacheName) -> Result<()> {
        self.within(async {
            let mut tries = Tries::default();
            loop {
                let mut on = begin(&self.pool).await?;
                let outcome = log::unregister(&mut on, &self.schema, cache).await;
                if let ControlFlow::Break(done) = finish(on, outcome, &mut tries).await? {
                    return Ok(done);
                }
            }
        })
        .await
    }

    async fn caches(&self) -> Result<Vec<CacheRegistration>> {
        self.reading(|| async { log::caches(&mut *self.open().await?, &self.schema).await }).await
    }

    async fn drain(&self, cache: &CacheName, limit: u32) -> Result<Drained> {
        self.reading(|| async {
            log::drain(&mut *self.open().await?, &self.schema, cache, limit).await
        })
        .await
    }

    async fn acknowledge(&self, cache: &CacheName, entries: &[LogId]) -> Result<()> {
        self.within(async {
            let mut tries = Tries::default();
            loop {
                let mut on = begin(&self.pool).await?;
                let outcome = log::acknowledge(&mut on, &self.schema, cache, entries).await;
                if let ControlFlow::Break(done) = finish(on, outcome, &mut tries).await? {
                    return Ok(done);
                }
            }
        })
        .await
    }
}
