//! The near cache: at once on this node, within its TTL on the others.

use std::time::Duration;

use futures_util::future::join;

use super::super::checks;
use super::super::report::{Violation, ensure, expect};
use super::super::runner::Outcome;
use super::super::wire::{Op, Point, is_busy};
use super::{Node, PairBench};
use crate::layered::{LayeredConfig, OnCacheFailure, Source, Topology, Visibility};
use crate::policy::Policy;
use crate::session::Reason;
use crate::time::Ttl;

checks! { ($) layered_near: PairBench;
    "K6-L01" the_own_node_knows_at_once
        "A node that read before its own revocation accepts nothing after it.",
    "K6-L02 K6-L05" other_nodes_know_within_the_ttl
        "Another node may accept for the near TTL, counted from before its read, and no longer.",
    "K6-L03" the_shared_cache_forgets_first
        "An entry read while the removal is on its way does not stay in the near cache.",
    "X8-L-39" a_node_that_slept_has_forgotten
        "Another node whose machine slept after the revocation accepts nothing when it wakes.",
    "K6-L04" waiting_out_covers_near_caches "WaitOut returns when every near cache has forgotten.",
}

const NEAR: Duration = Duration::from_secs(1);

fn node(on: &PairBench, on_cache_failure: OnCacheFailure) -> Result<Node, Violation> {
    let config = LayeredConfig {
        near_ttl: Ttl::new(NEAR),
        topology: Topology::ManyProcesses,
        on_cache_failure,
        ..PairBench::config()
    };
    on.node_with(config, Policy::default())
}

async fn the_own_node_knows_at_once(on: &PairBench) -> Outcome {
    let node = node(on, OnCacheFailure::Report)?;
    let token = on.log_in_warm(&node).await?;
    on.runtime.advance(NEAR);
    let mut held = node.cache.hold(Op::Get, Point::After);
    let reader = node.accepts(&token);
    let writer = async {
        held.reached().await;
        let done = node.app.admin_revoke(token.id(), Reason::Admin).await;
        held.release();
        done
    };
    let (_, done) = join(reader, writer).await;
    expect(done?.visibility, Visibility::Within(NEAR))?;
    ensure(!node.accepts(&token).await, "the near cache of the own node kept it")
}

async fn other_nodes_know_within_the_ttl(on: &PairBench) -> Outcome {
    let (one, other) = (node(on, OnCacheFailure::Report)?, node(on, OnCacheFailure::Report)?);
    let token = on.log_in_warm(&one).await?;
    ensure(other.accepts(&token).await, "not accepted")?;
    let live = other.app.authenticate(&token).await.live();
    expect(live.map(|live| live.source), Some(Source::Near))?;
    let done = one.app.admin_revoke(token.id(), Reason::Admin).await?;
    on.runtime.advance(done.visibility.bound());
    ensure(!other.accepts(&token).await, "accepted after the near TTL")?;
    // The TTL runs from before the read, however long its reply takes.
    let token = on.log_in_warm(&one).await?;
    let mut held = other.cache.hold(Op::Get, Point::After);
    let reader = other.accepts(&token);
    let writer = async {
        held.reached().await;
        let done = one.app.admin_revoke(token.id(), Reason::Admin).await;
        on.runtime.advance(NEAR);
        held.release();
        done
    };
    let (_, done) = join(reader, writer).await;
    expect(done?.count, 1)?;
    ensure(!other.accepts(&token).await, "the near TTL ran from after the read")
}

async fn the_shared_cache_forgets_first(on: &PairBench) -> Outcome {
    let node = node(on, OnCacheFailure::Report)?;
    let token = on.log_in_warm(&node).await?;
    on.runtime.advance(NEAR);
    let mut held = node.cache.hold(Op::Remove, Point::Before);
    let writer = node.app.admin_revoke(token.id(), Reason::Admin);
    let reader = async {
        held.reached().await;
        let during = node.accepts(&token).await;
        held.release();
        during
    };
    let (done, during) = join(writer, reader).await;
    expect((done?.count, during), (1, true))?;
    ensure(!node.accepts(&token).await, "the near cache was purged before the shared one")
}

async fn waiting_out_covers_near_caches(on: &PairBench) -> Outcome {
    let (one, other) = (node(on, OnCacheFailure::WaitOut)?, node(on, OnCacheFailure::Report)?);
    let token = on.log_in_warm(&one).await?;
    ensure(other.accepts(&token).await, "not accepted")?;
    let revoke = one.app.admin_revoke(token.id(), Reason::Admin);
    let time = super::read::woken(async {
        // Until it sleeps: a server takes its time for the removals.
        while one.cache.count(Op::Remove) < 2 || is_busy() {
            futures_util::pending!();
        }
        for _ in 0..50 {
            futures_util::pending!();
        }
        on.runtime.advance(NEAR);
    });
    let (done, ()) = join(revoke, time).await;
    expect(done?.visibility, Visibility::Immediate)?;
    ensure(!other.accepts(&token).await, "accepted after Immediate")
}

async fn a_node_that_slept_has_forgotten(on: &PairBench) -> Outcome {
    let (one, other) = (node(on, OnCacheFailure::Report)?, node(on, OnCacheFailure::Report)?);
    let token = on.log_in_warm(&one).await?;
    ensure(other.accepts(&token).await, "not accepted")?;
    let done = one.app.admin_revoke(token.id(), Reason::Admin).await?;
    let bound = done.visibility.bound();
    expect(bound == NEAR, on.is_linearizable())?;
    // Its monotonic clock stood still meanwhile.
    on.clock.jump(i64::try_from(bound.as_millis()).unwrap_or(i64::MAX));
    ensure(!other.accepts(&token).await, "accepted when the bound was over")
}
