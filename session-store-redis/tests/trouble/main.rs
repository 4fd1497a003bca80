//! What goes wrong around a Redis that is used: masters are deposed, nodes leave, replies come late,
//! replicas lag, and callers give up.
#![cfg(all(feature = "redis", feature = "fred"))]
#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod again;
mod cluster;
mod gate;
mod identity;
mod idle;
#[cfg(feature = "rustls")]
mod named;
mod outage;
mod private;
mod readonly;
mod rollback;
mod sentinel;
mod waiting;

use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use session_store_core::{CacheKey, Record, Reservation, SecondaryStore, SwapTtl, Ttl};
use session_store_redis::{Client, RedisCache, RedisConfig};

const CLIENTS: [Client; 2] = [Client::Redis, Client::Fred];

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run `cargo xtask test`"))
}

fn single() -> String {
    variable("SESSION_STORE_REDIS_URL")
}

fn config(line: &str, client: Client) -> RedisConfig {
    let mut config = RedisConfig::parse(line).unwrap();
    config.client = client;
    // A busy machine is not what is tested here.
    config.deadline = Duration::from_secs(10);
    config.connect_timeout = Duration::from_secs(30);
    config
}

/// A name that no other run uses.
fn unique(name: &str) -> String {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    format!("{name}:{}", since.as_nanos())
}

fn key(name: &str) -> CacheKey {
    CacheKey::new(unique(&format!("ss:{name}"))).unwrap()
}

fn ttl(millis: u64) -> Ttl {
    Ttl::new(Duration::from_millis(millis)).unwrap()
}

fn value(text: &str) -> Record {
    Record::new(format!("V{text}").into_bytes())
}

fn port(line: &str) -> u16 {
    line.rsplit(':').next().unwrap().parse().unwrap()
}

/// A way for commands of the test itself, which has the patience for a busy machine: the library's own
/// ends after half a second.
async fn shell(line: &str) -> MultiplexedConnection {
    let client = redis::Client::open(line).unwrap();
    client.get_multiplexed_async_connection_with_config(&patient()).await.unwrap()
}

fn patient() -> redis::AsyncConnectionConfig {
    let time = Some(Duration::from_secs(30));
    redis::AsyncConnectionConfig::new().set_connection_timeout(time).set_response_timeout(time)
}

/// What a server says to `words`; panics when it refuses them.
async fn say<T: redis::FromRedisValue>(shell: &mut MultiplexedConnection, words: &str) -> T {
    let mut words = words.split(' ');
    let mut command = redis::cmd(words.next().unwrap());
    command.arg(words.collect::<Vec<_>>());
    command.query_async(shell).await.unwrap()
}

async fn put(cache: &RedisCache, key: &CacheKey, record: &Record) {
    let Reservation::Granted(lease) = cache.reserve(key, ttl(60_000)).await.unwrap() else {
        panic!("{key:?} is occupied");
    };
    let swapped = cache.swap(key, &lease, Some(record), SwapTtl::Set(ttl(60_000))).await;
    assert!(swapped.unwrap());
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !holds().await {
        assert!(Instant::now() < end, "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
