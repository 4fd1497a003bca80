//! The invalidation log: what shared caches must forget, and which caches there are.

use std::fmt;

use crate::error::{Error, Result};
use crate::session::SessionIds;
use crate::text;
use crate::time::Ttl;

/// The name of one cache over a database; two regions are two names. 1 to 80 bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CacheName(Box<str>);

impl CacheName {
    /// Checks `text`; `InvalidInput` or `TooLarge` when it can't name a cache.
    pub fn new(text: impl AsRef<str>) -> Result<Self> {
        text::check("cache name", text.as_ref(), 80)?;
        if text.as_ref().is_empty() {
            return Err(Error::invalid("core", "cache name is empty"));
        }
        Ok(Self(text.as_ref().into()))
    }

    /// The name of the only cache over a database.
    pub fn main() -> Self {
        Self("main".into())
    }

    /// The name under which a cache of this kind is registered: an inner one is never taken for a
    /// shared one, however both are called.
    pub(crate) fn of_kind(&self, kind: &str) -> Self {
        Self(format!("{}/{kind}", self.0).into())
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for CacheName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// Who shares a cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheScope {
    /// One process owns it; others can't remove from it.
    Process,
    /// Every node reads and removes the same entries.
    Shared,
}

/// A cache over a database, known to every handle on that database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheRegistration {
    /// Its name.
    pub name: CacheName,
    /// Who shares it.
    pub scope: CacheScope,
    /// How long an entry may live in it, leases and near caches included.
    pub ttl: Ttl,
}

/// One entry of the log. Not ordered by commit: never acknowledge by a high-water mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogId(pub i64);

/// Sessions that a cache must forget.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogEntry {
    /// What to acknowledge.
    pub id: LogId,
    /// The sessions, an entry about a user expanded to all of theirs.
    pub sessions: SessionIds,
}

/// What a drain found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Drained {
    /// The entries, oldest first.
    pub entries: Vec<LogEntry>,
    /// Whether there are more.
    pub more: bool,
}
