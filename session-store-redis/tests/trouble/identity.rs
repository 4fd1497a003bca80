//! Who answers: asked in spite of callers that leave, and of servers that don't say it.

use session_store_core::ErrorKind;
use session_store_redis::{RecordKeys, Rollback, Wait};

use super::gate::{Gate, Way};
use super::private::Server;
use super::*;

#[tokio::test]
async fn a_check_outlives_the_caller_that_it_was_due_for() {
    for client in CLIENTS {
        let server = Server::start(&[]);
        let gate = Gate::before(&server.url()).await;
        let mut config = config(&gate.line, client);
        config.identity_interval = Duration::from_millis(500);
        let cache = RedisCache::connect(&config).await.unwrap();
        let (key, epoch) = (key("cancelled"), cache.epoch());
        put(&cache, &key, &value("1")).await;
        tokio::time::sleep(Duration::from_millis(510)).await;
        // As if it had been a replica for a moment.
        let () = say(&mut shell(&server.url()).await, "DEBUG CHANGE-REPL-ID").await;
        gate.set(Way::Held);
        let left = tokio::time::timeout(Duration::from_millis(50), cache.get(&key)).await;
        assert!(left.is_err(), "the caller has left");
        gate.set(Way::Open);
        let _ = cache.get(&key).await;
        assert_ne!(cache.epoch(), epoch, "the next caller was answered by a server nobody knows");
    }
}

#[tokio::test]
async fn a_server_whose_restart_could_not_be_noticed_is_refused() {
    for client in CLIENTS {
        let gate = Gate::hiding(&single(), &["run_id:", "master_replid:"]).await;
        let mut config = config(&gate.line, client);
        let error = RedisCache::connect(&config).await.unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Configuration { .. }), "{error:?}");
        assert!(error.to_string().contains("Rollback::Impossible"), "{error}");
        config.rollback = Rollback::Impossible;
        let cache = RedisCache::connect(&config).await.unwrap();
        assert_eq!(cache.get(&key("hidden")).await.unwrap(), None);
    }
}

#[tokio::test]
async fn one_operation_has_one_deadline() {
    let server = Server::start(&[]);
    let gate = Gate::before(&server.url()).await;
    let slow = Way::Slow(Duration::from_millis(600));
    for client in CLIENTS {
        gate.set(Way::Open);
        let mut config = config(&gate.line, client);
        let mut keys = RecordKeys::new(&[1; 32]).unwrap();
        for number in 2..6 {
            keys = keys.accepting(&[number; 32]).unwrap();
        }
        config.record_keys = Some(keys);
        config.identity_interval = Duration::from_mins(1);
        let key = key("deadline");
        put(&RedisCache::connect(&config).await.unwrap(), &key, &value("1")).await;
        config.deadline = Duration::from_secs(1);
        let cache = RedisCache::connect(&config).await.unwrap();
        // The scripts are known, each answer is in time, and all of them are not.
        gate.set(slow);
        let swapped = cache.swap(&key, &value("2"), None, SwapTtl::Keep).await;
        assert_eq!(swapped.unwrap_err().kind(), &ErrorKind::Timeout);
        // Eleven batches, and no answer to any of them.
        gate.set(Way::Held);
        let many = (0..105_000).map(|number| CacheKey::new(format!("k{number}")).unwrap());
        let many: Vec<_> = many.collect();
        let began = Instant::now();
        assert!(cache.remove(&many).await.is_err());
        assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    }
}

#[tokio::test]
async fn a_change_counts_even_when_nobody_can_connect_afterwards() {
    for client in CLIENTS {
        let server = Server::start(&[]);
        let mut config = config(&server.url(), client);
        config.identity_interval = Duration::from_millis(1);
        config.deadline = Duration::from_secs(2);
        let cache = RedisCache::connect(&config).await.unwrap();
        let epoch = cache.epoch();
        let mut shell = shell(&server.url()).await;
        let () = say(&mut shell, "CONFIG SET maxclients 1").await;
        let () = say(&mut shell, "DEBUG CHANGE-REPL-ID").await;
        tokio::time::sleep(Duration::from_millis(10)).await;
        assert!(cache.get(&key("full")).await.is_err(), "the server lets nobody in");
        assert_eq!(cache.epoch(), epoch + 1);
        let () = say(&mut shell, "CONFIG SET maxclients 100").await;
        until("it lets everybody in", async || cache.get(&key("room")).await.is_ok()).await;
        assert_eq!(cache.epoch(), epoch + 1, "one change");
    }
}

#[tokio::test]
async fn a_change_counts_once_for_reads_and_removals() {
    for client in CLIENTS {
        let server = Server::start(&[]);
        let mut config = config(&server.url(), client);
        config.identity_interval = Duration::from_millis(20);
        config.wait = Some(Wait { replicas: 1, timeout: Duration::from_millis(20) });
        let cache = RedisCache::connect(&config).await.unwrap();
        let key = key("once");
        for is_read_first in [true, false] {
            let epoch = cache.epoch();
            let () = say(&mut shell(&server.url()).await, "DEBUG CHANGE-REPL-ID").await;
            for is_read in [is_read_first, !is_read_first] {
                // Either way finds its own check due.
                tokio::time::sleep(Duration::from_millis(30)).await;
                if is_read {
                    assert_eq!(cache.get(&key).await.unwrap(), None);
                } else {
                    let removed = cache.remove(std::slice::from_ref(&key)).await;
                    assert_eq!(removed.unwrap_err().kind(), &ErrorKind::Timeout, "no replica");
                }
            }
            assert_eq!(cache.epoch(), epoch + 1, "{client:?}, {is_read_first}");
        }
    }
}
