//! What only Redis has: addresses, logins, access lists, slots, scripts.
#![cfg(all(feature = "redis", feature = "fred", feature = "rustls"))]
#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use session_store_core::{
    CacheKey, Error, ErrorKind, LayeredConfig, Record, Reservation, SecondaryStore, SwapTtl, Ttl,
};
use session_store_redis::{Client, RecordKeys, RedisCache, RedisConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

const CLIENTS: [Client; 2] = [Client::Redis, Client::Fred];

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run `cargo xtask test`"))
}

fn single() -> String {
    variable("SESSION_STORE_REDIS_URL")
}

fn cluster() -> String {
    variable("SESSION_STORE_REDIS_CLUSTER_URL")
}

fn sentinels() -> String {
    variable("SESSION_STORE_REDIS_SENTINEL_URL")
}

fn config(line: &str, client: Client) -> RedisConfig {
    let mut config = RedisConfig::parse(line).unwrap();
    config.client = client;
    // A busy machine is not what is tested here.
    config.deadline = Duration::from_secs(10);
    config.connect_timeout = Duration::from_secs(30);
    config
}

/// A key that no other run uses.
fn key(name: &str) -> CacheKey {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    CacheKey::new(format!("ss:{name}:{}", since.as_nanos())).unwrap()
}

fn ttl(millis: u64) -> Ttl {
    Ttl::new(Duration::from_millis(millis)).unwrap()
}

fn value(text: &str) -> Record {
    Record::new(format!("V{text}").into_bytes())
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

async fn put(cache: &RedisCache, key: &CacheKey, record: &Record) {
    let Reservation::Granted(lease) = cache.reserve(key, ttl(60_000)).await.unwrap() else {
        panic!("{key:?} is occupied");
    };
    let swapped = cache.swap(key, &lease, Some(record), SwapTtl::Set(ttl(60_000))).await;
    assert!(swapped.unwrap());
}

/// Everything a layered store does with a cache.
async fn works(cache: &RedisCache, name: &str) {
    let key = key(name);
    put(cache, &key, &value("1")).await;
    assert_eq!(cache.get(&key).await.unwrap(), Some(value("1")));
    let swapped = cache.swap(&key, &value("1"), Some(&value("2")), SwapTtl::Keep).await;
    assert!(swapped.unwrap());
    assert!(matches!(cache.reserve(&key, ttl(1)).await, Ok(Reservation::Occupied(_))));
    cache.remove(std::slice::from_ref(&key)).await.unwrap();
    assert_eq!(cache.get(&key).await.unwrap(), None);
}

async fn refusal(line: &str, client: Client) -> Error {
    refusal_by(&config(line, client), line).await
}

/// The same of somebody who says nothing, and is not waited for.
async fn refusal_by_silence(line: &str, client: Client) -> Error {
    let mut config = config(line, client);
    config.connect_timeout = Duration::from_secs(2);
    refusal_by(&config, line).await
}

async fn refusal_by(config: &RedisConfig, line: &str) -> Error {
    let error = RedisCache::connect(config).await.unwrap_err();
    assert!(!all(&error).contains("hunter2"), "{line}: {}", all(&error));
    // What is displayed is logged, and no log shall name servers; the source does.
    assert!(!error.to_string().contains("127.0.0.1"), "{error}");
    error
}

/// Everything that an error tells anybody.
fn all(error: &Error) -> String {
    format!("{error} {error:?} {:?}", std::error::Error::source(error))
}

fn is_configuration(error: &Error, advice: &str) {
    assert!(matches!(error.kind(), ErrorKind::Configuration { .. }), "{}", all(error));
    assert!(error.to_string().contains(advice), "{error}");
}

fn at(line: &str, login: &str) -> String {
    line.replace("redis://", &format!("redis://{login}@"))
}

#[tokio::test]
async fn a_wrong_login_is_named_without_the_password() {
    for client in CLIENTS {
        for line in [single(), cluster()] {
            let error = refusal(&at(&line, "nobody:hunter2"), client).await;
            is_configuration(&error, "user name or the password");
        }
        let error = refusal(&format!("{}/4711", single()), client).await;
        is_configuration(&error, "no database 4711");
    }
}

/// Where somebody answers everything with `words` and hangs up.
async fn stranger(words: &'static [u8]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let line = format!("redis://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.read(&mut [0; 1024]).await;
            let _ = stream.write_all(words).await;
        }
    });
    line
}

#[tokio::test]
async fn what_listens_there_is_told() {
    let mute = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mute_line = format!("redis://{}", mute.local_addr().unwrap());
    let web_line = stranger(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
    // The alert of one that expects TLS and hears a plain word.
    let tls_line = stranger(b"\x15\x03\x03\0\x02\x02\x46").await;
    for client in CLIENTS {
        for login in ["", ":hunter2@"] {
            let as_user = |line: &str| line.replace("redis://", &format!("redis://{login}"));
            is_configuration(&refusal(&as_user(&web_line), client).await, "is not Redis");
            is_configuration(&refusal(&as_user(&tls_line), client).await, "use rediss://");
        }
        let error = refusal("redis://127.0.0.1:1", client).await;
        assert_eq!(error.kind(), &ErrorKind::Unavailable);
        assert!(all(&error).contains("refused"), "{}", all(&error));
        let error = refusal_by_silence(&mute_line, client).await;
        assert_eq!(error.kind(), &ErrorKind::Unavailable);
        let secure = single().replace("redis://", "rediss://");
        let error = refusal_by_silence(&secure, client).await;
        assert!(all(&error).contains("speak TLS"), "{}", all(&error));
    }
}

#[tokio::test]
async fn another_topology_is_named() {
    for client in CLIENTS {
        let node = cluster().split(',').next().unwrap().to_owned();
        is_configuration(&refusal(&node, client).await, "Servers::Cluster");
        let two = format!("{0},{0}", single());
        is_configuration(&refusal(&two, client).await, "Servers::Single");
        let unknown = sentinels().replace("#mymaster", "#another");
        is_configuration(&refusal(&unknown, client).await, "another");
        let plain = format!("{}#mymaster", single());
        is_configuration(&refusal(&plain, client).await, "no sentinel");
    }
}

#[tokio::test]
async fn the_documented_rights_are_enough_and_necessary() {
    let lines = [single(), cluster()];
    for (number, line) in lines.iter().enumerate() {
        let config = |client, user: &str| {
            let mut config = config(&at(line, &format!("{user}:hunter2")), client);
            config.key_prefix = "app*1:".to_owned();
            config
        };
        let rules = config(Client::Redis, "x").acl_rules(&LayeredConfig::default());
        let user = format!("cache{number}");
        let blind = format!("blind{number}");
        for node in line.split(',') {
            let mut shell = shell(node).await;
            for (name, rules) in [(&user, &rules[..]), (&blind, &rules[..4])] {
                let mut command = redis::cmd("ACL");
                command.arg("SETUSER").arg(name).arg("reset").arg("on").arg(">hunter2").arg(rules);
                let () = command.query_async(&mut shell).await.unwrap();
            }
        }
        for client in CLIENTS {
            let cache = RedisCache::connect(&config(client, &user)).await.unwrap();
            works(&cache, "acl").await;
            let stranger = CacheKey::new("other:1").unwrap();
            is_configuration(&cache.get(&stranger).await.unwrap_err(), "acl_rules");
            let error = RedisCache::connect(&config(client, &blind)).await.unwrap_err();
            is_configuration(&error, "acl_rules");
        }
    }
}

#[tokio::test]
async fn a_key_of_somebody_else_is_named() {
    let mut shell = shell(&single()).await;
    let key = key("set");
    for client in CLIENTS {
        let () = redis::cmd("SADD").arg(key.as_str()).arg(1).query_async(&mut shell).await.unwrap();
        let cache = RedisCache::connect(&config(&single(), client)).await.unwrap();
        is_configuration(&cache.get(&key).await.unwrap_err(), "key_prefix");
        is_configuration(&cache.reserve(&key, ttl(1000)).await.unwrap_err(), "key_prefix");
        cache.remove(std::slice::from_ref(&key)).await.unwrap();
        assert_eq!(cache.get(&key).await.unwrap(), None);
    }
}

#[tokio::test]
async fn any_prefix_works_everywhere() {
    for (line, client) in [(single(), CLIENTS[0]), (cluster(), CLIENTS[0]), (cluster(), CLIENTS[1])]
    {
        for prefix in ["", "{app}:", "}{", "a b\r\n*[?]\\", "{}", "é:"] {
            let mut config = config(&line, client);
            config.key_prefix = prefix.to_owned();
            let cache = RedisCache::connect(&config).await.unwrap();
            works(&cache, "prefix").await;
            works(&cache, "{b}race").await;
        }
    }
}

#[tokio::test]
async fn forgotten_scripts_are_sent_again() {
    let mut shell = shell(&single()).await;
    for client in CLIENTS {
        let cache = RedisCache::connect(&config(&single(), client)).await.unwrap();
        works(&cache, "script").await;
        let () = redis::cmd("SCRIPT").arg("FLUSH").query_async(&mut shell).await.unwrap();
        works(&cache, "script").await;
    }
}

#[tokio::test]
async fn time_is_the_servers() {
    let shell = shell(&single()).await;
    for client in CLIENTS {
        let cache = RedisCache::connect(&config(&single(), client)).await.unwrap();
        let key = key("time");
        cache.reserve(&key, ttl(50)).await.unwrap();
        let ends = async || -> i64 {
            let mut shell = shell.clone();
            redis::cmd("PTTL").arg(key.as_str()).query_async(&mut shell).await.unwrap()
        };
        assert!((-2..=50).contains(&ends().await));
        tokio::time::sleep(Duration::from_millis(60)).await;
        assert_eq!(cache.get(&key).await.unwrap(), None);
        put(&cache, &key, &value("1")).await;
        assert!((50_000..=60_000).contains(&ends().await));
        let kept = cache.swap(&key, &value("1"), Some(&value("2")), SwapTtl::Keep).await;
        assert!(kept.unwrap());
        assert!((50_000..=60_000).contains(&ends().await));
        cache.remove(std::slice::from_ref(&key)).await.unwrap();
    }
}

#[tokio::test]
async fn ten_thousand_keys_are_removed_at_once() {
    for (line, client) in [(single(), CLIENTS[0]), (single(), CLIENTS[1]), (cluster(), CLIENTS[0])]
    {
        let cache = RedisCache::connect(&config(&line, client)).await.unwrap();
        let name = key("many");
        let keys: Vec<_> = (0..10_000)
            .map(|number| CacheKey::new(format!("{}:{number}", name.as_str())).unwrap())
            .collect();
        for some in keys.chunks(1000) {
            let reserved = some.iter().map(|key| cache.reserve(key, ttl(60_000)));
            for granted in futures_util::future::join_all(reserved).await {
                assert!(matches!(granted, Ok(Reservation::Granted(_))));
            }
        }
        cache.remove(&keys).await.unwrap();
        for some in keys.chunks(1000) {
            let found = some.iter().map(|key| cache.get(key));
            for found in futures_util::future::join_all(found).await {
                assert_eq!(found.unwrap(), None);
            }
        }
    }
}

#[tokio::test]
async fn waiting_for_replicas_says_when_there_are_none() {
    for client in CLIENTS {
        let mut lonely = config(&single(), client);
        lonely.wait = Some(wait(1, Duration::from_secs(1)));
        let cache = RedisCache::connect(&lonely).await.unwrap();
        let key = key("wait");
        put(&cache, &key, &value("1")).await;
        let error = cache.remove(std::slice::from_ref(&key)).await.unwrap_err();
        assert_eq!(error.kind(), &ErrorKind::Timeout);
        assert_eq!(cache.get(&key).await.unwrap(), None, "removed all the same");
        // A master with two replicas, and masters with one each.
        for (line, replicas) in [(sentinels(), 2), (cluster(), 1)] {
            let mut config = config(&line, client);
            config.wait = Some(wait(replicas, Duration::from_secs(10)));
            let cache = RedisCache::connect(&config).await.unwrap();
            works(&cache, "wait").await;
        }
    }
}

fn wait(replicas: u32, timeout: Duration) -> session_store_redis::Wait {
    session_store_redis::Wait { replicas, timeout }
}

#[tokio::test]
async fn records_are_signed_and_copies_are_noticed() {
    let mut shell = shell(&single()).await;
    let mut config = config(&single(), Client::Redis);
    config.record_keys = Some(RecordKeys::new(&[7; 32]).unwrap());
    let cache = RedisCache::connect(&config).await.unwrap();
    let (one, other) = (key("mac1"), key("mac2"));
    put(&cache, &one, &value("admin")).await;
    put(&cache, &other, &value("guest")).await;
    assert_eq!(cache.get(&one).await.unwrap(), Some(value("admin")));
    // Copied to another session, and written by somebody without the key.
    let stored: Vec<u8> =
        redis::cmd("GET").arg(one.as_str()).query_async(&mut shell).await.unwrap();
    for forged in [stored, b"Vadmin".to_vec()] {
        let () = redis::cmd("SET")
            .arg(other.as_str())
            .arg(forged)
            .query_async(&mut shell)
            .await
            .unwrap();
        let read = cache.get(&other).await.unwrap().unwrap();
        assert_ne!(read, value("admin"));
        assert_ne!(read.as_bytes()[0], b'V');
        // Whoever finds it can take it away.
        assert!(cache.swap(&other, &read, None, SwapTtl::Keep).await.unwrap());
        put(&cache, &other, &value("guest")).await;
    }
    cache.remove(&[one, other]).await.unwrap();
}

/// A way to the server that at first leads nowhere.
async fn detour() -> (String, std::sync::Arc<std::sync::atomic::AtomicBool>) {
    let is_open = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let line = format!("redis://{}", listener.local_addr().unwrap());
    let (gate, server) = (std::sync::Arc::clone(&is_open), single().replace("redis://", ""));
    tokio::spawn(async move {
        let mut mute = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            if !gate.load(std::sync::atomic::Ordering::SeqCst) {
                mute.push(stream);
                continue;
            }
            let mut server = tokio::net::TcpStream::connect(&server).await.unwrap();
            tokio::spawn(
                async move { tokio::io::copy_bidirectional(&mut stream, &mut server).await },
            );
        }
    });
    (line, is_open)
}

#[tokio::test]
async fn a_failure_that_nobody_waited_for_is_forgotten() {
    for client in CLIENTS {
        let (line, is_open) = detour().await;
        let mut config = config(&line, client);
        config.deadline = Duration::from_secs(5);
        config.connect_timeout = Duration::from_millis(5500);
        let cache = RedisCache::new(&config).unwrap();
        let key = key("detour");
        assert_eq!(cache.get(&key).await.unwrap_err().kind(), &ErrorKind::Unavailable);
        // The attempt ends after the call did, and the pause after it too.
        tokio::time::sleep(Duration::from_millis(1500)).await;
        is_open.store(true, std::sync::atomic::Ordering::SeqCst);
        assert_eq!(cache.get(&key).await.unwrap(), None);
    }
}
