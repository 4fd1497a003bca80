//! Rotations that fall due, and the grace that follows them.

use std::time::Duration;

use super::super::checks;
use super::super::report::{Violation, ensure, expect};
use super::super::runner::Outcome;
use super::super::wire::Op;
use super::{DONE, Node, PairBench};
use crate::sessions::{Refusal, RotationOutcome};
use crate::token::Token;

checks! { ($) layered_rotation: PairBench;
    "X8-Y-20" a_late_first_use_is_no_reason_to_rotate
        "However late a new secret is used first, it is not due for another until its grace is over.",
    "X8-Y-21" a_grace_that_failed_starts_later
        "A grace whose start could not be written starts with the next use.",
}

const DAY: Duration = Duration::from_hours(24);
const MOMENT: Duration = Duration::from_millis(1);

async fn is_due(node: &Node, token: &Token) -> Result<bool, Violation> {
    match node.app.authenticate(token).await.live() {
        Some(live) => Ok(live.rotation_due),
        None => Err(Violation::new("not accepted")),
    }
}

async fn rotate(node: &Node, token: &Token) -> Result<Token, Violation> {
    match node.app.rotate(token).await? {
        RotationOutcome::Rotated { token, .. } => Ok(token),
        outcome => Err(Violation::new(format!("not rotated: {outcome:?}"))),
    }
}

async fn a_late_first_use_is_no_reason_to_rotate(on: &PairBench) -> Outcome {
    let node = on.node()?;
    let old = on.log_in_warm(&node).await?;
    let new = rotate(&node, &old).await?;
    let grace = node.app.policy().rotation_grace;
    // Another rotation would kill the secret that is in use now.
    on.runtime.advance(DAY * 2);
    ensure(!is_due(&node, &new).await?, "due at the first use of a new secret")?;
    on.runtime.settle().await;
    super::twins::past_stale_fills(on, &node, new.id()).await?;
    on.runtime.advance(grace.saturating_sub(MOMENT));
    ensure(!is_due(&node, &new).await?, "due within the grace")?;
    on.runtime.advance(MOMENT);
    ensure(is_due(&node, &new).await?, "not due after the grace")
}

async fn a_grace_that_failed_starts_later(on: &PairBench) -> Outcome {
    let node = on.node()?;
    let old = on.log_in_warm(&node).await?;
    let new = rotate(&node, &old).await?;
    node.db.fail(Op::Update);
    for _ in 0..2 {
        ensure(node.accepts(&new).await, "the new secret is refused")?;
        on.runtime.settle().await;
    }
    on.runtime.advance(node.app.policy().rotation_grace);
    let is_suspicious = true;
    expect(node.refusal(&old).await, Some(Refusal::Replaced { is_suspicious }))?;
    DONE
}
