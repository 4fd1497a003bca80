//! Reading sessions together with the user who decides whether they still count.
//!
//! A user is read before the sessions, or the sessions are read once more before a "no": one that is
//! spared by a revoke-all gets its new stamp in the same transaction as the user the new barrier. While
//! a transaction is under way DynamoDB may show the new state of one item and the old of another, so that
//! a lookup reads both in a transaction then.

use std::collections::HashMap;

use session_store_core::{
    Cursor, Error, Found, Listing, Page, Result, Session, SessionId, Snapshot, State, Timestamp,
    UserId, Which,
};

use super::error::NAME;
use super::key::{ENTRIES, Key};
use super::owner::{Judged, Owner};
use super::query::Query;
use super::row::{Depth, Item, Row, Stored};
use super::store::DynamoStore;

/// Behind every entry of a user.
const BEHIND_ENTRIES: &str = "s$";
/// The largest page that is asked for.
const MAX_PAGE: u32 = 1000;

/// A session as its readers see it, and its user.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) judged: Judged,
    pub(super) owner: Option<Owner>,
}

/// What a user's partition says about one session.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub(super) id: SessionId,
    pub(super) created_at: Timestamp,
    /// That of the session when it came to this user, or less.
    pub(super) stamp: u64,
}

impl Entry {
    fn read(item: &Item) -> Result<Self> {
        let row = Row::of(item)?;
        let id = SessionId::parse(row.text("id")?).ok_or_else(super::error::corrupt)?;
        let at = row.text("sk")?.strip_prefix(ENTRIES);
        let at = at.and_then(super::key::parse_moment).ok_or_else(super::error::corrupt)?;
        Ok(Self { id, created_at: at.0, stamp: row.number("stamp")? })
    }

    pub(super) fn key(&self, user: &UserId) -> Key {
        Key::entry(user, self.created_at, &self.id)
    }
}

impl DynamoStore {
    pub(super) async fn find(&self, id: &SessionId) -> Result<Found> {
        let seen = self.look(id, Depth::Whole).await?;
        let snapshot = seen.map(|seen| Snapshot {
            user: seen.owner.and_then(|owner| owner.projection(self.config.project_email)),
            session: seen.judged.stored.session,
        });
        Ok(Found { snapshot, server_time: None })
    }

    /// One session; `None` when it or its user is gone.
    pub(super) async fn look(&self, id: &SessionId, depth: Depth) -> Result<Option<Seen>> {
        let Some(stored) = self.stored(id, depth).await? else { return Ok(None) };
        let Some(user) = &stored.session.user_id else {
            let judged = Judged { stored, is_unwritten: false };
            return Ok(Some(Seen { judged, owner: None }));
        };
        let user = user.clone();
        let Some(owner) = self.owner(&user).await? else { return Ok(None) };
        match owner.judge(stored) {
            Some(judged) if judged.is_unwritten => self.look_again(id, &user, depth).await,
            judged => Ok(judged.map(|judged| Seen { judged, owner: Some(owner) })),
        }
    }

    /// The session and the user in one state.
    async fn look_again(
        &self,
        id: &SessionId,
        user: &UserId,
        depth: Depth,
    ) -> Result<Option<Seen>> {
        let [stored, owner] = self.calls.get_both([Key::session(id), Key::user(user)]).await?;
        let (Some(stored), Some(owner)) = (stored, owner) else { return Ok(None) };
        let owner = Owner::read(&owner)?;
        let judged = owner.judge(Stored::read(&stored, depth)?);
        Ok(judged.map(|judged| Seen { judged, owner: Some(owner) }))
    }

    /// The sessions that are there and whose users are. Only what decides about their end is read.
    pub(super) async fn look_all(&self, ids: &[SessionId]) -> Result<HashMap<SessionId, Judged>> {
        let mut found = self.stored_all(ids, Depth::Head).await?;
        let users = found.values().filter_map(|stored| stored.session.user_id.clone());
        let owners = self.owners(users.collect()).await?;
        let judge = |stored: Stored| match &stored.session.user_id {
            None => Some(Judged { stored, is_unwritten: false }),
            Some(user) => owners.get(user)?.judge(stored),
        };
        let doubtful: Vec<_> = found
            .values()
            .filter(|stored| judge((*stored).clone()).is_some_and(|judged| judged.is_unwritten))
            .map(|stored| *stored.id())
            .collect();
        if !doubtful.is_empty() {
            let again = self.stored_all(&doubtful, Depth::Head).await?;
            for id in &doubtful {
                found.remove(id);
            }
            found.extend(again);
        }
        Ok(found.into_iter().filter_map(|(id, stored)| Some((id, judge(stored)?))).collect())
    }

    /// Every session of a user whose item was read before.
    pub(super) async fn of(&self, owner: &Owner) -> Result<Vec<Judged>> {
        let entries = self.entries(&owner.id).await?;
        let ids: Vec<_> = entries.iter().map(|entry| entry.id).collect();
        let mut found = self.stored_all(&ids, Depth::Head).await?;
        Ok(ids.iter().filter_map(|id| owner.judge(found.remove(id)?)).collect())
    }

    pub(super) async fn list(
        &self,
        user: &UserId,
        which: Which,
        page: &Page,
    ) -> Result<Listing<Session>> {
        let mut items = Vec::new();
        let after = page.after.as_ref().map(|cursor| behind(user, cursor)).transpose()?;
        let Some(owner) = self.owner(user).await? else {
            return Ok(Listing { items, next: None });
        };
        let limit = usize::try_from(page.limit.get()).unwrap_or(usize::MAX);
        let mut query = entries(user, after);
        query.limit = Some(page.limit.get().saturating_add(1).min(MAX_PAGE));
        while items.len() <= limit {
            let found = self.calls.query(&query).await?;
            let ids = found.items.iter().map(|item| Entry::read(item).map(|entry| entry.id));
            let ids = ids.collect::<Result<Vec<_>>>()?;
            let mut stored = self.stored_all(&ids, Depth::Whole).await?;
            let sessions = ids.iter().filter_map(|id| owner.judge(stored.remove(id)?));
            let sessions = sessions.map(|judged| judged.stored.session);
            items.extend(sessions.filter(|session| match which {
                Which::Live(now) => session.state(now) == State::Active,
                Which::All => true,
            }));
            match found.next {
                None => break,
                next => query.start = next,
            }
        }
        let is_cut = items.len() > limit;
        items.truncate(limit);
        let next = items
            .last()
            .filter(|_| is_cut)
            .map(|last| Cursor { at: last.created_at, key: last.id.as_bytes().to_vec() });
        Ok(Listing { items, next })
    }

    /// The entries of a user, oldest first.
    pub(super) async fn entries(&self, user: &UserId) -> Result<Vec<Entry>> {
        let items = self.calls.query_all(entries(user, None)).await?;
        items.iter().map(Entry::read).collect()
    }

    pub(super) async fn stored(&self, id: &SessionId, depth: Depth) -> Result<Option<Stored>> {
        let item = self.calls.get(&Key::session(id)).await?;
        item.map(|item| Stored::read(&item, depth)).transpose()
    }

    pub(super) async fn stored_all(
        &self,
        ids: &[SessionId],
        depth: Depth,
    ) -> Result<HashMap<SessionId, Stored>> {
        let items = self.calls.get_all(ids.iter().map(Key::session).collect()).await?;
        let stored = items.iter().map(|item| Stored::read(item, depth));
        stored.map(|stored| stored.map(|stored| (*stored.id(), stored))).collect()
    }

    /// The item of a user who is there, or was.
    pub(super) async fn owner(&self, id: &UserId) -> Result<Option<Owner>> {
        let item = self.calls.get(&Key::user(id)).await?;
        item.map(|item| Owner::read(&item)).transpose()
    }

    pub(super) async fn owners(&self, ids: Vec<UserId>) -> Result<HashMap<UserId, Owner>> {
        let items = self.calls.get_all(ids.iter().map(Key::user).collect()).await?;
        let owners = items.iter().map(Owner::read);
        owners.map(|owner| owner.map(|owner| (owner.id.clone(), owner))).collect()
    }
}

fn entries(user: &UserId, from: Option<String>) -> Query {
    let from = from.unwrap_or_else(|| ENTRIES.to_owned());
    Query::between(Key::user(user).pk, from, BEHIND_ENTRIES.to_owned())
}

/// The least sort key behind the entry that `cursor` names.
fn behind(user: &UserId, cursor: &Cursor) -> Result<String> {
    let key = <[u8; 16]>::try_from(cursor.key.as_slice());
    let id = key.map(SessionId::from_bytes).map_err(|_| Error::invalid(NAME, "cursor"))?;
    Ok(format!("{}!", Key::entry(user, cursor.at, &id).sk))
}
