//! Where a mutant meets the suite: harnesses over broken stores, and patience that counts polls.

use std::collections::HashMap;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use session_store_core::conformance::{
    Deed, Guard, NodeParts, PrimaryHarness, SecondaryHarness, TestClock, Twist,
};
use session_store_core::{
    BoxFuture, CacheKey, Clock, Error, ErrorKind, PrimaryStore, Result, SecondaryStore, Timestamp,
};
use session_store_memory::{MemoryCache, MemoryCacheConfig, MemoryStore};
use session_store_sqlite::SqliteHarness;

use super::layered::{Link, Quirk, sleepless};
use super::{cache, primary};

/// How often a case may be polled. An honest pair takes 3 000 at most, and a count of polls is the
/// same on a machine that is busy with something else.
const POLLS: u32 = 50_000;

/// An error of a broken store.
pub(super) fn error(kind: ErrorKind) -> Error {
    Error::new(kind, "mutant")
}

/// Lets everybody else run once.
pub(super) async fn pause() {
    let mut is_over = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut is_over, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

fn patience() -> BoxFuture<'static, ()> {
    Box::pin(async {
        for _ in 0..POLLS {
            pause().await;
        }
    })
}

/// The stores that one mutant runs on.
pub(super) struct Stage {
    primary: primary::Defect,
    cache: cache::Defect,
    /// A back end with a shell, for the cases that need one.
    shell: Option<SqliteHarness>,
    opened: Mutex<HashMap<String, Vec<primary::Broken>>>,
}

impl Stage {
    /// Stores in memory with these defects. The suite asks for a static lifetime; a mutant takes a
    /// few hundred bytes, and the process ends after the last one.
    pub(super) fn new(primary: primary::Defect, cache: cache::Defect) -> &'static Self {
        Self::leaked(primary, cache, None)
    }

    /// The same over a database file.
    pub(super) fn with_shell(primary: primary::Defect) -> Result<&'static Self> {
        let shell = Some(SqliteHarness::new()?);
        Ok(Self::leaked(primary, cache::Defect::Nothing, shell))
    }

    fn leaked(
        primary: primary::Defect,
        cache: cache::Defect,
        shell: Option<SqliteHarness>,
    ) -> &'static Self {
        Box::leak(Box::new(Self { primary, cache, shell, opened: Mutex::default() }))
    }

    fn first(&self, namespace: &str) -> Option<primary::Broken> {
        self.opened.lock().get(namespace).and_then(|handles| handles.first().cloned())
    }

    fn keep(&self, namespace: String, handle: &primary::Broken) -> Arc<dyn PrimaryStore> {
        self.opened.lock().entry(namespace).or_default().push(handle.clone());
        Arc::new(handle.clone())
    }
}

/// What stands between the nodes of a mutant and their wires.
pub(super) fn twist(quirk: Quirk) -> Twist {
    Box::leak(Box::new(move |parts: NodeParts| {
        if quirk == Quirk::WaitsForNothing {
            return NodeParts { host: sleepless(parts.host), ..parts };
        }
        let host = parts.host;
        let link = Link::new(parts.primary, parts.secondary, host.clone(), quirk);
        NodeParts {
            primary: Arc::new(primary::Broken::of_node(Arc::clone(&link))),
            secondary: Arc::new(cache::Broken::of_node(link)),
            host,
        }
    }))
}

#[async_trait]
impl PrimaryHarness for Stage {
    fn name(&self) -> &'static str {
        "mutant"
    }

    async fn open(&self, namespace: &str) -> Result<(Arc<dyn PrimaryStore>, Guard)> {
        let shares = self.primary == primary::Defect::SharesNamespaces;
        let name = if shares { namespace.trim_end_matches('n') } else { namespace };
        if let Some(first) = self.first(name).filter(|_| shares) {
            return Ok((self.keep(name.to_owned(), &first), Box::new(())));
        }
        let (inner, guard): (Arc<dyn PrimaryStore>, Guard) = match &self.shell {
            Some(shell) => shell.open(name).await?,
            None => (Arc::new(MemoryStore::new()), Box::new(())),
        };
        let store = primary::Broken::new(inner, self.primary, Arc::default(), 0);
        self.opened.lock().remove(name);
        Ok((self.keep(name.to_owned(), &store), guard))
    }

    async fn reopen(&self, namespace: &str) -> Result<Arc<dyn PrimaryStore>> {
        let Some(first) = self.first(namespace) else {
            return Err(error(ErrorKind::Unavailable));
        };
        let second = match &self.shell {
            Some(shell) => first.over(shell.reopen(namespace).await?, 1),
            None => first.again(1),
        };
        Ok(self.keep(namespace.to_owned(), &second))
    }

    async fn by_hand(&self, namespace: &str, deed: &Deed) -> Result<bool> {
        let Some(shell) = &self.shell else { return Ok(false) };
        let done = shell.by_hand(namespace, deed).await?;
        let first = self.first(namespace);
        if let Some(first) = first.filter(|_| self.primary == primary::Defect::ShellsAreNotLogged) {
            first.silence().await?;
        }
        Ok(done)
    }

    async fn dump(&self, namespace: &str) -> Result<Option<Vec<u8>>> {
        match &self.shell {
            Some(shell) => shell.dump(namespace).await,
            None => Ok(None),
        }
    }

    fn patience(&self) -> BoxFuture<'static, ()> {
        // A database takes real time, in which nothing is counted by polls.
        self.shell.as_ref().map_or_else(patience, PrimaryHarness::patience)
    }
}

/// A clock whose monotonic half follows the wall.
#[derive(Debug)]
struct WallOnly(Arc<TestClock>);

impl Clock for WallOnly {
    fn now(&self) -> Timestamp {
        self.0.now()
    }

    fn monotonic(&self) -> Duration {
        self.0.now().since(Timestamp::EPOCH)
    }
}

#[async_trait]
impl SecondaryHarness for Stage {
    fn name(&self) -> &'static str {
        "mutant-cache"
    }

    async fn open(&self, clock: &Arc<TestClock>) -> Result<(Arc<dyn SecondaryStore>, Guard)> {
        let clock: Arc<dyn Clock> = match self.cache {
            cache::Defect::TrustsTheWallClock => Arc::new(WallOnly(Arc::clone(clock))),
            _ => clock.clone(),
        };
        let inner = Arc::new(MemoryCache::new(&MemoryCacheConfig::default(), clock));
        Ok((Arc::new(cache::Broken::new(inner, self.cache)), Box::new(())))
    }

    async fn pass_time(&self, clock: &TestClock, length: Duration) {
        clock.advance(length);
    }

    async fn evict(&self, store: &Arc<dyn SecondaryStore>, key: &CacheKey) -> Result<bool> {
        store.remove(std::slice::from_ref(key)).await?;
        Ok(true)
    }

    fn patience(&self) -> BoxFuture<'static, ()> {
        patience()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_ends_without_a_clock() {
        futures_executor::block_on(patience());
    }
}
