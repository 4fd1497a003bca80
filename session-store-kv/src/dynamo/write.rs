//! Creating and changing sessions: each in one transaction with the user's item, which carries the
//! epoch, the barrier and, by its `rev`, the guard of the limit.

use aws_sdk_dynamodb::types::TransactWriteItem;
use session_store_core::{
    Error, ErrorKind, Inserted, NewSession, Promotion, Reason, Result, Revocation, Session,
    SessionChange, SessionId, SessionIds, SessionLimit, Snapshot, State, Timestamp, Update,
    Updated, UserId,
};

use super::call::Outcome;
use super::ending::PLACES_BYTES;
use super::error::{MAX_ITEM_BYTES, NAME, error};
use super::key::{Key, filed_at};
use super::mark::Recent;
use super::owner::Owner;
use super::row::{self, Item, number};
use super::step::{NEW, Terms};
use super::store::DynamoStore;
use super::stored::{Depth, Stored};

/// The largest `data` document: what 400 KB leave beside the other fields.
pub(super) const MAX_DATA_BYTES: usize = 256 * 1024;
/// What must stay free in an item for the end of the session, or it could not be written any more.
const ROOM_TO_END: usize = 1024;
/// How much the sessions may take that the transaction of a login ends: what its 4 MB leave beside the
/// new session and the user.
const MAX_EVICTED_BYTES: usize = 2_500_000;
/// How many sessions the transaction of a login ends: four steps each, and some are the login's own.
const MAX_EVICTED: usize = 20;

impl DynamoStore {
    pub(super) async fn insert(&self, new: &NewSession, now: Timestamp) -> Result<Inserted> {
        let session = &new.session;
        check_data(session.data.as_str())?;
        if session.has_ended(now) {
            return Err(error(ErrorKind::InvalidExpiry));
        }
        let Some(user) = &session.user_id else {
            return self.insert_guest(session).await;
        };
        let mut evicted = SessionIds::new();
        match self.insert_owned(new, (user, now), &mut evicted).await {
            Ok(()) => Ok(Inserted { evicted }),
            Err(failed) => Err(half_done(&evicted, failed)),
        }
    }

    async fn insert_owned(
        &self,
        new: &NewSession,
        (user, now): (&UserId, Timestamp),
        evicted: &mut SessionIds,
    ) -> Result<()> {
        let session = &new.session;
        let mut pauses = self.calls.pauses();
        let mut is_settled = new.limit.is_some();
        loop {
            let owner = self.owner(user).await?.ok_or_else(|| error(ErrorKind::UnknownUser))?;
            owner.check_login(session.credential_epoch)?;
            if !is_settled && self.settle(&owner).await? {
                is_settled = true;
                continue;
            }
            let (stamp, life) = (owner.barrier, owner.life);
            let stored = Stored { stamp, life, ..Stored::new(session.clone()) };
            let mut steps = vec![self.calls.put_if(self.whole(&stored)?, &Terms::when(NEW))?];
            for item in stored.place_items() {
                steps.push(self.calls.put(item)?);
            }
            steps.push(self.calls.put(stored.entry_item(user))?);
            let Some(room) = self.room(&owner, (&session.id, now), new.limit, evicted).await?
            else {
                pauses.pause().await?;
                continue;
            };
            steps.push(self.log_in(&owner, session, (new.limit, now))?);
            steps.extend(self.ends(&room)?);
            match self.calls.transact(&steps).await? {
                Outcome::Done => {
                    evicted.extend(room.iter().map(|ended| *ended.id()));
                    return Ok(());
                }
                Outcome::Refused(which) if which[0] => return Err(error(ErrorKind::Conflict)),
                Outcome::Refused(_) => pauses.pause().await?,
            }
        }
    }

    async fn insert_guest(&self, session: &Session) -> Result<Inserted> {
        let stored = Stored::new(session.clone());
        let mut steps = vec![self.calls.put_if(self.whole(&stored)?, &Terms::when(NEW))?];
        for item in stored.place_items() {
            steps.push(self.calls.put(item)?);
        }
        match self.calls.transact(&steps).await? {
            Outcome::Done => Ok(Inserted::default()),
            Outcome::Refused(_) => Err(error(ErrorKind::Conflict)),
        }
    }

    pub(super) async fn update(
        &self,
        id: &SessionId,
        version: u64,
        change: &SessionChange,
        now: Timestamp,
    ) -> Result<Update> {
        check_data(change.data.as_ref().map_or("", |data| data.as_str()))?;
        if change.expires_at.is_some_and(|deadline| deadline <= now) {
            return Err(error(ErrorKind::InvalidExpiry));
        }
        let mut evicted = SessionIds::new();
        match self.update_whole((id, version), change, now, &mut evicted).await {
            Ok(done @ Update::Updated(_)) => Ok(done),
            Ok(no) if evicted.is_empty() => Ok(no),
            // The session has changed after others were ended for it: a repetition will say how.
            Ok(_) => Err(error(ErrorKind::Timeout)),
            Err(failed) => Err(half_done(&evicted, failed)),
        }
    }

    async fn update_whole(
        &self,
        (id, version): (&SessionId, u64),
        change: &SessionChange,
        now: Timestamp,
        evicted: &mut SessionIds,
    ) -> Result<Update> {
        let mut pauses = self.calls.pauses();
        let mut is_settled = false;
        loop {
            let Some(seen) = self.look(id, Depth::Whole).await? else {
                return Ok(Update::Missing);
            };
            let (old, mut owner) = (seen.judged.stored, seen.owner);
            if old.session.state(now) != State::Active {
                return Ok(Update::Missing);
            }
            if old.session.version != version {
                return Ok(Update::Conflict { current: old.session.version });
            }
            let mut new = changed(&old, change);
            let mut room = Vec::new();
            let mut steps = Vec::new();
            if let Some(promotion) = &change.promotion {
                let promoted = self.promoted(&old.session, promotion).await?;
                (new.stamp, new.life) = (promoted.barrier, promoted.life);
                let limit = promotion.limit;
                if limit.is_none() && !is_settled && self.settle(&promoted).await? {
                    is_settled = true;
                    continue;
                }
                match self.room(&promoted, (id, now), limit, evicted).await? {
                    None => {
                        pauses.pause().await?;
                        continue;
                    }
                    Some(ended) => room = ended,
                }
                steps.push(self.calls.put(new.entry_item(&promotion.user_id))?);
                steps.push(self.log_in(&promoted, &new.session, (limit, now))?);
                owner = Some(promoted);
            }
            steps.extend(self.rewrite(&old, &new, change.promotion.is_some())?);
            steps.extend(self.ends(&room)?);
            if self.calls.transact(&steps).await? == Outcome::Done {
                evicted.extend(room.iter().map(|ended| *ended.id()));
                let user = owner.and_then(|owner| owner.projection(self.config.project_email));
                let snapshot = Snapshot { session: new.session, user };
                let evicted = std::mem::take(evicted);
                return Ok(Update::Updated(Box::new(Updated { snapshot, evicted })));
            }
            pauses.pause().await?;
        }
    }

    /// The steps that put `new` in the place of `old`.
    fn rewrite(
        &self,
        old: &Stored,
        new: &Stored,
        is_moved: bool,
    ) -> Result<Vec<TransactWriteItem>> {
        let put = self.calls.put_if(self.whole(new)?, &Terms::unchanged(old.rev))?;
        let mut steps = vec![put];
        if new.filed != old.filed {
            steps.push(self.calls.delete(old.place())?);
        }
        if new.filed != old.filed || is_moved {
            steps.push(self.calls.put(new.place_item(new.place()))?);
        }
        Ok(steps)
    }

    /// The user whom a session may be promoted to; the rules of `insert`.
    async fn promoted(&self, session: &Session, promotion: &Promotion) -> Result<Owner> {
        let user = &promotion.user_id;
        if session.user_id.as_ref().is_some_and(|owner| owner != user) {
            return Err(Error::invalid(NAME, "promotion of a session that has another user"));
        }
        let owner = self.owner(user).await?.ok_or_else(|| error(ErrorKind::UnknownUser))?;
        owner.check_login(promotion.credential_epoch)?;
        Ok(owner)
    }

    /// The sessions that must end so that the limit holds with the session `but`. `None`: there were
    /// more than a transaction ends; some have been ended and are in `evicted`, and everything is to be
    /// read again.
    async fn room(
        &self,
        owner: &Owner,
        (but, now): (&SessionId, Timestamp),
        limit: Option<SessionLimit>,
        evicted: &mut SessionIds,
    ) -> Result<Option<Vec<Stored>>> {
        let Some(limit) = limit else { return Ok(Some(Vec::new())) };
        // Also those whose logins are under way: from now on nobody looks for them any more.
        let all = self.of(owner).await?.into_iter().map(|judged| judged.stored);
        let mut active: Vec<_> = all
            .filter(|stored| stored.id() != but && stored.session.state(now) == State::Active)
            .collect();
        let room = usize::try_from(limit.max.max(1) - 1).unwrap_or(usize::MAX);
        let surplus = active.len().saturating_sub(room);
        if surplus > 0 && !limit.evict {
            return Err(error(ErrorKind::TooManySessions));
        }
        active.sort_unstable_by_key(|stored| (stored.session.last_seen_at, *stored.id()));
        active.truncate(surplus);
        for stored in &mut active {
            stored.session.revoked = Some(Revocation { at: now, reason: Reason::Limit });
        }
        let fitting = fitting(&active);
        if fitting == active.len() {
            return Ok(Some(active));
        }
        active.truncate(active.len() - fitting);
        let done = self.calls.transact_groups(&self.end_groups(&active)?).await?;
        let ended = active.iter().zip(done).filter(|(_, done)| *done);
        evicted.extend(ended.map(|(stored, _)| *stored.id()));
        Ok(None)
    }

    fn ends(&self, sessions: &[Stored]) -> Result<Vec<TransactWriteItem>> {
        let groups = self.end_groups(sessions)?;
        Ok(groups.into_iter().flat_map(|group| group.steps).collect())
    }

    /// The user is as the login saw them; with a limit, nobody else has logged in meanwhile, and every
    /// login that was noted has been looked after.
    fn log_in(
        &self,
        owner: &Owner,
        session: &Session,
        (limit, now): (Option<SessionLimit>, Timestamp),
    ) -> Result<TransactWriteItem> {
        let change = "SET #last_login_at = :now, #rev = #rev + :one";
        let condition = "attribute_exists(#role) AND #epoch = :epoch AND #barrier = :barrier \
                         AND #life = :life";
        let terms = if limit.is_some() {
            let condition = format!("{condition} AND #rev = :rev");
            let terms = Terms::change(format!("{change}, #recent = :own"), condition);
            terms.with(":rev", number(owner.rev))
        } else {
            Terms::change(format!("{change} ADD #recent :own"), condition)
        };
        let terms = terms
            .with(":now", number(now.as_millis()))
            .with(":one", number(1))
            .with(":own", Recent::set([&Recent::of(session)]))
            .with(":epoch", number(owner.epoch))
            .with(":barrier", number(owner.barrier))
            .with(":life", number(owner.life));
        self.calls.update(Key::user(&owner.id), &terms)
    }

    /// The item of a session; `TooLarge` when DynamoDB would not take it.
    fn whole(&self, stored: &Stored) -> Result<Item> {
        let item = stored.item(self.config.garbage_after);
        let limit = MAX_ITEM_BYTES - ROOM_TO_END;
        if row::size(&item) > limit {
            return Err(error(ErrorKind::TooLarge { what: "session", limit }));
        }
        Ok(item)
    }
}

/// A login that ended sessions and then failed has happened in part: whoever gets a "no" would leave
/// what it ended in caches.
fn half_done(evicted: &[SessionId], failed: Error) -> Error {
    if evicted.is_empty() || *failed.kind() == ErrorKind::Timeout {
        return failed;
    }
    error(ErrorKind::Timeout).caused_by(failed)
}

/// How many of the last of `sessions` one transaction ends.
fn fitting(sessions: &[Stored]) -> usize {
    let mut bytes = 0;
    let fit = sessions.iter().rev().take(MAX_EVICTED).take_while(|stored| {
        bytes += stored.size + PLACES_BYTES;
        bytes <= MAX_EVICTED_BYTES
    });
    fit.count()
}

fn changed(old: &Stored, change: &SessionChange) -> Stored {
    let mut new = old.clone();
    change.apply(&mut new.session);
    new.session.version += 1;
    new.rev += 1;
    let deadline = new.session.expires_at;
    // A later deadline is found out by the sweep; an earlier one it would come too late for.
    if filed_at(&new.filed).is_none_or(|filed| filed > deadline) {
        new.filed_by(deadline)
    } else {
        new
    }
}

fn check_data(data: &str) -> Result<()> {
    if data.len() > MAX_DATA_BYTES {
        return Err(error(ErrorKind::TooLarge { what: "session data", limit: MAX_DATA_BYTES }));
    }
    Ok(())
}
