//! The truth: users, sessions and the invalidation log, as every primary adapter provides them.

mod answer;
mod change;
mod log;
mod page;
mod promise;

use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;

pub use answer::{
    Census, Deleted, Found, Inserted, RevokedSessions, Swept, Touched, Update, Updated,
};
pub use change::{
    Elevation, Promotion, Rotation, Selection, SessionChange, SweepBounds, Touch, Which,
};
pub use log::{CacheName, CacheRegistration, CacheScope, Drained, LogEntry, LogId};
pub use page::{Cursor, Listing, Page};
pub use promise::{Cascade, LogPromise, PrimaryPromise};

use crate::error::Result;
use crate::session::{NewSession, Reason, Session};
use crate::time::Timestamp;
use crate::token::SessionId;
use crate::user::{Account, User, UserChange, UserId, UserUpdate};

/// Where the truth lives: users, their sessions, and the log of what caches must forget.
///
/// An adapter knows neither policy nor coherence and owns no clock: `now` is an argument, and no
/// function of the server judges a deadline. Rows are returned as stored, expired and revoked ones
/// included; [`Session::state`] judges them elsewhere.
///
/// # Contract
/// - Whatever one handle has acknowledged, every other handle on the same data finds \[P-15\].
/// - Two namespaces on one server never see each other's rows \[P-98\].
/// - Every text comes back as it was given, whatever it contains \[P-90 P-102\].
/// - No session is stored without a finite deadline \[P-59\].
/// - A dropped future leaves no half of an operation behind \[P-107\].
/// - What was acknowledged to one caller is true for every call that begins later \[P-50\].
/// - Every moment from [`Timestamp::EPOCH`] to [`Timestamp::MAX`] comes back \[P-95\].
#[async_trait]
pub trait PrimaryStore: Debug + Send + Sync {
    /// What this back end, as configured, does differently from the strongest one.
    ///
    /// # Contract
    /// - Deadlines come back equal, or earlier by less than the declared precision \[P-94\].
    fn promise(&self) -> PrimaryPromise;

    /// Registers a user.
    ///
    /// # Contract
    /// - A taken id or e-mail address is `Conflict`, and the stored user is unchanged \[X8-U-02\].
    /// - A deleted id is `UnknownUser` until its quarantine has ended \[X8-U-06\].
    async fn insert_user(&self, user: &User, now: Timestamp) -> Result<()>;

    /// The user called `id` with the epoch that a login must hand back; a missing one is `None`.
    ///
    /// # Contract
    /// - The user comes back with every field as it was given \[X8-U-03\].
    async fn find_user(&self, id: &UserId) -> Result<Option<Account>>;

    /// The user with this normalized e-mail address; nobody is `None`.
    ///
    /// # Contract
    /// - Addresses are compared in their normalized form \[X8-U-03\].
    async fn find_user_by_email(&self, normalized: &str) -> Result<Option<Account>>;

    /// Changes a user if its version is still `version`, and names every session a cache may hold.
    ///
    /// # Contract
    /// - A version that is not current is `Conflict` with the current one; nothing changes
    ///   \[X8-U-04\].
    /// - A missing user is `Missing`, and none is created \[X8-U-04\].
    /// - After a change of credentials, a login that verified the old ones is `StaleCredentials`
    ///   \[K6-A04\].
    async fn update_user(
        &self,
        id: &UserId,
        version: u64,
        change: &UserChange,
    ) -> Result<UserUpdate>;

    /// Removes a user and every session of theirs; the id can't be registered again before
    /// `quarantine_until`.
    ///
    /// # Contract
    /// - All sessions of the user are gone, by raw count; other users keep theirs \[P-60 P-61\].
    /// - However many they are \[P-64\].
    /// - A login that commits before the deletion is among the returned ids; one that comes later
    ///   is `UnknownUser` \[P-62\].
    /// - An unknown user is `None` \[P-63\].
    async fn delete_user(
        &self,
        id: &UserId,
        quarantine_until: Timestamp,
    ) -> Result<Option<Deleted>>;

    /// Moves the end of a deleted user's quarantine, once it is known when the deletion was over.
    ///
    /// # Contract
    /// - An id that rests until `held_until` rests until `quarantine_until` instead, be that sooner or
    ///   later \[X8-U-07\].
    /// - A quarantine with another end is that of another deletion, and left alone; no user is created
    ///   or removed \[X8-U-07\].
    async fn settle_deletion(
        &self,
        id: &UserId,
        held_until: Timestamp,
        quarantine_until: Timestamp,
    ) -> Result<()>;

    /// The users in order of registration, a page at a time.
    ///
    /// # Contract
    /// - Pages have no gap and no user twice while others are registered \[X8-U-05\].
    async fn list_users(&self, page: &Page) -> Result<Listing<User>>;

    /// How many users there are.
    ///
    /// # Contract
    /// - The count is that of the users listed \[X8-U-05\].
    async fn count_users(&self) -> Result<u64>;

    /// Stores a new session, enforcing its limit in the same transaction, and sets the user's
    /// `last_login_at` to `now`.
    ///
    /// # Contract
    /// - Every field comes back as it was given \[P-01\].
    /// - A taken id is `Conflict`, and the stored session is unchanged, expired or not \[P-04 P-05\].
    /// - A deadline that is not after `now` is `InvalidExpiry`, and nothing is stored \[P-06\].
    /// - An unknown user is `UnknownUser`, and nothing is stored \[P-03\].
    /// - Data of the declared size is stored; one byte more is `TooLarge`, here and in `update`
    ///   \[P-100\].
    /// - An epoch older than the user's is `StaleCredentials`, and nothing is stored \[K6-A04\].
    /// - The limit holds under parallel logins: the least recently used active sessions are
    ///   revoked and returned, or the insert is `TooManySessions`; dead sessions don't count
    ///   \[P-85 P-86\].
    async fn insert(&self, new: &NewSession, now: Timestamp) -> Result<Inserted>;

    /// The session called `id` with its user's projection, as stored; a missing one is `None`.
    ///
    /// Reads the authority, in a snapshot opened after the call. A session whose user is gone is
    /// absent.
    ///
    /// # Contract
    /// - A session that was never stored is `None`, and finding nothing creates nothing \[P-07\].
    /// - Expired and revoked sessions are returned as stored \[P-11 P-13\].
    /// - A session whose user is gone is `None` \[P-14\].
    /// - Finding a session changes nothing about it \[P-17\].
    /// - A row that can't be read is `Corrupt`, not absent; it can still be revoked, and deleted
    ///   with its user \[P-19\].
    async fn find(&self, id: &SessionId) -> Result<Found>;

    /// Changes a session if its version is still `version` and it is active at `now`.
    ///
    /// # Contract
    /// - A missing session is `Missing`, and none is created \[P-30 P-31 P-32\].
    /// - A revoked session is `Missing` and stays revoked \[P-33\].
    /// - An expired session is `Missing` and stays expired \[P-34\].
    /// - The version grows by one \[P-35\].
    /// - A version that is not current is `Conflict` with the current one; nothing changes \[P-36\].
    /// - Of 32 writers with retry, every change is there in the end \[P-37\].
    /// - A rotation changes all its fields or none, and never the absolute deadline \[P-40 P-43\].
    /// - A promotion follows the rules of `insert`: epoch, limit, unknown user, `last_login_at`; of a
    ///   session that has a user already it is `InvalidInput` \[X8-P-16\].
    async fn update(
        &self,
        id: &SessionId,
        version: u64,
        change: &SessionChange,
        now: Timestamp,
    ) -> Result<Update>;

    /// Records that sessions were used: one answer per touch, in order.
    ///
    /// # Contract
    /// - `last_seen_at` and `expires_at` move forward, never back, and not beyond the absolute
    ///   deadline \[P-51 P-52 P-54 P-55\].
    /// - A missing, revoked or expired session is `Missing` and stays what it is \[P-31 P-33 P-34\].
    /// - A touch leaves the version alone, so that it never conflicts with an update \[P-38\].
    /// - An empty list is no error \[P-77\].
    async fn touch(&self, touches: &[Touch]) -> Result<Vec<Touched>>;

    /// Ends the selected sessions that are active or expired but not revoked yet; expired ones are
    /// in neither list of the answer.
    ///
    /// # Contract
    /// - `revoked` are exactly the active sessions ended by this call \[P-72\].
    /// - A second revocation keeps the first time and reason; the session is among `earlier`, since
    ///   a cache may still hold it \[P-70\].
    /// - A selection with an owner never touches another user's session \[P-71\].
    /// - `AllBut` spares the one session and nothing else; its version stays \[P-74\].
    /// - A login racing `AllOf` is among the revoked ids, or fails, or came after it \[P-73\].
    /// - `Everyone` revokes at most `limit` sessions per call until none is left, and none that
    ///   was created later than asked; an answer without `revoked` ends the loop of the caller, so
    ///   dead sessions don't count towards `limit` \[P-76\].
    /// - An empty list of ids is no error \[P-77\].
    async fn revoke(
        &self,
        selection: &Selection,
        reason: Reason,
        now: Timestamp,
    ) -> Result<RevokedSessions>;

    /// A user's sessions by time of creation, then id, a page at a time.
    ///
    /// # Contract
    /// - `Live` lists the active sessions, `All` every stored one \[P-65\].
    /// - Every session created is listed, also when 32 were created at once \[P-66\].
    /// - Pages have no gap and no session twice \[P-67\].
    /// - A cursor whose key can't be a session id is `InvalidInput`; one out of another user's list
    ///   shows nothing of it \[P-68\].
    async fn list(&self, user: &UserId, which: Which, page: &Page) -> Result<Listing<Session>>;

    /// Removes dead sessions, oldest first, at most `limit` of them.
    ///
    /// Removed are sessions that expired at or before `bounds.expired_before` and sessions revoked at
    /// or before `bounds.revoked_before`. An adapter may take a step in the purge of its log, too.
    ///
    /// # Contract
    /// - Exactly the dead ones are removed, and counted \[P-79\].
    /// - A call removes at most `limit` and says whether there is more \[P-80\].
    /// - Parallel sweeps neither fail nor count a session twice \[P-81\].
    /// - A session that was touched after it was selected survives \[P-82\].
    /// - The removal of dead sessions is not logged \[X8-G-06\].
    async fn sweep(&self, bounds: &SweepBounds, limit: u32) -> Result<Swept>;

    /// How many sessions there are of each kind, in all or of one user.
    ///
    /// # Contract
    /// - The figures are those of the stored rows at `now` \[P-87\].
    async fn census(&self, now: Timestamp, user: Option<&UserId>) -> Result<Census>;

    /// Makes a cache over this database known to every handle, whether a log is kept or not.
    ///
    /// # Contract
    /// - Registering again replaces the entry of that name and keeps the longer TTL \[X8-G-01\].
    async fn register(&self, cache: &CacheRegistration) -> Result<()>;

    /// Takes a cache off the list that is gone for good; an unknown one is no error.
    ///
    /// # Contract
    /// - It is not listed any more, and no entry of the log waits for it \[X8-G-08\].
    async fn unregister(&self, cache: &CacheName) -> Result<()>;

    /// Every registered cache, from the authority. Needs no right to write.
    ///
    /// # Contract
    /// - What one handle has registered, every other one lists \[X8-G-01\].
    async fn caches(&self) -> Result<Vec<CacheRegistration>>;

    /// The oldest entries that the cache called `cache` has not acknowledged; where no log is kept,
    /// none.
    ///
    /// # Contract
    /// - Every committed change of a session or of a projected user field, made by this library or
    ///   by hand-typed SQL, is drained by every registered shared cache \[X8-G-07 X8-G-02\].
    /// - An entry that became visible after a younger one had been acknowledged is still drained
    ///   \[X8-G-03\].
    async fn drain(&self, cache: &CacheName, limit: u32) -> Result<Drained>;

    /// Tells that the cache called `cache` has removed everything these entries name.
    ///
    /// # Contract
    /// - Exactly these entries are not drained again by this cache; others and other caches are
    ///   unaffected \[X8-G-03\].
    async fn acknowledge(&self, cache: &CacheName, entries: &[LogId]) -> Result<()>;
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<T: PrimaryStore + ?Sized> PrimaryStore for Arc<T> {
    fn promise(&self) -> PrimaryPromise {
        (**self).promise()
    }

    async fn insert_user(&self, user: &User, now: Timestamp) -> Result<()> {
        (**self).insert_user(user, now).await
    }

    async fn find_user(&self, id: &UserId) -> Result<Option<Account>> {
        (**self).find_user(id).await
    }

    async fn find_user_by_email(&self, normalized: &str) -> Result<Option<Account>> {
        (**self).find_user_by_email(normalized).await
    }

    async fn update_user(
        &self,
        id: &UserId,
        version: u64,
        change: &UserChange,
    ) -> Result<UserUpdate> {
        (**self).update_user(id, version, change).await
    }

    async fn delete_user(
        &self,
        id: &UserId,
        quarantine_until: Timestamp,
    ) -> Result<Option<Deleted>> {
        (**self).delete_user(id, quarantine_until).await
    }

    async fn settle_deletion(
        &self,
        id: &UserId,
        held_until: Timestamp,
        quarantine_until: Timestamp,
    ) -> Result<()> {
        (**self).settle_deletion(id, held_until, quarantine_until).await
    }

    async fn list_users(&self, page: &Page) -> Result<Listing<User>> {
        (**self).list_users(page).await
    }

    async fn count_users(&self) -> Result<u64> {
        (**self).count_users().await
    }

    async fn insert(&self, new: &NewSession, now: Timestamp) -> Result<Inserted> {
        (**self).insert(new, now).await
    }

    async fn find(&self, id: &SessionId) -> Result<Found> {
        (**self).find(id).await
    }

    async fn update(
        &self,
        id: &SessionId,
        version: u64,
        change: &SessionChange,
        now: Timestamp,
    ) -> Result<Update> {
        (**self).update(id, version, change, now).await
    }

    async fn touch(&self, touches: &[Touch]) -> Result<Vec<Touched>> {
        (**self).touch(touches).await
    }

    async fn revoke(
        &self,
        selection: &Selection,
        reason: Reason,
        now: Timestamp,
    ) -> Result<RevokedSessions> {
        (**self).revoke(selection, reason, now).await
    }

    async fn list(&self, user: &UserId, which: Which, page: &Page) -> Result<Listing<Session>> {
        (**self).list(user, which, page).await
    }

    async fn sweep(&self, bounds: &SweepBounds, limit: u32) -> Result<Swept> {
        (**self).sweep(bounds, limit).await
    }

    async fn census(&self, now: Timestamp, user: Option<&UserId>) -> Result<Census> {
        (**self).census(now, user).await
    }

    async fn register(&self, cache: &CacheRegistration) -> Result<()> {
        (**self).register(cache).await
    }

    async fn unregister(&self, cache: &CacheName) -> Result<()> {
        (**self).unregister(cache).await
    }

    async fn caches(&self) -> Result<Vec<CacheRegistration>> {
        (**self).caches().await
    }

    async fn drain(&self, cache: &CacheName, limit: u32) -> Result<Drained> {
        (**self).drain(cache, limit).await
    }

    async fn acknowledge(&self, cache: &CacheName, entries: &[LogId]) -> Result<()> {
        (**self).acknowledge(cache, entries).await
    }
}
