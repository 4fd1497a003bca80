//! What a memory store does with users.

use session_store_core::{
    Account, Cursor, Deleted, Edit, Email, Error, ErrorKind, Listing, Page, Result, Timestamp,
    User, UserChange, UserId, UserUpdate,
};

use crate::log::Subject;
use crate::page;
use crate::tables::{NAME, Tables, error};

impl Tables {
    /// Adds a user; whether the quarantine is over is for the caller to check.
    pub(crate) fn add_user(&mut self, user: &User) -> Result<()> {
        if self.users.contains_key(&user.id) || self.is_taken(user.email.as_ref(), &user.id) {
            return Err(error(ErrorKind::Conflict));
        }
        if let Some(email) = &user.email {
            self.emails.insert(email.normalized().into(), user.id.clone());
        }
        self.users_by_time.insert((user.created_at, user.id.clone()));
        self.users.insert(user.id.clone(), user.clone());
        Ok(())
    }

    pub(crate) fn insert_user(&mut self, user: &User, now: Timestamp) -> Result<()> {
        let owner = self.owners.get(&user.id).copied().unwrap_or_default();
        if owner.deleted_until.is_some_and(|until| now < until) {
            return Err(error(ErrorKind::UnknownUser));
        }
        self.add_user(user)
    }

    pub(crate) fn account(&self, id: &UserId) -> Option<Account> {
        let user = self.users.get(id)?;
        Some(Account { user: user.clone(), credential_epoch: self.epoch(id) })
    }

    pub(crate) fn update_user(
        &mut self,
        id: &UserId,
        version: u64,
        change: &UserChange,
    ) -> Result<UserUpdate> {
        let Some(old) = self.users.get(id) else {
            return Ok(UserUpdate::Missing);
        };
        if old.version != version {
            return Ok(UserUpdate::Conflict { current: old.version });
        }
        if let Edit::Set(email) = &change.email
            && self.is_taken(Some(email), id)
        {
            return Err(error(ErrorKind::Conflict));
        }
        let new = change.apply(old);
        if is_projected_differently(old, &new) {
            self.log.append(Subject::User(id.clone()));
        }
        if change.changes_credentials() {
            self.bump(id);
        }
        self.forget_email(id);
        if let Some(email) = &new.email {
            self.emails.insert(email.normalized().into(), id.clone());
        }
        self.users.insert(id.clone(), new.clone());
        Ok(UserUpdate::Updated { user: Box::new(new), sessions: self.ids_of(id) })
    }

    pub(crate) fn delete_user(&mut self, id: &UserId, until: Timestamp) -> Option<Deleted> {
        self.forget_email(id);
        let user = self.users.remove(id)?;
        self.users_by_time.remove(&(user.created_at, user.id));
        let owner = self.bump(id);
        owner.deleted_until = owner.deleted_until.max(Some(until));
        let sessions = self.ids_of(id);
        for session in &sessions {
            // The end of a revoked session was logged when it was revoked.
            if self.take(session).is_some_and(|old| old.revoked.is_none()) {
                self.log.append(Subject::Session(*session));
            }
        }
        Some(Deleted { sessions })
    }

    pub(crate) fn settle_deletion(&mut self, id: &UserId, held_until: Timestamp, until: Timestamp) {
        if let Some(owner) = self.owners.get_mut(id)
            && owner.deleted_until == Some(held_until)
        {
            owner.deleted_until = Some(until);
        }
    }

    pub(crate) fn list_users(&self, page: &Page) -> Result<Listing<User>> {
        let after = match &page.after {
            None => None,
            Some(cursor) => Some((cursor.at, user_key(cursor)?)),
        };
        let rows = page::behind(&self.users_by_time, after);
        let users = rows.filter_map(|(_, id)| self.users.get(id)).cloned();
        Ok(page::cut(users, page.limit, |last| Cursor {
            at: last.created_at,
            key: last.id.as_str().as_bytes().to_vec(),
        }))
    }

    fn is_taken(&self, email: Option<&Email>, by_other_than: &UserId) -> bool {
        email
            .and_then(|email| self.emails.get(email.normalized()))
            .is_some_and(|owner| owner != by_other_than)
    }

    fn forget_email(&mut self, id: &UserId) {
        if let Some(email) = self.users.get(id).and_then(|user| user.email.as_ref()) {
            self.emails.remove(email.normalized());
        }
    }
}

fn is_projected_differently(old: &User, new: &User) -> bool {
    old.role != new.role
        || old.is_verified != new.is_verified
        || old.claims != new.claims
        || old.email != new.email
}

fn user_key(cursor: &Cursor) -> Result<UserId> {
    std::str::from_utf8(&cursor.key)
        .ok()
        .and_then(|text| UserId::new(text).ok())
        .ok_or_else(|| Error::invalid(NAME, "cursor"))
}
