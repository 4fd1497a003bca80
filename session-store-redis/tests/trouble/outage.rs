//! Nodes that begin while the servers are away.

use std::sync::Arc;

use session_store_core::{PrimaryStore, Reason, Visibility};
use session_store_memory::MemoryStore;
use session_store_redis::{Rollback, Wait};

use super::again::{Phoenix, app, log_in_warm};
use super::*;

#[tokio::test]
async fn whoever_missed_a_server_does_not_believe_what_it_brings_back() {
    for client in CLIENTS {
        // How long an entry lives is waited for, and a busy machine may take longer to start a server.
        let mut lives = [6, 20, 60].into_iter().map(Duration::from_secs);
        while !is_not_believed(client, lives.next().expect("the file brings nothing back")).await {}
    }
}

/// Whether an entry that lives so long came back with its server, and was not believed.
async fn is_not_believed(client: Client, cache_ttl: Duration) -> bool {
    let mut server = Phoenix::start(&[]).await;
    let mut config = config(&server.url(), client);
    config.connect_pause = Duration::from_millis(10);
    let truth: Arc<dyn PrimaryStore> = Arc::new(MemoryStore::new());
    let early = app(&truth, &config, cache_ttl);
    let token = log_in_warm(&early).await;
    let () = say(&mut shell(&server.url()).await, "SAVE").await;
    let done = early.admin_revoke(token.id(), Reason::Admin).await.unwrap();
    assert_eq!(done.visibility, Visibility::Immediate);
    server.kill();
    let late = app(&truth, &config, cache_ttl);
    assert!(late.authenticate(&token).await.live().is_none(), "a logout was undone");
    server.again().await;
    let keys: u64 = say(&mut shell(&server.url()).await, "DBSIZE").await;
    let began = Instant::now();
    while began.elapsed() < cache_ttl + Duration::from_secs(1) {
        assert!(late.authenticate(&token).await.live().is_none(), "a logout was undone");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_ne!(late.store().secondary().epoch(), 0);
    keys > 0
}

#[tokio::test]
async fn a_server_that_was_missed_at_first_is_a_change() {
    for client in CLIENTS {
        for rollback in [Rollback::Possible, Rollback::Impossible] {
            let mut server = Phoenix::start(&[]).await;
            let mut config = config(&server.url(), client);
            config.connect_pause = Duration::from_millis(10);
            config.rollback = rollback;
            server.kill();
            let cache = RedisCache::new(&config).unwrap();
            assert!(cache.get(&key("away")).await.is_err());
            assert_eq!(cache.epoch(), 0, "nobody has answered yet");
            server.again().await;
            until("it is back", async || cache.get(&key("back")).await.is_ok()).await;
            assert_eq!(cache.epoch(), 1);
            // Whether that matters is for the promise to say.
            assert_eq!(cache.promise().may_roll_back, rollback == Rollback::Possible);
        }
    }
}

#[tokio::test]
async fn a_part_of_a_cluster_that_was_missed_at_first_is_a_change() {
    let settings = ["--cluster-enabled", "yes", "--cluster-require-full-coverage", "no"];
    for client in CLIENTS {
        let (here, mut there) = (Phoenix::start(&settings).await, Phoenix::start(&settings).await);
        let (mut one, mut other) = (shell(&here.url()).await, shell(&there.url()).await);
        let () = say(&mut one, "CLUSTER ADDSLOTSRANGE 0 8191").await;
        let () = say(&mut other, "CLUSTER ADDSLOTSRANGE 8192 16383").await;
        let () = say(&mut one, &format!("CLUSTER MEET 127.0.0.1 {}", there.port)).await;
        let mut config = config(&format!("{0},{0}", here.url()), client);
        config.connect_pause = Duration::from_millis(10);
        config.deadline = Duration::from_secs(2);
        let keys: Vec<_> = (0..50).map(|number| key(&number.to_string())).collect();
        until("all slots are served", async || {
            let cache = RedisCache::connect(&config).await;
            cache.is_ok() && cache.unwrap().remove(&keys).await.is_ok()
        })
        .await;
        there.kill();
        let cache = RedisCache::new(&config).unwrap();
        let mut missed = None;
        for key in &keys {
            if cache.get(key).await.is_err() {
                missed = Some(key);
            }
        }
        let (missed, epoch) = (missed.expect("the other half is away"), cache.epoch());
        there.again().await;
        until("it is back", async || cache.get(missed).await.is_ok()).await;
        assert_ne!(cache.epoch(), epoch);
    }
}

#[tokio::test]
async fn a_map_that_was_missed_at_first_is_a_change() {
    let settings = ["--cluster-enabled", "yes"];
    for client in CLIENTS {
        let mut server = Phoenix::start(&settings).await;
        let mut shell = shell(&server.url()).await;
        let () = say(&mut shell, "CLUSTER ADDSLOTSRANGE 0 16383").await;
        // The name of the seed is another one than that in the map.
        let seed = server.url().replace("127.0.0.1", "localhost");
        let mut config = config(&format!("{seed},{seed}"), client);
        config.connect_pause = Duration::from_millis(10);
        until("all slots are served", async || RedisCache::connect(&config).await.is_ok()).await;
        server.kill();
        let cache = RedisCache::new(&config).unwrap();
        assert!(cache.get(&key("away")).await.is_err());
        server.again().await;
        until("it is back", async || cache.get(&key("back")).await.is_ok()).await;
        assert_ne!(cache.epoch(), 0);
        // The same one, from now on.
        let epoch = cache.epoch();
        assert!(cache.get(&key("again")).await.is_ok());
        assert_eq!(cache.epoch(), epoch);
    }
}

#[tokio::test]
async fn the_promise_reckons_with_those_who_notice_late() {
    for client in CLIENTS {
        let mut config = RedisConfig::parse(&single()).unwrap();
        config.client = client;
        let slack =
            |config: &RedisConfig| RedisCache::new(config).unwrap().promise().rollback_slack;
        assert_eq!(slack(&config), Duration::from_millis(1000 + 200 + 250));
        config.clock_skew = Duration::from_secs(10);
        config.wait = Some(Wait { replicas: 1, timeout: Duration::from_secs(2) });
        assert_eq!(slack(&config), Duration::from_millis(1000 + 200 + 2000 + 10_000));
        config.rollback = Rollback::Impossible;
        assert_eq!(slack(&config), Duration::ZERO);
    }
}
