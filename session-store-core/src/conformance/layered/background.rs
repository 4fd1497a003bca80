//! What happens beside requests: maintenance, events, counters.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{abortable, join};
use parking_lot::Mutex;

use super::super::checks;
use super::super::report::{Violation, ensure, expect};
use super::super::runner::Outcome;
use super::super::sample::{user, user_id};
use super::super::wire::{Op, Point, Wire};
use super::{App, DONE, PairBench};
use crate::host::Runtime;
use crate::layered::Stats;
use crate::observer::{Event, Observer};
use crate::policy::Policy;
use crate::session::Reason;
use crate::sessions::{Login, MaintenanceConfig, RotationOutcome, Sessions};
use crate::token::Token;
use crate::user::CredentialEpoch;

checks! { ($) layered_background: PairBench;
    "X8-L-31" a_refusal_closes_nothing
        "Errors of the cache that no repetition helps, however many, do not close it.",
    "P-84 L-60" maintenance_survives_errors_and_ends_when_dropped
        "An outage is counted and got over, the sweep has jitter, and a dropped task does nothing.",
    "P-88" each_event_is_told_once "Each step of a life is told once, with the reason of its end.",
    "L-59" everything_is_counted_once "Each counter counts its own event, once.",
}

const MINUTE: Duration = Duration::from_mins(1);

async fn maintenance_survives_errors_and_ends_when_dropped(on: &PairBench) -> Outcome {
    let node = on.node()?;
    node.app.store().register().await?;
    let maintenance = node.app.maintenance(MaintenanceConfig::default())?;
    let health = maintenance.health();
    let (run, handle) = abortable(maintenance.run());
    on.runtime.spawn(Box::pin(run.map(drop)));
    let pass = async |length| {
        on.runtime.settle().await;
        on.runtime.advance(length);
        on.runtime.settle().await;
    };
    pass(29 * MINUTE).await;
    expect(node.db.count(Op::Sweep), 0)?;
    node.db.set_down(true);
    pass(61 * MINUTE).await;
    ensure(health.lock().failures > 0, "an outage went unnoticed")?;
    node.db.set_down(false);
    pass(90 * MINUTE).await;
    ensure(node.db.count(Op::Sweep) > 0, "no sweep after an outage")?;
    expect(health.lock().failures, 0)?;
    let sweeps = node.db.count(Op::Sweep);
    for _ in 0..3 {
        pass(Duration::from_secs(1)).await;
    }
    expect(node.db.count(Op::Sweep), sweeps)?;
    handle.abort();
    pass(Duration::ZERO).await;
    node.db.reset();
    pass(180 * MINUTE).await;
    expect(node.db.total(), 0)
}

async fn a_refusal_closes_nothing(on: &PairBench) -> Outcome {
    let node = on.node()?;
    let token = on.log_in_warm(&node).await?;
    for _ in 0..20 {
        on.evict(token.id()).await?;
        node.cache.refuse(Op::Get);
        ensure(node.accepts(&token).await, "not accepted past a cache that refuses")?;
        on.runtime.settle().await;
    }
    ensure(node.accepts(&token).await, "not accepted")?;
    on.runtime.settle().await;
    ensure(on.is_cached(token.id()).await?, "the cache is not used any more")?;
    expect(node.app.store().stats().cache_errors, 20)
}

/// Writes events down.
#[derive(Debug, Default)]
struct Diary(Mutex<Vec<String>>);

impl Observer for Diary {
    fn event(&self, event: &Event<'_>) {
        let text = match event {
            Event::Created { user, .. } => format!("created for {}", user.is_some()),
            Event::Authenticated { .. } => "authenticated".to_owned(),
            Event::Rotated { .. } => "rotated".to_owned(),
            Event::Revoked { ids, reason } => format!("revoked {} by {reason:?}", ids.len()),
            Event::Expired { .. } => "expired".to_owned(),
            Event::TheftSuspected { .. } => "theft".to_owned(),
            Event::CacheBypassed { .. } => "bypassed".to_owned(),
        };
        self.0.lock().push(text);
    }
}

async fn each_event_is_told_once(on: &PairBench) -> Outcome {
    let diary = Arc::new(Diary::default());
    let store = on.layered(PairBench::config(), &Wire::default(), &Wire::default())?;
    let app: App = Sessions::observed(store, Policy::default(), diary.clone())?;
    let node = super::Node { app, db: Wire::default(), cache: Wire::default() };
    let told = |wanted: &[&str]| {
        let told = std::mem::take(&mut *diary.0.lock());
        expect(told, wanted.iter().map(|&text| text.to_owned()).collect())
    };
    let old = on.log_in(&node).await?.token;
    told(&["created for true"])?;
    ensure(node.accepts(&old).await, "not accepted")?;
    told(&["authenticated"])?;
    on.runtime.settle().await;
    let RotationOutcome::Rotated { token, .. } = node.app.rotate(&old).await? else {
        return expect("not rotated", "rotated");
    };
    told(&["rotated"])?;
    ensure(node.accepts(&token).await, "not accepted")?;
    on.runtime.settle().await;
    super::twins::past_stale_fills(on, &node, token.id()).await?;
    on.runtime.advance(node.app.policy().rotation_grace);
    ensure(!node.accepts(&old).await, "a replaced secret was accepted")?;
    told(&["authenticated", "theft"])?;
    let _ = node.app.admin_revoke(token.id(), Reason::Theft).await?;
    told(&["revoked 1 by Theft"])?;
    let _ = node.app.admin_revoke(token.id(), Reason::Admin).await?;
    ensure(!node.accepts(&token).await, "accepted")?;
    told(&[])?;
    let late = on.log_in(&node).await?.token;
    on.runtime.advance(Duration::from_hours(24 * 8));
    ensure(!node.accepts(&late).await, "accepted after its end")?;
    told(&["created for true", "expired"])?;
    // The end of a user is told as that of the sessions, and the end of nothing is not told.
    for (number, has_logged_in) in [(2, true), (3, false)] {
        node.app.register_user(&user(number)?).await?;
        if has_logged_in {
            node.app.create(Login::new(user_id(number)?, CredentialEpoch::default())).await?;
            told(&["created for true"])?;
        }
        node.app.delete_user(&user_id(number)?).await?;
        told(if has_logged_in { &["revoked 1 by Admin"] } else { &[] })?;
    }
    DONE
}

/// What `work` adds to the counters.
pub(super) async fn counted(
    on: &PairBench,
    node: &super::Node,
    work: impl Future<Output = Outcome>,
) -> Result<Stats, Violation> {
    let before = node.app.store().stats();
    work.await?;
    on.runtime.settle().await;
    let after = node.app.store().stats();
    Ok(Stats {
        hits: after.hits - before.hits,
        negative_hits: after.negative_hits - before.negative_hits,
        primary_reads: after.primary_reads - before.primary_reads,
        joined: after.joined - before.joined,
        fills: after.fills - before.fills,
        fills_refused: after.fills_refused - before.fills_refused,
        cache_errors: after.cache_errors - before.cache_errors,
        removals_failed: after.removals_failed - before.removals_failed,
        ..Stats::default()
    })
}

async fn everything_is_counted_once(on: &PairBench) -> Outcome {
    let node = on.node()?;
    let token = on.log_in(&node).await?.token;
    let look = async |token: &Token| {
        node.accepts(token).await;
        DONE
    };
    let zero = Stats::default();
    let miss = Stats { primary_reads: 1, fills: 1, ..zero };
    expect(counted(on, &node, look(&token)).await?, miss)?;
    expect(counted(on, &node, look(&token)).await?, Stats { hits: 1, ..zero })?;
    let nobody = Token::generate(node.app.now())?;
    expect(counted(on, &node, look(&nobody)).await?, miss)?;
    expect(counted(on, &node, look(&nobody)).await?, Stats { negative_hits: 1, ..zero })?;
    on.evict(token.id()).await?;
    let both = async { join(look(&token), look(&token)).await.0 };
    expect(counted(on, &node, both).await?, Stats { joined: 1, ..miss })?;
    on.evict(token.id()).await?;
    let failed = async {
        node.db.fail(Op::Find);
        look(&token).await
    };
    expect(counted(on, &node, failed).await?, Stats { primary_reads: 1, ..zero })?;
    let refused = async {
        let mut held = node.cache.hold(Op::Swap, Point::Before);
        look(&token).await?;
        held.reached().await;
        on.evict(token.id()).await?;
        held.release();
        DONE
    };
    let wanted = Stats { primary_reads: 1, fills_refused: 1, ..zero };
    expect(counted(on, &node, refused).await?, wanted)?;
    let revoke = async {
        node.cache.fail(Op::Remove);
        let _ = node.app.admin_revoke(token.id(), Reason::Admin).await?;
        DONE
    };
    let wanted = Stats { cache_errors: 1, removals_failed: 1, ..zero };
    expect(counted(on, &node, revoke).await?, wanted)
}
