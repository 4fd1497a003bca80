//! Nodes that leave, and nodes that don't answer.

use tokio::net::TcpListener;

use session_store_core::ErrorKind;
use session_store_redis::Wait;

use super::gate::Gate;
use super::private::Server;
use super::*;

/// How many connections a node has beside the one that asks.
async fn visitors(shell: &mut MultiplexedConnection) -> usize {
    let list: String = say(shell, "CLIENT LIST TYPE normal").await;
    list.lines().count() - 1
}

/// Two nodes that own half of the slots each, and a shell on each.
struct Halves {
    nodes: [Server; 2],
    shells: [MultiplexedConnection; 2],
}

impl Halves {
    async fn start() -> Self {
        let settings = ["--cluster-enabled", "yes", "--cluster-require-full-coverage", "no"];
        let nodes = [Server::start(&settings), Server::start(&settings)];
        let mut shells = [shell(&nodes[0].url()).await, shell(&nodes[1].url()).await];
        let () = say(&mut shells[0], "CLUSTER ADDSLOTSRANGE 0 8191").await;
        let () = say(&mut shells[1], "CLUSTER ADDSLOTSRANGE 8192 16383").await;
        let () = say(&mut shells[0], &format!("CLUSTER MEET 127.0.0.1 {}", nodes[1].port)).await;
        Self { nodes, shells }
    }

    /// A configuration whose cache finds all slots.
    async fn config(&self, client: Client) -> RedisConfig {
        let config = config(&format!("{0},{0}", self.nodes[0].url()), client);
        let keys: Vec<_> = (0..50).map(|number| key(&number.to_string())).collect();
        until("both know each other, and serve all slots", async || {
            let cache = RedisCache::connect(&config).await;
            cache.is_ok() && cache.unwrap().remove(&keys).await.is_ok()
        })
        .await;
        config
    }

    async fn ids(&mut self) -> [String; 2] {
        let [one, other] = &mut self.shells;
        [say(one, "CLUSTER MYID").await, say(other, "CLUSTER MYID").await]
    }

    /// A key that the first of them owns, and its slot.
    async fn key(&mut self) -> (CacheKey, u16) {
        loop {
            let key = key("half");
            let slot: u16 =
                say(&mut self.shells[0], &format!("CLUSTER KEYSLOT {}", key.as_str())).await;
            if slot < 8192 {
                return (key, slot);
            }
        }
    }
}

#[tokio::test]
async fn an_entry_at_a_node_that_imports_its_slot_is_not_of_the_same_epoch() {
    for client in CLIENTS {
        let mut halves = Halves::start().await;
        let cache = RedisCache::connect(&halves.config(client).await).await.unwrap();
        let ((key, slot), [source, target]) = (halves.key().await, halves.ids().await);
        put(&cache, &key, &value("1")).await;
        let [here, there] = &mut halves.shells;
        let () = say(there, &format!("CLUSTER SETSLOT {slot} IMPORTING {source}")).await;
        let () = say(here, &format!("CLUSTER SETSLOT {slot} MIGRATING {target}")).await;
        cache.remove(std::slice::from_ref(&key)).await.unwrap();
        // The copy that a MIGRATE had sent comes late.
        let () = say(there, "ASKING").await;
        let () = say(there, &format!("SET {} V1", key.as_str())).await;
        for _ in 0..2 {
            let epoch = cache.epoch();
            assert_eq!(cache.get(&key).await.unwrap(), Some(value("1")), "it was not asked for");
            assert_ne!(cache.epoch(), epoch, "an old entry may be believed");
        }
        cache.remove(std::slice::from_ref(&key)).await.unwrap();
        assert_eq!(cache.get(&key).await.unwrap(), None);
    }
}

#[tokio::test]
async fn a_slot_that_moved_counts_once_for_reads_and_removals() {
    for client in CLIENTS {
        let mut halves = Halves::start().await;
        let mut config = halves.config(client).await;
        config.wait = Some(Wait { replicas: 1, timeout: Duration::from_millis(20) });
        config.connect_pause = Duration::ZERO;
        let cache = RedisCache::connect(&config).await.unwrap();
        for is_read_first in [true, false] {
            let [source, target] = halves.ids().await;
            let (key, slot) = loop {
                // Not the one that has moved already.
                let (key, slot) = halves.key().await;
                if slot % 2 == u16::from(is_read_first) {
                    break (key, slot);
                }
            };
            let epoch = cache.epoch();
            let [here, there] = &mut halves.shells;
            // Who imports it is believed from then on, whatever the nodes tell each other meanwhile.
            let () = say(there, &format!("CLUSTER SETSLOT {slot} IMPORTING {source}")).await;
            for shell in [there, here] {
                let () = say(shell, &format!("CLUSTER SETSLOT {slot} NODE {target}")).await;
            }
            // The first removal may only find out that the map is old.
            for is_read in [is_read_first, !is_read_first, false, true] {
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

#[tokio::test]
async fn a_removal_that_one_server_sends_elsewhere_is_not_done() {
    let cluster = variable("SESSION_STORE_REDIS_CLUSTER_URL");
    let mut line = String::new();
    for node in cluster.split(',') {
        let about: String = say(&mut shell(node).await, "INFO replication").await;
        if about.contains("role:master") {
            node.clone_into(&mut line);
        }
    }
    // It does not say that it is only a part.
    let gate = Gate::hiding(&line, &["redis_mode:", "server_mode:"]).await;
    for client in CLIENTS {
        for wait in [None, Some(Wait { replicas: 1, timeout: Duration::from_secs(5) })] {
            let mut config = config(&gate.line, client);
            config.wait = wait;
            let cache = RedisCache::connect(&config).await.unwrap();
            let mut elsewhere = 0;
            for number in 0..30 {
                let key = key(&number.to_string());
                let is_there = cache.get(&key).await.is_ok();
                // In one command, and in several.
                for count in [1, 1001] {
                    let removed = cache.remove(&vec![key.clone(); count]).await;
                    assert!(is_there || removed.is_err(), "its entry lives on at another node");
                }
                elsewhere += usize::from(!is_there);
            }
            assert!(elsewhere > 0, "this node owns everything");
        }
    }
}

#[tokio::test]
async fn connections_to_nodes_that_left_are_closed() {
    for client in CLIENTS {
        let halves = Halves::start().await;
        let cache = RedisCache::connect(&halves.config(client).await).await.unwrap();
        let [mut here, mut there] = halves.shells;
        let keys: Vec<_> = (0..50).map(|number| key(&number.to_string())).collect();
        until("all keys are served", async || cache.remove(&keys).await.is_ok()).await;
        // Those that only looked whether all slots are served may still be leaving.
        until("it alone is connected", async || visitors(&mut there).await == 1).await;
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
        // Half of it is left when a minority is believed.
        config.deadline = Duration::from_secs(20);
        let cache = RedisCache::new(&config).unwrap();
        assert_eq!(cache.get(&key("seed")).await.unwrap(), None);
        // A minority too is better than none, as long as time is left.
        let few = line.rsplit_once(',').unwrap().0;
        config.servers = RedisConfig::parse(few).unwrap().servers;
        let cache = RedisCache::new(&config).unwrap();
        assert_eq!(cache.get(&key("seed")).await.unwrap(), None);
    }
}
