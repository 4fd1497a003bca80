//! A primary store in memory. Every operation is one critical section over consistent tables, so
//! that any interleaving of operations is some order of them.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::RwLock;
use session_store_core::{
    Account, CacheName, CacheRegistration, Cascade, Census, Deleted, Drained, Found, Inserted,
    Listing, LogEntry, LogId, LogPromise, NewSession, Page, PrimaryPromise, PrimaryStore, Reason,
    Result, RevokedSessions, Selection, Session, SessionChange, SessionId, SweepBounds, Swept,
    Timestamp, Touch, Touched, Update, User, UserChange, UserId, UserUpdate, Which,
};

use crate::config::MemoryConfig;
use crate::log::Subject;
use crate::sessions::MAX_DATA_BYTES;
use crate::tables::{NAME, Tables};

/// Users and sessions in the memory of this process: for tests, for mock mode, and for programs
/// whose sessions may end with the process.
///
/// A clone is another handle on the same data.
#[derive(Clone, Debug, Default)]
pub struct MemoryStore {
    tables: Arc<RwLock<Tables>>,
}

impl MemoryStore {
    /// An empty store with the default configuration.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty store.
    pub fn from_config(config: &MemoryConfig) -> Self {
        Self {
            tables: Arc::new(RwLock::new(Tables {
                project_email: config.project_email,
                ..Tables::default()
            })),
        }
    }

    /// A store that holds `users` already, as a mock wants it; `Conflict` when two of them share an
    /// id or an e-mail address.
    pub fn with_users(users: impl IntoIterator<Item = User>) -> Result<Self> {
        let mut tables = Tables::default();
        for user in users {
            tables.add_user(&user)?;
        }
        Ok(Self { tables: Arc::new(RwLock::new(tables)) })
    }
}

#[async_trait]
impl PrimaryStore for MemoryStore {
    fn promise(&self) -> PrimaryPromise {
        PrimaryPromise {
            name: NAME,
            precision: Duration::from_millis(1),
            cascade: Cascade::Native,
            list_lag: Duration::ZERO,
            log: LogPromise::Complete,
            max_data_bytes: MAX_DATA_BYTES,
            durable: false,
        }
    }

    async fn insert_user(&self, user: &User, now: Timestamp) -> Result<()> {
        self.tables.write().insert_user(user, now)
    }

    async fn find_user(&self, id: &UserId) -> Result<Option<Account>> {
        Ok(self.tables.read().account(id))
    }

    async fn find_user_by_email(&self, normalized: &str) -> Result<Option<Account>> {
        let tables = self.tables.read();
        let id = tables.emails.get(normalized);
        Ok(id.and_then(|id| tables.account(id)))
    }

    async fn update_user(
        &self,
        id: &UserId,
        version: u64,
        change: &UserChange,
    ) -> Result<UserUpdate> {
        self.tables.write().update_user(id, version, change)
    }

    async fn delete_user(
        &self,
        id: &UserId,
        quarantine_until: Timestamp,
    ) -> Result<Option<Deleted>> {
        Ok(self.tables.write().delete_user(id, quarantine_until))
    }

    async fn settle_deletion(
        &self,
        id: &UserId,
        held_until: Timestamp,
        quarantine_until: Timestamp,
    ) -> Result<()> {
        self.tables.write().settle_deletion(id, held_until, quarantine_until);
        Ok(())
    }

    async fn list_users(&self, page: &Page) -> Result<Listing<User>> {
        self.tables.read().list_users(page)
    }

    async fn count_users(&self) -> Result<u64> {
        Ok(self.tables.read().users.len() as u64)
    }

    async fn insert(&self, new: &NewSession, now: Timestamp) -> Result<Inserted> {
        self.tables.write().insert(new, now)
    }

    async fn find(&self, id: &SessionId) -> Result<Found> {
        let tables = self.tables.read();
        let session = tables.sessions.get(id);
        Ok(Found {
            snapshot: session.and_then(|session| tables.snapshot(session)),
            server_time: None,
        })
    }

    async fn update(
        &self,
        id: &SessionId,
        version: u64,
        change: &SessionChange,
        now: Timestamp,
    ) -> Result<Update> {
        self.tables.write().update(id, version, change, now)
    }

    async fn touch(&self, touches: &[Touch]) -> Result<Vec<Touched>> {
        let mut tables = self.tables.write();
        Ok(touches.iter().map(|touch| tables.touch(touch)).collect())
    }

    async fn revoke(
        &self,
        selection: &Selection,
        reason: Reason,
        now: Timestamp,
    ) -> Result<RevokedSessions> {
        Ok(self.tables.write().revoke(selection, reason, now))
    }

    async fn list(&self, user: &UserId, which: Which, page: &Page) -> Result<Listing<Session>> {
        self.tables.read().list(user, which, page)
    }

    async fn sweep(&self, bounds: &SweepBounds, limit: u32) -> Result<Swept> {
        Ok(self.tables.write().sweep(bounds, limit))
    }

    async fn census(&self, now: Timestamp, user: Option<&UserId>) -> Result<Census> {
        Ok(self.tables.read().census(now, user))
    }

    async fn register(&self, cache: &CacheRegistration) -> Result<()> {
        self.tables.write().log.register(cache);
        Ok(())
    }

    async fn unregister(&self, cache: &CacheName) -> Result<()> {
        self.tables.write().log.unregister(cache);
        Ok(())
    }

    async fn caches(&self) -> Result<Vec<CacheRegistration>> {
        Ok(self.tables.read().log.caches())
    }

    async fn drain(&self, cache: &CacheName, limit: u32) -> Result<Drained> {
        let tables = self.tables.read();
        let mut pending = tables.log.pending(cache);
        let first = pending.by_ref().take(usize::try_from(limit).unwrap_or(usize::MAX));
        let entries = first
            .map(|(id, subject)| LogEntry {
                id,
                sessions: match subject {
                    Subject::Session(session) => vec![*session],
                    Subject::User(user) => tables.ids_of(user),
                },
            })
            .collect();
        Ok(Drained { entries, more: pending.next().is_some() })
    }

    async fn acknowledge(&self, cache: &CacheName, entries: &[LogId]) -> Result<()> {
        self.tables.write().log.acknowledge(cache, entries);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
