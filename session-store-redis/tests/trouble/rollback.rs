//! A server that comes back with what had been removed, in the middle of a lookup.

use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use session_store_core::{
    Layered, LayeredConfig, Policy, Reason, Result, SecondaryPromise, Sessions, Visibility,
};
use session_store_memory::MemoryStore;

use super::again::{host, log_in_warm};
use super::private::Server;
use super::*;

/// A cache whose server is rolled back between a miss and the reservation that follows it.
#[derive(Debug)]
struct Turned {
    cache: RedisCache,
    line: String,
    is_due: AtomicBool,
}

impl Turned {
    /// What a failover does to a removal: the history is another one, and the entry is there.
    async fn roll_back(&self, old: &[u8], key: &CacheKey) {
        let mut shell = shell(&self.line).await;
        let () = say(&mut shell, "DEBUG CHANGE-REPL-ID").await;
        let mut set = redis::cmd("SET");
        let () = set.arg(key.as_str()).arg(old).query_async(&mut shell).await.unwrap();
        // The next check is due in the next millisecond.
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[async_trait]
impl SecondaryStore for Turned {
    fn promise(&self) -> SecondaryPromise {
        self.cache.promise()
    }

    fn epoch(&self) -> u64 {
        self.cache.epoch()
    }

    async fn get(&self, key: &CacheKey) -> Result<Option<Record>> {
        self.cache.get(key).await
    }

    async fn reserve(&self, key: &CacheKey, ttl: Ttl) -> Result<Reservation> {
        if self.is_due.swap(false, Ordering::SeqCst) {
            let old: Vec<u8> = say(&mut shell(&self.line).await, "GET old").await;
            self.roll_back(&old, key).await;
        }
        self.cache.reserve(key, ttl).await
    }

    async fn swap(
        &self,
        key: &CacheKey,
        expected: &Record,
        new: Option<&Record>,
        ttl: SwapTtl,
    ) -> Result<bool> {
        self.cache.swap(key, expected, new, ttl).await
    }

    async fn remove(&self, keys: &[CacheKey]) -> Result<()> {
        self.cache.remove(keys).await
    }
}

#[tokio::test]
async fn an_old_entry_that_a_reservation_meets_is_not_believed() {
    for client in CLIENTS {
        let server = Server::start(&[]);
        let mut config = config(&server.url(), client);
        config.identity_interval = Duration::ZERO;
        let cache = RedisCache::connect(&config).await.unwrap();
        let turned = Turned { cache, line: server.url(), is_due: AtomicBool::new(false) };
        let mut config = LayeredConfig::default();
        config.cache_deadline = Duration::from_secs(10);
        let store = Layered::new(MemoryStore::new(), turned, config, host());
        let app = Sessions::new(store.unwrap(), Policy::default()).unwrap();
        let token = log_in_warm(&app).await;
        let mut shell = shell(&server.url()).await;
        let keys: Vec<String> = say(&mut shell, "KEYS ss:*").await;
        let () = say(&mut shell, &format!("COPY {} old", keys[0])).await;
        let done = app.admin_revoke(token.id(), Reason::Admin).await.unwrap();
        assert_eq!(done.visibility, Visibility::Immediate);
        app.store().secondary().is_due.store(true, Ordering::SeqCst);
        assert!(app.authenticate(&token).await.live().is_none(), "a logout was undone");
        assert!(!app.store().secondary().is_due.load(Ordering::SeqCst), "nothing was rolled back");
    }
}
