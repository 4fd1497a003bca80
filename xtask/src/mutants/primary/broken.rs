//! The decorator: a primary store that does what the one inside does, but for its defect.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::{Mutex, MutexGuard};
use session_store_core::{
    Account, CacheName, CacheRegistration, Census, Deleted, Drained, ErrorKind, Found, Inserted,
    Listing, LogId, NewSession, Page, PrimaryPromise, PrimaryStore, Projection, Reason, Result,
    RevokedSessions, Selection, Session, SessionChange, SessionId, Snapshot, SweepBounds, Swept,
    Timestamp, Touch, Touched, Update, User, UserChange, UserId, UserUpdate, Which,
};

use super::super::layered::Link;
use super::super::stage::pause;
use super::Defect;
use super::state::{State, blank};

/// So often a call lets others run, so that patience ends with a case that goes round for ever.
const BREATH: u64 = 256;

/// A primary store with a defect.
#[derive(Clone)]
pub(in super::super) struct Broken {
    pub(super) inner: Arc<dyn PrimaryStore>,
    pub(super) defect: Defect,
    pub(super) state: Arc<Mutex<State>>,
    /// The first handle on a store is 0.
    pub(super) handle: usize,
    link: Option<Arc<Link>>,
}

impl fmt::Debug for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = f.debug_struct("Broken");
        if self.defect == Defect::PrintsHashes {
            let state = self.state();
            let hashes = state.known.values().map(|known| *known.secret_hash.as_bytes());
            text.field("hashes", &hashes.collect::<Vec<_>>());
        }
        text.finish_non_exhaustive()
    }
}

impl Broken {
    pub(in super::super) fn new(
        inner: Arc<dyn PrimaryStore>,
        defect: Defect,
        state: Arc<Mutex<State>>,
        handle: usize,
    ) -> Self {
        Self { inner, defect, state, handle, link: None }
    }

    /// Another handle on the same data, over the same connection.
    pub(in super::super) fn again(&self, handle: usize) -> Self {
        Self { handle, ..self.clone() }
    }

    /// Another handle on the same data, over a connection of its own.
    pub(in super::super) fn over(&self, inner: Arc<dyn PrimaryStore>, handle: usize) -> Self {
        Self { inner, ..self.again(handle) }
    }

    /// The primary store of a node whose protocol is broken.
    pub(in super::super) fn of_node(link: Arc<Link>) -> Self {
        let inner = Arc::clone(&link.primary);
        let state = Arc::default();
        Self { inner, defect: Defect::Nothing, state, handle: 0, link: Some(link) }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// To be called first by every operation that a case may repeat.
    pub(super) async fn breathe(&self) {
        let calls = {
            let mut state = self.state();
            state.calls += 1;
            state.calls
        };
        if calls.is_multiple_of(BREATH) {
            pause().await;
        }
    }

    pub(super) fn tick(&self, now: Timestamp) {
        let mut state = self.state();
        state.now = state.now.max(Some(now));
    }

    /// Makes `session` be found, although the store has no such row.
    pub(super) async fn haunt(&self, session: Session) -> Result<Snapshot> {
        let user = match &session.user_id {
            None => None,
            Some(id) => self.inner.find_user(id).await?.map(|found| project(found.user)),
        };
        let ghost = Snapshot { session, user };
        self.state().ghosts.insert(ghost.session.id, ghost.clone());
        Ok(ghost)
    }

    /// What the store really holds.
    pub(super) async fn truth(&self, id: &SessionId) -> Result<Option<Session>> {
        Ok(self.inner.find(id).await?.snapshot.map(|found| found.session))
    }

    /// Every session of `user`.
    pub(super) async fn all_of(&self, user: &UserId, which: Which) -> Result<Vec<Session>> {
        Ok(self.inner.list(user, which, &Page::first(10_000)).await?.items)
    }

    /// What a reader is shown of `found`.
    pub(super) fn bend(&self, found: &mut Snapshot) {
        let state = self.state();
        let session = &mut found.session;
        let id = session.id;
        match self.defect {
            Defect::EmptyForNone => {
                session.metadata.user_agent.get_or_insert_default();
            }
            Defect::NeverReadsTheFlag => session.revoked = None,
            Defect::VersionsStand => session.version = 1,
            Defect::TouchesMoveBack => {
                session.last_seen_at = state.seen.get(&id).copied().unwrap_or(session.last_seen_at);
            }
            Defect::TouchesShorten | Defect::TouchesAreUncapped => {
                let end = state.deadlines.get(&id).copied();
                session.expires_at = end.unwrap_or(session.expires_at);
            }
            Defect::RotationsMoveTheEnd if state.rotated.contains(&id) => {
                session.absolute_expires_at = Some(Timestamp::MAX);
            }
            Defect::LastRevocationWins => {
                session.revoked = state.ended.get(&id).copied().or(session.revoked);
            }
            Defect::TheSparedIsStale => {
                let epoch = state.stale.get(&id).copied();
                session.credential_epoch = epoch.unwrap_or(session.credential_epoch);
            }
            Defect::GivesGuestsAUser if found.user.is_none() => {
                found.user =
                    UserId::new("guest").ok().map(|id| project(User::new(id, Timestamp::EPOCH)));
            }
            Defect::ForgetsClaims => {
                if let Some(user) = &mut found.user {
                    user.claims = session_store_core::Json::default();
                }
            }
            _ => {}
        }
    }

    /// Whether `found` is kept from the reader.
    fn hides(&self, found: &Snapshot) -> bool {
        let state = self.state();
        let session = &found.session;
        match self.defect {
            Defect::HidesTheRevoked => session.revoked.is_some(),
            Defect::HidesTheExpired => {
                let ahead = std::time::Duration::from_secs(1);
                state.now.is_some_and(|now| session.has_ended(now.plus(ahead)))
            }
            _ => state.hidden.contains(&session.id),
        }
    }

    /// Whether this handle has not heard of the session yet.
    fn is_behind(&self, id: &SessionId) -> bool {
        let mut state = self.state();
        let is_behind = state.born.get(id).is_some_and(|handle| *handle != self.handle);
        if is_behind {
            state.born.remove(id);
        }
        is_behind
    }

    async fn look(&self, id: &SessionId) -> Result<Found> {
        let ghost = self.state().ghosts.get(id).cloned();
        let mut found = match ghost {
            Some(ghost) => Found { snapshot: Some(ghost), server_time: None },
            None => self.inner.find(id).await?,
        };
        found.snapshot = found.snapshot.filter(|found| !self.hides(found));
        if let Some(found) = &mut found.snapshot {
            self.bend(found);
            self.state().known.insert(*id, found.session.clone());
        }
        Ok(found)
    }
}

fn project(user: User) -> Projection {
    let User { id, role, is_verified, claims, .. } = user;
    Projection { id, role, is_verified, claims, email: None }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl PrimaryStore for Broken {
    fn promise(&self) -> PrimaryPromise {
        self.inner.promise()
    }

    async fn insert_user(&self, user: &User, now: Timestamp) -> Result<()> {
        self.add_user(user, now).await
    }

    async fn find_user(&self, id: &UserId) -> Result<Option<Account>> {
        Ok(self.inner.find_user(id).await?.map(|account| self.shown(account)))
    }

    async fn find_user_by_email(&self, normalized: &str) -> Result<Option<Account>> {
        let found = self.inner.find_user_by_email(normalized).await?;
        let is_same = |account: &Account| {
            account.user.email.as_ref().is_some_and(|email| email.as_str() == normalized)
        };
        let by_case = self.defect == Defect::AddressesByCase;
        Ok(found.filter(|account| !by_case || is_same(account)).map(|account| self.shown(account)))
    }

    async fn update_user(
        &self,
        id: &UserId,
        version: u64,
        change: &UserChange,
    ) -> Result<UserUpdate> {
        self.change_user(id, version, change).await
    }

    async fn delete_user(&self, id: &UserId, until: Timestamp) -> Result<Option<Deleted>> {
        self.remove_user(id, until).await
    }

    async fn settle_deletion(&self, id: &UserId, held: Timestamp, until: Timestamp) -> Result<()> {
        self.settle(id, held, until).await
    }

    async fn list_users(&self, page: &Page) -> Result<Listing<User>> {
        self.breathe().await;
        self.page_of_users(page).await
    }

    async fn count_users(&self) -> Result<u64> {
        self.inner.count_users().await
    }

    async fn insert(&self, new: &NewSession, now: Timestamp) -> Result<Inserted> {
        self.tick(now);
        match &self.link {
            Some(link) => link.insert(new, now).await,
            None => self.store(new, now).await,
        }
    }

    async fn find(&self, id: &SessionId) -> Result<Found> {
        self.breathe().await;
        if let Some(link) = &self.link {
            return link.find(id).await;
        }
        match self.defect {
            Defect::LooksUpAndCreates => {
                let found = self.look(id).await?;
                if found.snapshot.is_none() {
                    let now = self.state().now.unwrap_or(Timestamp::EPOCH);
                    let new = NewSession { session: blank(*id, now), limit: None };
                    self.inner.insert(&new, now).await?;
                }
                Ok(found)
            }
            Defect::LooksUpAndTouches => {
                let found = self.look(id).await?;
                if let Some(Snapshot { session, .. }) = &found.snapshot {
                    let seen_at = session.last_seen_at.plus(std::time::Duration::from_millis(1));
                    let expires_at = session.expires_at;
                    self.inner.touch(&[Touch { id: *id, seen_at, expires_at }]).await?;
                }
                Ok(found)
            }
            Defect::ReadsAReplica => {
                if self.is_behind(id) {
                    Ok(Found::default())
                } else {
                    self.look(id).await
                }
            }
            Defect::HidesDamage | Defect::SpreadsDamage => self.look_at_damage(id).await,
            _ => self.look(id).await,
        }
    }

    async fn update(
        &self,
        id: &SessionId,
        version: u64,
        change: &SessionChange,
        now: Timestamp,
    ) -> Result<Update> {
        self.breathe().await;
        self.tick(now);
        match &self.link {
            Some(link) => link.update((id, version), change, now).await,
            None => self.change(id, version, change, now).await,
        }
    }

    async fn touch(&self, touches: &[Touch]) -> Result<Vec<Touched>> {
        match &self.link {
            Some(link) => link.touch(touches).await,
            None => self.note_use(touches).await,
        }
    }

    async fn revoke(
        &self,
        selection: &Selection,
        reason: Reason,
        now: Timestamp,
    ) -> Result<RevokedSessions> {
        self.tick(now);
        match &self.link {
            Some(link) => link.revoke(selection, reason, now).await,
            None => self.end(selection, reason, now).await,
        }
    }

    async fn list(&self, user: &UserId, which: Which, page: &Page) -> Result<Listing<Session>> {
        self.breathe().await;
        match &self.link {
            Some(link) => link.list(user, which, page).await,
            None => self.page_of(user, which, page).await,
        }
    }

    async fn sweep(&self, bounds: &SweepBounds, limit: u32) -> Result<Swept> {
        self.breathe().await;
        self.clear(bounds, limit).await
    }

    async fn census(&self, now: Timestamp, user: Option<&UserId>) -> Result<Census> {
        let moment = std::time::Duration::from_millis(1);
        match self.defect {
            Defect::TheEndIsAlive => self.inner.census(now.minus(moment), user).await,
            Defect::CountsEverybody => self.inner.census(now, None).await,
            Defect::CountsTheDead => {
                let mut census = self.inner.census(now, user).await?;
                census.active += std::mem::take(&mut census.expired);
                Ok(census)
            }
            _ => self.inner.census(now, user).await,
        }
    }

    async fn register(&self, cache: &CacheRegistration) -> Result<()> {
        self.note_cache(cache).await
    }

    async fn unregister(&self, cache: &CacheName) -> Result<()> {
        self.forget_cache(cache).await
    }

    async fn caches(&self) -> Result<Vec<CacheRegistration>> {
        self.known_caches().await
    }

    async fn drain(&self, cache: &CacheName, limit: u32) -> Result<Drained> {
        self.breathe().await;
        self.pending(cache, limit).await
    }

    async fn acknowledge(&self, cache: &CacheName, entries: &[LogId]) -> Result<()> {
        self.forget_entries(cache, entries).await
    }
}

impl Broken {
    async fn look_at_damage(&self, id: &SessionId) -> Result<Found> {
        let found = self.look(id).await;
        let is_corrupt = found.as_ref().is_err_and(|error| *error.kind() == ErrorKind::Corrupt);
        if is_corrupt && self.defect == Defect::HidesDamage {
            return Ok(Found::default());
        }
        let was_damaged = std::mem::replace(&mut self.state().is_damaged, is_corrupt);
        if was_damaged && self.defect == Defect::SpreadsDamage {
            return Err(session_store_core::Error::new(ErrorKind::Corrupt, "mutant"));
        }
        found
    }
}
