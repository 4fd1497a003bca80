//! Nodes of a Cluster that own nothing.

use super::again::Phoenix;
use super::*;

const SETTINGS: [&str; 6] = [
    "--cluster-enabled",
    "yes",
    "--cluster-require-full-coverage",
    "no",
    "--repl-diskless-sync-delay",
    "0",
];

/// Whether a server does what it is told; it may not know enough yet.
async fn does(shell: &mut MultiplexedConnection, words: &str) -> bool {
    let mut words = words.split(' ');
    let mut command = redis::cmd(words.next().unwrap());
    command.arg(words.collect::<Vec<_>>()).query_async::<redis::Value>(shell).await.is_ok()
}

/// A replica that follows `master`.
async fn replica_of(master: &Phoenix) -> Phoenix {
    let replica = Phoenix::start(&SETTINGS).await;
    let (mut here, mut there) = (shell(&master.url()).await, shell(&replica.url()).await);
    let id: String = say(&mut here, "CLUSTER MYID").await;
    let () = say(&mut there, &format!("CLUSTER MEET 127.0.0.1 {}", master.port)).await;
    until("it may follow", async || does(&mut there, &format!("CLUSTER REPLICATE {id}")).await)
        .await;
    until("it follows", async || {
        let about: String = say(&mut there, "INFO replication").await;
        about.contains("master_link_status:up")
    })
    .await;
    replica
}

/// How often a node was asked who owns what.
async fn looks(shell: &mut MultiplexedConnection) -> u64 {
    let stats: String = say(shell, "INFO commandstats").await;
    let found = stats.lines().find_map(|line| line.strip_prefix("cmdstat_cluster|nodes:calls="));
    found.map_or(0, |rest| rest.split(',').next().unwrap().parse().unwrap())
}

#[tokio::test]
async fn a_replica_that_was_started_again_is_no_change() {
    for client in CLIENTS {
        let master = Phoenix::start(&SETTINGS).await;
        let mut here = shell(&master.url()).await;
        let () = say(&mut here, "CLUSTER ADDSLOTSRANGE 0 16383").await;
        let mut replica = replica_of(&master).await;
        let mut config = config(&format!("{},{}", master.url(), replica.url()), client);
        config.connect_pause = Duration::ZERO;
        until("all slots are served", async || RedisCache::connect(&config).await.is_ok()).await;
        let patient = config.clone();
        config.deadline = Duration::from_millis(600);
        let cache = RedisCache::connect(&config).await.unwrap();
        let key = key("idle");
        until("it is served", async || cache.get(&key).await.is_ok()).await;
        let epoch = cache.epoch();
        put(&RedisCache::connect(&patient).await.unwrap(), &key, &value("1")).await;
        replica.kill();
        replica.again().await;
        let mut there = shell(&replica.url()).await;
        until("it follows again", async || {
            let about: String = say(&mut there, "INFO replication").await;
            about.contains("master_link_status:up")
        })
        .await;
        until("it is asked for the map", async || {
            // Whoever gets no answer looks at the map again.
            let () = say(&mut here, "CLIENT PAUSE 3000").await;
            let _ = cache.get(&key).await;
            let mut found = None;
            until("it answers", async || {
                found = cache.get(&key).await.ok();
                found.is_some()
            })
            .await;
            assert_eq!(found, Some(Some(value("1"))));
            looks(&mut there).await > 0
        })
        .await;
        assert_eq!(cache.epoch(), epoch, "nothing was asked of the one that changed");
        // Of the other one it is.
        let () = say(&mut here, "DEBUG CHANGE-REPL-ID").await;
        let _: i64 = say(&mut here, "CLIENT KILL TYPE normal SKIPME yes").await;
        until("it answers", async || cache.get(&key).await.is_ok()).await;
        assert_ne!(cache.epoch(), epoch);
    }
}
