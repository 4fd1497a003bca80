//! Nodes that leave, and nodes that don't answer.

use tokio::net::TcpListener;

use super::private::Server;
use super::*;

/// How many connections a node has beside the one that asks.
async fn visitors(shell: &mut MultiplexedConnection) -> usize {
    let list: String = say(shell, "CLIENT LIST TYPE normal").await;
    list.lines().count() - 1
}

#[tokio::test]
async fn connections_to_nodes_that_left_are_closed() {
    let settings = ["--cluster-enabled", "yes", "--cluster-require-full-coverage", "no"];
    for client in CLIENTS {
        let (one, other) = (Server::start(&settings), Server::start(&settings));
        let (mut here, mut there) = (shell(&one.url()).await, shell(&other.url()).await);
        let () = say(&mut here, "CLUSTER ADDSLOTSRANGE 0 8191").await;
        let () = say(&mut there, "CLUSTER ADDSLOTSRANGE 8192 16383").await;
        let () = say(&mut here, &format!("CLUSTER MEET 127.0.0.1 {}", other.port)).await;
        let line = format!("{0},{0}", one.url());
        let cache = RedisCache::new(&config(&line, client)).unwrap();
        until("both know each other", async || cache.check().await.is_ok()).await;
        let keys: Vec<_> = (0..50).map(|number| key(&number.to_string())).collect();
        until("all keys are served", async || cache.remove(&keys).await.is_ok()).await;
        assert_eq!(visitors(&mut there).await, 1);
        // Its slots go to the other one, and so does the client.
        let () = say(&mut there, "CLUSTER DELSLOTSRANGE 8192 16383").await;
        until("nobody has them", async || {
            say::<redis::Value>(&mut here, "CLUSTER DELSLOTSRANGE 8192 16383").await;
            let mut add = redis::cmd("CLUSTER");
            add.arg("ADDSLOTSRANGE").arg(8192).arg(16383);
            add.query_async::<()>(&mut here).await.is_ok()
        })
        .await;
        until("all keys are served again", async || cache.remove(&keys).await.is_ok()).await;
        until("nobody is connected to it", async || visitors(&mut there).await == 0).await;
        assert!(cache.remove(&keys).await.is_ok());
    }
}

#[tokio::test]
async fn a_silent_seed_holds_up_nobody_while_a_majority_answers() {
    let mute = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let cluster = variable("SESSION_STORE_REDIS_CLUSTER_URL");
    let two: Vec<_> = cluster.split(',').take(2).collect();
    let line = format!("redis://{},{}", mute.local_addr().unwrap(), two.join(","));
    for client in CLIENTS {
        let mut config = config(&line, client);
        config.deadline = Duration::from_secs(3);
        let cache = RedisCache::new(&config).unwrap();
        assert_eq!(cache.get(&key("seed")).await.unwrap(), None);
        // A minority too is better than none, as long as time is left.
        let few = line.rsplit_once(',').unwrap().0;
        config.servers = RedisConfig::parse(few).unwrap().servers;
        let cache = RedisCache::new(&config).unwrap();
        assert_eq!(cache.get(&key("seed")).await.unwrap(), None);
    }
}
