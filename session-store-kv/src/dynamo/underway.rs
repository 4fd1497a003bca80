//! Every session of a user, those of logins under way included.
//!
//! While a transaction is carried out DynamoDB shows its items one by one: a user's item may say that
//! somebody has logged in, and the session can't be found yet. So a login notes itself on the user's
//! item, and whoever must know of every session asks for those that are noted and were not found, in a
//! transaction, which waits for the other one to be over.

use std::collections::{HashMap, HashSet};

use session_store_core::{Result, SessionId, UserId};

use super::key::Key;
use super::look::Entry;
use super::mark::Recent;
use super::owner::{Judged, Owner};
use super::row::{Item, number, text};
use super::step::Terms;
use super::store::DynamoStore;
use super::stored::{Depth, Stored};

/// How many logins are noted before they are looked after.
const MANY: usize = 16;

/// What was seen of a login that is noted.
#[derive(Clone, Copy, Debug)]
struct Glimpse {
    login: Recent,
    has_entry: bool,
    has_session: bool,
}

/// What belongs to a user.
#[derive(Debug)]
pub(super) struct Members {
    /// Oldest first.
    pub(super) entries: Vec<Entry>,
    /// The sessions that are there, as far as it decides about their end.
    pub(super) found: HashMap<SessionId, Stored>,
    /// Those that can't be read.
    pub(super) unreadable: Vec<SessionId>,
}

impl DynamoStore {
    /// The entries of a user, oldest first.
    pub(super) async fn entries(&self, owner: &Owner) -> Result<Vec<Entry>> {
        let mut pauses = self.calls.pauses();
        loop {
            let entries = self.visible_entries(&owner.id).await?;
            let known: HashSet<_> = entries.iter().map(|entry| entry.id).collect();
            let unseen = owner.recent.iter().filter(|login| !known.contains(&login.id));
            let glimpse =
                |login: &Recent| Glimpse { login: *login, has_entry: false, has_session: true };
            if !self.is_under_way(&owner.id, unseen.map(glimpse)).await? {
                return Ok(entries);
            }
            pauses.pause().await?;
        }
    }

    /// The entries of a user, and their sessions.
    pub(super) async fn sessions(&self, owner: &Owner) -> Result<Members> {
        let mut pauses = self.calls.pauses();
        loop {
            let entries = self.entries(owner).await?;
            let ids: Vec<_> = entries.iter().map(|entry| entry.id).collect();
            let (found, unreadable) = self.stored_some(&ids).await?;
            let has_session = |id: &SessionId| {
                let own = |stored: &Stored| stored.session.user_id.as_ref() == Some(&owner.id);
                found.get(id).is_some_and(own) || unreadable.contains_key(id)
            };
            let unseen = owner.recent.iter().filter(|login| !has_session(&login.id));
            let glimpse =
                |login: &Recent| Glimpse { login: *login, has_entry: true, has_session: false };
            if !self.is_under_way(&owner.id, unseen.map(glimpse)).await? {
                let unreadable = unreadable.into_keys().collect();
                return Ok(Members { entries, found, unreadable });
            }
            pauses.pause().await?;
        }
    }

    /// Every session of a user whose item was read before.
    pub(super) async fn of(&self, owner: &Owner) -> Result<Vec<Judged>> {
        let Members { entries, mut found, .. } = self.sessions(owner).await?;
        let mut all = Vec::new();
        for entry in entries {
            if let Some(stored) = found.remove(&entry.id) {
                all.extend(self.judge(owner, stored, Depth::Head).await?);
            }
        }
        Ok(all)
    }

    /// Looks after the logins that are noted, when they are many; `false` when they are few. For logins
    /// that do it in no other way.
    pub(super) async fn settle(&self, owner: &Owner) -> Result<bool> {
        if owner.recent.len() < MANY {
            return Ok(false);
        }
        let wanted = owner.recent.iter().flat_map(|login| keys(&owner.id, login)).collect();
        let seen = self.calls.get_all(wanted).await?;
        // A guest may be on the way to become this user's.
        let is_own = |item: &&Item| {
            let is_session = item.get("k") == Some(&text("session"));
            !is_session || item.get("user") == Some(&text(owner.id.as_str()))
        };
        let seen: HashSet<_> = seen.iter().filter(is_own).filter_map(Key::of).collect();
        for login in &owner.recent {
            let keys = keys(&owner.id, login);
            if !keys.iter().all(|key| seen.contains(key)) {
                // Whatever it finds, the transaction of the login is over then.
                self.calls.get_both(keys, None).await?;
            }
        }
        let terms = Terms::change("DELETE #recent :seen", "#life = :life")
            .with(":seen", Recent::set(&owner.recent))
            .with(":life", number(owner.life));
        self.calls.update_item(&Key::user(&owner.id), &terms).await?;
        Ok(true)
    }

    /// Whether one of these logins was only not visible yet.
    async fn is_under_way(
        &self,
        user: &UserId,
        unseen: impl Iterator<Item = Glimpse>,
    ) -> Result<bool> {
        for glimpse in unseen {
            let [session, entry] = self.calls.get_both(keys(user, &glimpse.login), None).await?;
            let own = |item: &Item| {
                let stored = Stored::read(item, Depth::Head).ok();
                stored.is_some_and(|stored| stored.session.user_id.as_ref() == Some(user))
            };
            let is_session = session.as_ref().is_some_and(own);
            if entry.is_some() && (!glimpse.has_entry || (is_session && !glimpse.has_session)) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

fn keys(user: &UserId, login: &Recent) -> [Key; 2] {
    [Key::session(&login.id), Key::entry(user, login.at, &login.id)]
}
