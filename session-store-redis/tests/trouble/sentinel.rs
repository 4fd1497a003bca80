//! Sentinels that name another master, or can't be asked.

use session_store_core::{Error, ErrorKind};
use session_store_redis::Credentials;

use super::gate::{Gate, Way};
use super::*;

/// Names a master of its own to the sentinels of the run.
struct Trio {
    name: String,
    lines: Vec<String>,
}

impl Trio {
    async fn of(port: u16) -> Self {
        let line = variable("SESSION_STORE_REDIS_SENTINEL_URL");
        let (list, _) = line.split_once('#').unwrap();
        let lines = list.split(',').map(str::to_owned).collect();
        let trio = Self { name: unique("m").replace(':', "-"), lines };
        for at in 0..trio.lines.len() {
            trio.name_to(at, port).await;
        }
        trio
    }

    async fn name_to(&self, at: usize, port: u16) {
        let mut shell = shell(&self.lines[at]).await;
        let words = format!("SENTINEL MONITOR {} 127.0.0.1 {port} 2", self.name);
        let () = say(&mut shell, &words).await;
    }

    async fn forget(&self, at: usize) {
        let () =
            say(&mut shell(&self.lines[at]).await, &format!("SENTINEL REMOVE {}", self.name)).await;
    }

    async fn end(self) {
        for at in 0..self.lines.len() {
            self.forget(at).await;
        }
    }

    fn line(&self, lines: &[&str]) -> String {
        format!("{}#{}", lines.join(","), self.name)
    }

    fn all(&self) -> String {
        self.line(&self.lines.iter().map(String::as_str).collect::<Vec<_>>())
    }
}

/// Everything that an error tells anybody.
fn all(error: &Error) -> String {
    format!("{error} {error:?} {:?}", std::error::Error::source(error))
}

#[tokio::test]
async fn a_deposed_master_is_left_although_it_answers() {
    let (one, other) = (single(), variable("SESSION_STORE_VALKEY_URL"));
    for client in CLIENTS {
        let trio = Trio::of(port(&one)).await;
        let mut config = config(&trio.all(), client);
        config.identity_interval = Duration::from_millis(50);
        let cache = RedisCache::connect(&config).await.unwrap();
        let key = key("deposed");
        put(&cache, &key, &value("1")).await;
        let epoch = cache.epoch();
        for at in 0..3 {
            trio.forget(at).await;
            trio.name_to(at, port(&other)).await;
        }
        tokio::time::sleep(Duration::from_millis(60)).await;
        // It still has the entry and would serve it.
        assert_eq!(cache.get(&key).await.unwrap(), None);
        assert_ne!(cache.epoch(), epoch);
        let mut shell = shell(&one).await;
        assert_eq!(say::<i64>(&mut shell, &format!("DEL {}", key.as_str())).await, 1);
        trio.end().await;
    }
}

#[tokio::test]
async fn a_minority_of_the_sentinels_is_not_believed() {
    let nobody = "redis://127.0.0.1:1";
    for client in CLIENTS {
        let trio = Trio::of(port(&single())).await;
        let [one, two, three] = [0, 1, 2].map(|at| trio.lines[at].as_str());
        let most = config(&trio.line(&[one, nobody, two]), client);
        RedisCache::connect(&most).await.unwrap();
        let few = config(&trio.line(&[one, nobody, "redis://127.0.0.1:2"]), client);
        let error = RedisCache::connect(&few).await.unwrap_err();
        assert_eq!(error.kind(), &ErrorKind::Unavailable, "{}", all(&error));
        // Naming one twice gives it no second vote.
        let twice = config(&trio.line(&[one, one, nobody, "redis://127.0.0.1:2"]), client);
        assert!(RedisCache::connect(&twice).await.is_err());
        trio.forget(1).await;
        trio.forget(2).await;
        let split = config(&trio.line(&[one, two, three]), client);
        let error = RedisCache::connect(&split).await.unwrap_err();
        assert!(error.to_string().contains("knows no master"), "{}", all(&error));
        trio.forget(0).await;
    }
}

#[tokio::test]
async fn without_a_majority_there_is_no_master_any_more() {
    for client in CLIENTS {
        let trio = Trio::of(port(&single())).await;
        let mut gates = Vec::new();
        for line in &trio.lines {
            gates.push(Gate::before(line).await);
        }
        let lines: Vec<_> = gates.iter().map(|gate| gate.line.as_str()).collect();
        let mut config = config(&trio.line(&lines), client);
        config.identity_interval = Duration::from_millis(50);
        let cache = RedisCache::connect(&config).await.unwrap();
        let (key, epoch) = (key("alone"), cache.epoch());
        put(&cache, &key, &value("1")).await;
        gates[0].set(Way::Shut);
        tokio::time::sleep(Duration::from_millis(60)).await;
        assert_eq!(cache.get(&key).await.unwrap(), Some(value("1")), "one may be down");
        gates[1].set(Way::Shut);
        tokio::time::sleep(Duration::from_millis(60)).await;
        assert_eq!(cache.get(&key).await.unwrap_err().kind(), &ErrorKind::Unavailable);
        gates[1].set(Way::Open);
        until("the sentinels are asked again", async || cache.get(&key).await.is_ok()).await;
        assert_eq!(cache.epoch(), epoch, "the master was the same all the time");
        cache.remove(std::slice::from_ref(&key)).await.unwrap();
        trio.end().await;
    }
}

#[tokio::test]
async fn a_login_at_a_sentinel_is_told_from_one_at_the_server() {
    let trio = Trio::of(port(&single())).await;
    let (asker, mute) = (unique("asker"), unique("mute"));
    for line in &trio.lines {
        let mut shell = shell(line).await;
        let rights = "+sentinel|get-master-addr-by-name";
        let () = say(&mut shell, &format!("ACL SETUSER {asker} on >hunter2 -@all {rights}")).await;
        let () = say(&mut shell, &format!("ACL SETUSER {mute} on >hunter2 -@all +ping")).await;
    }
    for client in CLIENTS {
        let as_user = |user: &str, password: &str| {
            let mut config = config(&trio.all(), client);
            config.sentinel_credentials = Some(Credentials::new(Some(user.to_owned()), password));
            config
        };
        RedisCache::connect(&as_user(&asker, "hunter2")).await.unwrap();
        for (user, password, advice) in [
            (&asker, "hunter3", "sentinel_credentials"),
            (&mute, "hunter2", "+sentinel|get-master"),
        ] {
            let error = RedisCache::connect(&as_user(user, password)).await.unwrap_err();
            assert!(matches!(error.kind(), ErrorKind::Configuration { .. }), "{}", all(&error));
            assert!(error.to_string().contains(advice), "{}", all(&error));
            assert!(!all(&error).contains("hunter"), "{}", all(&error));
        }
    }
    for line in &trio.lines {
        let () = say(&mut shell(line).await, &format!("ACL DELUSER {asker} {mute}")).await;
    }
    trio.end().await;
}

#[tokio::test]
async fn what_sentinels_said_is_as_old_as_the_question() {
    let (one, other) = (single(), variable("SESSION_STORE_VALKEY_URL"));
    for client in CLIENTS {
        let gate = Gate::before(&one).await;
        let trio = Trio::of(port(&gate.line)).await;
        let mut config = config(&trio.all(), client);
        config.identity_interval = Duration::from_millis(500);
        let key = key("slow");
        put(&RedisCache::connect(&config).await.unwrap(), &key, &value("1")).await;
        gate.set(Way::Held);
        let visitors = gate.visitors();
        let opening = tokio::spawn(async move { RedisCache::connect(&config).await });
        // It has asked the sentinels, and whom they named does not answer it yet.
        until("it is at the master", async || gate.visitors() > visitors).await;
        for at in 0..3 {
            trio.forget(at).await;
            trio.name_to(at, port(&other)).await;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
        gate.set(Way::Open);
        let cache = opening.await.unwrap().unwrap();
        assert_eq!(cache.get(&key).await.unwrap(), None, "a deposed master was asked");
        trio.end().await;
    }
}

#[tokio::test]
async fn a_master_that_is_a_part_of_a_cluster_is_refused() {
    let cluster = variable("SESSION_STORE_REDIS_CLUSTER_URL");
    let trio = Trio::of(port(cluster.split(',').next().unwrap())).await;
    for client in CLIENTS {
        let error = RedisCache::connect(&config(&trio.all(), client)).await.unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Configuration { .. }), "{}", all(&error));
        assert!(error.to_string().contains("Servers::Cluster"), "{}", all(&error));
    }
    trio.end().await;
}
