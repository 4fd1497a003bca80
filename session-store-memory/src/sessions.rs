//! What a memory store does with one session: insert, update, touch, list.

use session_store_core::{
    CredentialEpoch, Cursor, Error, ErrorKind, Inserted, Listing, NewSession, Page, Promotion,
    Reason, Result, Revocation, Session, SessionChange, SessionId, SessionIds, SessionLimit, State,
    Timestamp, Touch, Touched, Update, Updated, UserId, Which,
};

use crate::page;
use crate::tables::{NAME, Tables, error};

/// The largest `data` document, in bytes.
pub(crate) const MAX_DATA_BYTES: usize = 1 << 20;

impl Tables {
    pub(crate) fn insert(&mut self, new: &NewSession, now: Timestamp) -> Result<Inserted> {
        let session = &new.session;
        check_size(session.data.as_str())?;
        if session.has_ended(now) {
            return Err(error(ErrorKind::InvalidExpiry));
        }
        if self.sessions.contains_key(&session.id) {
            return Err(error(ErrorKind::Conflict));
        }
        let evicted = match &session.user_id {
            None => SessionIds::new(),
            Some(user) => {
                self.check_login(user, session.credential_epoch)?;
                let evicted = self.make_room(user, &session.id, new.limit, now)?;
                self.log_in(user, now);
                evicted
            }
        };
        self.add(session.clone());
        Ok(Inserted { evicted })
    }

    pub(crate) fn update(
        &mut self,
        id: &SessionId,
        version: u64,
        change: &SessionChange,
        now: Timestamp,
    ) -> Result<Update> {
        check_size(change.data.as_ref().map_or("", |data| data.as_str()))?;
        if change.expires_at.is_some_and(|deadline| deadline <= now) {
            return Err(error(ErrorKind::InvalidExpiry));
        }
        let Some(session) = self.active(id, now) else {
            return Ok(Update::Missing);
        };
        if session.version != version {
            return Ok(Update::Conflict { current: session.version });
        }
        let evicted = match &change.promotion {
            None => SessionIds::new(),
            Some(promotion) => self.promote(id, promotion, now)?,
        };
        self.write(id, |session| change.apply(session));
        let written = self.sessions.get(id);
        let snapshot = written.and_then(|session| self.snapshot(session));
        Ok(snapshot.map_or(Update::Missing, |snapshot| {
            Update::Updated(Box::new(Updated { snapshot, evicted }))
        }))
    }

    pub(crate) fn touch(&mut self, touch: &Touch) -> Touched {
        if self.active(&touch.id, touch.seen_at).is_none() {
            return Touched::Missing;
        }
        self.alter(&touch.id, |session| {
            session.last_seen_at = session.last_seen_at.max(touch.seen_at);
            session.expires_at = session.expires_at.max(session.cap(touch.expires_at));
        });
        self.sessions
            .get(&touch.id)
            .map_or(Touched::Missing, |session| Touched::Active { expires_at: session.expires_at })
    }

    pub(crate) fn list(
        &self,
        user: &UserId,
        which: Which,
        page: &Page,
    ) -> Result<Listing<Session>> {
        let after = match &page.after {
            None => None,
            Some(cursor) => Some((cursor.at, session_key(cursor)?)),
        };
        let rows = self.by_user.get(user).into_iter();
        let sessions = rows
            .flat_map(|ids| page::behind(ids, after))
            .filter_map(|(_, id)| self.sessions.get(id))
            .filter(|session| match which {
                Which::Live(now) => session.state(now) == State::Active,
                Which::All => true,
            })
            .cloned();
        Ok(page::cut(sessions, page.limit, |last| Cursor {
            at: last.created_at,
            key: last.id.as_bytes().to_vec(),
        }))
    }

    /// The session, if it is active at `now`.
    fn active(&self, id: &SessionId, now: Timestamp) -> Option<&Session> {
        let session = self.sessions.get(id)?;
        (session.state(now) == State::Active).then_some(session)
    }

    /// Makes room for the session `id` of a user it does not have yet; the rules of `insert`.
    fn promote(
        &mut self,
        id: &SessionId,
        promotion: &Promotion,
        now: Timestamp,
    ) -> Result<SessionIds> {
        let user = &promotion.user_id;
        let owner = self.sessions.get(id).and_then(|old| old.user_id.as_ref());
        if owner.is_some_and(|owner| owner != user) {
            return Err(Error::invalid(NAME, "promotion of a session that has another user"));
        }
        self.check_login(user, promotion.credential_epoch)?;
        let evicted = self.make_room(user, id, promotion.limit, now)?;
        self.log_in(user, now);
        Ok(evicted)
    }

    fn check_login(&self, user: &UserId, verified: CredentialEpoch) -> Result<()> {
        if !self.users.contains_key(user) {
            return Err(error(ErrorKind::UnknownUser));
        }
        if verified < self.epoch(user) {
            return Err(error(ErrorKind::StaleCredentials));
        }
        Ok(())
    }

    /// Ends as many of the user's active sessions, other than `but`, as the limit calls for.
    fn make_room(
        &mut self,
        user: &UserId,
        but: &SessionId,
        limit: Option<SessionLimit>,
        now: Timestamp,
    ) -> Result<SessionIds> {
        let Some(limit) = limit else {
            return Ok(SessionIds::new());
        };
        let mut active: Vec<_> = self
            .of(user)
            .filter(|session| session.id != *but && session.state(now) == State::Active)
            .map(|session| (session.last_seen_at, session.id))
            .collect();
        let room = usize::try_from(limit.max.max(1) - 1).unwrap_or(usize::MAX);
        let surplus = active.len().saturating_sub(room);
        if surplus > 0 && !limit.evict {
            return Err(error(ErrorKind::TooManySessions));
        }
        active.sort_unstable();
        active.truncate(surplus);
        let evicted: SessionIds = active.into_iter().map(|(_, id)| id).collect();
        let reason = Reason::Limit;
        for id in &evicted {
            self.end(id, Revocation { at: now, reason });
        }
        Ok(evicted)
    }

    fn log_in(&mut self, user: &UserId, now: Timestamp) {
        if let Some(user) = self.users.get_mut(user) {
            user.last_login_at = Some(now);
        }
    }
}

fn check_size(data: &str) -> Result<()> {
    if data.len() > MAX_DATA_BYTES {
        return Err(error(ErrorKind::TooLarge { what: "session data", limit: MAX_DATA_BYTES }));
    }
    Ok(())
}

fn session_key(cursor: &Cursor) -> Result<SessionId> {
    <[u8; 16]>::try_from(cursor.key.as_slice())
        .map(SessionId::from_bytes)
        .map_err(|_| Error::invalid(NAME, "cursor"))
}
