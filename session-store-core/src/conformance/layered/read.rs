//! Lookups: hits, misses, outages.

use std::time::Duration;

use futures_util::future::{join, join_all};

use super::super::checks;
use super::super::report::{CONFIGURATION, ensure, expect, refused};
use super::super::runner::Outcome;
use super::super::sample::NOW;
use super::super::wire::{Op, Point, is_busy};
use super::{DONE, PairBench, two_nodes};
use crate::layered::{LayeredConfig, Source, Topology};
use crate::primary::CacheScope;
use crate::secondary::{CacheClass, Record, Reservation, SwapTtl};
use crate::sessions::Authentication;
use crate::time::Ttl;
use crate::token::Token;

checks! { ($) layered_read: PairBench;
    "L-01 K6-R04" a_miss_asks_once_and_fills
        "A miss costs get, reserve, one primary read and a swap off the response path.",
    "L-02 L-03" a_hit_asks_the_primary_nothing "A hit costs one get and no primary operation.",
    "L-08 L-13 S-47" garbage_is_a_miss "A record of another session or form is a miss and goes away.",
    "L-10 L-11 K6-R16" a_broken_cache_fails_nothing
        "Each cache operation may fail on a read, and the primary answers; no fill without a lease.",
    "L-12" a_hanging_cache_is_passed_by "A cache that hangs costs a deadline and then the breaker.",
    "L-14 L-16" a_hit_survives_an_outage "While the primary is down a hit is served, until its end.",
    "L-15" an_outage_is_no_logout "While the primary is down a miss is Unavailable, never Absent.",
    "L-40 K6-F03 X8-L-11" misses_are_shared "100 concurrent misses cost one primary read.",
    "K6-F01 K6-F02 L-43" nobody_joins_across_a_revocation
        "A request that arrives after a revocation does not join a read from before it.",
    "K6-F04 L-42" a_lost_leader_hangs_nobody "When a read fails, those who joined it are answered.",
    "K6-F05 L-41" another_node_reads_once "Nodes that see a foreign lease read once each.",
    "X8-L-13" a_no_is_confirmed "A deadline moved elsewhere, or a changed secret, is no false logout.",
    "X8-L-14" fresh_asks_the_primary "A fresh answer comes from the primary and changes no cache.",
    "X8-L-12" what_can_not_be_immediate_is_refused "require_immediate refuses an unfit topology.",
}

async fn a_miss_asks_once_and_fills(on: &PairBench) -> Outcome {
    let node = on.node()?;
    let created = on.log_in(&node).await?;
    on.runtime.settle().await;
    node.db.reset();
    node.cache.reset();
    let mut held = node.cache.hold(Op::Swap, Point::Before);
    // The swap is held, and the answer comes all the same.
    ensure(node.accepts(&created.token).await, "not accepted")?;
    held.reached().await;
    let count = |op| node.cache.count(op);
    expect((count(Op::Get), count(Op::Reserve), node.db.count(Op::Find)), (1, 1, 1))?;
    expect(node.db.total(), 1)?;
    held.release();
    on.runtime.settle().await;
    expect(count(Op::Swap), 1)?;
    ensure(on.is_cached(created.session.id).await?, "nothing was cached")
}

async fn a_hit_asks_the_primary_nothing(on: &PairBench) -> Outcome {
    let node = on.node()?;
    let token = on.log_in_warm(&node).await?;
    node.db.reset();
    node.cache.reset();
    let Some(live) = node.app.authenticate(&token).await.live() else {
        return expect("absent", "live");
    };
    expect(live.source, Source::Secondary)?;
    expect((node.db.total(), node.cache.total(), node.cache.count(Op::Get)), (0, 1, 1))
}

async fn garbage_is_a_miss(on: &PairBench) -> Outcome {
    let node = on.node()?;
    let token = on.log_in_warm(&node).await?;
    let other = on.log_in_warm(&node).await?;
    let foreign = on.secondary.get(&PairBench::key(other.id())).await?;
    let records = [Record::new(b"{\"json\":1}".as_slice()), Record::new(b"V\xff".as_slice())];
    for garbage in records.into_iter().chain(foreign) {
        on.evict(token.id()).await?;
        let ttl = Ttl::new(Duration::from_mins(1)).unwrap_or(Ttl::MIN);
        let key = PairBench::key(token.id());
        if let Reservation::Granted(lease) = on.secondary.reserve(&key, ttl).await? {
            on.secondary.swap(&key, &lease, Some(&garbage), SwapTtl::Set(ttl)).await?;
        }
        // Also for a lookup that any session would satisfy.
        let found = node.look(token.id()).await?.snapshot.map(|found| found.session.id);
        expect(found, Some(token.id()))?;
        let live = node.app.authenticate(&token).await.live();
        expect(live.map(|live| live.id()), Some(token.id()))?;
        on.runtime.settle().await;
        ensure(on.secondary.get(&key).await? != Some(garbage), "garbage stays in the cache")?;
    }
    DONE
}

async fn a_broken_cache_fails_nothing(on: &PairBench) -> Outcome {
    let node = on.node()?;
    let token = on.log_in(&node).await?.token;
    for op in [Op::Get, Op::Reserve, Op::Swap] {
        on.evict(token.id()).await?;
        node.cache.fail(op);
        ensure(node.accepts(&token).await, "a broken cache failed a lookup")?;
        on.runtime.settle().await;
    }
    // A reservation whose reply was lost may be there: no fill may follow it.
    on.evict(token.id()).await?;
    node.cache.lose_reply(Op::Reserve);
    node.cache.reset();
    ensure(node.accepts(&token).await, "a lost reply failed a lookup")?;
    on.runtime.settle().await;
    expect(node.cache.count(Op::Swap), 0)?;
    node.cache.set_down(true);
    for _ in 0..20 {
        ensure(node.accepts(&token).await, "a dead cache failed a lookup")?;
    }
    let degraded = node.app.authenticate(&token).await.live().map(|live| live.degraded);
    expect(degraded, Some(true))
}

async fn a_hanging_cache_is_passed_by(on: &PairBench) -> Outcome {
    let node = on.node()?;
    let token = on.log_in(&node).await?.token;
    on.runtime.settle().await;
    for _ in 0..5 {
        node.cache.hang(Op::Get);
        let lookup = node.app.authenticate(&token);
        let time = async {
            // The deadline is made when the first poll did not answer.
            futures_util::pending!();
            on.runtime.advance(Duration::from_millis(250));
        };
        let time = woken(time);
        let (answer, ()) = join(lookup, time).await;
        ensure(answer.live().is_some(), "a hanging cache failed a lookup")?;
    }
    node.cache.reset();
    ensure(node.accepts(&token).await, "not accepted behind the breaker")?;
    expect(node.cache.total(), 0)?;
    on.runtime.advance(Duration::from_secs(2));
    ensure(node.accepts(&token).await, "not accepted")?;
    ensure(node.cache.total() > 0, "the breaker never closes")
}

/// Polls `work` again at once whenever it waits for nothing.
pub(super) async fn woken(work: impl Future<Output = ()>) {
    let mut work = std::pin::pin!(work);
    std::future::poll_fn(|cx| {
        let done = work.as_mut().poll(cx);
        cx.waker().wake_by_ref();
        done
    })
    .await;
}

async fn a_hit_survives_an_outage(on: &PairBench) -> Outcome {
    let node = on.node()?;
    let token = on.log_in_warm(&node).await?;
    let before = node.app.authenticate(&token).await.live().map(|live| live.snapshot);
    node.db.set_down(true);
    let during = node.app.authenticate(&token).await.live().map(|live| live.snapshot);
    expect(during, before)?;
    // The entry ends by itself, and then nobody knows.
    on.runtime.advance(Duration::from_mins(10));
    let after = node.app.authenticate(&token).await;
    ensure(matches!(after, Authentication::Unavailable(_)), "an outage was taken for an answer")
}

async fn an_outage_is_no_logout(on: &PairBench) -> Outcome {
    let (node, other, token) = two_nodes(on).await?;
    node.db.set_down(true);
    for _ in 0..3 {
        let answer = node.app.authenticate(&token).await;
        ensure(matches!(answer, Authentication::Unavailable(_)), "an outage was a logout")?;
        on.runtime.settle().await;
    }
    // Nothing was cached of it: another node is not told so either.
    ensure(other.accepts(&token).await, "an outage was cached as an absence")?;
    node.db.set_down(false);
    ensure(node.accepts(&token).await, "no recovery")
}

async fn misses_are_shared(on: &PairBench) -> Outcome {
    let node = on.node()?;
    let token = on.log_in(&node).await?.token;
    on.runtime.settle().await;
    node.db.reset();
    let answers = join_all((0..100).map(|_| node.accepts(&token))).await;
    ensure(answers.iter().all(|accepted| *accepted), "not all were accepted")?;
    on.runtime.settle().await;
    expect(node.db.count(Op::Find), 1)
}

async fn nobody_joins_across_a_revocation(on: &PairBench) -> Outcome {
    let (node, _, token) = two_nodes(on).await?;
    on.runtime.settle().await;
    let mut held = node.db.hold(Op::Find, Point::After);
    let early = node.accepts(&token);
    let late = async {
        held.reached().await;
        // The read of before is on its way back; the revocation completes meanwhile.
        let done = node.app.admin_revoke(token.id(), crate::session::Reason::Admin).await;
        let accepted = node.accepts(&token).await;
        held.release();
        (done, accepted)
    };
    let (_, (done, accepted)) = join(early, late).await;
    expect(done?.count, 1)?;
    ensure(!accepted, "a request joined a read from before the revocation")?;
    on.runtime.settle().await;
    ensure(!node.accepts(&token).await, "the read of before was cached")
}

async fn a_lost_leader_hangs_nobody(on: &PairBench) -> Outcome {
    let node = on.node()?;
    let token = on.log_in(&node).await?.token;
    on.runtime.settle().await;
    node.db.fail(Op::Find);
    let answers = join_all((0..10).map(|_| node.app.authenticate(&token))).await;
    let is_absent = |answer: &&Authentication| matches!(answer, Authentication::Absent(_));
    expect(answers.iter().filter(is_absent).count(), 0)?;
    on.runtime.settle().await;
    // Not even its lease, which would keep others from filling until it ends. Where replies take their
    // time, one who came after the failure may have read and filled.
    let left = on.secondary.get(&PairBench::key(token.id())).await?;
    let is_value = left.as_ref().is_some_and(|record| record.as_bytes().first() == Some(&b'V'));
    ensure(left.is_none() || is_value, "a failed read left something behind")?;
    ensure(node.accepts(&token).await, "not accepted after a failed read")
}

async fn another_node_reads_once(on: &PairBench) -> Outcome {
    let (one, other, token) = two_nodes(on).await?;
    // Whoever registers the cache at its first lookup comes later than the others.
    other.app.store().register().await?;
    on.runtime.settle().await;
    one.db.reset();
    let mut fill = one.cache.hold(Op::Swap, Point::Before);
    let accepted = one.accepts(&token).await;
    fill.reached().await;
    // The other node reads until all of its ten have seen the lease, at whatever pace replies come.
    let mut read = other.db.hold(Op::Find, Point::After);
    let all = async {
        read.reached().await;
        woken(async {
            while other.cache.count(Op::Get) < 10 || is_busy() {
                futures_util::pending!();
            }
        })
        .await;
        read.release();
    };
    let (many, ()) = join(join_all((0..10).map(|_| other.accepts(&token))), all).await;
    fill.release();
    ensure(accepted && many.iter().all(|accepted| *accepted), "not all were accepted")?;
    on.runtime.settle().await;
    expect((one.db.count(Op::Find), other.db.count(Op::Find)), (1, 1))?;
    ensure(on.is_cached(token.id()).await?, "the owner's fill was lost")
}

async fn a_no_is_confirmed(on: &PairBench) -> Outcome {
    let (one, other, token) = two_nodes(on).await?;
    ensure(one.accepts(&token).await, "not accepted")?;
    on.runtime.settle().await;
    // Another node touches: the entry keeps the nearer deadline.
    let Some(found) = other.look(token.id()).await?.snapshot else {
        return expect("absent", "there");
    };
    let deadline = found.session.expires_at;
    let seen_at = deadline.minus(Duration::from_mins(1));
    let later = deadline.plus(Duration::from_hours(1));
    let touch = crate::primary::Touch { id: token.id(), seen_at, expires_at: later };
    other.app.store().touch(&[touch]).await?;
    ensure(on.is_cached(token.id()).await?, "a touch removed the entry")?;
    let is_yes = |found: Option<&crate::session::Snapshot>| {
        found.is_some_and(|found| found.session.state(deadline) == crate::session::State::Active)
    };
    let answer = one.app.store().lookup(&token.id(), deadline, &is_yes).await?;
    ensure(is_yes(answer.snapshot.as_deref()), "a touch elsewhere was a false logout")?;
    expect(answer.source, Source::Primary)?;
    // The old entry is gone, and the next reader brings the new one, if that can be told without a new
    // lease of life.
    on.runtime.settle().await;
    let next = one.app.store().lookup(&token.id(), deadline, &is_yes).await?;
    expect(next.source, Source::Primary)?;
    on.runtime.settle().await;
    let again = one.app.store().lookup(&token.id(), deadline, &is_yes).await?;
    expect(again.source == Source::Secondary, on.is_linearizable())?;
    // A rotation whose cache step failed: the new secret is not in the entry.
    other.cache.fail(Op::Remove);
    match other.app.rotate(&token).await? {
        crate::sessions::RotationOutcome::Rotated { token: new, .. } => {
            ensure(one.accepts(&new).await, "a new secret was a false logout")
        }
        outcome => expect(format!("{outcome:?}"), "rotated".to_owned()),
    }
}

async fn fresh_asks_the_primary(on: &PairBench) -> Outcome {
    let node = on.node()?;
    let token = on.log_in_warm(&node).await?;
    node.cache.reset();
    node.db.reset();
    let live = node.app.authenticate_fresh(&token).await.live();
    expect(live.map(|live| live.source), Some(Source::Primary))?;
    expect((node.cache.total(), node.db.count(Op::Find)), (0, 1))
}

async fn what_can_not_be_immediate_is_refused(on: &PairBench) -> Outcome {
    let promise = on.secondary.promise();
    let many = LayeredConfig {
        topology: Topology::ManyProcesses,
        require_immediate: true,
        ..PairBench::config()
    };
    let fits = promise.class == CacheClass::Linearizable && promise.scope == CacheScope::Shared;
    let result = on.node_with(many, crate::policy::Policy::default());
    expect(result.is_ok(), fits)?;
    let near = LayeredConfig {
        near_ttl: Ttl::new(Duration::from_secs(1)),
        topology: Topology::ManyProcesses,
        require_immediate: true,
        ..PairBench::config()
    };
    let (db, cache) = Default::default();
    let wanted = &CONFIGURATION;
    refused(on.layered(near, &db, &cache), wanted)?;
    let token = Token::generate(NOW)?;
    expect(on.is_cached(token.id()).await?, false)
}
