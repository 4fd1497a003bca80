//! The keys of items. Everything about one user is one partition; a session is a partition of its own.

use aws_sdk_dynamodb::types::AttributeValue;
use session_store_core::{CacheKey, CacheName, SessionId, Timestamp, UserId};

use super::row::Item;

/// How many partitions the queue of deadlines has, so that no single one takes every login.
pub(super) const SHARDS: u8 = 8;
/// The sort key of items that are alone.
const ALONE: &str = "0";
/// The beginning of the sort keys of a user's entries.
pub(super) const ENTRIES: &str = "s#";
/// The partition of all users, in order of registration.
pub(super) const USERS: &str = "R#users";
/// The partition of the caches over this table.
pub(super) const CACHES: &str = "R#caches";
/// The partition of what was begun and is not finished.
pub(super) const JOBS: &str = "R#jobs";

/// The key of one item.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Key {
    pub(super) pk: String,
    pub(super) sk: String,
}

impl Key {
    fn alone(pk: String) -> Self {
        Self { pk, sk: ALONE.to_owned() }
    }

    pub(super) fn session(id: &SessionId) -> Self {
        Self::alone(format!("S#{id}"))
    }

    pub(super) fn user(id: &UserId) -> Self {
        Self::alone(format!("U#{id}"))
    }

    pub(super) fn email(normalized: &str) -> Self {
        Self::alone(format!("E#{normalized}"))
    }

    pub(super) fn cached(key: &CacheKey) -> Self {
        Self::alone(format!("C#{}", key.as_str()))
    }

    /// The entry of a session in its user's partition: by time of creation, then id.
    pub(super) fn entry(user: &UserId, created_at: Timestamp, id: &SessionId) -> Self {
        Self { pk: Self::user(user).pk, sk: format!("{ENTRIES}{}", moment(created_at, id)) }
    }

    /// A user in the list of all: by time of registration, then id.
    pub(super) fn registered(created_at: Timestamp, user: &UserId) -> Self {
        Self { pk: USERS.to_owned(), sk: moment(created_at, user) }
    }

    pub(super) fn cache(name: &CacheName) -> Self {
        Self { pk: CACHES.to_owned(), sk: name.as_str().to_owned() }
    }

    pub(super) fn job(user: &UserId) -> Self {
        Self { pk: JOBS.to_owned(), sk: user.as_str().to_owned() }
    }

    /// Where the session `id` waits in the queue, given its sort key there.
    pub(super) fn filed(id: &SessionId, sk: &str) -> Self {
        Self { pk: queue(shard(id)), sk: sk.to_owned() }
    }

    /// The key of an item.
    pub(super) fn of(item: &Item) -> Option<Self> {
        let text = |name: &str| item.get(name)?.as_s().ok().cloned();
        Some(Self { pk: text("pk")?, sk: text("sk")? })
    }

    /// The key as an item holds it.
    pub(super) fn into_item(self) -> Item {
        let text = AttributeValue::S;
        Item::from([("pk".to_owned(), text(self.pk)), ("sk".to_owned(), text(self.sk))])
    }
}

/// The queues that sweeps read. A session is always in one of the first two, and a revoked one in the
/// third as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Queue {
    /// Not revoked: by a deadline that the session's own has not fallen below.
    Expiring,
    /// Revoked: by the same deadline.
    Ended,
    /// Revoked: by the moment of the revocation.
    Revoked,
}

impl Queue {
    pub(super) fn letter(self) -> &'static str {
        match self {
            Self::Expiring => "e#",
            Self::Ended => "x#",
            Self::Revoked => "r#",
        }
    }

    /// The sort key of the session `id` in this queue.
    pub(super) fn sk(self, at: Timestamp, id: &SessionId) -> String {
        format!("{}{}", self.letter(), moment(at, id))
    }

    /// Greater than every sort key of this queue up to `at`, and less than those behind.
    pub(super) fn behind(self, at: Timestamp) -> String {
        format!("{}{:016x}$", self.letter(), at.as_millis())
    }
}

/// The deadline by which a session is filed.
pub(super) fn filed_at(sk: &str) -> Option<Timestamp> {
    parse_moment(sk.get(2..)?).map(|(at, _)| at)
}

/// The partition of one shard of the queue.
pub(super) fn queue(shard: u8) -> String {
    format!("Q#{shard}")
}

pub(super) fn shard(id: &SessionId) -> u8 {
    id.as_bytes()[15] % SHARDS
}

/// A sort key that orders by time and then by name, byte by byte.
pub(super) fn moment(at: Timestamp, name: &impl std::fmt::Display) -> String {
    format!("{:016x}#{name}", at.as_millis())
}

/// The moment and the name that [`moment`] put together.
pub(super) fn parse_moment(sk: &str) -> Option<(Timestamp, &str)> {
    let (millis, name) = sk.split_at_checked(16)?;
    let millis = i64::from_str_radix(millis, 16).ok()?;
    Some((Timestamp::from_millis(millis), name.strip_prefix('#')?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sort_keys_order_by_time_and_then_by_name() {
        let id = |byte| SessionId::from_bytes([byte; 16]);
        let at = Timestamp::from_millis;
        let sk = |millis, byte| Queue::Expiring.sk(at(millis), &id(byte));
        assert!(sk(1, 9) < sk(2, 1) && sk(2, 1) < sk(2, 2));
        assert!(sk(2, 0xff) < Queue::Expiring.behind(at(2)));
        assert!(Queue::Expiring.behind(at(2)) < sk(3, 0));
        assert!(sk(i64::MAX, 0xff) < Queue::Revoked.sk(at(0), &id(0)));
        let text = moment(at(77), &id(3));
        assert_eq!(parse_moment(&text), Some((at(77), "03".repeat(16).as_str())));
        assert_eq!(parse_moment("é"), None);
        assert_eq!(filed_at(&Queue::Ended.sk(at(5), &id(1))), Some(at(5)));
    }
}
