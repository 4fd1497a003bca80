//! Ten thousand sessions of one user.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use session_store::postgres::PostgresConfig;
use session_store::redis::Client;
use session_store::{Reason, Visibility};

use super::node::{Node, Outcome, cache_at, said, user};
use super::private::Private;
use super::proxy::{Proxy, Weather};
use super::{CLIENTS, World, ensure, until};
use crate::servers::redis;

/// How many of them log in one by one; the others are copies of their rows.
const REAL: usize = 100;
const ALL: usize = 10_000;
/// How long anything may take on the busiest machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// Servers whose replies can be held back.
struct Caches {
    line: String,
    ports: Vec<u16>,
    proxies: Vec<Proxy>,
    /// How many commands remove all.
    commands: usize,
    /// How many of them are sent before the first is answered.
    at_once: usize,
    _server: Private,
}

impl Caches {
    async fn alone() -> Outcome<Self> {
        let server = Private::new()?;
        let port = server.redis(&[])?.port;
        let proxy = Proxy::before(port).await.map_err(said)?;
        let line = format!("redis://127.0.0.1:{}", proxy.port);
        // Each names 500 keys.
        let (ports, proxies, commands) = (vec![port], vec![proxy], ALL / 500);
        Ok(Self { line, ports, proxies, commands, at_once: commands, _server: server })
    }

    /// Two masters that tell everybody to come through their proxies.
    async fn cluster() -> Outcome<Self> {
        let server = Private::new()?;
        let (mut ports, mut proxies) = (Vec::new(), Vec::new());
        for slots in ["0 8191", "8192 16383"] {
            let port = redis::cluster_port().map_err(said)?;
            let proxy = Proxy::before(port).await.map_err(said)?;
            let (announced, bus) = (proxy.port.to_string(), (port + 10_000).to_string());
            let ways = ["--cluster-announce-port", &announced, "--cluster-announce-bus-port", &bus];
            server.redis_on(port, &[&["--cluster-enabled", "yes"], &ways[..]].concat())?;
            tell(port, &format!("cluster addslotsrange {slots}"))?;
            if let Some(first) = ports.first() {
                tell(*first, &format!("cluster meet 127.0.0.1 {port} {bus}"))?;
            }
            ports.push(port);
            proxies.push(proxy);
        }
        let is_whole = |port: &u16| {
            let (info, map) = (tell(*port, "cluster info"), tell(*port, "cluster nodes"));
            let map = map.unwrap_or_default();
            info.is_ok_and(|info| info.contains("cluster_state:ok"))
                && proxies.iter().all(|proxy| map.contains(&format!(":{}@", proxy.port)))
        };
        until(PATIENCE, "a Cluster behind proxies", async || ports.iter().all(is_whole)).await?;
        let line: Vec<_> =
            proxies.iter().map(|proxy| format!("redis://127.0.0.1:{}", proxy.port)).collect();
        // A command may name keys of one slot only, and so many fit into a deadline.
        let (line, commands, at_once) = (line.join(","), ALL, 1000);
        Ok(Self { line, ports, proxies, commands, at_once, _server: server })
    }

    fn set(&self, weather: Weather) {
        self.proxies.iter().for_each(|proxy| proxy.set(weather));
    }

    /// How many commands removed something since the counters were reset.
    fn removals(&self) -> usize {
        let count = |port: &u16| {
            let stats = tell(*port, "info commandstats").ok()?;
            let unlinks = stats.lines().find_map(|line| line.strip_prefix("cmdstat_unlink:calls="));
            unlinks?.split(',').next()?.parse::<usize>().ok()
        };
        self.ports.iter().filter_map(count).sum()
    }
}

fn tell(port: u16, words: &str) -> Outcome<String> {
    redis::said(port, &words.split(' ').collect::<Vec<_>>()).map_err(said)
}

pub(super) async fn ten_thousand_devices_log_out(on: &World) -> Outcome<String> {
    let mut figures = Vec::new();
    for (place, caches) in
        [("alone", Caches::alone().await?), ("cluster", Caches::cluster().await?)]
    {
        for (client, name) in CLIENTS {
            let truth = on.truth_of(&format!("{name}_{place}")).await?;
            let took = log_out_everywhere(on, &truth, (&caches, client)).await;
            let took = took.map_err(|what| format!("{name}, {place}: {what}"))?;
            figures.push(format!(
                "{name}, {place}: one transaction, {} of {} commands before the first reply, {:.2} s",
                caches.at_once,
                caches.commands,
                took.as_secs_f32()
            ));
        }
    }
    Ok(figures.join("; "))
}

async fn log_out_everywhere(
    on: &World,
    truth: &PostgresConfig,
    (caches, client): (&Caches, Client),
) -> Outcome<Duration> {
    let mut config = cache_at(&caches.line, client)?;
    // While replies are held back, nobody gives up or asks who is there.
    (config.deadline, config.silence) = (PATIENCE * 2, PATIENCE * 2);
    config.identity_interval = PATIENCE * 2;
    let node = Node::tuned(truth, &config, |config| config.cache_deadline = PATIENCE * 2).await?;
    node.rest();
    node.register().await?;
    let tokens = join_all((0..REAL).map(|_| node.log_in())).await;
    let tokens = tokens.into_iter().collect::<Outcome<Vec<_>>>()?;
    let schema = truth.schema.clone().unwrap_or_default();
    let typed = async |sql: String| on.postgres.run(sql).await.map_err(said);
    typed(copies(&schema)).await?;
    // Some of them are cached; the rest is removed all the same.
    for some in tokens.chunks(10) {
        node.accepts(&some[0]).await;
    }
    for port in &caches.ports {
        tell(*port, "config resetstat")?;
    }
    caches.set(Weather::Mute);
    let (app, who, began) = (node.app.clone(), user()?, Instant::now());
    let ending = tokio::spawn(async move { app.revoke_all(&who, Reason::Admin).await });
    let sent = until(PATIENCE, "they arrive before the first is answered", async || {
        caches.removals() >= caches.at_once
    });
    let sent = sent.await.map_err(|late| format!("{late}: {} did", caches.removals()));
    caches.set(Weather::Fair);
    let done = ending.await.map_err(said)?.map_err(said)?;
    let took = began.elapsed();
    sent?;
    ensure(done.count == ALL as u64, "not all were ended")?;
    ensure(done.visibility == Visibility::Immediate, "not immediate")?;
    let count = caches.removals();
    ensure(count == caches.commands, &format!("{count} commands instead of {}", caches.commands))?;
    for token in &tokens {
        ensure(!node.accepts(token).await, "accepted after Immediate")?;
    }
    let outcome = typed(one_transaction(&schema)).await;
    outcome.map_err(|what| format!("not in one transaction, or not all of them: {what}"))?;
    Ok(took)
}

/// Gives every session so many more that differ in their ids.
fn copies(schema: &str) -> String {
    let more = ALL / REAL - 1;
    format!(
        "INSERT INTO {schema}.sessions SELECT (jsonb_populate_record(one, jsonb_build_object('id', \
         '\\x' || md5(random()::text || number)))).* FROM {schema}.sessions one, \
         generate_series(1, {more}) number"
    )
}

/// Fails unless all rows were changed by the same transaction.
fn one_transaction(schema: &str) -> String {
    format!(
        "DO $$ BEGIN ASSERT (SELECT count(*) = {ALL} AND count(DISTINCT xmin::text) = 1 FROM \
         {schema}.sessions WHERE revoked_at IS NOT NULL), 'more than one transaction'; END $$"
    )
}
