//! The policy: rotation, elevation, guests, limits, sweeps.

use std::time::Duration;

use futures_util::future::join;

use super::super::checks;
use super::super::report::{
    CONFIGURATION, INVALID_INPUT, TOO_LARGE, Violation, ensure, expect, refused,
};
use super::super::runner::Outcome;
use super::super::sample::{user, user_id};
use super::super::wire::Op;
use super::{Node, PairBench};
use crate::json::Json;
use crate::observer::NoObserver;
use crate::policy::Policy;
use crate::primary::LogPromise;
use crate::session::{Metadata, Reason};
use crate::sessions::{
    Authentication, Login, MaintenanceConfig, Proof, Refusal, RotationOutcome, Sessions,
};
use crate::time::Timestamp;
use crate::token::Token;
use std::sync::Arc;

checks! { ($) layered_policy: PairBench;
    "P-44" one_of_two_rotations_wins "Of two concurrent rotations exactly one hands out a token.",
    "P-46 P-48" the_grace_starts_with_the_first_use
        "The old secret works until the new one was used, then for the grace, then never.",
    "P-47" no_grace_after_a_revocation "A revoked session's previous secret is dead at once.",
    "X8-Y-12" large_data_is_refused_early "Data over the policy's limit is refused without a store call.",
    "X8-Y-01" unfit_policies_are_refused "A policy that logs active users out is refused.",
    "X8-Y-02 T-11" refusals_tell_why "Wrong secrets, expiry and revocation are told apart inside.",
    "X8-Y-03" guests_have_sessions "A guest's session is found, without a user.",
    "X8-Y-04" an_elevation_has_no_grace
        "The token from before an elevation is refused at once, for a moment without suspicion.",
    "X8-Y-05 T-13" a_promotion_needs_a_new_token "A guest becomes a user under another secret, once.",
    "X8-Y-06" a_wrong_secret_logs_nobody_out "A logout with a wrong secret ends nothing.",
    "X8-Y-07" a_sweep_leaves_room_for_skew "A sweep removes nothing that a skewed clock calls alive.",
    "X8-Y-08" run_once_does_everything "One round of maintenance flushes, drains and sweeps.",
    "X8-Y-09" a_verifier_writes_nothing "A verifier judges alike and never writes to the primary.",
    "X8-Y-10" devices_of_others_are_safe "A user can't end another user's session by its public id.",
    "X8-Y-11" logging_out_the_others_spares_this_one "Only the session that asked is left.",
}

async fn rotated(node: &Node, token: &Token) -> Result<Token, Violation> {
    match node.app.rotate(token).await? {
        RotationOutcome::Rotated { token, .. } => Ok(token),
        outcome => Err(Violation::new(format!("not rotated: {outcome:?}"))),
    }
}

async fn one_of_two_rotations_wins(on: &PairBench) -> Outcome {
    let (one, other) = (on.node()?, on.node()?);
    let token = on.log_in_warm(&one).await?;
    let (first, second) = join(one.app.rotate(&token), other.app.rotate(&token)).await;
    let outcomes = [first?, second?];
    let tokens: Vec<_> = outcomes
        .iter()
        .filter_map(|outcome| match outcome {
            RotationOutcome::Rotated { token, .. } => Some(token),
            _ => None,
        })
        .collect();
    expect(tokens.len(), 1)?;
    ensure(one.accepts(tokens[0]).await, "the winner's token is refused")
}

async fn the_grace_starts_with_the_first_use(on: &PairBench) -> Outcome {
    let node = on.node()?;
    let old = on.log_in_warm(&node).await?;
    let new = rotated(&node, &old).await?;
    // However long the reply takes, the old secret works, and may rotate again.
    on.runtime.advance(Duration::from_mins(1));
    ensure(node.accepts(&old).await, "the old secret died before the new one was used")?;
    let new = {
        drop(new);
        rotated(&node, &old).await?
    };
    ensure(node.accepts(&new).await, "the new secret is refused")?;
    on.runtime.settle().await;
    ensure(node.accepts(&old).await, "there is no grace")?;
    let again = node.app.rotate(&old).await?;
    ensure(matches!(again, RotationOutcome::NotNow), "a secret in its grace rotated")?;
    on.runtime.advance(Duration::from_secs(11));
    expect(node.refusal(&old).await, Some(Refusal::Replaced { is_suspicious: true }))?;
    ensure(!Refusal::Replaced { is_suspicious: true }.clears_cookie(), "the cookie is cleared")?;
    ensure(node.accepts(&new).await, "the new secret died with the old one")
}

async fn no_grace_after_a_revocation(on: &PairBench) -> Outcome {
    let node = on.node()?;
    let old = on.log_in_warm(&node).await?;
    let new = rotated(&node, &old).await?;
    let _ = node.app.admin_revoke(old.id(), Reason::Admin).await?;
    for token in [&old, &new] {
        expect(node.refusal(token).await, Some(Refusal::Revoked(Reason::Admin)))
            .or(expect(node.refusal(token).await, Some(Refusal::Unknown)))?;
        let outcome = node.app.rotate(token).await?;
        ensure(matches!(outcome, RotationOutcome::Absent(_)), "a revoked session rotated")?;
    }
    Ok(())
}

async fn large_data_is_refused_early(on: &PairBench) -> Outcome {
    let node = on.node()?;
    let live = {
        let token = on.log_in_warm(&node).await?;
        node.app.authenticate(&token).await.live()
    };
    let Some(live) = live else {
        return expect("absent", "live");
    };
    node.db.reset();
    let large = Json::of(&"x".repeat(16 * 1024))?;
    let wanted = &TOO_LARGE;
    refused(node.app.set_data(&live, large.clone()).await, wanted)?;
    let mut login = Login::new(user_id(1)?, live.session().credential_epoch);
    login.data = large;
    refused(node.app.create(login).await, wanted)?;
    expect(node.db.total(), 0)
}

async fn unfit_policies_are_refused(on: &PairBench) -> Outcome {
    let half_a_day = Some(Duration::from_hours(12));
    for policy in [
        Policy { touch_interval: half_a_day, ..Policy::default() },
        Policy { rotation_interval: Some(Duration::from_secs(1)), ..Policy::default() },
    ] {
        let wanted = &CONFIGURATION;
        refused(policy.check(), wanted)?;
        ensure(on.node_with(PairBench::config(), policy).is_err(), "an unfit policy was accepted")?;
    }
    Ok(())
}

async fn refusals_tell_why(on: &PairBench) -> Outcome {
    let node = on.node()?;
    let token = on.log_in_warm(&node).await?;
    let thief = Token::for_session(token.id())?;
    expect(node.refusal(&thief).await, Some(Refusal::WrongSecret))?;
    ensure(node.accepts(&token).await, "a wrong secret logged the owner out")?;
    expect(node.refusal(&Token::generate(node.app.now())?).await, Some(Refusal::Unknown))?;
    let old = Token::generate(Timestamp::EPOCH)?;
    expect(node.refusal(&old).await, Some(Refusal::Implausible))?;
    on.runtime.advance(Duration::from_hours(24 * 8));
    let end = node.refusal(&token).await;
    ensure(end == Some(Refusal::Expired), "an expired session is not called so")
}

async fn guests_have_sessions(on: &PairBench) -> Outcome {
    let node = on.node()?;
    let created = node.app.create_guest(Metadata::default(), Json::default()).await?;
    let Some(live) = node.app.authenticate(&created.token).await.live() else {
        return expect("absent", "live");
    };
    expect(live.user().cloned(), None)
}

async fn an_elevation_has_no_grace(on: &PairBench) -> Outcome {
    let node = on.node()?;
    let old = on.log_in_warm(&node).await?;
    let proof = Proof { aal: Some(2), amr: vec!["otp".to_owned()] };
    let RotationOutcome::Rotated { token, snapshot, .. } = node.app.elevate(&old, proof).await?
    else {
        return Err(Violation::new("not elevated"));
    };
    expect(snapshot.session.aal, Some(2))?;
    expect(node.refusal(&old).await, Some(Refusal::Replaced { is_suspicious: false }))?;
    on.runtime.advance(Duration::from_secs(11));
    expect(node.refusal(&old).await, Some(Refusal::Replaced { is_suspicious: true }))?;
    let newer = rotated(&node, &token).await?;
    let level = node.app.authenticate(&newer).await.live().and_then(|live| live.session().aal);
    expect(level, Some(2))
}

async fn a_promotion_needs_a_new_token(on: &PairBench) -> Outcome {
    let node = on.node()?;
    node.app.register_user(&user(1)?).await?;
    let data = Json::parse(r#"{"cart":[1]}"#)?;
    let guest = node.app.create_guest(Metadata::default(), data.clone()).await?.token;
    let login = Login::new(user_id(1)?, crate::user::CredentialEpoch::default());
    let RotationOutcome::Rotated { token, snapshot, .. } =
        node.app.promote(&guest, login.clone()).await?
    else {
        return Err(Violation::new("not promoted"));
    };
    expect((snapshot.session.id, snapshot.session.data.clone()), (guest.id(), data))?;
    expect(node.refusal(&guest).await, Some(Refusal::Replaced { is_suspicious: false }))?;
    let live = node.app.authenticate(&token).await.live();
    expect(live.and_then(|live| live.user().map(|user| user.id.clone())), Some(user_id(1)?))?;
    let twice = node.app.promote(&token, login).await;
    refused(twice, &INVALID_INPUT)
}

async fn a_wrong_secret_logs_nobody_out(on: &PairBench) -> Outcome {
    let node = on.node()?;
    let token = on.log_in_warm(&node).await?;
    let done = node.app.logout(&Token::for_session(token.id())?).await?;
    expect(done.count, 0)?;
    ensure(node.accepts(&token).await, "a wrong secret logged the owner out")
}

async fn a_sweep_leaves_room_for_skew(on: &PairBench) -> Outcome {
    let node = on.node()?;
    let created = on.log_in(&node).await?;
    let deadline = created.session.expires_at;
    let skew = node.app.store().config().max_skew;
    on.runtime.advance(deadline.plus(skew).minus(Duration::from_millis(1)).since(node.app.now()));
    expect(node.app.sweep(10).await?.removed, 0)?;
    let moment = Duration::from_millis(1);
    on.runtime.advance(moment);
    // The server's clock may be behind this one, and then its word counts.
    node.db.set_server_time(node.app.now().minus(moment));
    expect(node.app.sweep(10).await?.removed, 0)?;
    for wrong in [node.app.now().plus(skew + moment), node.app.now().minus(skew + moment)] {
        node.db.set_server_time(wrong);
        let wanted = &CONFIGURATION;
        refused(node.app.sweep(10).await, wanted)?;
    }
    node.db.set_server_time(node.app.now().plus(skew));
    expect(node.app.sweep(10).await?.removed, 1)
}

async fn run_once_does_everything(on: &PairBench) -> Outcome {
    let node = on.node()?;
    node.app.store().register().await?;
    let dead = [on.log_in(&node).await?.token, on.log_in(&node).await?.token];
    on.runtime.advance(Duration::from_hours(24 * 8));
    let token = on.log_in_warm(&node).await?;
    on.runtime.advance(Duration::from_hours(24));
    ensure(node.accepts(&token).await, "not accepted")?;
    let ended = on.log_in_warm(&node).await?;
    node.cache.fail(Op::Remove);
    let _ = node.app.admin_revoke(ended.id(), Reason::Admin).await?;
    node.db.reset();
    let config = MaintenanceConfig { sweep_batch: 1, ..MaintenanceConfig::default() };
    let maintenance = node.app.maintenance(config)?;
    maintenance.run_once().await?;
    expect(node.db.count(Op::Touch), 1)?;
    for token in &dead {
        expect(on.primary.find(&token.id()).await?.snapshot, None)?;
    }
    expect(maintenance.health().lock().swept, 2)?;
    if on.primary.promise().log != LogPromise::None {
        ensure(!on.is_cached(ended.id()).await?, "the log was not drained")?;
        expect(maintenance.health().lock().drained, 1)?;
    }
    node.db.set_down(true);
    ensure(maintenance.run_once().await.is_err(), "an outage went unnoticed")?;
    expect(maintenance.health().lock().failures, 1)
}

async fn a_verifier_writes_nothing(on: &PairBench) -> Outcome {
    let node = on.node()?;
    let token = on.log_in_warm(&node).await?;
    let (db, cache) = Default::default();
    let store = on.layered(PairBench::config(), &db, &cache)?;
    let verifier = Sessions::verifier(store, Policy::default(), Arc::new(NoObserver))?;
    on.runtime.advance(Duration::from_hours(24));
    ensure(verifier.authenticate(&token).await.live().is_some(), "not accepted")?;
    let thief = Token::for_session(token.id())?;
    let refused = verifier.authenticate(&thief).await;
    ensure(matches!(refused, Authentication::Absent(Refusal::WrongSecret)), "accepted a thief")?;
    on.runtime.advance(Duration::from_mins(1));
    on.runtime.settle().await;
    // The cache is known from the node that may write.
    expect(db.total(), db.count(Op::Find) + db.count(Op::Other))
}

async fn devices_of_others_are_safe(on: &PairBench) -> Outcome {
    let node = on.node()?;
    let victim = on.log_in_warm(&node).await?;
    node.app.register_user(&user(2)?).await?;
    let attacker = node
        .app
        .create(Login::new(user_id(2)?, crate::user::CredentialEpoch::default()))
        .await?
        .token;
    let guest = node.app.create_guest(Metadata::default(), Json::default()).await?.token;
    for token in [&attacker, &guest] {
        let Some(live) = node.app.authenticate(token).await.live() else {
            return expect("absent", "live");
        };
        let _ = node.app.revoke(&live, victim.id()).await?;
        ensure(node.accepts(&victim).await, "another user's session was ended")?;
    }
    Ok(())
}

async fn logging_out_the_others_spares_this_one(on: &PairBench) -> Outcome {
    let node = on.node()?;
    let (one, two) = (on.log_in_warm(&node).await?, on.log_in_warm(&node).await?);
    let Some(live) = node.app.authenticate(&one).await.live() else {
        return expect("absent", "live");
    };
    expect(node.app.revoke_others(&live).await?.count, 1)?;
    expect((node.accepts(&one).await, node.accepts(&two).await), (true, false))?;
    // The spared session keeps its trust: a rotation of it is no stale credential.
    rotated(&node, &one).await.map(drop)
}
