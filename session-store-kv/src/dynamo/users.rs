//! Users: one item each, one that claims the address, one in the list of all.

use session_store_core::{
    Account, Cursor, Deleted, Email, Error, ErrorKind, Listing, Page, Result, SessionIds,
    Timestamp, User, UserChange, UserId, UserUpdate,
};

use super::call::Outcome;
use super::error::{NAME, error};
use super::job::Job;
use super::key::{Key, USERS};
use super::owner::Owner;
use super::query::Query;
use super::row::{Item, Row, item, number, text};
use super::step::{NEW, Terms};
use super::store::DynamoStore;

/// The largest page that is asked for: what one batch reads.
const MAX_PAGE: u32 = 100;

impl DynamoStore {
    pub(super) async fn insert_user(&self, user: &User, now: Timestamp) -> Result<()> {
        let mut pauses = self.calls.pauses();
        loop {
            let old = self.owner(&user.id).await?;
            if old.as_ref().is_some_and(|old| old.user.is_some()) {
                return Err(error(ErrorKind::Conflict));
            }
            if old.as_ref().and_then(|old| old.deleted_until).is_some_and(|until| now < until) {
                return Err(error(ErrorKind::UnknownUser));
            }
            let terms = old.as_ref().map_or(Terms::when(NEW), Owner::unchanged);
            let new = match old {
                None => Owner::new(user, now),
                Some(old) => {
                    Owner { user: Some(user.clone()), deleted_until: None, rev: old.rev + 1, ..old }
                }
            };
            let mut steps = vec![
                self.calls.put_if(new.checked_item()?, &terms)?,
                self.calls.put(registered_item(user))?,
            ];
            if let Some(email) = &user.email {
                steps.push(self.calls.put_if(email_item(email, &user.id), &Terms::when(NEW))?);
            }
            match self.calls.transact(&steps).await? {
                Outcome::Done => return Ok(()),
                Outcome::Refused(which) if !which[0] => return Err(error(ErrorKind::Conflict)),
                Outcome::Refused(_) => pauses.pause().await?,
            }
        }
    }

    pub(super) async fn find_user(&self, id: &UserId) -> Result<Option<Account>> {
        Ok(self.owner(id).await?.and_then(|owner| owner.account()))
    }

    pub(super) async fn find_user_by_email(&self, normalized: &str) -> Result<Option<Account>> {
        let key = Key::email(normalized);
        // No address is as long as a key may be, and none is empty.
        if normalized.is_empty() || key.pk.len() > MAX_KEY_BYTES {
            return Ok(None);
        }
        let Some(item) = self.calls.get(&key).await? else { return Ok(None) };
        let id = UserId::new(Row::of(&item)?.text("user")?).map_err(|_| super::error::corrupt())?;
        let account = self.find_user(&id).await?;
        // The address may have changed hands between the two reads.
        Ok(account.filter(|found| {
            found.user.email.as_ref().is_some_and(|email| email.normalized() == normalized)
        }))
    }

    pub(super) async fn update_user(
        &self,
        id: &UserId,
        version: u64,
        change: &UserChange,
    ) -> Result<UserUpdate> {
        let mut pauses = self.calls.pauses();
        loop {
            let Some(mut owner) = self.owner(id).await? else { return Ok(UserUpdate::Missing) };
            let Some(old) = owner.user.take() else { return Ok(UserUpdate::Missing) };
            if old.version != version {
                return Ok(UserUpdate::Conflict { current: old.version });
            }
            let new = change.apply(&old);
            let terms = owner.unchanged();
            owner.rev += 1;
            owner.epoch += u64::from(change.changes_credentials());
            owner.user = Some(new.clone());
            let mut steps = vec![self.calls.put_if(owner.checked_item()?, &terms)?];
            let claim = normalized(&new) != normalized(&old);
            if let Some(email) = new.email.as_ref().filter(|_| claim) {
                steps.push(self.calls.put_if(email_item(email, id), &Terms::when(NEW))?);
            }
            if let Some(email) = old.email.as_ref().filter(|_| claim) {
                steps.push(self.calls.delete_if(Key::email(email.normalized()), &owned(id))?);
            }
            match self.calls.transact(&steps).await? {
                Outcome::Done => {
                    let entries = self.entries(id).await.map_err(super::error::uncertain)?;
                    let sessions: SessionIds = entries.iter().map(|entry| entry.id).collect();
                    return Ok(UserUpdate::Updated { user: Box::new(new), sessions });
                }
                Outcome::Refused(which) if !which[0] && which.get(1) == Some(&true) => {
                    return Err(error(ErrorKind::Conflict));
                }
                Outcome::Refused(_) => pauses.pause().await?,
            }
        }
    }

    pub(super) async fn delete_user(
        &self,
        id: &UserId,
        until: Timestamp,
    ) -> Result<Option<Deleted>> {
        let mut pauses = self.calls.pauses();
        loop {
            let Some(mut owner) = self.owner(id).await? else { return Ok(None) };
            let Some(user) = owner.user.take() else { return self.resume_deletion(id).await };
            // Not the `rev`: logins that come one after the other must not hold this up.
            let terms = Terms::when("#version = :version AND #barrier = :barrier")
                .with(":version", number(user.version))
                .with(":barrier", number(owner.barrier));
            owner.raise(None);
            owner.rev += 1;
            owner.marks.clear();
            owner.deleted_below = owner.barrier;
            owner.deleted_until = owner.deleted_until.max(Some(until));
            let job = Job::remove(id, owner.barrier, until);
            let mut steps = vec![
                self.calls.put_if(owner.item(), &terms)?,
                self.calls.delete(Key::registered(user.created_at, id))?,
                self.calls.put(job.item())?,
            ];
            if let Some(email) = &user.email {
                steps.push(self.calls.delete_if(Key::email(email.normalized()), &owned(id))?);
            }
            if self.calls.transact(&steps).await? == Outcome::Done {
                return self.finish_removal(&job).await;
            }
            pauses.pause().await?;
        }
    }

    pub(super) async fn list_users(&self, page: &Page) -> Result<Listing<User>> {
        let limit = usize::try_from(page.limit.get()).unwrap_or(usize::MAX);
        let mut query = Query::all(USERS);
        if let Some(cursor) = &page.after {
            let id = std::str::from_utf8(&cursor.key).ok().and_then(|id| UserId::new(id).ok());
            let id = id.ok_or_else(|| Error::invalid(NAME, "cursor"))?;
            // The least sort key behind this one: no id holds a NUL.
            query.from = Some(format!("{}\0", Key::registered(cursor.at, &id).sk));
        }
        query.limit = Some(page.limit.get().saturating_add(1).min(MAX_PAGE));
        let mut items = Vec::new();
        while items.len() <= limit {
            let found = self.calls.query(&query).await?;
            let ids = found.items.iter().map(|item| {
                UserId::new(Row::of(item)?.text("user")?).map_err(|_| super::error::corrupt())
            });
            let ids = ids.collect::<Result<Vec<_>>>()?;
            let mut owners = self.owners(ids.clone()).await?;
            items.extend(ids.iter().filter_map(|id| owners.remove(id)?.user));
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
            .map(|last| Cursor { at: last.created_at, key: last.id.as_str().as_bytes().to_vec() });
        Ok(Listing { items, next })
    }

    pub(super) async fn count_users(&self) -> Result<u64> {
        let mut query = Query::all(USERS);
        query.select = Some(aws_sdk_dynamodb::types::Select::Count);
        let mut count = 0;
        loop {
            let page = self.calls.query(&query).await?;
            count += page.count;
            match page.next {
                None => return Ok(count),
                next => query.start = next,
            }
        }
    }
}

/// The longest partition key.
const MAX_KEY_BYTES: usize = 2048;

fn normalized(user: &User) -> Option<&str> {
    user.email.as_ref().map(Email::normalized)
}

fn registered_item(user: &User) -> Item {
    let mut item = item(Key::registered(user.created_at, &user.id), "registered");
    item.insert("user".to_owned(), text(user.id.as_str()));
    item
}

fn email_item(email: &Email, user: &UserId) -> Item {
    let mut item = item(Key::email(email.normalized()), "email");
    item.insert("user".to_owned(), text(user.as_str()));
    item
}

/// The address is claimed by this user, or by nobody any more.
fn owned(user: &UserId) -> Terms {
    Terms::when("attribute_not_exists(#pk) OR #user = :user").with(":user", text(user.as_str()))
}
