//! Reading sessions together with the user who decides whether they still count.
//!
//! A session that is spared by a revoke-all gets its new stamp in the same transaction as the user the
//! new barrier. Read one after the other, or while the transaction is under way, the barrier may be seen
//! without the stamp. The user's item says which session that is: of this one both are read once more,
//! in one transaction, before a "no". Every other session of a lower stamp is ended for certain.

use std::collections::HashMap;

use session_store_core::{
    Cursor, Error, Found, Listing, Page, Result, Session, SessionId, Snapshot, State, Timestamp,
    UserId, Which,
};

use super::error::{NAME, corrupt};
use super::key::{ENTRIES, Key, parse_moment};
use super::owner::{Judged, Owner, SEEN, SEEN_WITH_EMAIL};
use super::query::Query;
use super::row::{Item, Row};
use super::single::Part;
use super::store::DynamoStore;
use super::stored::{Depth, Stored};

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
    /// The entry, and whether its stamp could be read; without one it is the least. The key says the
    /// rest, so that no damage of one entry keeps its user from logging out, or from being deleted.
    /// `None` where the key names no session.
    fn read(item: &Item) -> Option<(Self, bool)> {
        let at = item.get("sk")?.as_s().ok()?.strip_prefix(ENTRIES)?;
        let (created_at, id) = parse_moment(at)?;
        let id = SessionId::parse(id)?;
        let stamp = Row::of(item).and_then(|row| row.number("stamp"));
        Some((
            Self { id, created_at, stamp: stamp.as_ref().map_or(0, |stamp| *stamp) },
            stamp.is_ok(),
        ))
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

    /// One session; `None` when it or its user is gone. Nothing that is secret is read of the user.
    pub(super) async fn look(&self, id: &SessionId, depth: Depth) -> Result<Option<Seen>> {
        let Some(stored) = self.stored(id, depth).await? else { return Ok(None) };
        let Some(user) = &stored.session.user_id else {
            return Ok(Some(Seen { judged: Judged::guest(stored), owner: None }));
        };
        let user = user.clone();
        let item = self.calls.get_part(&Key::user(&user), self.seen_part()).await?;
        let Some(owner) = item.map(|item| Owner::read(&item)).transpose()? else { return Ok(None) };
        match owner.judge(stored) {
            Some(judged) if judged.is_doubtful => self.look_again(id, &user, depth).await,
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
        let keys = [Key::session(id), Key::user(user)];
        let [stored, owner] = self.calls.get_both(keys, Some(self.seen_part())).await?;
        let (Some(stored), Some(owner)) = (stored, owner) else { return Ok(None) };
        let owner = Owner::read(&owner)?;
        let judged = owner.judge(Stored::read(&stored, depth)?);
        Ok(judged.map(|judged| Seen { judged, owner: Some(owner) }))
    }

    fn seen_part(&self) -> Part {
        if self.config.project_email { SEEN_WITH_EMAIL } else { SEEN }
    }

    /// `stored` as its user's item says, both read again if need be; `None` when the user is gone.
    pub(super) async fn judge(
        &self,
        owner: &Owner,
        stored: Stored,
        depth: Depth,
    ) -> Result<Option<Judged>> {
        match owner.judge(stored) {
            Some(judged) if judged.is_doubtful => {
                let id = *judged.stored.id();
                Ok(self.look_again(&id, &owner.id, depth).await?.map(|seen| seen.judged))
            }
            judged => Ok(judged),
        }
    }

    /// The sessions that are there and whose users are. Only what decides about their end is read.
    pub(super) async fn look_all(&self, ids: &[SessionId]) -> Result<HashMap<SessionId, Judged>> {
        let (seen, mut unreadable) = self.look_some(ids).await?;
        match unreadable.pop() {
            None => Ok(seen),
            Some(error) => Err(error),
        }
    }

    /// The same of those that can be read, and why the others can't.
    pub(super) async fn look_some(
        &self,
        ids: &[SessionId],
    ) -> Result<(HashMap<SessionId, Judged>, Vec<Error>)> {
        let (found, unreadable) = self.stored_some(ids).await?;
        let mut unreadable: Vec<_> = unreadable.into_values().collect();
        let users = found.values().filter_map(|stored| stored.session.user_id.as_ref());
        let mut owners = HashMap::new();
        for item in self.calls.get_all(users.map(Key::user).collect()).await? {
            match Owner::read(&item) {
                Ok(owner) => _ = owners.insert(owner.id.clone(), owner),
                Err(error) => unreadable.push(error),
            }
        }
        let mut seen = HashMap::new();
        for (id, stored) in found {
            let judged = match &stored.session.user_id {
                None => Some(Judged::guest(stored)),
                Some(user) => match owners.get(user) {
                    None => None,
                    Some(owner) => self.judge(owner, stored, Depth::Head).await?,
                },
            };
            seen.extend(judged.map(|judged| (id, judged)));
        }
        Ok((seen, unreadable))
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
        let mut window = page.limit.get().saturating_add(1).min(MAX_PAGE);
        while items.len() <= limit {
            query.limit = Some(window);
            let found = self.calls.query(&query).await?;
            let ids: Vec<_> =
                found.items.iter().filter_map(Entry::read).map(|(entry, _)| entry.id).collect();
            let mut stored = self.stored_all(&ids).await?;
            for id in ids {
                let Some(stored) = stored.remove(&id) else { continue };
                let judged = self.judge(&owner, stored, Depth::Whole).await?;
                let session = judged.map(|judged| judged.stored.session);
                items.extend(session.filter(|session| match which {
                    Which::Live(now) => session.state(now) == State::Active,
                    Which::All => true,
                }));
            }
            match found.next {
                None => break,
                next => query.start = next,
            }
            // Those that do not count may be many.
            window = window.saturating_mul(4).min(MAX_PAGE);
        }
        let is_cut = items.len() > limit;
        items.truncate(limit);
        let next = items
            .last()
            .filter(|_| is_cut)
            .map(|last| Cursor { at: last.created_at, key: last.id.as_bytes().to_vec() });
        Ok(Listing { items, next })
    }

    /// The entries of a user that can be seen, oldest first.
    pub(super) async fn visible_entries(&self, user: &UserId) -> Result<Vec<Entry>> {
        let found = self.calls.query_all(entries(user, None)).await?;
        let read: Vec<_> = found.iter().filter_map(Entry::read).collect();
        let unstamped: Vec<_> =
            read.iter().filter(|(_, is_stamped)| !is_stamped).map(|(entry, _)| entry.id).collect();
        let mut entries: Vec<_> = read.into_iter().map(|(entry, _)| entry).collect();
        if !unstamped.is_empty() {
            // The sessions know.
            let (known, _) = self.stored_some(&unstamped).await?;
            for entry in entries.iter_mut().filter(|entry| unstamped.contains(&entry.id)) {
                let own = known.get(&entry.id);
                let own = own.filter(|stored| stored.session.user_id.as_ref() == Some(user));
                entry.stamp = own.map_or(0, |stored| stored.stamp);
            }
        }
        Ok(entries)
    }

    pub(super) async fn stored(&self, id: &SessionId, depth: Depth) -> Result<Option<Stored>> {
        let item = self.calls.get(&Key::session(id)).await?;
        item.map(|item| Stored::read(&item, depth)).transpose()
    }

    async fn stored_all(&self, ids: &[SessionId]) -> Result<HashMap<SessionId, Stored>> {
        let items = self.calls.get_all(ids.iter().map(Key::session).collect()).await?;
        let stored = items.iter().map(|item| Stored::read(item, Depth::Whole));
        stored.map(|stored| stored.map(|stored| (*stored.id(), stored))).collect()
    }

    /// The sessions that are there, and those that can't be read with the reason: one of them must not
    /// be in the way of all others. Only what decides about their end is read.
    pub(super) async fn stored_some(
        &self,
        ids: &[SessionId],
    ) -> Result<(HashMap<SessionId, Stored>, HashMap<SessionId, Error>)> {
        let items = self.calls.get_all(ids.iter().map(Key::session).collect()).await?;
        let by_key: HashMap<_, _> = ids.iter().map(|id| (Key::session(id).pk, *id)).collect();
        let (mut stored, mut unreadable) = (HashMap::new(), HashMap::new());
        for item in &items {
            let key = item.get("pk").and_then(|pk| pk.as_s().ok());
            let Some(id) = key.and_then(|key| by_key.get(key)) else { continue };
            match Stored::read(item, Depth::Head) {
                Ok(read) if read.id() == id => _ = stored.insert(*id, read),
                Ok(_) => _ = unreadable.insert(*id, corrupt()),
                Err(error) => _ = unreadable.insert(*id, error),
            }
        }
        Ok((stored, unreadable))
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
