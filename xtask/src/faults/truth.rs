//! What happens to Postgres, and what people type into it.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use session_store::postgres::PostgresConfig;
use session_store::redis::Client;
use session_store::{Reason, Source, Token, Visibility};

use super::load::Load;
use super::node::{Node, Outcome, said, two, user};
use super::private::Private;
use super::{World, ensure, seconds, until};
use crate::servers::install::free_port;
use crate::servers::{postgres, redis};

pub(super) async fn postgres_killed_and_restarted(_: &World) -> Outcome<String> {
    let server = Private::new()?;
    let redis = server.redis(&[])?;
    postgres::make(&server.home.folder).map_err(said)?;
    let port = free_port().map_err(said)?;
    let postgres = postgres::launch(&server.home, port).map_err(said)?;
    let mut truth = PostgresConfig::new(postgres::url(port));
    truth.connect_timeout = Duration::from_secs(2);
    let nodes = two(&truth, &redis.url(), Client::Redis).await?;
    let cached = nodes[0].log_in_warm().await?;
    let load = Load::start(&nodes, 3);
    tokio::time::sleep(Duration::from_secs(1)).await;
    // The server and all its children end at once, without writing anything.
    postgres.signal("-QUIT");
    tokio::time::sleep(Duration::from_millis(500)).await;
    let live = nodes[0].app.authenticate(&cached).await.live();
    let is_hit = live.is_some_and(|live| live.source == Source::Secondary);
    ensure(is_hit, "a hit needed the database")?;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    postgres::launch(&server.home, port).map_err(said)?;
    let restarted = Instant::now();
    let healed = until(Duration::from_secs(20), "a login works again", async || {
        nodes[1].log_in().await.is_ok()
    });
    let healed = healed.await?;
    tokio::time::sleep(Duration::from_secs(3)).await;
    ensure(nodes[1].accepts(&cached).await, "a session did not survive the restart")?;
    let trouble = load.seen.last_trouble_after(restarted);
    let seen = load.stop().await;
    seen.judge()?;
    Ok(format!(
        "logins again {:.2} s after the restart, last trouble {} after it, {seen}",
        healed.as_secs_f32(),
        seconds(trouble)
    ))
}

pub(super) async fn sql_typed_by_hand_reaches_redis(on: &World) -> Outcome<String> {
    let server = Private::new()?;
    let redis = server.redis(&[])?;
    let truth = on.truth().await?;
    let schema = truth.schema.clone().unwrap_or_default();
    let node = Node::start(&truth, &redis.url(), Client::Redis).await?;
    node.register().await?;
    let bound = node.app.store().guarantee().out_of_band;
    let (one, other) = (node.log_in_warm().await?, node.log_in_warm().await?);
    let typed = async |sql: String| on.postgres.run(sql).await.map_err(said);
    typed(format!("DELETE FROM {schema}.sessions WHERE encode(id, 'hex') = '{}'", one.id()))
        .await?;
    let session = until(bound, "a deleted session is refused", async || !node.accepts(&one).await);
    let session = session.await?;
    typed(format!("UPDATE {schema}.users SET role = 'admin' WHERE id = 'ada'")).await?;
    let role = until(bound, "a role is seen", async || {
        let live = node.app.authenticate(&other).await.live();
        live.is_some_and(|live| live.user().is_some_and(|user| user.role.as_str() == "admin"))
    });
    let role = role.await?;
    let again = node.log_in_warm().await?;
    typed(format!("DELETE FROM {schema}.users WHERE id = 'ada'")).await?;
    let deleted = until(bound, "a deleted user is refused", async || {
        !node.accepts(&again).await && !node.accepts(&other).await
    });
    let figures = [("session", session), ("role", role), ("user", deleted.await?)];
    let figures = figures.map(|(name, took)| format!("{name} {:.2} s", took.as_secs_f32()));
    Ok(format!("{} (declared {:.1} s)", figures.join(", "), bound.as_secs_f32()))
}

pub(super) async fn ten_thousand_devices_log_out(on: &World) -> Outcome<String> {
    let server = Private::new()?;
    let cache = server.redis(&[])?;
    let node = Node::start(&on.truth().await?, &cache.url(), Client::Redis).await?;
    node.register().await?;
    let mut tokens: Vec<Token> = Vec::new();
    while tokens.len() < 10_000 {
        for token in join_all((0..100).map(|_| node.log_in())).await {
            tokens.push(token?);
        }
    }
    // Some of them are cached; the rest is removed all the same.
    for some in tokens.chunks(2000) {
        node.accepts(&some[0]).await;
    }
    redis::said(cache.port, &["config", "resetstat"]).map_err(said)?;
    let began = Instant::now();
    let done = node.app.revoke_all(&user()?, Reason::Admin).await.map_err(said)?;
    let took = began.elapsed();
    ensure(done.count == 10_000, "not all were ended")?;
    ensure(done.visibility == Visibility::Immediate, "not immediate")?;
    for some in tokens.chunks(100) {
        ensure(!node.accepts(&some[0]).await, "accepted after Immediate")?;
    }
    let calls = redis::said(cache.port, &["info", "commandstats"]).map_err(said)?;
    let unlinks = calls.lines().find_map(|line| line.strip_prefix("cmdstat_unlink:calls="));
    let unlinks = unlinks.and_then(|rest| rest.split(',').next()).unwrap_or("0");
    // The log may have been drained at the same time, which removes some of them once more.
    let is_batched = unlinks.parse().is_ok_and(|count: u32| (20..=40).contains(&count));
    ensure(is_batched, &format!("{unlinks} commands of 500 keys, not about 20"))?;
    Ok(format!(
        "{:.2} s, one transaction, {unlinks} commands in one round trip",
        took.as_secs_f32()
    ))
}
