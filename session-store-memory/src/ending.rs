//! What a memory store does with many sessions: revoke, sweep, count.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use session_store_core::{
    Census, Reason, Revocation, RevokedSessions, Selection, Session, SessionId, SessionIds, State,
    SweepBounds, Swept, Timestamp, UserId,
};

use crate::tables::Tables;

const DAY: Duration = Duration::from_hours(24);

impl Tables {
    pub(crate) fn revoke(
        &mut self,
        selection: &Selection,
        reason: Reason,
        now: Timestamp,
    ) -> RevokedSessions {
        let mut outcome = RevokedSessions::default();
        for id in self.select(selection, now) {
            let Some(session) = self.sessions.get(&id) else {
                continue;
            };
            match session.state(now) {
                State::Active => outcome.revoked.push(id),
                State::Revoked(_) => outcome.earlier.push(id),
                State::Expired => {}
            }
            if session.revoked.is_none() {
                self.end(&id, Revocation { at: now, reason });
            }
        }
        outcome
    }

    pub(crate) fn sweep(&mut self, bounds: &SweepBounds, limit: u32) -> Swept {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let mut dead = self.dead(bounds, limit.saturating_add(1));
        let more = dead.len() > limit;
        dead.truncate(limit);
        for id in &dead {
            self.take(id);
        }
        self.log.age(bounds.expired_before);
        Swept { removed: dead.len() as u64, more }
    }

    pub(crate) fn census(&self, now: Timestamp, user: Option<&UserId>) -> Census {
        match user {
            Some(user) => count(self.of(user), now),
            None => count(self.sessions.values(), now),
        }
    }

    /// The ids that `selection` names; bumps the epoch and re-stamps where it says so.
    fn select(&mut self, selection: &Selection, now: Timestamp) -> SessionIds {
        match selection {
            Selection::One { id, owner } => {
                let owned = |session: &Session| owner.is_none() || session.user_id == *owner;
                let found = self.sessions.get(id).filter(|session| owned(session));
                found.map(|session| session.id).into_iter().collect()
            }
            Selection::AllOf(user) => {
                self.bump_known(user);
                self.ids_of(user)
            }
            Selection::AllBut(user, spared) => {
                self.bump_known(user);
                let mut ids = self.ids_of(user);
                let selected = ids.len();
                ids.retain(|id| id != spared);
                if ids.len() < selected {
                    let epoch = self.epoch(user);
                    self.alter(spared, |session| session.credential_epoch = epoch);
                }
                ids
            }
            Selection::Everyone { created_before, limit } => {
                self.open(*limit, *created_before, now)
            }
            Selection::Ids(ids) => {
                let mut seen = HashSet::with_capacity(ids.len());
                let mut ids = ids.clone();
                ids.retain(|id| seen.insert(*id));
                ids
            }
        }
    }

    /// Sessions not revoked yet: the active ones, then the expired ones, so that a caller who goes
    /// on until nothing is revoked has reached all of them.
    fn open(&self, limit: u32, created_before: Timestamp, now: Timestamp) -> SessionIds {
        let open = || {
            let first = (true, Timestamp::EPOCH, SessionId::from_bytes([0; 16]));
            let all = self.by_deadline.range(..first).rev();
            all.filter_map(|(_, _, id)| self.sessions.get(id))
                .filter(|session| session.created_at <= created_before)
        };
        let active = open().filter(|session| session.state(now) == State::Active);
        let expired = open().filter(|session| session.state(now) != State::Active);
        active
            .chain(expired)
            .map(|session| session.id)
            .take(usize::try_from(limit).unwrap_or(usize::MAX))
            .collect()
    }

    /// Bumps the epoch of a user who exists or once did; a stranger leaves no row behind.
    fn bump_known(&mut self, user: &UserId) {
        if self.users.contains_key(user) || self.owners.contains_key(user) {
            self.bump(user);
        }
    }

    /// The first `limit` sessions within `bounds`, those that died first in front.
    fn dead(&self, bounds: &SweepBounds, limit: usize) -> SessionIds {
        let last = SessionId::from_bytes([0xff; 16]);
        let first = SessionId::from_bytes([0; 16]);
        let expired = |revoked| {
            let range = (revoked, Timestamp::EPOCH, first)..=(revoked, bounds.expired_before, last);
            self.by_deadline.range(range).map(|(_, at, id)| (*id, *at))
        };
        let revoked =
            self.by_revocation.range(..=(bounds.revoked_before, last)).map(|(at, id)| (*id, *at));
        let mut died = BTreeMap::new();
        let candidates = expired(false).take(limit).chain(expired(true).take(limit));
        for (id, at) in candidates.chain(revoked.take(limit)) {
            let first = died.entry(id).or_insert(at);
            *first = at.min(*first);
        }
        let mut order: Vec<_> = died.into_iter().map(|(id, at)| (at, id)).collect();
        order.sort_unstable();
        order.truncate(limit);
        order.into_iter().map(|(_, id)| id).collect()
    }
}

fn count<'a>(sessions: impl Iterator<Item = &'a Session>, now: Timestamp) -> Census {
    let recent = |at: Timestamp| at <= now && now.since(at) < DAY;
    let mut census = Census::default();
    let mut users = HashSet::new();
    for session in sessions {
        match session.state(now) {
            State::Active => {
                census.active += 1;
                match &session.user_id {
                    Some(user) => _ = users.insert(user),
                    None => census.guests += 1,
                }
            }
            State::Expired => census.expired += 1,
            State::Revoked(_) => census.revoked += 1,
        }
        census.created_last_day += u64::from(recent(session.created_at));
        let revoked = session.revoked.is_some_and(|ended| recent(ended.at));
        census.revoked_last_day += u64::from(revoked);
    }
    census.users = users.len() as u64;
    census
}
