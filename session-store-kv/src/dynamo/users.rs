//! Users: one item each, one that claims the address, one in the list of all.

use std::fmt::Write;

use aws_sdk_dynamodb::types::{AttributeValue, TransactWriteItem};
use session_store_core::{
    Account, Cursor, Deleted, Email, Error, ErrorKind, Listing, Page, PasswordHash, Result,
    SessionIds, Timestamp, User, UserChange, UserId, UserUpdate,
};

use super::call::Outcome;
use super::error::{NAME, corrupt, error, uncertain};
use super::job::Job;
use super::key::{Key, USERS, parse_moment};
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
        let mut left = None;
        loop {
            let old = self.owner(&user.id).await?;
            if old.as_ref().is_some_and(|old| old.user.is_some()) {
                return Err(error(ErrorKind::Conflict));
            }
            if old.as_ref().and_then(|old| old.deleted_until).is_some_and(|until| now < until) {
                return Err(error(ErrorKind::UnknownUser));
            }
            let terms = old.as_ref().map_or(Terms::when(NEW), Owner::unchanged);
            let is_first = old.is_none();
            let new = match old {
                None => self.newcomer(user, now).await?,
                Some(old) => {
                    Owner { user: Some(user.clone()), deleted_until: None, rev: old.rev + 1, ..old }
                }
            };
            let mut steps = vec![
                self.calls.put_if(new.checked_item()?, &terms)?,
                self.calls.put(registered_item(user))?,
            ];
            if is_first {
                // Begun for somebody whose item was taken away by hand since.
                steps.push(self.calls.delete(Key::job(&user.id))?);
            }
            if let Some(email) = &user.email {
                steps.extend(self.claim(email, &user.id, left.take())?);
            }
            match (self.calls.transact(&steps).await?, &user.email) {
                (Outcome::Done, _) => return Ok(()),
                (Outcome::Refused(which), Some(email)) if !which[0] => {
                    left = self.claim_in_the_way(email, &user.id).await?;
                }
                (Outcome::Refused(_), _) => {}
            }
            pauses.pause().await?;
        }
    }

    /// The first item of a user. If something is left of one whose item somebody has taken away by
    /// hand, nothing that is may count for this one.
    async fn newcomer(&self, user: &User, now: Timestamp) -> Result<Owner> {
        let life = getrandom::u64();
        let life = life.map_err(|cause| error(ErrorKind::Unavailable).caused_by(cause))?;
        let mut rest = Query::all(Key::user(&user.id).pk);
        rest.limit = Some(1);
        let is_entry_left = !self.calls.query(&rest).await?.items.is_empty();
        let is_claim_left = match &user.email {
            None => false,
            Some(email) => self.claimant(email.normalized()).await?.as_ref() == Some(&user.id),
        };
        let is_again = is_entry_left || is_claim_left;
        let make = if is_again { Owner::again } else { Owner::new };
        Ok(make(user, now, life))
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
        let mut pauses = self.calls.pauses();
        while let Some(id) = self.claimant(normalized).await? {
            let account = self.find_user(&id).await?;
            if account.as_ref().is_some_and(|account| has(&account.user, normalized)) {
                return Ok(account);
            }
            // The address may be changing hands, and somebody has it all the time.
            let keys = [key.clone(), Key::user(&id)];
            let [claim, owner] = self.calls.get_both(keys, None).await?;
            let Some(claim) = claim else { return Ok(None) };
            if claimed_by(&claim)? == id {
                let owner = owner.map(|item| Owner::read(&item)).transpose()?;
                let account = owner.and_then(|owner| owner.account());
                return Ok(account.filter(|found| has(&found.user, normalized)));
            }
            pauses.pause().await?;
        }
        Ok(None)
    }

    /// Who has claimed this address.
    async fn claimant(&self, normalized: &str) -> Result<Option<UserId>> {
        let item = self.calls.get(&Key::email(normalized)).await?;
        item.map(|item| claimed_by(&item)).transpose()
    }

    /// The steps that claim an address for `id`, from nobody or from a user who is gone.
    fn claim(
        &self,
        email: &Email,
        id: &UserId,
        left: Option<(UserId, Terms)>,
    ) -> Result<Vec<TransactWriteItem>> {
        let item = email_item(email, id);
        let Some((owner, unchanged)) = left else {
            return Ok(vec![self.calls.put_if(item, &owned(id))?]);
        };
        let by = Terms::when("#user = :user").with(":user", text(owner.as_str()));
        Ok(vec![self.calls.put_if(item, &by)?, self.calls.check(Key::user(&owner), &unchanged)?])
    }

    /// Somebody who has claimed the address and does not have it, since somebody with a console was
    /// there, and the terms under which that is still so; `Conflict` if the address is taken.
    async fn claim_in_the_way(
        &self,
        email: &Email,
        id: &UserId,
    ) -> Result<Option<(UserId, Terms)>> {
        let Some(owner_id) = self.claimant(email.normalized()).await? else { return Ok(None) };
        if owner_id == *id {
            return Ok(None);
        }
        let owner = self.owner(&owner_id).await?;
        let user = owner.as_ref().and_then(|owner| owner.user.as_ref());
        if user.is_some_and(|user| has(user, email.normalized())) {
            return Err(error(ErrorKind::Conflict));
        }
        let terms = owner.as_ref().map_or(Terms::when(NEW), Owner::unchanged);
        Ok(Some((owner_id, terms)))
    }

    pub(super) async fn update_user(
        &self,
        id: &UserId,
        version: u64,
        change: &UserChange,
    ) -> Result<UserUpdate> {
        let mut pauses = self.calls.pauses();
        let (mut left, mut has_claim) = (None, true);
        loop {
            let Some(mut owner) = self.owner(id).await? else { return Ok(UserUpdate::Missing) };
            let Some(old) = owner.user.take() else { return Ok(UserUpdate::Missing) };
            if old.version != version {
                return Ok(UserUpdate::Conflict { current: old.version });
            }
            let new = change.apply(&old);
            let before = owner.epoch;
            owner.epoch += u64::from(change.changes_credentials());
            owner.user = Some(new.clone());
            owner.checked_item()?;
            let terms = changing(&owner, &new, (before, old.version));
            let mut steps = vec![self.calls.update(Key::user(id), &terms)?];
            let is_other = normalized(&new) != normalized(&old);
            let claimed = new.email.as_ref().filter(|_| is_other);
            if let Some(email) = claimed {
                steps.extend(self.claim(email, id, left.take())?);
            }
            let given_up = old.email.as_ref().filter(|_| is_other && has_claim);
            if let Some(email) = given_up {
                steps.push(self.calls.delete_if(Key::email(email.normalized()), &owned(id))?);
            }
            match (self.calls.transact(&steps).await?, claimed) {
                // Somebody else has the old address by now; a console was at work.
                (Outcome::Refused(which), _) if given_up.is_some() && which.ends_with(&[true]) => {
                    has_claim = which[0];
                }
                (Outcome::Done, _) => {
                    // Read again: logins that came in between are noted only there.
                    let now = self.owner(id).await.map_err(uncertain)?.unwrap_or(owner);
                    let entries = self.entries(&now).await.map_err(uncertain)?;
                    let sessions: SessionIds = entries.iter().map(|entry| entry.id).collect();
                    return Ok(UserUpdate::Updated { user: Box::new(new), sessions });
                }
                (Outcome::Refused(which), Some(email)) if !which[0] => {
                    left = self.claim_in_the_way(email, id).await?;
                }
                (Outcome::Refused(_), _) => {}
            }
            pauses.pause().await?;
        }
    }

    pub(super) async fn delete_user(
        &self,
        id: &UserId,
        until: Timestamp,
    ) -> Result<Option<Deleted>> {
        let mut pauses = self.calls.pauses();
        let mut has_claim = true;
        loop {
            let Some(mut owner) = self.owner(id).await? else { return Ok(None) };
            let Some(user) = owner.user.take() else { return self.resume_deletion(id).await };
            let terms = taking_away(&mut owner, &user, until);
            let job = Job::remove(id, owner.barrier, until);
            let mut steps = vec![
                self.calls.update(Key::user(id), &terms)?,
                self.calls.delete(Key::registered(user.created_at, id))?,
                self.calls.put(job.item())?,
            ];
            let given_up = user.email.as_ref().filter(|_| has_claim);
            if let Some(email) = given_up {
                steps.push(self.calls.delete_if(Key::email(email.normalized()), &owned(id))?);
            }
            match self.calls.transact(&steps).await? {
                Outcome::Done => return self.finish_removal(&job).await,
                // Somebody else has the address by now; a console was at work.
                Outcome::Refused(which) if given_up.is_some() && which.ends_with(&[true]) => {
                    has_claim = which[0];
                }
                Outcome::Refused(_) => {}
            }
            pauses.pause().await?;
        }
    }

    pub(super) async fn settle_deletion(
        &self,
        id: &UserId,
        (held_until, until): (Timestamp, Timestamp),
    ) -> Result<()> {
        let change = "SET #deleted_until = :until, #rev = #rev + :one";
        let terms = Terms::change(change, "#deleted_until = :held")
            .with(":held", number(held_until.as_millis()))
            .with(":until", number(until.as_millis()))
            .with(":one", number(1));
        let step = self.calls.update(Key::user(id), &terms)?;
        // Refused: it is the quarantine of another deletion.
        self.calls.transact(&[step]).await.map(drop)
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
            let listed = found.items.iter().map(registered).collect::<Result<Vec<_>>>()?;
            let ids = listed.iter().map(|(_, id)| id.clone()).collect();
            let mut owners = self.owners(ids).await?;
            // Somebody taken away by hand who registered again is listed where they are now.
            items.extend(listed.into_iter().filter_map(|(at, id)| {
                let is_there = owners.get(&id)?.user.as_ref()?.created_at == at;
                is_there.then(|| owners.remove(&id)?.user)?
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

fn registered(item: &Item) -> Result<(Timestamp, UserId)> {
    let row = Row::of(item)?;
    let id = UserId::new(row.text("user")?).map_err(|_| corrupt())?;
    let (at, _) = parse_moment(row.text("sk")?).ok_or_else(corrupt)?;
    Ok((at, id))
}

fn claimed_by(item: &Item) -> Result<UserId> {
    UserId::new(Row::of(item)?.text("user")?).map_err(|_| corrupt())
}

fn has(user: &User, address: &str) -> bool {
    normalized(user) == Some(address)
}

/// Writes `new` and the epoch of `owner` over the user whom somebody has read.
fn changing(owner: &Owner, new: &User, (epoch, version): (u64, u64)) -> Terms {
    let mut set = "SET #epoch = :epoch, #version = :version, #is_verified = :is_verified, \
                   #role = :role, #claims = :claims, #rev = #rev + :one"
        .to_owned();
    let mut remove = String::new();
    let mut values = Vec::new();
    let hash = new.password_hash.as_ref().map(PasswordHash::expose);
    let email = new.email.as_ref().map(Email::as_str);
    for (name, value) in [("email", email), ("password_hash", hash)] {
        match value {
            None if remove.is_empty() => remove = format!(" REMOVE #{name}"),
            None => _ = write!(remove, ", #{name}"),
            Some(value) => {
                _ = write!(set, ", #{name} = :{name}");
                values.push((format!(":{name}"), text(value)));
            }
        }
    }
    // Not the `rev`: logins that come one after the other must not hold this up.
    let condition = "attribute_exists(#role) AND #version = :old AND #epoch = :before \
                     AND #life = :life";
    let terms = Terms::change(set + &remove, condition)
        .with(":epoch", number(owner.epoch))
        .with(":version", number(new.version))
        .with(":is_verified", AttributeValue::Bool(new.is_verified))
        .with(":role", text(new.role.as_str()))
        .with(":claims", text(new.claims.as_str()))
        .with(":one", number(1))
        .with(":old", number(version))
        .with(":before", number(epoch))
        .with(":life", number(owner.life));
    values.into_iter().fold(terms, |terms, (name, value)| terms.with(&name, value))
}

/// Deletes `user` from `owner`: the change of the item. The rest stays, so that no epoch restarts, and
/// with it the logins that are noted, seen here or not.
fn taking_away(owner: &mut Owner, user: &User, until: Timestamp) -> Terms {
    let change = "SET #epoch = :epoch, #barrier = :new, #deleted_below = :new, #marks = :marks, \
                  #deleted_until = :until, #rev = #rev + :one REMOVE #is_verified, #role, \
                  #created_at, #claims, #version, #email, #password_hash, #last_login_at, #spared";
    // Not the `rev`: logins that come one after the other must not hold this up.
    let condition = "#version = :version AND #barrier = :barrier AND #life = :life";
    let terms = Terms::change(change, condition)
        .with(":version", number(user.version))
        .with(":barrier", number(owner.barrier))
        .with(":life", number(owner.life));
    owner.raise(None);
    owner.marks.clear();
    owner.deleted_below = owner.barrier;
    let until = owner.deleted_until.map_or(until, |standing| standing.max(until));
    owner.deleted_until = Some(until);
    terms
        .with(":epoch", number(owner.epoch))
        .with(":new", number(owner.barrier))
        .with(":marks", owner.marks())
        .with(":until", number(until.as_millis()))
        .with(":one", number(1))
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
