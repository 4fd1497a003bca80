//! The tables of a memory store. Every session is in exactly the indexes that its fields call for.

use std::collections::{BTreeSet, HashMap};

use session_store_core::{
    CredentialEpoch, Error, ErrorKind, Projection, Revocation, Session, SessionId, Snapshot,
    Timestamp, User, UserId,
};

use crate::log::{Log, Subject};

/// The name that errors and reports use.
pub(crate) const NAME: &str = "memory";

/// Everything a memory store holds; one value behind one lock.
#[derive(Debug, Default)]
pub(crate) struct Tables {
    pub(crate) project_email: bool,
    pub(crate) users: HashMap<UserId, User>,
    pub(crate) users_by_time: BTreeSet<(Timestamp, UserId)>,
    pub(crate) emails: HashMap<Box<str>, UserId>,
    /// One row per user that was ever changed by an event its epoch counts; never removed, so that
    /// an epoch never restarts.
    pub(crate) owners: HashMap<UserId, Owner>,
    pub(crate) sessions: HashMap<SessionId, Session>,
    pub(crate) by_user: HashMap<UserId, BTreeSet<(Timestamp, SessionId)>>,
    /// Whether revoked, `expires_at`, id: those not revoked yet are one range, in order of deadline.
    pub(crate) by_deadline: BTreeSet<(bool, Timestamp, SessionId)>,
    pub(crate) by_revocation: BTreeSet<(Timestamp, SessionId)>,
    pub(crate) log: Log,
}

/// What is kept about a user beside the user: `session_users` of the SQL back ends.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Owner {
    pub(crate) epoch: CredentialEpoch,
    pub(crate) deleted_until: Option<Timestamp>,
}

impl Tables {
    /// Adds a session whose id is free.
    pub(crate) fn add(&mut self, session: Session) {
        self.index(&session);
        self.sessions.insert(session.id, session);
    }

    /// Removes a session from the table and every index; logs nothing.
    pub(crate) fn take(&mut self, id: &SessionId) -> Option<Session> {
        let session = self.sessions.remove(id)?;
        self.unindex(&session);
        Some(session)
    }

    /// Applies `change` to a session and keeps the indexes true; version and log stay as they are.
    pub(crate) fn alter(&mut self, id: &SessionId, change: impl FnOnce(&mut Session)) {
        if let Some(mut session) = self.take(id) {
            change(&mut session);
            self.add(session);
        }
    }

    /// Applies `change` to a session as a write: one version more, one entry in the log.
    pub(crate) fn write(&mut self, id: &SessionId, change: impl FnOnce(&mut Session)) {
        self.alter(id, |session| {
            change(session);
            session.version += 1;
        });
        self.log.append(Subject::Session(*id));
    }

    /// Ends a session that was not revoked before.
    pub(crate) fn end(&mut self, id: &SessionId, revocation: Revocation) {
        self.write(id, |session| session.revoked = Some(revocation));
    }

    /// The ids of every stored session of `user`, oldest first.
    pub(crate) fn ids_of(&self, user: &UserId) -> Vec<SessionId> {
        self.of(user).map(|session| session.id).collect()
    }

    /// Every stored session of `user`, oldest first.
    pub(crate) fn of(&self, user: &UserId) -> impl Iterator<Item = &Session> {
        self.by_user.get(user).into_iter().flatten().filter_map(|(_, id)| self.sessions.get(id))
    }

    /// What a reader learns from `session`; `None` when its user is gone.
    pub(crate) fn snapshot(&self, session: &Session) -> Option<Snapshot> {
        let user = match &session.user_id {
            None => None,
            Some(id) => Some(self.project(self.users.get(id)?)),
        };
        Some(Snapshot { session: session.clone(), user })
    }

    /// The epoch of `user`; the first one as long as nothing was counted.
    pub(crate) fn epoch(&self, user: &UserId) -> CredentialEpoch {
        self.owners.get(user).copied().unwrap_or_default().epoch
    }

    /// Makes every login that was verified before this moment fail.
    pub(crate) fn bump(&mut self, user: &UserId) -> &mut Owner {
        let owner = self.owners.entry(user.clone()).or_default();
        owner.epoch.0 += 1;
        owner
    }

    fn project(&self, user: &User) -> Projection {
        Projection {
            id: user.id.clone(),
            role: user.role.clone(),
            is_verified: user.is_verified,
            claims: user.claims.clone(),
            email: user.email.clone().filter(|_| self.project_email),
        }
    }

    fn index(&mut self, session: &Session) {
        if let Some(user) = &session.user_id {
            let ids = self.by_user.entry(user.clone()).or_default();
            ids.insert((session.created_at, session.id));
        }
        self.by_deadline.insert(deadline_key(session));
        if let Some(revocation) = session.revoked {
            self.by_revocation.insert((revocation.at, session.id));
        }
    }

    fn unindex(&mut self, session: &Session) {
        if let Some(user) = &session.user_id
            && let Some(ids) = self.by_user.get_mut(user)
        {
            ids.remove(&(session.created_at, session.id));
            if ids.is_empty() {
                self.by_user.remove(user);
            }
        }
        self.by_deadline.remove(&deadline_key(session));
        if let Some(revocation) = session.revoked {
            self.by_revocation.remove(&(revocation.at, session.id));
        }
    }
}

/// An error of this back end that nothing else caused.
pub(crate) fn error(kind: ErrorKind) -> Error {
    Error::new(kind, NAME)
}

fn deadline_key(session: &Session) -> (bool, Timestamp, SessionId) {
    (session.revoked.is_some(), session.expires_at, session.id)
}
