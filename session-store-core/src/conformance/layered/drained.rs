//! A log whose entries name more than a cache can remove at a time.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;

use super::super::checks;
use super::super::report::{Violation, ensure, expect};
use super::super::runner::Outcome;
use super::super::sample::user_id;
use super::super::wire::Wire;
use super::entries::Entries;
use super::{DONE, Node, PairBench};
use crate::error::{Error, ErrorKind, Result};
use crate::policy::Policy;
use crate::primary::{CacheName, LogPromise};
use crate::secondary::{CacheKey, Record, Reservation, SecondaryPromise, SecondaryStore, SwapTtl};
use crate::session::Reason;
use crate::sessions::Sessions;
use crate::time::Ttl;
use crate::token::SessionId;
use crate::user::{Role, UserChange};

checks! { ($) layered_drained: PairBench;
    "X8-G-14" what_is_named_twice_is_removed_once
        "However many entries of the log name a session, one drain removes its key once.",
    "X8-G-15" a_long_entry_holds_up_nobody
        "An entry of more sessions than can be removed at a time holds up no other, and gets on.",
}

/// A cache that removes so many keys, two at a time, and then no more.
#[derive(Debug, Default)]
struct Quota {
    entries: Entries,
    left: Mutex<usize>,
    removed: Mutex<Vec<CacheKey>>,
}

impl Quota {
    /// What it removed since it was asked last; from now on it removes `left` more.
    fn renew(&self, left: usize) -> Vec<CacheKey> {
        *self.left.lock() = left;
        std::mem::take(&mut *self.removed.lock())
    }
}

#[async_trait]
impl SecondaryStore for Quota {
    fn promise(&self) -> SecondaryPromise {
        SecondaryPromise { max_batch: 2, ..Entries::promise("quota") }
    }

    fn epoch(&self) -> u64 {
        0
    }

    async fn get(&self, key: &CacheKey) -> Result<Option<Record>> {
        Ok(self.entries.get(key))
    }

    async fn reserve(&self, key: &CacheKey, _ttl: Ttl) -> Result<Reservation> {
        Ok(self.entries.reserve(key))
    }

    async fn swap(
        &self,
        key: &CacheKey,
        expected: &Record,
        new: Option<&Record>,
        _ttl: SwapTtl,
    ) -> Result<bool> {
        Ok(self.entries.swap(key, expected, new))
    }

    async fn remove(&self, keys: &[CacheKey]) -> Result<()> {
        let mut left = self.left.lock();
        let Some(rest) = left.checked_sub(keys.len()) else {
            return Err(Error::new(ErrorKind::Unavailable, "quota"));
        };
        *left = rest;
        self.entries.remove(keys);
        self.removed.lock().extend_from_slice(keys);
        Ok(())
    }
}

/// A node over a cache that removes nothing yet, and sessions of a user whom the log names.
async fn changed_user(
    on: &PairBench,
    count: usize,
) -> std::result::Result<(Node, Arc<Quota>, Vec<SessionId>), Violation> {
    let (cache, db, wire) = (Arc::new(Quota::default()), Wire::default(), Wire::default());
    cache.renew(1_000);
    let store = on.layered_over(cache.clone(), PairBench::config(), (&db, &wire), on.host())?;
    let node = Node { app: Sessions::new(store, Policy::default())?, db, cache: wire };
    let mut sessions = Vec::new();
    for _ in 0..count {
        sessions.push(on.log_in_warm(&node).await?.id());
    }
    cache.renew(0);
    let change = UserChange { role: Some(Role::new("admin")?), ..UserChange::default() };
    let _ = node.app.update_user(&user_id(1)?, 1, change).await?;
    Ok((node, cache, sessions))
}

/// The sessions of each entry that is left for the cache of `node`.
async fn pending(on: &PairBench, node: &Node) -> Result<Vec<Vec<SessionId>>> {
    let name: &CacheName = &node.app.store().config().cache_name;
    let drained = on.primary.drain(name, 100).await?;
    Ok(drained.entries.into_iter().map(|entry| entry.sessions).collect())
}

async fn what_is_named_twice_is_removed_once(on: &PairBench) -> Outcome {
    if on.primary.promise().log == LogPromise::None {
        on.weakness.note("no log", Duration::ZERO);
        return DONE;
    }
    let (node, cache, sessions) = changed_user(on, 1).await?;
    let _ = node.app.admin_revoke(sessions[0], Reason::Admin).await?;
    let named = pending(on, &node).await?.concat();
    let is_named_twice = named.iter().filter(|id| **id == sessions[0]).count() > 1;
    ensure(is_named_twice, "no two entries name the session, so nothing is shown")?;
    cache.renew(1_000);
    node.app.store().drain().await?;
    expect(cache.renew(0), vec![PairBench::key(sessions[0])])?;
    expect(pending(on, &node).await?, vec![])
}

async fn a_long_entry_holds_up_nobody(on: &PairBench) -> Outcome {
    if on.primary.promise().log == LogPromise::None {
        on.weakness.note("no log", Duration::ZERO);
        return DONE;
    }
    let (node, cache, sessions) = changed_user(on, 12).await?;
    let _ = node.app.admin_revoke(sessions[0], Reason::Admin).await?;
    let mut left: Vec<_> = sessions.iter().map(|id| PairBench::key(*id)).collect();
    for round in 0..20 {
        cache.renew(6);
        ensure(node.app.store().drain().await.is_err(), "everything was removed at once")?;
        let removed = cache.renew(0);
        left.retain(|key| !removed.contains(key));
        if round == 0 {
            let short = pending(on, &node).await?.into_iter().filter(|entry| entry.len() < 12);
            expect(short.count(), 0)?;
        }
        on.runtime.advance(Duration::from_mins(1));
    }
    expect(left, vec![])?;
    cache.renew(1_000);
    node.app.store().drain().await?;
    expect(pending(on, &node).await?, vec![])
}
