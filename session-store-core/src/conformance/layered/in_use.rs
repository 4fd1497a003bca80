//! Sessions in use: whatever goes wrong beside them, they are not logged out.

use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{abortable, join_all};

use super::super::checks;
use super::super::report::{ensure, expect};
use super::super::runner::Outcome;
use super::super::sample::{json, user, user_id};
use super::super::wire::{Op, Point};
use super::{DONE, Node, PairBench};
use crate::host::Runtime;
use crate::policy::Policy;
use crate::primary::Touch;
use crate::session::Metadata;
use crate::sessions::{DataUpdate, Login, MaintenanceConfig, RotationOutcome};
use crate::time::Ttl;
use crate::token::Token;
use crate::user::CredentialEpoch;

checks! { ($) layered_in_use: PairBench;
    "X8-Y-13" a_session_in_use_lives_on
        "However short its life, a session that is used all the time is not logged out.",
    "X8-Y-14" an_outage_logs_nobody_out
        "Use that could not be written, or whose writer went away, is written later.",
    "X8-Y-15" a_grace_is_no_conflict
        "The start of a grace, which the library writes, is no conflict for the application.",
    "X8-Y-23" the_same_change_is_a_change
        "A change of the application is a conflict for another, also if it left all as it was.",
    "X8-Y-24" a_promotion_is_a_conflict
        "Nothing but the start of a grace is overlooked: a promotion meanwhile is a conflict.",
    "X8-Y-22" maintenance_writes_use
        "While maintenance runs, use is written by it, every five seconds and not more often.",
    "X8-L-18" a_hanging_read_ends
        "A read of the primary that hangs is an error in the end, and later ones go on.",
    "X8-L-19" a_stranger_holds_up_nobody
        "Many wrong secrets for one session take no turn from another one's owner.",
}

/// Uses the session twice a second for `length`.
async fn uses(on: &PairBench, node: &Node, token: &Token, length: Duration) -> Outcome {
    let end = node.app.now().plus(length);
    while node.app.now() < end {
        ensure(node.accepts(token).await, "a session in use was logged out")?;
        on.runtime.settle().await;
        on.runtime.advance(Duration::from_millis(500));
        on.runtime.settle().await;
    }
    DONE
}

async fn a_session_in_use_lives_on(on: &PairBench) -> Outcome {
    let short = Ttl::new(Duration::from_secs(4)).unwrap_or(Ttl::MIN);
    let policy = Policy { idle_timeout: short, ..Policy::default() };
    let node = on.node_with(PairBench::config(), policy)?;
    let token = on.log_in(&node).await?.token;
    uses(on, &node, &token, Duration::from_secs(20)).await?;
    // One login asks for less than the interval of the policy.
    let touch_interval = Some(Duration::from_hours(1));
    let node = on.node_with(PairBench::config(), Policy { touch_interval, ..Policy::default() })?;
    let Some(account) = node.app.find_user(&user_id(1)?).await? else {
        return ensure(false, "no user");
    };
    let lifetime = Ttl::new(Duration::from_mins(1));
    let created = node.app.create(Login { lifetime, ..Login::of(&account) }).await?;
    uses(on, &node, &created.token, Duration::from_mins(3)).await
}

async fn an_outage_logs_nobody_out(on: &PairBench) -> Outcome {
    let node = on.node()?;
    // Maintenance had the duty to flush, and is gone.
    let (run, handle) = abortable(node.app.maintenance(MaintenanceConfig::default())?.run());
    on.runtime.spawn(Box::pin(run.map(drop)));
    on.runtime.settle().await;
    handle.abort();
    on.runtime.advance(Duration::from_secs(1));
    on.runtime.settle().await;
    let token = on.log_in(&node).await?.token;
    on.runtime.advance(Duration::from_hours(24 * 6));
    node.db.fail(Op::Touch);
    ensure(node.accepts(&token).await, "not accepted")?;
    for _ in 0..3 {
        on.runtime.settle().await;
        on.runtime.advance(Duration::from_secs(5));
    }
    on.runtime.settle().await;
    on.runtime.advance(Duration::from_hours(24 * 2));
    ensure(node.accepts(&token).await, "an outage became a logout")?;
    // A flush whose caller went away in the middle of it.
    let held = node.db.hold(Op::Touch, Point::Before);
    {
        let mut flush = std::pin::pin!(node.app.flush_touches());
        for _ in 0..3 {
            let _ = futures_util::poll!(flush.as_mut());
        }
    }
    held.release();
    on.runtime.settle().await;
    let seen = on.primary.find(&token.id()).await?.snapshot.map(|found| found.session.last_seen_at);
    expect(seen, Some(node.app.now()))
}

async fn maintenance_writes_use(on: &PairBench) -> Outcome {
    let node = on.node()?;
    let (one, two) = (on.log_in_warm(&node).await?, on.log_in_warm(&node).await?);
    on.runtime.advance(Duration::from_hours(24));
    on.runtime.spawn(Box::pin(node.app.maintenance(MaintenanceConfig::default())?.run()));
    let pass = async |seconds: u32| {
        for _ in 0..seconds {
            on.runtime.settle().await;
            on.runtime.advance(Duration::from_secs(1));
            on.runtime.settle().await;
        }
    };
    ensure(node.accepts(&one).await, "not accepted")?;
    pass(1).await;
    expect(node.db.count(Op::Touch), 1)?;
    ensure(node.accepts(&two).await, "not accepted")?;
    pass(4).await;
    expect(node.db.count(Op::Touch), 1)?;
    pass(1).await;
    expect(node.db.count(Op::Touch), 2)
}

async fn a_grace_is_no_conflict(on: &PairBench) -> Outcome {
    let node = on.node()?;
    let old = on.log_in_warm(&node).await?;
    let RotationOutcome::Rotated { token, .. } = node.app.rotate(&old).await? else {
        return ensure(false, "not rotated");
    };
    let Some(live) = node.app.authenticate(&token).await.live() else {
        return ensure(false, "not accepted");
    };
    on.runtime.settle().await;
    // Use that was written meanwhile is none of the application's business either.
    let session = live.session();
    let seen_at = session.last_seen_at.plus(Duration::from_secs(1));
    let expires_at = session.expires_at.plus(Duration::from_secs(1));
    on.primary.touch(&[Touch { id: session.id, seen_at, expires_at }]).await?;
    let done = node.app.set_data(&live, json("1")?).await?;
    ensure(matches!(done, DataUpdate::Updated { .. }), "the library's own write is a conflict")?;
    let done = node.app.set_data(&live, json("2")?).await?;
    expect(done, DataUpdate::Conflict)?;
    // A second rotation has a grace of its own, which starts as well.
    on.runtime.advance(Duration::from_hours(24));
    let RotationOutcome::Rotated { token, .. } = node.app.rotate(&token).await? else {
        return ensure(false, "not rotated again");
    };
    ensure(node.accepts(&token).await, "not accepted")?;
    on.runtime.settle().await;
    let found = on.primary.find(&token.id()).await?.snapshot;
    let until = found.and_then(|found| found.session.previous).and_then(|old| old.until);
    ensure(until.is_some(), "the grace of a second rotation was not started")
}

async fn the_same_change_is_a_change(on: &PairBench) -> Outcome {
    let node = on.node()?;
    let token = on.log_in_warm(&node).await?;
    let same = json("1")?;
    if let Some(live) = node.app.authenticate(&token).await.live() {
        let _ = node.app.set_data(&live, same.clone()).await?;
    }
    let Some(live) = node.app.authenticate_fresh(&token).await.live() else {
        return ensure(false, "not accepted");
    };
    expect(live.session().data.clone(), same.clone())?;
    let done = node.app.set_data(&live, same.clone()).await?;
    ensure(matches!(done, DataUpdate::Updated { .. }), "not updated")?;
    expect(node.app.set_data(&live, same).await?, DataUpdate::Conflict)
}

async fn a_promotion_is_a_conflict(on: &PairBench) -> Outcome {
    let node = on.node()?;
    node.app.register_user(&user(1)?).await?;
    let guest = node.app.create_guest(Metadata::default(), json("1")?).await?.token;
    let Some(live) = node.app.authenticate(&guest).await.live() else {
        return ensure(false, "not accepted");
    };
    let login = Login::new(user_id(1)?, CredentialEpoch::default());
    let done = node.app.promote(&guest, Login { data: json("2")?, ..login }).await?;
    ensure(matches!(done, RotationOutcome::Rotated { .. }), "not promoted")?;
    expect(node.app.set_data(&live, json("3")?).await?, DataUpdate::Conflict)?;
    let stored = on.primary.find(&guest.id()).await?.snapshot.map(|found| found.session.data);
    expect(stored, Some(json("2")?))
}

async fn a_hanging_read_ends(on: &PairBench) -> Outcome {
    let node = on.node()?;
    let token = on.log_in(&node).await?.token;
    node.cache.set_down(true);
    node.db.hang(Op::Find);
    let deadline = node.app.store().config().read_deadline;
    let time = super::read::woken(async {
        for _ in 0..50 {
            futures_util::pending!();
        }
        on.runtime.advance(deadline);
    });
    let looks = async {
        let first = node.app.authenticate(&token).await;
        let second = node.app.authenticate(&token).await;
        (first, second)
    };
    let ((first, second), ()) = futures_util::future::join(looks, time).await;
    ensure(first.live().is_none() && second.live().is_some(), "a hanging read holds others up")
}

async fn a_stranger_holds_up_nobody(on: &PairBench) -> Outcome {
    let node = on.node()?;
    let victim = on.log_in_warm(&node).await?;
    let honest = on.log_in_warm(&node).await?;
    node.cache.fail(Op::Remove);
    let RotationOutcome::Rotated { token: newer, .. } = node.app.rotate(&honest).await? else {
        return ensure(false, "not rotated");
    };
    on.runtime.settle().await;
    let mut held = node.db.hold(Op::Find, Point::After);
    let count = node.app.store().config().max_confirms;
    let thieves: Result<Vec<_>, _> = (0..count).map(|_| Token::for_session(victim.id())).collect();
    let thieves = thieves?;
    let tries = join_all(thieves.iter().map(|token| node.app.authenticate(token)));
    let owner = async {
        held.reached().await;
        let live = node.app.authenticate(&newer).await.live();
        held.release();
        live
    };
    let (_, live) = futures_util::future::join(tries, owner).await;
    ensure(live.is_some(), "wrong secrets for one session hold up another one")
}
