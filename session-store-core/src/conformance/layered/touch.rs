//! Use of sessions: seldom written, never lost for long, never reviving.

use std::time::Duration;

use super::super::checks;
use super::super::report::{Violation, ensure, expect};
use super::super::runner::Outcome;
use super::super::sample::user_id;
use super::super::wire::Op;
use super::PairBench;
use crate::policy::Policy;
use crate::session::{Reason, SessionLimit};
use crate::sessions::{Extended, Login};
use crate::user::User;

checks! { ($) layered_touch: PairBench;
    "L-50 P-53" use_is_written_once_per_interval
        "A thousand hits within a touch interval cause one write.",
    "L-51 X8-Y-25" a_failed_flush_is_made_up_for
        "Touches that could not be written are written next time, and keep no others from it.",
    "X8-Y-26" a_use_that_is_not_written_fails_no_login
        "A login under a limit goes on when uses can't be written, those of others above all.",
    "L-52" a_late_touch_revives_nothing "A queued touch of a revoked session changes nothing.",
    "L-05 L-06 K6-C02" an_entry_never_outlives_its_session
        "With little time left nothing is cached, and a cached entry ends with the session.",
}

const DAY: Duration = Duration::from_hours(24);

async fn use_is_written_once_per_interval(on: &PairBench) -> Outcome {
    let node = on.node()?;
    let (token, other) = (on.log_in_warm(&node).await?, on.log_in_warm(&node).await?);
    on.runtime.advance(DAY);
    node.db.reset();
    for _ in 0..500 {
        ensure(node.accepts(&token).await, "not accepted")?;
        ensure(node.accepts(&other).await, "the other one is not accepted")?;
    }
    on.runtime.settle().await;
    on.runtime.advance(Duration::from_secs(5));
    on.runtime.settle().await;
    expect(node.db.count(Op::Touch), 1)?;
    // The entries still show the use of before, and the process remembers that it was written.
    ensure(node.accepts(&token).await, "not accepted")?;
    ensure(node.accepts(&other).await, "the other one is not accepted")?;
    expect(node.app.flush_touches().await?, 0)?;
    let seen = on.primary.find(&token.id()).await?.snapshot.map(|found| found.session.last_seen_at);
    expect(seen, Some(node.app.now().minus(Duration::from_secs(5))))?;
    // From the very end of the interval on, use is news again.
    let idle = node.app.policy().idle_timeout;
    let interval = node.app.policy().touch_after(idle).saturating_sub(Duration::from_secs(5));
    on.runtime.advance(interval.saturating_sub(Duration::from_millis(1)));
    ensure(node.accepts(&token).await, "not accepted")?;
    expect(node.app.flush_touches().await?, 0)?;
    on.runtime.advance(Duration::from_millis(1));
    ensure(node.accepts(&token).await, "not accepted")?;
    expect(node.app.flush_touches().await?, 1)
}

async fn a_failed_flush_is_made_up_for(on: &PairBench) -> Outcome {
    let node = on.node()?;
    let token = on.log_in_warm(&node).await?;
    on.runtime.advance(DAY);
    ensure(node.accepts(&token).await, "not accepted")?;
    node.db.fail(Op::Touch);
    ensure(node.app.flush_touches().await.is_err(), "no error")?;
    expect(node.app.flush_touches().await?, 1)?;
    expect(node.app.flush_touches().await?, 0)?;
    // Of two statements the first fails: the other is written all the same, and once.
    let (node, mut tokens) = (on.node()?, Vec::new());
    for _ in 0..501 {
        tokens.push(on.log_in(&node).await?.token);
    }
    on.runtime.advance(DAY);
    for token in &tokens {
        ensure(node.accepts(token).await, "not accepted")?;
    }
    node.db.fail(Op::Touch);
    ensure(node.app.flush_touches().await.is_err(), "no error")?;
    expect(node.app.flush_touches().await?, 500)
}

async fn a_late_touch_revives_nothing(on: &PairBench) -> Outcome {
    let (node, other) = (on.node()?, on.node()?);
    let token = on.log_in_warm(&node).await?;
    on.runtime.advance(DAY);
    ensure(node.accepts(&token).await, "not accepted")?;
    let _ = other.app.admin_revoke(token.id(), Reason::Admin).await?;
    let before = on.primary.find(&token.id()).await?;
    node.app.flush_touches().await?;
    expect(on.primary.find(&token.id()).await?, before)?;
    ensure(!node.accepts(&token).await, "a touch revived a revoked session")?;
    // Whoever ends a session knows that its use need not be written.
    let token = on.log_in_warm(&node).await?;
    on.runtime.advance(DAY);
    on.runtime.settle().await;
    ensure(node.accepts(&token).await, "not accepted")?;
    let _ = node.app.logout(&token).await?;
    expect(node.app.flush_touches().await?, 0)
}

async fn an_entry_never_outlives_its_session(on: &PairBench) -> Outcome {
    let node = on.node()?;
    let created = on.log_in(&node).await?;
    let left = created.session.expires_at.since(node.app.now());
    on.runtime.advance(left.saturating_sub(Duration::from_secs(2)));
    ensure(node.look(created.session.id).await?.snapshot.is_some(), "gone too early")?;
    on.runtime.settle().await;
    ensure(!on.is_cached(created.session.id).await?, "cached for less than a lease")?;
    let token = on.log_in(&node).await?.token;
    let soon = node.app.now().plus(Duration::from_secs(10));
    let extended = node.app.extend(&token, soon).await?;
    ensure(matches!(extended, Extended::Until { .. }), "not extended")?;
    ensure(node.accepts(&token).await, "not accepted")?;
    on.runtime.settle().await;
    ensure(on.is_cached(token.id()).await?, "not cached")?;
    on.runtime.advance(Duration::from_secs(10));
    ensure(!on.is_cached(token.id()).await?, "the entry outlived the session")?;
    ensure(!node.accepts(&token).await, "accepted after its end")
}

async fn a_use_that_is_not_written_fails_no_login(on: &PairBench) -> Outcome {
    let policy =
        Policy { max_sessions: Some(SessionLimit { max: 2, evict: true }), ..Policy::default() };
    let node = on.node_with(PairBench::config(), policy)?;
    let token = on.log_in_warm(&node).await?;
    on.clock.advance(DAY);
    ensure(node.accepts(&token).await, "not accepted")?;
    node.app.register_user(&User::new(user_id(2)?, node.app.now())).await?;
    let other = node.app.find_user(&user_id(2)?).await?;
    let other = other.ok_or_else(|| Violation::new("nobody was registered"))?;
    node.db.reset();
    node.app.create(Login::of(&other)).await?;
    expect(node.db.count(Op::Touch), 0)?;
    node.db.fail(Op::Touch);
    on.log_in(&node).await?;
    expect(node.app.flush_touches().await?, 1)
}
