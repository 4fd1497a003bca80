//! Numbers that are promised: when a rotation is due, how far bounds reach, what is counted.

use std::time::Duration;

use super::super::checks;
use super::super::report::{CONFIGURATION, Violation, ensure, expect, refused};
use super::super::runner::Outcome;
use super::super::sample::{NOW, user, user_id};
use super::super::wire::Op;
use super::{Node, PairBench};
use crate::error::ErrorKind;
use crate::json::Json;
use crate::layered::{LayeredConfig, Topology, Visibility};
use crate::policy::Policy;
use crate::primary::LogPromise;
use crate::session::{Metadata, Reason};
use crate::sessions::{Extended, Login, MaintenanceConfig, RotationOutcome};
use crate::time::{Timestamp, Ttl};
use crate::token::Token;
use crate::user::{CredentialEpoch, Email, User};

checks! { ($) layered_numbers: PairBench;
    "X8-Y-16" a_rotation_is_due_when_it_is "A rotation is due from its interval on, and not while one settles.",
    "X8-Y-17" a_promotion_takes_the_login "A promoted session has everything that the login asked for.",
    "X8-Y-18" users_are_found_and_counted "Users are found by address, counted, and everybody ended once.",
    "X8-Y-19" unfit_rounds_are_refused "Maintenance that could not go on, and deadlines out of range, are refused.",
    "X8-L-24" a_confirmed_entry_is_left_alone
        "A 'no' that the primary confirms writes nothing to the cache when nothing has changed.",
    "X8-L-22" the_bounds_add_up "The bounds are lease, entry, near cache and skew, added up.",
}

async fn is_due(node: &Node, token: &Token) -> Result<bool, Violation> {
    let live = node.app.authenticate(token).await.live();
    live.map(|live| live.rotation_due).ok_or_else(|| Violation::new("not accepted"))
}

async fn a_rotation_is_due_when_it_is(on: &PairBench) -> Outcome {
    let (every, grace) = (Duration::from_hours(2), Duration::from_mins(1));
    let policy =
        Policy { rotation_interval: Some(every), rotation_grace: grace, ..Policy::default() };
    let node = on.node_with(PairBench::config(), policy)?;
    let old = on.log_in_warm(&node).await?;
    ensure(!is_due(&node, &old).await?, "due at once")?;
    on.runtime.advance(every.saturating_sub(Duration::from_millis(1)));
    ensure(!is_due(&node, &old).await?, "due too early")?;
    on.runtime.advance(Duration::from_millis(1));
    ensure(is_due(&node, &old).await?, "not due")?;
    on.runtime.settle().await;
    let RotationOutcome::Rotated { token, .. } = node.app.rotate(&old).await? else {
        return ensure(false, "not rotated");
    };
    // The reply may be on its way; after the grace it is taken for lost.
    ensure(!is_due(&node, &old).await?, "due while the reply is on its way")?;
    on.runtime.advance(grace.saturating_sub(Duration::from_millis(1)));
    ensure(!is_due(&node, &old).await?, "due before the grace has passed")?;
    on.runtime.advance(Duration::from_millis(1));
    ensure(is_due(&node, &old).await?, "a lost reply is not made up for")?;
    // The new secret was used, and now the grace of the old one runs.
    ensure(!is_due(&node, &token).await?, "due again at once")?;
    on.runtime.settle().await;
    on.evict(token.id()).await?;
    ensure(!is_due(&node, &old).await?, "due while the grace runs")?;
    on.runtime.advance(every);
    ensure(is_due(&node, &token).await?, "not due a second time")?;
    let never = Policy { rotation_interval: None, ..Policy::default() };
    let node = on.node_with(PairBench::config(), never)?;
    ensure(!is_due(&node, &token).await?, "due although it is turned off")
}

async fn a_promotion_takes_the_login(on: &PairBench) -> Outcome {
    let node = on.node()?;
    node.app.register_user(&user(1)?).await?;
    let guest = node.app.create_guest(Metadata::default(), Json::parse("[1]")?).await?.token;
    on.runtime.advance(Duration::from_mins(1));
    let login = Login {
        metadata: Metadata { device: Some("phone".to_owned()), ..Metadata::default() },
        remember: true,
        lifetime: Ttl::new(Duration::from_hours(5)),
        aal: Some(2),
        amr: vec!["pwd".to_owned()],
        external_sid: Some("sid".to_owned()),
        data: Json::parse("[2]")?,
        ..Login::new(user_id(1)?, CredentialEpoch::default())
    };
    let now = node.app.now();
    let RotationOutcome::Rotated { snapshot, .. } = node.app.promote(&guest, login.clone()).await?
    else {
        return ensure(false, "not promoted");
    };
    let session = &snapshot.session;
    expect((session.remember, session.aal, session.amr.clone()), (true, Some(2), login.amr))?;
    expect((&session.metadata, &session.external_sid), (&login.metadata, &login.external_sid))?;
    expect(session.data.as_str(), "[2]")?;
    expect(
        (session.idle_timeout, session.authenticated_at),
        (login.lifetime.unwrap_or(Ttl::MIN), Some(now)),
    )?;
    expect(session.expires_at, now.plus(Duration::from_hours(5)))
}

async fn users_are_found_and_counted(on: &PairBench) -> Outcome {
    let node = on.node()?;
    let email = Email::parse("Ada@Example.org")?;
    node.app.register_user(&User { email: Some(email), ..user(1)? }).await?;
    node.app.register_user(&user(2)?).await?;
    expect(node.app.count_users().await?, 2)?;
    let found = node.app.find_user_by_email(&Email::parse("ADA@example.ORG")?).await?;
    expect(found.map(|account| account.user.id), Some(user_id(1)?))?;
    expect(node.app.find_user_by_email(&Email::parse("bob@example.org")?).await?, None)?;
    let mut tokens = Vec::new();
    for _ in 0..3 {
        tokens.push(on.log_in_warm(&node).await?);
    }
    let done = node.app.revoke_everyone(2, Reason::Admin).await?;
    expect((done.count, done.sessions.len()), (3, 3))?;
    // The last step finds nobody, for which only a log can vouch.
    let has_log = on.primary.promise().log != LogPromise::None;
    let is_immediate = has_log && on.is_linearizable();
    expect(done.visibility == Visibility::Immediate, is_immediate)?;
    on.runtime.advance(done.visibility.bound());
    for token in &tokens {
        ensure(!node.accepts(token).await, "accepted after everybody was logged out")?;
    }
    // No step is too small to end.
    expect(node.app.revoke_everyone(0, Reason::Admin).await?.count, 0)
}

async fn unfit_rounds_are_refused(on: &PairBench) -> Outcome {
    let node = on.node()?;
    let wanted = &CONFIGURATION;
    let fit = MaintenanceConfig::default();
    let year = Duration::from_hours(365 * 24);
    let longer = year + Duration::from_millis(1);
    for config in [
        MaintenanceConfig { sweep_batch: 0, ..fit.clone() },
        MaintenanceConfig { drain_every: Duration::ZERO, ..fit.clone() },
        MaintenanceConfig { sweep_every: longer, ..fit.clone() },
    ] {
        refused(node.app.maintenance(config), wanted)?;
    }
    let fits = node.app.maintenance(MaintenanceConfig { sweep_every: year, ..fit });
    ensure(fits.is_ok(), "a year is refused")?;
    let token = on.log_in_warm(&node).await?;
    let before = on.primary.find(&token.id()).await?.snapshot;
    for deadline in [NOW, Timestamp::MAX] {
        let wanted = &ErrorKind::InvalidExpiry;
        refused(node.app.extend(&token, deadline).await, wanted)?;
    }
    expect(on.primary.find(&token.id()).await?.snapshot, before)?;
    let later = NOW.plus(Duration::from_hours(1));
    let extended = node.app.extend(&token, later).await?;
    ensure(matches!(extended, Extended::Until { .. }), "not extended")?;
    // A server whose clock differs by what is allowed, and by more.
    let skew = node.app.store().config().max_skew;
    node.db.set_server_time(NOW.plus(skew));
    node.app.sweep(1).await?;
    node.db.set_server_time(NOW.plus(skew + Duration::from_millis(1)));
    refused(node.app.sweep(1).await, wanted)
}

async fn a_confirmed_entry_is_left_alone(on: &PairBench) -> Outcome {
    let node = on.node()?;
    let token = on.log_in_warm(&node).await?;
    node.cache.reset();
    let before = node.app.store().stats();
    // What is read later is stamped later, and that alone is no news.
    on.runtime.advance(Duration::from_secs(1));
    ensure(!node.accepts(&Token::for_session(token.id())?).await, "accepted a thief")?;
    on.runtime.settle().await;
    expect((node.cache.count(Op::Swap), node.cache.count(Op::Remove)), (0, 0))?;
    let after = node.app.store().stats();
    expect((after.confirms - before.confirms, after.fills - before.fills), (1, 0))?;
    ensure(on.is_cached(token.id()).await?, "the entry is gone")
}

async fn the_bounds_add_up(on: &PairBench) -> Outcome {
    let near = Duration::from_secs(7);
    let config = LayeredConfig { near_ttl: Ttl::new(near), ..PairBench::config() };
    let node = on.node_with(config.clone(), Policy::default())?;
    let guarantee = node.app.store().guarantee();
    let entry = Duration::from_mins(5) + on.secondary.promise().overrun;
    let whole = entry + config.lease_ttl.as_duration() + near;
    expect((guarantee.cache_failure, guarantee.healthy), (whole, Visibility::Immediate))?;
    let many = LayeredConfig { topology: Topology::ManyProcesses, ..config };
    let node = on.node_with(many, Policy::default())?;
    let healthy = node.app.store().guarantee().healthy;
    // The wire of a node says that its cache is shared.
    expect(healthy, Visibility::Within(near))
}
