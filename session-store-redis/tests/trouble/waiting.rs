//! Removals that wait for replicas, and those that come meanwhile.

use session_store_core::{ErrorKind, LayeredConfig};
use session_store_redis::Wait;

use super::gate::{Gate, Way};
use super::private::Server;
use super::*;

#[tokio::test]
async fn a_removal_is_done_while_another_waits_for_replicas() {
    for client in CLIENTS {
        let mut config = config(&single(), client);
        config.wait = Some(Wait { replicas: 1, timeout: Duration::from_secs(10) });
        let cache = RedisCache::connect(&config).await.unwrap();
        let (one, other) = (key("one"), key("other"));
        put(&cache, &one, &value("1")).await;
        put(&cache, &other, &value("2")).await;
        let waits = |key: &CacheKey| {
            let (cache, key) = (cache.clone(), key.clone());
            tokio::spawn(async move { cache.remove(&[key]).await })
        };
        let first = waits(&one);
        until("the first is gone", async || cache.get(&one).await.unwrap().is_none()).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        let second = waits(&other);
        until("the other is gone", async || cache.get(&other).await.unwrap().is_none()).await;
        assert!(!first.is_finished(), "held up by the wait of another");
        assert!(!second.is_finished(), "no replica has it");
        for removal in [first, second] {
            let error = removal.await.unwrap().unwrap_err();
            assert_eq!(error.kind(), &ErrorKind::Timeout);
        }
    }
}

/// A master, and a replica that follows it.
async fn pair(program: &str) -> (Server, Server) {
    let master = Server::of(program, &[]);
    let leader = format!("127.0.0.1 {}", master.port);
    let replica = Server::of(program, &["--replicaof", &leader, "--repl-diskless-sync-delay", "0"]);
    let mut shell = shell(&master.url()).await;
    until("the replica follows", async || {
        say::<()>(&mut shell, "SET one 1").await;
        say::<i64>(&mut shell, "WAIT 1 100").await == 1
    })
    .await;
    (master, replica)
}

#[tokio::test]
async fn what_others_remove_in_between_is_waited_for_too() {
    // Valkey waits only for what the connection itself has written.
    let valkey = variable("SESSION_STORE_VALKEY_URL");
    let about: String = say(&mut shell(&valkey).await, "INFO server").await;
    let program =
        about.lines().find_map(|line| line.strip_prefix("executable:")).unwrap().to_owned();
    for client in CLIENTS {
        let (master, replica) = pair(&program).await;
        let gate = Gate::before(&master.url()).await;
        let hasty = RedisCache::connect(&config(&master.url(), client)).await.unwrap();
        let mut config = config(&gate.line, client);
        config.wait = Some(Wait { replicas: 1, timeout: Duration::from_secs(1) });
        config.identity_interval = Duration::from_mins(1);
        let careful = RedisCache::connect(&config).await.unwrap();
        let name = key("between");
        let keys = (0..2000).map(|number| CacheKey::new(format!("{}:{number}", name.as_str())));
        let keys: Vec<_> = keys.map(std::result::Result::unwrap).collect();
        let reserved = keys.iter().map(|key| hasty.reserve(key, ttl(60_000)));
        for granted in futures_util::future::join_all(reserved).await {
            granted.unwrap();
        }
        until("a removal is replicated", async || careful.remove(&keys[..1]).await.is_ok()).await;
        // The first bytes arrive, and what they say is done and replicated.
        gate.set(Way::Part(8192));
        let late = {
            let (careful, keys) = (careful.clone(), keys.clone());
            tokio::spawn(async move { careful.remove(&keys).await })
        };
        tokio::time::sleep(Duration::from_millis(300)).await;
        let mut shell = shell(&master.url()).await;
        until("the replica says that it has it", async || {
            let about: String = say(&mut shell, "INFO replication").await;
            let own = about.lines().find_map(|line| line.strip_prefix("master_repl_offset:"));
            own.is_some_and(|own| about.contains(&format!(",offset={own},")))
        })
        .await;
        replica.stop();
        hasty.remove(&keys).await.unwrap();
        gate.set(Way::Open);
        let error = late.await.unwrap().unwrap_err();
        assert_eq!(error.kind(), &ErrorKind::Timeout, "no replica has the removal");
    }
}

#[tokio::test]
async fn many_removals_share_a_wait() {
    let (master, _replica) = pair("redis-server").await;
    let mut shell = shell(&master.url()).await;
    for client in CLIENTS {
        let mut config = config(&master.url(), client);
        config.wait = Some(Wait { replicas: 1, timeout: Duration::from_secs(5) });
        let cache = RedisCache::connect(&config).await.unwrap();
        let keys: Vec<_> = (0..100).map(|number| key(&number.to_string())).collect();
        for key in &keys {
            put(&cache, key, &value("1")).await;
        }
        let () = say(&mut shell, "CONFIG RESETSTAT").await;
        let removals = keys.iter().map(|key| cache.remove(std::slice::from_ref(key)));
        for removed in futures_util::future::join_all(removals).await {
            removed.unwrap();
        }
        for key in &keys {
            assert_eq!(cache.get(key).await.unwrap(), None);
        }
        let stats: String = say(&mut shell, "INFO commandstats").await;
        let waits = stats.lines().find_map(|line| line.strip_prefix("cmdstat_wait:calls="));
        let waits: usize = waits.unwrap().split(',').next().unwrap().parse().unwrap();
        assert!((1..50).contains(&waits), "{waits} times for 100 removals");
    }
}

#[tokio::test]
async fn whoever_may_not_wait_is_told_at_the_start() {
    for line in [single(), variable("SESSION_STORE_REDIS_CLUSTER_URL")] {
        let user = unique("hasty").replace(':', "-");
        let mut own = config(&line.replace("redis://", &format!("redis://{user}:pw@")), CLIENTS[0]);
        own.wait = Some(Wait { replicas: 1, timeout: Duration::from_millis(100) });
        let rules = own.acl_rules(&LayeredConfig::default());
        let set = async |rules: &[String]| {
            for node in line.split(',') {
                let mut command = redis::cmd("ACL");
                command.arg("SETUSER").arg(&user).arg(&["reset", "on", ">pw"]).arg(rules);
                let () = command.query_async(&mut shell(node).await).await.unwrap();
            }
        };
        for client in CLIENTS {
            own.client = client;
            set(&rules).await;
            RedisCache::connect(&own).await.unwrap();
            let without: Vec<_> = rules.iter().filter(|rule| *rule != "+wait").cloned().collect();
            set(&without).await;
            let error = RedisCache::connect(&own).await.unwrap_err();
            assert!(matches!(error.kind(), ErrorKind::Configuration { .. }), "{error:?}");
            assert!(error.to_string().contains("may not run WAIT"), "{error}");
        }
        for node in line.split(',') {
            let () = say(&mut shell(node).await, &format!("ACL DELUSER {user}")).await;
        }
    }
}
