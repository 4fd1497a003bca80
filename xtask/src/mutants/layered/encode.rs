//! The cache record of a session, got the way everybody gets it: by a lookup.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use session_store_core::{
    BoxFuture, CacheKey, Clock, Host, Layered, LayeredConfig, NewSession, PrimaryStore, Record,
    Runtime, SecondaryStore, Snapshot, Timestamp, Topology, User,
};
use session_store_memory::{MemoryCache, MemoryCacheConfig, MemoryStore};

/// A clock that stands still, and a runtime that runs a task at once.
#[derive(Debug)]
struct Still(Timestamp);

impl Clock for Still {
    fn now(&self) -> Timestamp {
        self.0
    }

    fn monotonic(&self) -> Duration {
        Duration::from_secs(1)
    }
}

impl Runtime for Still {
    fn spawn(&self, task: BoxFuture<'static, ()>) {
        at_once(task);
    }

    fn sleep(&self, _length: Duration) -> BoxFuture<'static, ()> {
        Box::pin(std::future::pending())
    }
}

/// The output of a future that waits for nothing.
fn at_once<T>(future: impl Future<Output = T>) -> Option<T> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}

/// What a linearizable cache holds of `snapshot`, at `key`.
pub(super) fn encode(snapshot: &Snapshot, key: &CacheKey) -> Option<Record> {
    let session = &snapshot.session;
    let still = Arc::new(Still(session.created_at));
    let store = MemoryStore::new();
    if let Some(user) = &snapshot.user {
        let mut known = User::new(user.id.clone(), session.created_at);
        known.role = user.role.clone();
        known.claims = user.claims.clone();
        known.is_verified = user.is_verified;
        at_once(store.insert_user(&known, still.0))?.ok()?;
    }
    let new = NewSession { session: session.clone(), limit: None };
    at_once(store.insert(&new, still.0))?.ok()?;
    let cache = Arc::new(MemoryCache::new(&MemoryCacheConfig::default(), still.clone()));
    let mut config = LayeredConfig::default();
    config.topology = Topology::SingleProcess;
    let host = Host::new(still.clone(), still.clone());
    let pair = Layered::new(Arc::new(store), Arc::clone(&cache), config, host).ok()?;
    at_once(pair.lookup(&session.id, still.0, &|found| found.is_some()))?.ok()?;
    at_once(cache.get(key))?.ok()?
}
