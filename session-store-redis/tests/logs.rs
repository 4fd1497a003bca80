//! What is logged names no address. A process of its own: `tracing` asks the thread that first comes
//! by a callsite whether anybody listens, and in one with other tests that may be a thread where nobody does.
#![cfg(all(feature = "redis", feature = "fred"))]
#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

#[path = "trouble/private.rs"]
#[expect(dead_code, reason = "nothing is stopped here")]
mod private;

use std::fmt::Write;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use private::Server;
use session_store_core::{CacheKey, SecondaryStore};
use session_store_redis::{Client, RedisCache, RedisConfig};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record as Fields};
use tracing::{Event, Metadata, Subscriber};

/// What was logged, all fields of it.
#[derive(Clone, Debug, Default)]
struct Log(Arc<Mutex<String>>);

impl Subscriber for Log {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Fields<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        if event.metadata().target().starts_with("session_store") {
            event.record(&mut self.clone());
        }
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

impl Visit for Log {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        write!(self.0.lock().unwrap(), "{}={value:?};", field.name()).unwrap();
    }
}

/// Makes the server another one, as far as anybody can tell.
async fn turn(server: &Server) {
    let client = redis::Client::open(server.url()).unwrap();
    let time = Some(Duration::from_secs(30));
    let patient = redis::AsyncConnectionConfig::new();
    let patient = patient.set_connection_timeout(time).set_response_timeout(time);
    let shell = client.get_multiplexed_async_connection_with_config(&patient).await;
    let mut shell = shell.unwrap();
    let () = redis::cmd("DEBUG").arg("CHANGE-REPL-ID").query_async(&mut shell).await.unwrap();
}

#[tokio::test]
async fn no_address_is_logged() {
    for client in [Client::Redis, Client::Fred] {
        let log = Log::default();
        let _guard = tracing::subscriber::set_default(log.clone());
        let server = Server::start(&[]);
        let mut config = RedisConfig::parse(&server.url()).unwrap();
        config.client = client;
        config.deadline = Duration::from_secs(10);
        config.connect_timeout = Duration::from_secs(30);
        config.identity_interval = Duration::ZERO;
        let cache = RedisCache::connect(&config).await.unwrap();
        let epoch = cache.epoch();
        turn(&server).await;
        let end = Instant::now() + Duration::from_secs(20);
        while cache.epoch() == epoch {
            assert!(Instant::now() < end, "nobody noticed");
            let _ = cache.get(&CacheKey::new("ss:log").unwrap()).await;
        }
        drop(server);
        assert!(RedisCache::connect(&config).await.is_err());
        let said = log.0.lock().unwrap().clone();
        assert!(said.contains("another server answers"), "{client:?}: {said}");
        assert!(!said.contains("127.0.0.1"), "{client:?}: {said}");
    }
}
