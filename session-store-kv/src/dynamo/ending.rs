//! How sessions end, one by one or all of a user at once.
//!
//! A revoke-all is one write: it raises the user's barrier, and with that every session is ended. What
//! follows, here or after a crash in the next sweep, only writes down what that one write meant.

use std::collections::BTreeSet;

use aws_sdk_dynamodb::types::{AttributeValue, TransactWriteItem};
use session_store_core::{
    Error, Reason, Result, Revocation, RevokedSessions, Selection, SessionId, SessionIds, State,
    Timestamp, UserId,
};

use super::call::Outcome;
use super::error::{corrupt, uncertain};
use super::job::Job;
use super::key::{Key, Queue, SHARDS, filed_at, queue};
use super::owner::{Judged, Owner};
use super::query::Query;
use super::row::{Item, Row, number, text};
use super::step::{Group, Terms};
use super::store::DynamoStore;
use super::stored::{Depth, Stored};
use super::underway::Members;

/// How many sessions a revocation of everybody looks at in one call.
const PAGE: u32 = 500;
/// About what the places of one session take.
pub(super) const PLACES_BYTES: usize = 2_000;

impl DynamoStore {
    pub(super) async fn revoke(
        &self,
        selection: &Selection,
        reason: Reason,
        now: Timestamp,
    ) -> Result<RevokedSessions> {
        let end = Revocation { at: now, reason };
        match selection {
            Selection::One { id, owner } => self.end(vec![*id], owner.as_ref(), end).await,
            Selection::Ids(ids) => self.end(ids.clone(), None, end).await,
            Selection::Everyone { created_before, limit } => {
                let (ids, unreadable) = self.some_of_everyone(*created_before, *limit, now).await?;
                let done = self.end(ids, None, end).await?;
                match unreadable {
                    // Only once all others are ended.
                    Some(error) if done == RevokedSessions::default() => Err(error),
                    _ => Ok(done),
                }
            }
            Selection::AllOf(user) => self.end_all(user, None, end).await,
            Selection::AllBut(user, spared) => self.end_all(user, Some(spared), end).await,
        }
    }

    /// Ends these sessions, if they are `owner`'s.
    async fn end(
        &self,
        ids: SessionIds,
        owner: Option<&UserId>,
        end: Revocation,
    ) -> Result<RevokedSessions> {
        let mut done = RevokedSessions::default();
        let mut left = ids;
        let mut pauses = self.calls.pauses();
        let mut is_first = true;
        let mut failed = None;
        while !left.is_empty() {
            // From the second round on something may have been ended already.
            let known = |failed| if is_first { failed } else { uncertain(failed) };
            let (seen, unreadable) = self.look_some(&left).await.map_err(&known)?;
            failed = failed.or(unreadable.into_iter().next());
            let own = seen.into_values().filter(|judged| {
                owner.is_none() || judged.stored.session.user_id.as_ref() == owner
            });
            let (mut open, mut standing) = (Vec::new(), Vec::new());
            for Judged { mut stored, is_unwritten, .. } in own {
                let state = stored.session.state(end.at);
                if stored.session.revoked.is_some() && !is_unwritten {
                    done.earlier.push(*stored.id());
                    continue;
                }
                stored.session.revoked = stored.session.revoked.or(Some(end));
                open.push(stored);
                standing.push(state);
            }
            let written = self.calls.transact_groups(&self.end_groups(&open)?).await;
            let written = written.map_err(known)?;
            is_first = false;
            left.clear();
            for ((stored, state), is_written) in open.iter().zip(standing).zip(written) {
                match (is_written, state) {
                    (false, _) => left.push(*stored.id()),
                    (true, State::Active) => done.revoked.push(*stored.id()),
                    (true, State::Revoked(_)) => done.earlier.push(*stored.id()),
                    (true, State::Expired) => {}
                }
            }
            if !left.is_empty() {
                pauses.pause().await.map_err(uncertain)?;
            }
        }
        // One that can't be read can't be ended here; the others are.
        failed.map_or(Ok(done), Err)
    }

    async fn end_all(
        &self,
        user: &UserId,
        spared: Option<&SessionId>,
        end: Revocation,
    ) -> Result<RevokedSessions> {
        let Some((owner, job)) = self.raise(user, spared, end).await? else {
            // A deletion that has crashed may have left entries in caches.
            let earlier = self.left_by_deletion(user).await.map_err(uncertain)?;
            return Ok(RevokedSessions { earlier, ..RevokedSessions::default() });
        };
        let mut done = self.end_behind(&owner).await.map_err(uncertain)?;
        self.forget_job(&job).await.map_err(uncertain)?;
        let is_spared = |id: &SessionId| Some(id) == spared;
        done.revoked.retain(|id| !is_spared(id));
        done.earlier.retain(|id| !is_spared(id));
        Ok(done)
    }

    /// Raises the barrier of a user who is there, and gives the spared session the new stamp.
    async fn raise(
        &self,
        user: &UserId,
        spared: Option<&SessionId>,
        end: Revocation,
    ) -> Result<Option<(Owner, Job)>> {
        let mut pauses = self.calls.pauses();
        loop {
            let Some(old) = self.owner(user).await?.filter(|owner| owner.user.is_some()) else {
                return Ok(None);
            };
            let mut new = old.clone();
            new.raise(Some(end));
            let step = match spared {
                Some(spared) => self.spare(spared, &old, &new).await?,
                None => None,
            };
            let change = "SET #barrier = :new, #epoch = :next, #marks = :marks, #rev = #rev + :one";
            let change = match step {
                Some(_) => format!("{change}, #spared = :spared"),
                None => format!("{change} REMOVE #spared"),
            };
            // Not the `rev`: logins that come one after the other must not hold this up.
            let condition = "attribute_exists(#role) AND #barrier = :old AND #epoch = :epoch \
                             AND #life = :life";
            let mut terms = Terms::change(change, condition)
                .with(":life", number(old.life))
                .with(":new", number(new.barrier))
                .with(":next", number(new.epoch))
                .with(":marks", new.marks())
                .with(":one", number(1))
                .with(":old", number(old.barrier))
                .with(":epoch", number(old.epoch));
            if let (Some(spared), Some(_)) = (spared, &step) {
                terms = terms.with(":spared", text(spared.to_string()));
            }
            let job = Job::end(user, new.barrier);
            let mut steps =
                vec![self.calls.update(Key::user(user), &terms)?, self.calls.put(job.item())?];
            steps.extend(step);
            if self.calls.transact(&steps).await? == Outcome::Done {
                return Ok(Some((new, job)));
            }
            pauses.pause().await?;
        }
    }

    /// The step that keeps `id` before the new barrier; none if it is not the user's, or has ended.
    async fn spare(
        &self,
        id: &SessionId,
        old: &Owner,
        new: &Owner,
    ) -> Result<Option<TransactWriteItem>> {
        let stored = self.stored(id, Depth::Head).await?;
        let own = stored.filter(|stored| stored.session.user_id.as_ref() == Some(&old.id));
        let Some(stored) = own else { return Ok(None) };
        let Some(Judged { stored, .. }) = self.judge(old, stored, Depth::Head).await? else {
            return Ok(None);
        };
        if stored.session.revoked.is_some() {
            return Ok(None);
        }
        let change = "SET #stamp = :stamp, #credential_epoch = :epoch, #rev = #rev + :one";
        // Not the `rev`: touches that come one after the other must not hold this up.
        let condition = "#stamp = :old AND #life = :life AND attribute_not_exists(#revoked_at)";
        let terms = Terms::change(change, condition)
            .with(":stamp", number(new.barrier))
            .with(":epoch", number(new.epoch))
            .with(":one", number(1))
            .with(":old", number(stored.stamp))
            .with(":life", number(stored.life));
        self.calls.update(Key::session(id), &terms).map(Some)
    }

    /// Writes down what the latest barrier of `owner` means, and says which sessions it ended. Those of
    /// an earlier user of the same id are removed; a cache may still hold them.
    pub(super) async fn end_behind(&self, owner: &Owner) -> Result<RevokedSessions> {
        // The logins that came before the barrier, and were not seen when it was raised.
        let (barrier, life, deleted_below) = (owner.barrier, owner.life, owner.deleted_below);
        let now = self.owner(&owner.id).await?;
        let is_same = |now: &Owner| now.life == life && now.deleted_below == deleted_below;
        let Some(owner) = now.as_ref().filter(|now| is_same(now)) else {
            // A deletion that has come since removes the entries itself, and needs their names first.
            let Members { entries, unreadable, .. } =
                self.sessions(now.as_ref().unwrap_or(owner)).await?;
            let earlier = entries.iter().map(|entry| entry.id).chain(unreadable).collect();
            return Ok(RevokedSessions { earlier, ..RevokedSessions::default() });
        };
        let Members { entries, mut found, unreadable } = self.sessions(owner).await?;
        let (gone, here): (Vec<_>, Vec<_>) =
            entries.into_iter().partition(|entry| entry.stamp < owner.deleted_below);
        self.remove(&owner.id, &gone).await?;
        self.remove_entries(&owner.id, &gone).await?;
        let mut done = RevokedSessions::default();
        done.earlier.extend(gone.iter().map(|entry| entry.id));
        // What can't be read is ended all the same, and for caches to forget.
        done.earlier.extend(unreadable);
        let mut left: SessionIds = here.iter().map(|entry| entry.id).collect();
        let mut pauses = self.calls.pauses();
        while !left.is_empty() {
            let behind = left.iter().filter_map(|id| found.remove(id));
            let behind = behind.filter(|stored| stored.stamp < barrier);
            let mut open = Vec::new();
            for judged in behind.filter_map(|stored| owner.judge(stored)) {
                if judged.is_unwritten {
                    open.push(judged);
                } else {
                    count(&mut done, &judged, barrier);
                }
            }
            let stored: Vec<_> = open.iter().map(|judged| judged.stored.clone()).collect();
            let written = self.calls.transact_groups(&self.end_groups(&stored)?).await?;
            left.clear();
            for (judged, is_written) in open.iter().zip(written) {
                if is_written {
                    count(&mut done, judged, barrier);
                } else {
                    left.push(*judged.stored.id());
                }
            }
            if !left.is_empty() {
                pauses.pause().await?;
                found = self.stored_some(&left).await?.0;
            }
        }
        Ok(done)
    }

    /// The steps that write the revocation which `sessions` carry, each if it was not written since.
    pub(super) fn end_groups(&self, sessions: &[Stored]) -> Result<Vec<Group>> {
        sessions.iter().map(|stored| self.end_group(stored)).collect()
    }

    fn end_group(&self, old: &Stored) -> Result<Group> {
        let end = old.session.revoked.ok_or_else(corrupt)?;
        let new = old.filed_by(filed_at(&old.filed).unwrap_or(old.session.expires_at));
        let mut change = "SET #revoked_at = :at, #revoked_reason = :reason, #filed = :filed, \
                          #version = #version + :one, #rev = #rev + :one"
            .to_owned();
        if old.ended_by.is_some() {
            change.push_str(", #ended_by = :by");
        }
        let mut terms = Terms::change(change, "#rev = :rev")
            .with(":at", number(end.at.as_millis()))
            .with(":reason", text(end.reason.as_str()))
            .with(":filed", AttributeValue::S(new.filed.clone()))
            .with(":one", number(1))
            .with(":rev", number(old.rev));
        if let Some(by) = old.ended_by {
            terms = terms.with(":by", number(by));
        }
        let mut steps = vec![self.calls.update(old.key(), &terms)?];
        // One that somebody has brought back by hand is still filed as ended, and a transaction names
        // no item twice.
        if old.filed != new.filed {
            steps.push(self.calls.delete(old.place())?);
        }
        for item in new.place_items() {
            steps.push(self.calls.put(item)?);
        }
        Ok(Group { steps, bytes: old.size + PLACES_BYTES })
    }

    /// Sessions not revoked yet: active ones, and expired ones only when no other is left, so that a
    /// caller who goes on until nothing is revoked has reached all of them. And why one can't be read, if
    /// one can't.
    async fn some_of_everyone(
        &self,
        created_before: Timestamp,
        limit: u32,
        now: Timestamp,
    ) -> Result<(SessionIds, Option<Error>)> {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let (bounds, mut seen) = ((created_before, now, limit), Everyone::default());
        // Backwards, since those that live longest are the active ones; but a sweep moves what was
        // touched upwards, past this. So that none slips by, the other way before it is said that
        // there are none; and there also where nobody files what is active but by hand.
        let ways = [(Queue::Expiring, true), (Queue::Expiring, false), (Queue::Ended, false)];
        for (kind, is_backward) in ways {
            for shard in 0..SHARDS {
                let behind = kind.behind(Timestamp::MAX);
                let mut query = Query::between(queue(shard), kind.letter().to_owned(), behind);
                (query.limit, query.is_backward) = (Some(PAGE), is_backward);
                loop {
                    let page = self.calls.query(&query).await?;
                    self.sort_out_everyone(&page.items, bounds, &mut seen).await?;
                    if seen.active.len() >= limit {
                        return Ok((seen.active.into_iter().take(limit).collect(), None));
                    }
                    match page.next {
                        None => break,
                        next => query.start = next,
                    }
                }
            }
            if !seen.active.is_empty() {
                break;
            }
        }
        let Everyone { active, expired, mut unreadable } = seen;
        Ok((active.into_iter().chain(expired).take(limit).collect(), unreadable.pop()))
    }

    async fn sort_out_everyone(
        &self,
        places: &[Item],
        (created_before, now, limit): (Timestamp, Timestamp, usize),
        seen: &mut Everyone,
    ) -> Result<()> {
        // A place that can't be read names no session.
        let ids = places
            .iter()
            .filter_map(|item| Row::of(item).ok()?.text("id").ok().and_then(SessionId::parse));
        let (found, failed) = self.look_some(&ids.collect::<Vec<_>>()).await?;
        seen.unreadable.extend(failed);
        for (id, judged) in found {
            let session = &judged.stored.session;
            if session.created_at > created_before {
                continue;
            }
            match session.state(now) {
                State::Active => _ = seen.active.insert(id),
                State::Expired if seen.expired.len() < limit => _ = seen.expired.insert(id),
                State::Expired | State::Revoked(_) => {}
            }
        }
        Ok(())
    }
}

/// What a revocation of everybody has come upon.
#[derive(Debug, Default)]
struct Everyone {
    active: BTreeSet<SessionId>,
    expired: BTreeSet<SessionId>,
    unreadable: Vec<Error>,
}

/// Whoever wrote it down: a session that `barrier` ended was ended by the call that raised it.
fn count(done: &mut RevokedSessions, judged: &Judged, barrier: u64) {
    let (id, end) = (*judged.stored.id(), judged.stored.session.revoked);
    let was_active = end.is_some_and(|end| judged.before().state(end.at) == State::Active);
    match judged.stored.ended_by {
        Some(by) if by == barrier && was_active => done.revoked.push(id),
        Some(by) if by == barrier => {}
        _ => done.earlier.push(id),
    }
}
