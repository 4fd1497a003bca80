//! What happens to Postgres, and what people type into it.

use std::time::{Duration, Instant};

use session_store::postgres::PostgresConfig;
use session_store::redis::Client;
use session_store::{Source, Ttl};

use super::load::{Load, Seen};
use super::node::{LONG, Node, Outcome, cache_at, said, two_tuned};
use super::private::Private;
use super::{BUSIEST, World, at_last, both, ensure, seconds, until};
use crate::servers::postgres;

pub(super) async fn postgres_killed_and_restarted(_: &World) -> Outcome<String> {
    let server = Private::new()?;
    let redis = server.redis(&[])?;
    let (postgres, port) = server.postgres(|_| Ok(()))?;
    let mut truth = PostgresConfig::new(postgres::url(port));
    truth.connect_timeout = Duration::from_secs(2);
    // A busy machine may need longer than an entry lives elsewhere to be without its database, and would
    // wait as long for the cache if a first connection were late.
    let config = cache_at(&redis.url(), Client::Redis)?;
    let nodes = two_tuned(&truth, &config, |config| config.cache_ttl = Ttl::new(LONG)).await?;
    let load = Load::start(&nodes, 3);
    load.until("a start", Seen::has_begun).await?;
    // No cache has heard of it.
    let unseen = at_last(async || nodes[0].log_in().await).await?;
    let strange = at_last(async || nodes[0].log_in().await).await?;
    let cached = at_last(async || nodes[0].log_in_warm().await).await?;
    // The server and all its children end at once, without writing anything.
    postgres.signal("-QUIT");
    until(BUSIEST, "a miss that nobody can answer", async || !nodes[0].finds(&cached).await)
        .await?;
    until(BUSIEST, "a hit without the database", async || {
        let live = nodes[0].app.authenticate(&cached).await.live();
        live.is_some_and(|live| live.source == Source::Secondary)
    })
    .await?;
    for node in &nodes {
        ensure(node.is_at_a_loss(&unseen).await, "a miss without the database was an answer")?;
    }
    // All that the load has asked for so far may be cached.
    load.ask_for(strange);
    load.until("a miss without the database", Seen::has_failed).await?;
    // Its place is taken until the last of its children has ended.
    until(BUSIEST, "it has ended", async || !postgres.is_alive()).await?;
    postgres::launch(&server.home, port).map_err(said)?;
    let restarted = Instant::now();
    let healed = until(BUSIEST, "a login works again", async || nodes[1].log_in().await.is_ok());
    let healed = healed.await?;
    for token in [&cached, &unseen] {
        for node in &nodes {
            let what = "a session survives the restart, for a node that is used again";
            until(BUSIEST, what, async || node.finds(token).await).await?;
            ensure(node.accepts(token).await, "a session was refused after the restart")?;
        }
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    let trouble = load.seen.last_trouble_after(restarted);
    let seen = load.stop().await;
    seen.judge_without_truth()?;
    Ok(format!(
        "logins again {:.2} s after the restart, last trouble {} after it, {seen}",
        healed.as_secs_f32(),
        seconds(trouble)
    ))
}

/// So long the log may take on the busiest machine: it is drained once a second.
const DRAINED: Duration = Duration::from_secs(30);

pub(super) async fn sql_typed_by_hand_reaches_redis(on: &World) -> Outcome<String> {
    both(on, async |truth, client| {
        let server = Private::new()?;
        let redis = server.redis(&[])?;
        let schema = truth.schema.clone().unwrap_or_default();
        let config = cache_at(&redis.url(), client)?;
        let node = Node::tuned(&truth, &config, |config| config.cache_ttl = Ttl::new(LONG)).await?;
        node.register().await?;
        let bound = node.app.store().guarantee().out_of_band;
        ensure(DRAINED < LONG && LONG < bound, "nothing would be shown")?;
        let (one, other) = (node.log_in_warm().await?, node.log_in_warm().await?);
        let typed = async |sql: String| on.postgres.run(sql).await.map_err(said);
        typed(format!("DELETE FROM {schema}.sessions WHERE encode(id, 'hex') = '{}'", one.id()))
            .await?;
        let refused = async || !node.accepts(&one).await;
        let session = until(DRAINED, "a deleted session is refused", refused).await?;
        typed(format!("UPDATE {schema}.users SET role = 'admin' WHERE id = 'ada'")).await?;
        let role = until(DRAINED, "a role is seen", async || {
            let live = node.app.authenticate(&other).await.live();
            live.is_some_and(|live| live.user().is_some_and(|user| user.role.as_str() == "admin"))
        });
        let role = role.await?;
        let again = node.log_in_warm().await?;
        typed(format!("DELETE FROM {schema}.users WHERE id = 'ada'")).await?;
        let user = until(DRAINED, "a deleted user is refused", async || {
            !node.accepts(&again).await && !node.accepts(&other).await
        });
        let figures = [("session", session), ("role", role), ("user", user.await?)];
        let figures = figures.map(|(name, took)| format!("{name} {:.2} s", took.as_secs_f32()));
        Ok(format!("{} (declared {:.1} s)", figures.join(", "), bound.as_secs_f32()))
    })
    .await
}
