//! What the network does to a Redis that is well.

use std::time::{Duration, Instant};

use session_store::postgres::PostgresConfig;
use session_store::redis::{Client, RedisConfig};
use session_store::{Reason, Source, Token, Ttl, Visibility};

use super::node::{LONG, Node, Outcome, cache_at, said};
use super::private::Private;
use super::proxy::{Proxy, Weather};
use super::{BUSIEST, CLIENTS, World, both, ensure, until};
use crate::servers::redis;

/// How long a reservation may be looked at, and is in the way when its reply was lost.
const RESERVED: Duration = Duration::from_secs(5);

/// A node that reaches its Redis through a proxy.
struct Wired {
    node: Node,
    proxy: Proxy,
    port: u16,
    _server: Private,
}

impl Wired {
    async fn new(truth: &PostgresConfig, client: Client) -> Outcome<Self> {
        Self::tuned(truth, client, |_| {}).await
    }

    async fn tuned(
        truth: &PostgresConfig,
        client: Client,
        tune: impl FnOnce(&mut RedisConfig),
    ) -> Outcome<Self> {
        let server = Private::new()?;
        let redis = server.redis(&[])?;
        let proxy = Proxy::before(redis.port).await.map_err(said)?;
        let mut config = cache_at(&format!("redis://127.0.0.1:{}", proxy.port), client)?;
        tune(&mut config);
        let node = Node::tuned(truth, &config, |config| {
            // What ends by itself before it was looked at, as on a busy machine, shows nothing.
            config.cache_ttl = Ttl::new(LONG);
            config.lease_ttl = Ttl::new(RESERVED).unwrap_or(Ttl::MIN);
        });
        let node = node.await?;
        node.register().await?;
        Ok(Self { node, proxy, port: redis.port, _server: server })
    }

    /// What the server itself says, without the proxy.
    fn said(&self, words: &[&str]) -> Outcome<String> {
        redis::said(self.port, words).map_err(said)
    }

    /// Under which key the server has the entry of a session.
    fn key(&self, token: &Token) -> Outcome<String> {
        let keys = self.said(&["keys", &format!("*{}*", token.id())])?;
        ensure(!keys.is_empty() && !keys.contains('\n'), &format!("not one entry: {keys:?}"))?;
        Ok(keys)
    }
}

pub(super) async fn a_lost_removal_is_bounded(on: &World) -> Outcome<String> {
    let mut figures = Vec::new();
    for (client, name) in CLIENTS {
        let on = Wired::new(&on.truth().await?, client).await?;
        let token = on.node.log_in_warm().await?;
        // Not even the server hears of it, now or later.
        on.proxy.set(Weather::Deaf);
        let done = on.node.app.admin_revoke(token.id(), Reason::Admin).await.map_err(said)?;
        ensure(
            done.visibility != Visibility::Immediate,
            "a removal that was not answered counted",
        )?;
        let key = on.key(&token)?;
        let left: i64 = on.said(&["pttl", &key])?.parse().map_err(said)?;
        ensure(left > 0, "the entry went without any removal")?;
        on.proxy.set(Weather::Fair);
        // The log finishes it: nothing else is left that could, before the entry ends by itself.
        let left = Duration::from_millis(left.unsigned_abs());
        ensure(BUSIEST < left, "nothing would be shown: it would end by itself")?;
        let gone = until(BUSIEST, "the log removes it", async || {
            on.said(&["exists", &key]).is_ok_and(|count| count == "0")
        });
        let after = gone.await?;
        ensure(after < left, "the entry ended by itself")?;
        ensure(!on.node.accepts(&token).await, "accepted after the log had removed it")?;
        // The reply is lost, and the removal was made: the one of the logout, not one by the log.
        on.node.rest();
        let token = on.node.log_in_warm().await?;
        on.proxy.set(Weather::LosesReplyTo("UNLINK"));
        let done = on.node.app.admin_revoke(token.id(), Reason::Admin).await.map_err(said)?;
        ensure(on.proxy.is_fair(), "no reply was lost")?;
        ensure(done.visibility != Visibility::Immediate, "a lost reply counted")?;
        ensure(!on.node.accepts(&token).await, "accepted after a removal whose reply was lost")?;
        // The same logout again says what is true.
        let again = on.node.app.admin_revoke(token.id(), Reason::Admin).await.map_err(said)?;
        ensure(again.visibility == Visibility::Immediate, "a repeated logout is not immediate")?;
        figures.push(format!(
            "{name}: bound {:.1} s, removed by the log after {:.2} s",
            done.visibility.bound().as_secs_f32(),
            after.as_secs_f32()
        ));
    }
    Ok(figures.join("; "))
}

pub(super) async fn a_lost_reservation_fills_nothing(on: &World) -> Outcome<String> {
    both(on, async |truth, client| {
        let on = Wired::new(&truth, client).await?;
        // The connection is open and known, and the script as well.
        on.node.log_in_warm().await?;
        // Whoever has put it there counts it a moment later.
        until(BUSIEST, "a fill", async || on.node.app.store().stats().fills > 0).await?;
        let token = on.node.log_in().await?;
        let before = on.node.app.store().stats();
        // It looks first, and then reserves by a script.
        on.proxy.set(Weather::LosesReplyTo("EVALSHA"));
        ensure(on.node.accepts(&token).await, "a lost reply failed a lookup")?;
        ensure(on.proxy.is_fair(), "no reply was lost")?;
        on.key(&token).map_err(|what| format!("the server reserved nothing: {what}"))?;
        let after = on.node.app.store().stats();
        ensure(after.cache_errors > before.cache_errors, "the cache's error was not counted")?;
        ensure(after.fills == before.fills, "a fill followed a lost reply")?;
        let again = until(BUSIEST, "the cache is used again", async || {
            let live = on.node.app.authenticate(&token).await.live();
            live.is_some_and(|live| live.source == Source::Secondary)
        });
        Ok(format!("used again after {:.2} s", again.await?.as_secs_f32()))
    })
    .await
}

pub(super) async fn a_half_open_connection_is_replaced(on: &World) -> Outcome<String> {
    let mut figures = Vec::new();
    for (client, name) in CLIENTS {
        // Nobody asks the server who it is: only that nothing is answered is left to go by.
        let tune = |config: &mut RedisConfig| {
            config.identity_interval = Duration::from_hours(1);
            config.deadline = Duration::from_millis(200);
        };
        let on = Wired::tuned(&on.truth().await?, client, tune).await?;
        let token = on.node.log_in_warm().await?;
        on.proxy.set(Weather::HalfOpen);
        let began = Instant::now();
        let (mut slowest, mut refused) = (Duration::ZERO, 0);
        let healed = until(BUSIEST, "another connection", async || {
            let asked = Instant::now();
            let live = on.node.app.authenticate(&token).await.live();
            slowest = slowest.max(asked.elapsed());
            refused += u32::from(live.is_none());
            live.is_some_and(|live| live.source == Source::Secondary)
        });
        healed.await?;
        ensure(refused == 0, &format!("{refused} lookups failed"))?;
        figures.push(format!(
            "{name}: healed after {:.2} s, slowest lookup {:.2} s",
            began.elapsed().as_secs_f32(),
            slowest.as_secs_f32()
        ));
    }
    Ok(figures.join("; "))
}

pub(super) async fn held_bytes_hold_nobody(on: &World) -> Outcome<String> {
    let mut figures = Vec::new();
    for (client, name) in CLIENTS {
        let tune = |config: &mut RedisConfig| config.deadline = Duration::from_millis(200);
        let on = Wired::tuned(&on.truth().await?, client, tune).await?;
        let token = on.node.log_in_warm().await?;
        on.proxy.set(Weather::Held);
        let began = Instant::now();
        let (mut count, mut slowest) = (0_u32, Duration::ZERO);
        while began.elapsed() < Duration::from_secs(3) {
            let asked = Instant::now();
            ensure(on.node.accepts(&token).await, "a hanging cache failed a lookup")?;
            slowest = slowest.max(asked.elapsed());
            count += 1;
        }
        on.proxy.set(Weather::Fair);
        let healed = until(BUSIEST, "the cache is used again", async || {
            let live = on.node.app.authenticate(&token).await.live();
            live.is_some_and(|live| live.source == Source::Secondary)
        });
        figures.push(format!(
            "{name}: {count} lookups in 3 s, slowest {:.2} s, healed after {:.2} s",
            slowest.as_secs_f32(),
            healed.await?.as_secs_f32()
        ));
    }
    Ok(figures.join("; "))
}

pub(super) async fn a_slow_wire_and_a_cut_one(on: &World) -> Outcome<String> {
    let mut figures = Vec::new();
    for (client, name) in CLIENTS {
        let on = Wired::new(&on.truth().await?, client).await?;
        let token = on.node.log_in_warm().await?;
        let from = async |wanted: Source| {
            let live = on.node.app.authenticate(&token).await.live();
            live.map(|live| live.source) == Some(wanted)
        };
        on.proxy.set(Weather::Slow);
        let asked = Instant::now();
        ensure(from(Source::Secondary).await, "a slow cache was not waited for")?;
        let slow = asked.elapsed();
        ensure(slow >= Duration::from_millis(40), "the wire was not slow")?;
        let done = on.node.app.admin_revoke(on.node.log_in().await?.id(), Reason::Admin).await;
        let done = done.map_err(said)?;
        ensure(done.visibility == Visibility::Immediate, "a slow removal did not count")?;
        on.proxy.set(Weather::Refused);
        for _ in 0..100 {
            ensure(from(Source::Primary).await, "a cut wire failed a lookup")?;
        }
        on.proxy.set(Weather::Fair);
        let healed = until(BUSIEST, "another connection", async || from(Source::Secondary).await);
        figures.push(format!(
            "{name}: a hit in {:.2} s, healed after {:.2} s",
            slow.as_secs_f32(),
            healed.await?.as_secs_f32()
        ));
    }
    Ok(figures.join("; "))
}
