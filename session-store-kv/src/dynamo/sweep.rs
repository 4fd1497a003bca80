//! Removing dead sessions, oldest first.
//!
//! A place says no more than that its session is not dead earlier. Touches leave it where it is; a sweep
//! that comes upon the place of a session that was touched moves it to the deadline of today.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::Ordering;

use aws_sdk_dynamodb::types::AttributeValue;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use session_store_core::{Result, SessionId, SweepBounds, Swept, Timestamp, UserId};

use super::ending::PLACES_BYTES;
use super::error::{NAME, corrupt, uncertain};
use super::key::{Key, Queue, SHARDS, queue};
use super::query::Query;
use super::row::{Item, Row, text};
use super::step::{Group, Terms};
use super::store::DynamoStore;
use super::stored::Stored;

/// How many places are looked at together.
const WINDOW: std::ops::RangeInclusive<usize> = 25..=1000;

/// Where a user's partition names a session.
#[derive(Clone, Debug)]
struct Named {
    user: UserId,
    key: Key,
}

/// A place in a queue.
#[derive(Clone, Debug)]
struct Place {
    key: Key,
    id: SessionId,
    entry: Option<Named>,
}

impl Place {
    fn read(item: &Item) -> Result<Self> {
        let row = Row::of(item)?;
        let id = SessionId::parse(row.text("id")?).ok_or_else(corrupt)?;
        let entry = match row.maybe_text("user")? {
            None => None,
            Some(user) => {
                let user = UserId::new(user).map_err(|_| corrupt())?;
                let key = Key::entry(&user, row.time("created_at")?, &id);
                Some(Named { user, key })
            }
        };
        let key = Key { pk: row.text("pk")?.to_owned(), sk: row.text("sk")?.to_owned() };
        Ok(Self { key, id, entry })
    }
}

/// A place as it was found; `None` where it can't be read.
#[derive(Debug)]
struct Found {
    key: Key,
    place: Option<Place>,
}

impl Found {
    fn read(item: &Item) -> Option<Self> {
        Some(Self { key: Key::of(item)?, place: Place::read(item).ok() })
    }

    /// Its sort key without the letter of the queue.
    fn moment(&self) -> &str {
        self.key.sk.get(2..).unwrap_or_default()
    }
}

/// What a window of places came to.
#[derive(Debug, Default)]
struct Sorted {
    dead: Vec<(Timestamp, Stored)>,
    /// Places to move or to take away.
    tidy: Vec<Group>,
    /// Places of sessions that are gone.
    stale: Vec<Key>,
    /// And their entries.
    named: Vec<Named>,
    /// What can't be read.
    unreadable: Vec<Key>,
}

impl DynamoStore {
    pub(super) async fn sweep(&self, bounds: &SweepBounds, limit: u32) -> Result<Swept> {
        // What fails in the middle has removed something before.
        self.sweep_through(bounds, limit).await.map_err(uncertain)
    }

    async fn sweep_through(&self, bounds: &SweepBounds, limit: u32) -> Result<Swept> {
        // One that can't be finished must not keep the dead from being removed.
        let jobs = self.finish_jobs(bounds.expired_before).await;
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let mut removed = 0;
        let mut unreadable = Vec::new();
        let mut from = String::new();
        loop {
            let room = limit - removed;
            let window = room.saturating_add(1).clamp(*WINDOW.start(), *WINDOW.end());
            let places = self.due(bounds, &from, window).await?;
            let is_last = places.len() < window;
            if let Some(last) = places.last() {
                from = format!("{}!", last.moment());
            }
            let mut sorted = self.sort_out(places, bounds).await?;
            unreadable.append(&mut sorted.unreadable);
            sorted.stale.extend(self.forgettable(sorted.named).await?);
            self.calls.delete_all(sorted.stale).await?;
            self.calls.transact_groups(&sorted.tidy).await?;
            let more = sorted.dead.len() > room;
            sorted.dead.sort_by_key(|(died, stored)| (*died, *stored.id()));
            sorted.dead.truncate(room);
            let groups = sorted.dead.iter().map(|(_, stored)| self.removal(stored));
            let groups = groups.collect::<Result<Vec<_>>>()?;
            let done = self.calls.transact_groups(&groups).await?;
            removed += done.into_iter().filter(|done| *done).count();
            if more || is_last {
                self.report(&unreadable);
                if !more {
                    jobs?;
                }
                return Ok(Swept { removed: removed as u64, more });
            }
        }
    }

    /// The oldest places within `bounds` from the moment `from` on, at most `window` of them.
    async fn due(&self, bounds: &SweepBounds, from: &str, window: usize) -> Result<Vec<Found>> {
        let queues = [
            (Queue::Expiring, bounds.expired_before),
            (Queue::Ended, bounds.expired_before),
            (Queue::Revoked, bounds.revoked_before),
        ];
        let mut queries = Vec::new();
        for (kind, bound) in queues {
            let (from, to) = (format!("{}{from}", kind.letter()), kind.behind(bound));
            // DynamoDB refuses bounds in the wrong order.
            if from > to {
                continue;
            }
            for shard in 0..SHARDS {
                let mut query = Query::between(queue(shard), from.clone(), to.clone());
                query.limit = u32::try_from(window).ok();
                queries.push(query);
            }
        }
        let pages = queries.iter().map(|query| self.calls.query(query)).collect::<Vec<_>>();
        let pages: Vec<_> = stream::iter(pages)
            .buffer_unordered(self.calls.parallel())
            .try_collect::<Vec<_>>()
            .await?;
        let items = pages.iter().flat_map(|page| &page.items);
        let mut places: Vec<_> = items.filter_map(Found::read).collect();
        places.sort_by(|one, other| one.moment().cmp(other.moment()));
        places.truncate(window);
        Ok(places)
    }

    /// Says what was passed by.
    fn report(&self, unreadable: &[Key]) {
        self.unreadable.store(unreadable.len() as u64, Ordering::Relaxed);
        if let Some(first) = unreadable.first() {
            let (count, pk, sk) = (unreadable.len(), &first.pk, &first.sk);
            tracing::error!(store = NAME, count, pk, sk, "sweep passed by what it can't read");
        }
    }

    async fn sort_out(&self, found: Vec<Found>, bounds: &SweepBounds) -> Result<Sorted> {
        let mut sorted = Sorted::default();
        let mut places = Vec::new();
        for Found { key, place } in found {
            match place {
                Some(place) => places.push(place),
                None => sorted.unreadable.push(key),
            }
        }
        let ids: Vec<_> = places.iter().map(|place| place.id).collect();
        let (stored, unreadable) = self.stored_some(&ids).await?;
        sorted.unreadable.extend(unreadable.keys().map(Key::session));
        let mut dead: HashMap<SessionId, Timestamp> = HashMap::new();
        let mut seen = HashSet::new();
        for place in places {
            let Some(stored) = stored.get(&place.id) else {
                if !unreadable.contains_key(&place.id) {
                    sorted.stale.push(place.key);
                    sorted.named.extend(place.entry);
                }
                continue;
            };
            if let Some(died) = died(stored, bounds) {
                dead.insert(place.id, died);
            } else if place.key.sk.starts_with(Queue::Revoked.letter()) {
                sorted.stale.push(place.key);
            } else if !seen.insert(place.id) {
                // A transaction names no item twice; the next sweep finds the rest.
            } else if stored.filed == place.key.sk {
                sorted.tidy.push(self.moved(stored)?);
            } else {
                sorted.tidy.push(self.left_behind(&place)?);
            }
        }
        // A session may have been found by two of its places, and is dead once.
        let dead = dead.into_iter().filter_map(|(id, died)| Some((died, stored.get(&id)?.clone())));
        sorted.dead.extend(dead);
        Ok(sorted)
    }

    /// The entries of sessions that are gone, but for those of a deletion that has yet to name them.
    async fn forgettable(&self, named: Vec<Named>) -> Result<Vec<Key>> {
        let jobs = named.iter().map(|named| Key::job(&named.user)).collect();
        let mut busy = HashSet::new();
        for item in self.calls.get_all(jobs).await? {
            // A revoke-all needs none, and would leave them for ever.
            if item.get("work") != Some(&text("end"))
                && let Some(AttributeValue::S(user)) = item.get("sk")
            {
                busy.insert(user.clone());
            }
        }
        let free = named.into_iter().filter(|named| !busy.contains(named.user.as_str()));
        Ok(free.map(|named| named.key).collect())
    }

    fn removal(&self, stored: &Stored) -> Result<Group> {
        let mut steps = vec![self.calls.delete_if(stored.key(), &Terms::unchanged(stored.rev))?];
        for key in stored.places().into_iter().chain(stored.entry()) {
            steps.push(self.calls.delete(key)?);
        }
        Ok(Group { steps, bytes: stored.size + PLACES_BYTES })
    }

    fn moved(&self, old: &Stored) -> Result<Group> {
        let new = old.filed_by(old.session.expires_at);
        let terms = Terms::change("SET #filed = :filed, #rev = #rev + :one", "#rev = :rev")
            .with(":filed", text(&new.filed))
            .with(":one", super::row::number(1))
            .with(":rev", super::row::number(old.rev));
        let steps = vec![
            self.calls.update(old.key(), &terms)?,
            self.calls.delete(old.place())?,
            self.calls.put(new.place_item(new.place()))?,
        ];
        Ok(Group { steps, bytes: old.size + PLACES_BYTES })
    }

    /// Takes away a place that its session has left, unless it has come back to it.
    fn left_behind(&self, place: &Place) -> Result<Group> {
        let terms = Terms::when("attribute_not_exists(#pk) OR #filed <> :filed")
            .with(":filed", text(&place.key.sk));
        let steps = vec![
            self.calls.check(Key::session(&place.id), &terms)?,
            self.calls.delete(place.key.clone())?,
        ];
        Ok(Group { steps, bytes: PLACES_BYTES })
    }
}

/// When the session died by `bounds`; `None` while it must stay.
fn died(stored: &Stored, bounds: &SweepBounds) -> Option<Timestamp> {
    let expired = Some(stored.session.expires_at).filter(|at| *at <= bounds.expired_before);
    let revoked = stored.session.revoked.map(|end| end.at);
    let revoked = revoked.filter(|at| *at <= bounds.revoked_before);
    expired.into_iter().chain(revoked).min()
}
