//! Masters that die, and replicas that take over.

use std::path::Path;
use std::time::{Duration, Instant};

use session_store::postgres::PostgresConfig;
use session_store::redis::{Address, RedisCache, RedisConfig, Servers, Wait};
use session_store::{CacheKey, ErrorKind, Reason, SecondaryStore, Source, Token, Ttl, Visibility};

use super::load::{Load, Seen};
use super::node::{CACHE_TTL, LEASE_TTL, Node, Outcome, cache_at, said, two};
use super::private::Private;
use super::proxy::{Proxy, Weather};
use super::{BUSIEST, CLIENTS, World, at_last, both, ensure, seconds, until};
use crate::servers::install::{Program, free_port};
use crate::servers::{redis, valkey};

/// How often something is tried that may take too long on a busy machine to show anything.
const TRIES: u32 = 5;

/// A master, and a replica that has caught up.
fn pair(server: &Private) -> Outcome<(redis::Node, redis::Node)> {
    pair_of(server, &redis::program().map_err(said)?)
}

fn pair_of(server: &Private, program: &Path) -> Outcome<(redis::Node, redis::Node)> {
    let master = server.launch(program, free_port().map_err(said)?, &[])?;
    let replica = replica_of(server, program, &master, master.port)?;
    Ok((master, replica))
}

/// A replica that reaches the master by the port `way`, and has caught up.
fn replica_of(
    server: &Private,
    program: &Path,
    master: &redis::Node,
    way: u16,
) -> Outcome<redis::Node> {
    let leader = format!("127.0.0.1 {way}");
    let replica = server.launch(program, free_port().map_err(said)?, &["--replicaof", &leader])?;
    // It acknowledges nothing before it has said for the first time how far it is.
    redis::said(master.port, &["set", "warm", "up"]).map_err(said)?;
    let end = Instant::now() + BUSIEST;
    loop {
        let info = redis::said(master.port, &["info", "replication"]).map_err(said)?;
        let at = |name: &str| {
            let (_, rest) = info.split_once(name)?;
            rest.split(|c: char| !c.is_ascii_digit()).next().map(str::to_owned)
        };
        if at("master_repl_offset:").is_some_and(|own| at(",offset=") == Some(own)) {
            break;
        }
        ensure(Instant::now() < end, "the replica does not catch up")?;
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(replica)
}

pub(super) async fn a_replica_is_refused(on: &World) -> Outcome<String> {
    for (client, _) in CLIENTS {
        let server = Private::new()?;
        let (master, replica) = pair(&server)?;
        let config = cache_at(&replica.url(), client)?;
        let error = RedisCache::connect(&config).await.err().ok_or("a replica was accepted")?;
        ensure(error.kind() == &ErrorKind::Unavailable, "a replica is no outage")?;
        let source = std::error::Error::source(&error).map(ToString::to_string);
        ensure(source.is_some_and(|source| source.contains("replica")), "it does not say why")?;
        // A master that is demoted while it is used.
        let node = Node::start(&on.truth().await?, &master.url(), client).await?;
        node.register().await?;
        let token = node.log_in_warm().await?;
        redis::said(replica.port, &["replicaof", "no", "one"]).map_err(said)?;
        let follow = ["replicaof", "127.0.0.1", &replica.port.to_string()];
        redis::said(master.port, &follow).map_err(said)?;
        let fresh = node.log_in().await?;
        for _ in 0..50 {
            let both = node.accepts(&token).await && node.accepts(&fresh).await;
            ensure(both, "a demoted master logged somebody out")?;
        }
        let done = node.app.admin_revoke(token.id(), Reason::Admin).await.map_err(said)?;
        ensure(done.visibility != Visibility::Immediate, "a replica acknowledged a removal")?;
    }
    Ok("both clients".to_owned())
}

pub(super) async fn a_replica_is_promoted_behind_us(on: &World) -> Outcome<String> {
    let mut figures = Vec::new();
    for (client, name) in CLIENTS {
        let server = Private::new()?;
        let (master, replica) = pair(&server)?;
        let truth = on.truth().await?;
        let mut config = cache_at(&master.url(), client)?;
        config.wait = Some(Wait { replicas: 1, timeout: Duration::from_secs(2) });
        let here = Node::with(&truth, &config).await?;
        here.register().await?;
        // One that is held up for longer than it is waited for is not there.
        at_last(async || {
            let token = here.log_in_warm().await?;
            let done = here.app.admin_revoke(token.id(), Reason::Admin).await.map_err(said)?;
            ensure(
                done.visibility == Visibility::Immediate,
                "a replica that is there was not enough",
            )
        })
        .await?;
        let token = here.log_in_warm().await?;
        redis::said(master.port, &["wait", "1", "1000"]).map_err(said)?;
        redis::said(replica.port, &["replicaof", "no", "one"]).map_err(said)?;
        let there = Node::start(&truth, &replica.url(), client).await?;
        until(BUSIEST, "the new master has the entry", async || {
            let live = there.app.authenticate(&token).await.live();
            live.is_some_and(|live| live.source == Source::Secondary)
        })
        .await?;
        let done = here.app.admin_revoke(token.id(), Reason::Admin).await.map_err(said)?;
        ensure(done.visibility != Visibility::Immediate, "WAIT came short and nobody said so")?;
        let refused = until(done.visibility.bound(), "the other side refuses it", async || {
            !there.accepts(&token).await
        });
        figures.push(format!(
            "{name}: refused on the new master after {:.2} s of {:.1} s",
            refused.await?.as_secs_f32(),
            done.visibility.bound().as_secs_f32()
        ));
    }
    Ok(figures.join("; "))
}

/// What the master acknowledged and the replica never heard of comes back with the replica.
pub(super) async fn a_replica_without_a_removal_takes_over(on: &World) -> Outcome<String> {
    both(on, async |truth, client| {
        let mut back = None;
        for _ in 0..TRIES {
            back = taken_over(&truth, client).await?;
            if back.is_some() {
                break;
            }
        }
        let what = format!("nothing came back {TRIES} times, so nothing is shown");
        let TakenOver { nodes, token, left, _server } = back.ok_or(what)?;
        let (began, mut asked) = (Instant::now(), 0);
        while began.elapsed() < CACHE_TTL + LEASE_TTL + Duration::from_secs(1) {
            for node in &nodes {
                ensure(!node.accepts(&token).await, "what came back was believed")?;
                asked += 1;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let told = nodes[1].app.store().guarantee().rollback.unwrap_or_default();
        tokio::time::sleep(told.saturating_sub(began.elapsed())).await;
        nodes[1].log_in_warm().await?;
        Ok(format!("an entry came back for {left} ms, {asked} lookups, none believed it"))
    })
    .await
}

/// What is left when a replica has taken over.
struct TakenOver {
    nodes: [Node; 2],
    /// Whose removal the replica never heard of.
    token: Token,
    /// How many milliseconds the entry has left that came back.
    left: i64,
    _server: Private,
}

/// None when the entry ended meanwhile, as it may on a busy machine.
async fn taken_over(
    truth: &PostgresConfig,
    client: session_store::redis::Client,
) -> Outcome<Option<TakenOver>> {
    let server = Private::new()?;
    let program = redis::program().map_err(said)?;
    let master = server.redis(&[])?;
    let wire = Proxy::before(master.port).await.map_err(said)?;
    let replica = replica_of(&server, &program, &master, wire.port)?;
    let url = master.url();
    let nodes = [Node::start(truth, &url, client).await?, Node::start(truth, &url, client).await?];
    nodes[0].register_once().await?;
    let token = nodes[0].log_in_warm().await?;
    ensure(nodes[1].accepts(&token).await, "a false logout")?;
    // Else the log might remove what came back.
    nodes.iter().for_each(Node::rest);
    let key = redis::said(master.port, &["keys", &format!("*{}*", token.id())]);
    let key = key.map_err(said)?;
    // What a key that is not there has left is less than nothing.
    let left_on = |port| -> Outcome<i64> {
        redis::said(port, &["pttl", &key]).map_err(said)?.parse().map_err(said)
    };
    let has = async || left_on(replica.port).is_ok_and(|left| left > 0);
    if until(CACHE_TTL, "the replica has the entry", has).await.is_err() {
        return Ok(None);
    }
    wire.set(Weather::Held);
    let done = nodes[0].app.admin_revoke(token.id(), Reason::Admin).await.map_err(said)?;
    ensure(done.visibility == Visibility::Immediate, "not immediate on a healthy master")?;
    master.running.signal("-KILL");
    wire.set(Weather::Refused);
    redis::said(replica.port, &["replicaof", "no", "one"]).map_err(said)?;
    let port = master.port.to_string();
    let words = ["config", "set", "port", &port];
    let moved = async || redis::said(replica.port, &words).is_ok_and(|said| said == "OK");
    until(BUSIEST, "the replica takes the place", moved).await?;
    let left = left_on(master.port)?;
    Ok((left > 0).then_some(TakenOver { nodes, token, left, _server: server }))
}

/// A removal that finds nothing waits for the one of somebody else.
pub(super) async fn what_others_removed_is_waited_for(_: &World) -> Outcome<String> {
    for program in [redis::program().map_err(said)?, valkey::program().map_err(said)?] {
        let server = Private::new()?;
        let (master, replica) = pair_of(&server, &program)?;
        for (client, _) in CLIENTS {
            let mut config = cache_at(&master.url(), client)?;
            let hasty = RedisCache::connect(&config).await.map_err(said)?;
            config.wait = Some(Wait { replicas: 1, timeout: Duration::from_secs(1) });
            let careful = RedisCache::connect(&config).await.map_err(said)?;
            let ttl = Ttl::new(Duration::from_mins(1)).unwrap_or(Ttl::MIN);
            let keys = ["one", "two"].map(|name| CacheKey::new(name).map_err(said));
            let keys = keys.into_iter().collect::<Outcome<Vec<_>>>()?;
            for key in &keys {
                hasty.reserve(key, ttl).await.map_err(said)?;
            }
            // A replica that is held up for longer than it is waited for is not there.
            at_last(async || careful.remove(&keys).await.map_err(said)).await?;
            replica.running.signal("-STOP");
            hasty.remove(&keys).await.map_err(said)?;
            let late = careful.remove(&keys).await.err();
            replica.running.signal("-CONT");
            let late = late.ok_or("the replica had nothing, and the removal counted")?;
            ensure(late.kind() == &ErrorKind::Timeout, "a short WAIT is of unknown outcome")?;
            for key in &keys {
                ensure(careful.get(key).await.map_err(said)?.is_none(), "something was left")?;
            }
        }
    }
    Ok("Redis and Valkey, both clients".to_owned())
}

/// Two masters, the second of which comes late and dies: half of the keys, no more and no less.
pub(super) async fn half_a_cluster(_: &World) -> Outcome<String> {
    let mut figures = Vec::new();
    for (client, name) in CLIENTS {
        let server = Private::new()?;
        let settings = ["--cluster-enabled", "yes", "--cluster-require-full-coverage", "no"];
        let [one, other] = [server.cluster_node(&settings)?, server.cluster_node(&settings)?];
        let say = |port: u16, words: &str| {
            redis::said(port, &words.split(' ').collect::<Vec<_>>()).map_err(said)
        };
        say(one.port, "cluster addslotsrange 0 8191")?;
        let address = Address::parse(&one.url()).map_err(said)?;
        let mut config = RedisConfig::new(Servers::Cluster(vec![address]));
        config.client = client;
        (config.deadline, config.connect_timeout) = (Duration::from_secs(5), BUSIEST);
        let cache = RedisCache::new(&config).map_err(said)?;
        let early = cache.check().await.err().ok_or("half of the slots were enough")?;
        ensure(early.kind() == &ErrorKind::Unavailable, "what is being made is no outage")?;
        say(other.port, "cluster addslotsrange 8192 16383")?;
        say(one.port, &format!("cluster meet 127.0.0.1 {}", other.port))?;
        let whole = until(BUSIEST, "the other half is found", async || cache.check().await.is_ok());
        whole.await?;
        let keys = (0..400).map(|number| CacheKey::new(format!("k{number}")).map_err(said));
        let keys = keys.collect::<Outcome<Vec<_>>>()?;
        until(BUSIEST, "all keys are served", async || cache.remove(&keys).await.is_ok()).await?;
        let ttl = Ttl::new(Duration::from_mins(1)).unwrap_or(Ttl::MIN);
        for key in &keys {
            cache.reserve(key, ttl).await.map_err(said)?;
        }
        let held = [say(one.port, "dbsize")?, say(other.port, "dbsize")?];
        ensure(held.iter().all(|count| count != "0"), "one has everything")?;
        other.running.signal("-KILL");
        let torn = cache.remove(&keys).await.err().ok_or("half a removal counted")?;
        ensure(torn.is_retryable(), &format!("half a removal is no outage: {torn}"))?;
        ensure(say(one.port, "dbsize")? == "0", "who is there was not told")?;
        let before = looks(one.port)?;
        let (began, mut calls, mut hits) = (Instant::now(), 0_u32, 0_u32);
        while began.elapsed() < Duration::from_secs(1) {
            for key in &keys {
                calls += 1;
                hits += u32::from(cache.get(key).await.is_ok());
            }
        }
        // Five a second, and some that were due already.
        let most = 3 + began.elapsed().as_millis() / 200;
        let after = u128::from(looks(one.port)? - before);
        ensure(hits > calls / 3, &format!("only {hits} of {calls} were served"))?;
        ensure((1..=most).contains(&after), &format!("the map was looked at {after} times"))?;
        let [gone, _] = held;
        figures.push(format!(
            "{name}: {gone} of {} removed, {hits} of {calls} served, {after} looks at the map",
            keys.len()
        ));
    }
    Ok(figures.join("; "))
}

/// How often a node was asked who owns what.
fn looks(port: u16) -> Outcome<u64> {
    let stats = redis::said(port, &["info", "commandstats"]).map_err(said)?;
    let found = stats.lines().find_map(|line| line.strip_prefix("cmdstat_cluster|nodes:calls="));
    found.and_then(|rest| rest.split(',').next()).unwrap_or("0").parse().map_err(said)
}

pub(super) async fn the_master_dies_under_sentinel(on: &World) -> Outcome<String> {
    let mut figures = Vec::new();
    for (client, name) in CLIENTS {
        let server = Private::new()?;
        let (data, sentinels) = redis::sentinels(
            &server.home,
            Program::Here(redis::program().map_err(said)?),
            redis::Nerves::Thin,
        )
        .map_err(said)?;
        let addresses: Vec<_> = sentinels.iter().map(redis::Node::url).collect();
        let line = format!("{}#mymaster", addresses.join(","));
        let master = || redis::chosen(&sentinels, &data);
        let (seen, healed) = under_load(on, client, &line, master).await?;
        figures.push(format!("{name}: hits again {} after the kill, {seen}", seconds(healed)));
    }
    Ok(figures.join("; "))
}

pub(super) async fn a_master_dies_in_a_cluster(on: &World) -> Outcome<String> {
    let mut figures = Vec::new();
    for (client, name) in CLIENTS {
        let server = Private::new()?;
        let all = redis::cluster(
            &server.home,
            Program::Here(redis::program().map_err(said)?),
            redis::Nerves::Thin,
        )
        .map_err(said)?;
        let addresses: Vec<_> = all.iter().map(redis::Node::url).collect();
        let master = || all.iter().find(|node| redis::leads(node)).cloned();
        let (seen, healed) = under_load(on, client, &addresses.join(","), master).await?;
        figures.push(format!("{name}: all hit again {} after the kill, {seen}", seconds(healed)));
    }
    Ok(figures.join("; "))
}

/// How long a failover may take: a sentinel that was held up for 2 s puts it off for 30 s.
const FAILOVER: Duration = Duration::from_secs(70);

/// Kills a master while two nodes work; what they saw, and after how long every new session was served
/// from the cache again. Who is master is asked at the last moment: a machine that was held up may have
/// had another one since the start.
async fn under_load(
    on: &World,
    client: session_store::redis::Client,
    line: &str,
    master: impl Fn() -> Option<redis::Node>,
) -> Outcome<(String, Option<Duration>)> {
    let nodes = two(&on.truth().await?, line, client).await?;
    let load = Load::start(&nodes, 3);
    load.until("a start", Seen::has_begun).await?;
    let mut found = None;
    until(BUSIEST, "somebody is master", async || {
        found = master();
        found.is_some()
    })
    .await?;
    let epochs = nodes.each_ref().map(|node| node.cache.epoch());
    found.ok_or("no master")?.running.signal("-KILL");
    let killed = Instant::now();
    tokio::time::sleep(Duration::from_millis(500)).await;
    let mut healed = None;
    while healed.is_none() && killed.elapsed() < FAILOVER {
        let mut are_warm = true;
        // So many that every master has some.
        for _ in 0..12 {
            are_warm = are_warm && nodes[1].log_in_warm().await.is_ok();
        }
        healed = are_warm.then(|| killed.elapsed());
    }
    load.until("a bound is over", Seen::has_outlived_a_bound).await?;
    let seen = load.stop().await;
    seen.judge_without_cache()?;
    ensure(healed.is_some(), "the cache was never used again")?;
    let noticed = nodes.iter().zip(epochs).all(|(node, epoch)| node.cache.epoch() != epoch);
    ensure(noticed, "a node did not notice the failover")?;
    Ok((seen.to_string(), healed))
}
