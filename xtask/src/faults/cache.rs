//! What happens to Redis itself.

use std::sync::Arc;
use std::time::{Duration, Instant};

use session_store::redis::RedisCache;
use session_store::{
    ErrorKind, LayeredConfig, PrimaryStore, Reason, SecondaryStore, Source, Token, Ttl, Visibility,
};

use super::load::{Load, Seen};
use super::node::{CACHE_TTL, LONG, Node, Outcome, cache_at, said, two};
use super::private::Private;
use super::{BUSIEST, CLIENTS, World, both, ensure, seconds, until};
use crate::servers::redis;

async fn pause(millis: u64) {
    tokio::time::sleep(Duration::from_millis(millis)).await;
}

pub(super) async fn redis_killed_and_restarted_empty(on: &World) -> Outcome<String> {
    both(on, async |truth, client| {
        let server = Private::new()?;
        let redis = server.redis(&[])?;
        let nodes = two(&truth, &redis.url(), client).await?;
        let load = Load::start(&nodes, 3);
        load.until("a start", Seen::has_begun).await?;
        redis.running.signal("-KILL");
        load.until("a logout without the cache", Seen::has_bound).await?;
        pause(1500).await;
        server.redis_on(redis.port, &[])?;
        let (healed, seen) = over(load).await?;
        Ok(format!("hits again {} after the restart, {seen}", seconds(healed)))
    })
    .await
}

pub(super) async fn redis_stopped_for_ten_seconds(on: &World) -> Outcome<String> {
    both(on, async |truth, client| {
        let server = Private::new()?;
        let redis = server.redis(&[])?;
        let nodes = two(&truth, &redis.url(), client).await?;
        let load = Load::start(&nodes, 3);
        load.until("a start", Seen::has_begun).await?;
        redis.running.signal("-STOP");
        pause(10_000).await;
        load.until("a logout without the cache", Seen::has_bound).await?;
        redis.running.signal("-CONT");
        let (healed, seen) = over(load).await?;
        Ok(format!("hits again {} after it went on, {seen}", seconds(healed)))
    })
    .await
}

/// After how long the cache is used again from now on, and what was seen once a bound was over.
async fn over(load: Load) -> Outcome<(Option<Duration>, Arc<Seen>)> {
    let began = Instant::now();
    load.seen.await_hit();
    load.until("the cache is used again", |seen| seen.first_hit_after(began).is_some()).await?;
    load.until("a bound is over", Seen::has_outlived_a_bound).await?;
    pause(1000).await;
    let healed = load.seen.first_hit_after(began);
    let seen = load.stop().await;
    seen.judge_without_cache()?;
    Ok((healed, seen))
}

pub(super) async fn redis_restarted_from_a_file(on: &World) -> Outcome<String> {
    both(on, async |truth, client| {
        let server = Private::new()?;
        let redis = server.redis(&[])?;
        let node = Node::start(&truth, &redis.url(), client).await?;
        node.register().await?;
        // Else the log might remove what came back.
        node.rest();
        let (token, epoch, left) = removed_and_back(&server, redis, &node).await?;
        // The old entry is there, and nobody is let in by it.
        let began = Instant::now();
        while began.elapsed() < CACHE_TTL + Duration::from_secs(1) {
            ensure(!node.accepts(&token).await, "an entry of before the restart was believed")?;
            pause(5).await;
        }
        ensure(node.cache.epoch() != epoch, "the restart was not noticed")?;
        // What a process that begins meanwhile could still put there is waited out.
        node.wait_out().await;
        let token = node.log_in_warm().await?;
        ensure(node.accepts(&token).await, "no recovery")?;
        Ok(format!("an entry came back for {left} ms, and was not believed"))
    })
    .await
}

/// A session that has ended, and whose entry a Redis that was killed has again from its file; the epoch of
/// before, and how many milliseconds the entry has left.
async fn removed_and_back(
    server: &Private,
    mut redis: redis::Node,
    node: &Node,
) -> Outcome<(Token, u64, i64)> {
    // An entry that a busy machine let end meanwhile shows nothing.
    for _ in 0..TRIES {
        let token = node.log_in_warm().await?;
        redis::said(redis.port, &["save"]).map_err(said)?;
        let key = redis::said(redis.port, &["keys", &format!("*{}*", token.id())]);
        let key = key.map_err(said)?;
        let done = node.app.admin_revoke(token.id(), Reason::Admin).await.map_err(said)?;
        ensure(done.visibility == Visibility::Immediate, "not immediate on a healthy cache")?;
        let epoch = node.cache.epoch();
        stop_for_good(&redis).await?;
        redis = server.redis_on(redis.port, &[])?;
        let left = redis::said(redis.port, &["pttl", &key]).map_err(said)?;
        match left.parse() {
            Ok(left) if left > 0 => return Ok((token, epoch, left)),
            _ => node.wait_out().await,
        }
    }
    Err(format!("the file brought nothing back {TRIES} times, so nothing is shown"))
}

/// How often something is tried that may take too long on a busy machine to show anything.
const TRIES: u32 = 5;

/// Kills a server, and waits until its port is free.
async fn stop_for_good(redis: &redis::Node) -> Outcome {
    redis.running.signal("-KILL");
    until(BUSIEST, "it has ended", async || !redis.running.is_alive()).await.map(drop)
}

pub(super) async fn redis_full(on: &World) -> Outcome<String> {
    for (client, _) in CLIENTS {
        let server = Private::new()?;
        let redis = server.redis(&[])?;
        let config = cache_at(&redis.url(), client)?;
        // What a full cache has lost it can't take in again.
        let long = |config: &mut LayeredConfig| config.cache_ttl = Ttl::new(LONG);
        let node = Node::tuned(&on.truth().await?, &config, long).await?;
        node.register().await?;
        let cached = node.log_in_warm().await?;
        // Less than it holds already.
        for (name, value) in [("maxmemory-policy", "noeviction"), ("maxmemory", "100kb")] {
            redis::said(redis.port, &["config", "set", name, value]).map_err(said)?;
        }
        let before = node.app.store().stats();
        let fresh = node.log_in().await?;
        for _ in 0..3 {
            ensure(node.accepts(&fresh).await, "a full cache failed a lookup")?;
        }
        let after = node.app.store().stats();
        ensure(after.cache_errors > before.cache_errors, "the cache was not full")?;
        until(BUSIEST, "reads of a full cache go on", async || {
            let live = node.app.authenticate(&cached).await.live();
            live.is_some_and(|live| live.source == Source::Secondary)
        })
        .await?;
        let done = node.app.admin_revoke(cached.id(), Reason::Admin).await.map_err(said)?;
        ensure(done.visibility == Visibility::Immediate, "a full cache could not forget")?;
        ensure(!node.accepts(&cached).await, "accepted after Immediate")?;
        redis::said(redis.port, &["config", "set", "maxmemory", "0"]).map_err(said)?;
        node.log_in_warm().await?;
    }
    Ok("reads and removals go on, fills are refused".to_owned())
}

pub(super) async fn redis_evicts(on: &World) -> Outcome<String> {
    both(on, async |truth, client| {
        let server = Private::new()?;
        let redis = server.redis(&["--maxmemory-policy", "allkeys-random"])?;
        let nodes = two(&truth, &redis.url(), client).await?;
        let load = Load::start(&nodes, 3);
        load.until("a start", Seen::has_begun).await?;
        // Hardly more than the server needs for itself, so that every write pushes something out.
        let info = redis::said(redis.port, &["info", "memory"]).map_err(said)?;
        let used = info.lines().find_map(|line| line.strip_prefix("used_memory:"));
        redis::said(redis.port, &["config", "set", "maxmemory", used.unwrap_or("1mb")])
            .map_err(said)?;
        pause(4000).await;
        let mut evicted = 0_u64;
        until(BUSIEST, "more than 10 entries are evicted", async || {
            let info = redis::said(redis.port, &["info", "stats"]).unwrap_or_default();
            let count = info.lines().find_map(|line| line.strip_prefix("evicted_keys:"));
            evicted = count.and_then(|count| count.trim().parse().ok()).unwrap_or(0);
            evicted > 10
        })
        .await?;
        let seen = load.stop().await;
        seen.judge_calls()?;
        Ok(format!("{evicted} evicted, {seen}"))
    })
    .await
}

pub(super) async fn a_node_starts_without_redis(on: &World) -> Outcome<String> {
    both(on, async |truth, client| {
        let server = Private::new()?;
        let redis = server.redis(&[])?;
        stop_for_good(&redis).await?;
        let node = Node::start(&truth, &redis.url(), client).await?;
        node.register().await?;
        let token = node.log_in().await?;
        let began = Instant::now();
        for _ in 0..1000 {
            ensure(node.accepts(&token).await, "a missing cache failed a lookup")?;
        }
        let each = began.elapsed() / 1000;
        // What the same lookup costs without any cache.
        let began = Instant::now();
        for _ in 0..1000 {
            node.truth.find(&token.id()).await.map_err(said)?;
        }
        let bare = began.elapsed() / 1000;
        // The cache is told nothing, and may hold nothing: that is for the bound to say.
        let done = node.app.admin_revoke(token.id(), Reason::Admin).await.map_err(said)?;
        ensure(done.visibility != Visibility::Immediate, "a removal that was not made counted")?;
        server.redis_on(redis.port, &[])?;
        // What it was before nobody here knows, so it is a change that is waited out.
        let found = async || node.cache.epoch() != 0;
        until(BUSIEST, "somebody is found", found).await?;
        // Whoever found it may have been the log, and only a lookup begins to wait.
        ensure(!node.accepts(&token).await, "a session lived again with the cache")?;
        node.wait_out().await;
        node.log_in_warm().await?;
        Ok(format!("a lookup {each:.0?}, without a cache {bare:.0?}"))
    })
    .await
}

/// A server that has too many clients is an outage, and says nothing of passwords and databases.
pub(super) async fn too_many_clients(_: &World) -> Outcome<String> {
    for (client, name) in CLIENTS {
        let server = Private::new()?;
        let redis = server.redis(&["--maxclients", "8", "--requirepass", "hunter2"])?;
        for end in ["", "/3"] {
            let line = redis.url().replace("redis://", "redis://:hunter2@") + end;
            let config = cache_at(&line, client)?;
            let mut caches = Vec::new();
            let refused = loop {
                match RedisCache::connect(&config).await {
                    Ok(cache) => caches.push(cache),
                    Err(refused) => break refused,
                }
                ensure(caches.len() <= 8, "there is no limit")?;
            };
            let source = std::error::Error::source(&refused);
            let is_outage = refused.kind() == &ErrorKind::Unavailable;
            ensure(is_outage, &format!("{name}{end}: {refused} {source:?}"))?;
        }
        let line = redis.url() + "/3";
        let config = cache_at(&line, client)?;
        until(BUSIEST, "a missing password is named", async || {
            let refused = RedisCache::connect(&config).await.err();
            refused.is_some_and(|error| error.to_string().contains("password"))
        })
        .await?;
    }
    Ok("both clients".to_owned())
}
