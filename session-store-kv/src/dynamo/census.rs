//! Counting sessions.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use session_store_core::{Census, Result, Session, State, Timestamp, UserId};

use super::owner::Owner;
use super::row::Item;
use super::store::DynamoStore;
use super::stored::{Depth, Stored};

const DAY: Duration = Duration::from_hours(24);

impl DynamoStore {
    pub(super) async fn census(&self, now: Timestamp, user: Option<&UserId>) -> Result<Census> {
        let mut count = Count::default();
        let Some(user) = user else {
            return self.census_of_all(now).await;
        };
        if let Some(owner) = self.owner(user).await? {
            for judged in self.of(&owner).await? {
                count.add(&judged.stored.session, now);
            }
        }
        Ok(count.census)
    }

    /// Reads the whole table once. Users and their sessions come in no order, so that the sessions of a
    /// user wait in memory. No scan is a snapshot: what comes, goes or changes meanwhile may be counted as
    /// before or as after, and nothing that asks twice would make it one.
    async fn census_of_all(&self, now: Timestamp) -> Result<Census> {
        let mut count = Count::default();
        let mut owners: HashMap<UserId, Owner> = HashMap::new();
        let mut waiting: Vec<Stored> = Vec::new();
        let mut start = None;
        loop {
            let (items, next) = self.calls.scan(start).await?;
            for item in &items {
                match kind(item) {
                    "user" => {
                        let owner = Owner::read(item)?;
                        owners.insert(owner.id.clone(), owner);
                    }
                    "session" => {
                        let stored = Stored::read(item, Depth::Head)?;
                        match &stored.session.user_id {
                            None => count.add(&stored.session, now),
                            Some(_) => waiting.push(stored),
                        }
                    }
                    _ => {}
                }
            }
            if next.is_none() {
                break;
            }
            start = next;
        }
        for stored in waiting {
            let owner = stored.session.user_id.as_ref().and_then(|user| owners.get(user));
            if let Some(judged) = owner.and_then(|owner| owner.judge(stored)) {
                count.add(&judged.stored.session, now);
            }
        }
        Ok(count.census)
    }
}

/// What an item says it is; nothing if it is none of ours.
fn kind(item: &Item) -> &str {
    item.get("k").and_then(|kind| kind.as_s().ok()).map_or("", String::as_str)
}

#[derive(Debug, Default)]
struct Count {
    census: Census,
    users: HashSet<UserId>,
}

impl Count {
    fn add(&mut self, session: &Session, now: Timestamp) {
        let recent = |at: Timestamp| at <= now && now.since(at) < DAY;
        match session.state(now) {
            State::Active => {
                self.census.active += 1;
                match &session.user_id {
                    Some(user) => _ = self.users.insert(user.clone()),
                    None => self.census.guests += 1,
                }
            }
            State::Expired => self.census.expired += 1,
            State::Revoked(_) => self.census.revoked += 1,
        }
        self.census.users = self.users.len() as u64;
        self.census.created_last_day += u64::from(recent(session.created_at));
        let revoked = session.revoked.is_some_and(|ended| recent(ended.at));
        self.census.revoked_last_day += u64::from(revoked);
    }
}
