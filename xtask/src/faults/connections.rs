//! What the network, the server and the application itself do to connections to Postgres.

use std::sync::Arc;
use std::time::Duration;

use session_store::Token;
use session_store::postgres::PostgresConfig;
use session_store::redis::Client;
use sqlx::{Connection, PgConnection};

use super::load::{Load, Seen};
use super::node::{Node, Outcome, said, two};
use super::private::Private;
use super::proxy::{Proxy, Weather};
use super::{BUSIEST, World, at_last, ensure, until};
use crate::servers::postgres;

/// How often a connection is lost where one loss shows little.
const LOSSES: u32 = 30;

/// Two nodes that reach a Postgres of their own through a proxy.
struct Wired {
    nodes: [Arc<Node>; 2],
    proxy: Proxy,
    /// Where it is without the proxy.
    url: String,
    _server: Private,
}

impl Wired {
    async fn new() -> Outcome<Self> {
        let server = Private::new()?;
        let redis = server.redis(&[])?;
        let (_, port) = server.postgres(|_| Ok(()))?;
        let proxy = Proxy::before(port).await.map_err(said)?;
        let truth = impatient(PostgresConfig::new(postgres::url(proxy.port)));
        let nodes = two(&truth, &redis.url(), Client::Redis).await?;
        Ok(Self { nodes, proxy, url: postgres::url(port), _server: server })
    }

    /// Everything works again: figures for people.
    async fn healed(&self, name: &str, token: &Token) -> Outcome<String> {
        let took = healed(&self.nodes, name, token).await?;
        Ok(format!("{name}: healed after {:.2} s", took.as_secs_f32()))
    }
}

/// Without the patience that a server deserves that only is slow.
fn impatient(mut truth: PostgresConfig) -> PostgresConfig {
    truth.connect_timeout = Duration::from_secs(2);
    truth.statement_timeout = Duration::from_secs(2);
    truth.deadline = Duration::from_secs(4);
    truth
}

/// After how long both nodes read and write again, by the handles they had.
async fn healed(nodes: &[Arc<Node>; 2], what: &str, token: &Token) -> Outcome<Duration> {
    let works = async |node: &Node| node.log_in().await.is_ok() && node.finds(token).await;
    let both = async || works(&nodes[0]).await && works(&nodes[1]).await;
    until(BUSIEST, &format!("both nodes work after {what}"), both).await
}

/// A load that has begun.
async fn load_on(nodes: &[Arc<Node>; 2]) -> Outcome<Load> {
    let load = Load::start(nodes, 3);
    load.until("a start", Seen::has_begun).await?;
    Ok(load)
}

pub(super) async fn postgres_on_a_bad_wire(_: &World) -> Outcome<String> {
    let on = Wired::new().await?;
    let load = load_on(&on.nodes).await?;
    let mut figures = Vec::new();
    let outages = [(Weather::Refused, "refused"), (Weather::Held, "held")];
    for (weather, name) in outages {
        let unseen = at_last(async || on.nodes[0].log_in().await).await?;
        on.proxy.set(weather);
        for node in &on.nodes {
            ensure(node.is_at_a_loss(&unseen).await, &format!("{name}: a miss was an answer"))?;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        on.proxy.set(Weather::Fair);
        figures.push(on.healed(name, &unseen).await?);
    }
    let kept = at_last(async || on.nodes[0].log_in().await).await?;
    for _ in 0..LOSSES {
        on.proxy.set(Weather::Reset);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    on.proxy.set(Weather::Fair);
    figures.push(on.healed("reset", &kept).await?);
    for _ in 0..LOSSES {
        on.proxy.set(Weather::LosesReply);
        until(BUSIEST, "a reply is lost", async || on.proxy.is_fair()).await?;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    figures.push(on.healed("reset instead of a reply", &kept).await?);
    on.proxy.set(Weather::HalfOpen);
    figures.push(on.healed("half open", &kept).await?);
    let seen = load.stop().await;
    seen.judge_without_truth()?;
    Ok(format!("{}, {seen}", figures.join(", ")))
}

pub(super) async fn postgres_ends_connections(_: &World) -> Outcome<String> {
    let on = Wired::new().await?;
    let load = load_on(&on.nodes).await?;
    let kept = at_last(async || on.nodes[0].log_in().await).await?;
    let mut shell = PgConnection::connect(&on.url).await.map_err(said)?;
    // Transactions wait for the wire, so that there are some to be met half way.
    on.proxy.set(Weather::Slow);
    let (mut midway, mut all) = (0, 0);
    until(BUSIEST, "transactions end between BEGIN and COMMIT", async || {
        midway += ended(&mut shell, "state = 'idle in transaction'").await.unwrap_or(0);
        // Others come through.
        tokio::time::sleep(Duration::from_millis(150)).await;
        midway >= 20
    })
    .await?;
    on.proxy.set(Weather::Fair);
    // A busy machine has not another connection each time.
    until(BUSIEST, "connections are ended", async || {
        for _ in 0..LOSSES {
            all += ended(&mut shell, "true").await.unwrap_or(0);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        all > i64::from(LOSSES)
    })
    .await?;
    let figure = on.healed("killed by the server", &kept).await?;
    let seen = load.stop().await;
    seen.judge()?;
    Ok(format!("{midway} ended in a transaction, {all} anywhere, {figure}, {seen}"))
}

/// Ends the connections of others that are so; how many those were.
async fn ended(shell: &mut PgConnection, which: &'static str) -> Outcome<i64> {
    let sql = format!(
        "SELECT count(*) FILTER (WHERE pg_terminate_backend(pid)) FROM pg_stat_activity WHERE \
         pid <> pg_backend_pid() AND backend_type = 'client backend' AND {which}"
    );
    let count = sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).fetch_one(shell);
    count.await.map_err(said)
}

pub(super) async fn every_connection_is_taken(on: &World) -> Outcome<String> {
    let server = Private::new()?;
    let redis = server.redis(&[])?;
    let truth = impatient(on.truth().await?);
    let nodes = two(&truth, &redis.url(), Client::Redis).await?;
    let load = load_on(&nodes).await?;
    let unseen = at_last(async || nodes[0].log_in().await).await?;
    let mut taken = Vec::new();
    for node in &nodes {
        let pool = node.truth.pool();
        for _ in 0..truth.max_connections {
            let one = until(BUSIEST, "a connection can be had", async || {
                let one = pool.acquire().await;
                one.map(|one| taken.push(one)).is_ok()
            });
            one.await?;
        }
    }
    for node in &nodes {
        ensure(node.is_at_a_loss(&unseen).await, "a miss was answered without a connection")?;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    ensure(nodes[0].log_in().await.is_err(), "somebody logged in without a connection")?;
    let count = taken.len();
    drop(taken);
    let took = healed(&nodes, "connections are given back", &unseen).await?;
    let seen = load.stop().await;
    seen.judge_without_truth()?;
    Ok(format!("{count} connections taken, healed after {:.2} s, {seen}", took.as_secs_f32()))
}
