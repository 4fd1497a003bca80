//! What a cache of class Eventual is held to instead, where a case asks for what it can't keep: the
//! same story, and the declared bound at its end. Such a case is `WEAK(eventual, bound)`.

mod reads;

use std::time::Duration;

use futures_util::future::join;

use super::super::report::{Violation, ensure, expect};
use super::super::runner::Outcome;
use super::super::sample::{json, user_id};
use super::super::wire::{Op, Point};
use super::{DONE, Node, PairBench, two_nodes};
use crate::host::BoxFuture;
use crate::layered::{LayeredConfig, Visibility};
use crate::policy::Policy;
use crate::primary::{CacheName, CacheRegistration, CacheScope, SessionChange};
use crate::secondary::{Reservation, SwapTtl};
use crate::session::{Reason, SessionLimit};
use crate::sessions::{DataUpdate, Extended, RotationOutcome};
use crate::time::Ttl;
use crate::token::{SessionId, Token};
use crate::user::{Role, UserChange};

type Twin = for<'a> fn(&'a PairBench) -> BoxFuture<'a, Outcome>;

/// The cases by name, and what stands for them.
const TWINS: &[(&[&str], Twin)] = &[
    (
        &[
            "misses_are_shared",
            "another_node_reads_once",
            "a_flood_is_cheap",
            "a_later_no_is_believed",
            "a_landed_read_is_not_repeated",
        ],
        |on| Box::pin(reads::each_reads_for_itself(on)),
    ),
    (&["a_lost_leader_hangs_nobody"], |on| Box::pin(reads::a_failed_read_hangs_nobody(on))),
    (
        &[
            "a_slow_reader_can_not_bring_it_back",
            "a_reader_before_its_reservation_reads_after",
            "nobody_joins_across_a_revocation",
            "an_expired_lease_fills_nothing",
            "a_repeated_reservation_fills_nothing",
        ],
        |on| Box::pin(a_stale_fill_ends_with_the_bound(on)),
    ),
    (
        &[
            "a_second_revocation_removes_too",
            "waiting_makes_it_immediate",
            "a_wait_ends_with_the_removal",
            "a_deletion_takes_every_login_along",
            "revoke_all_reaches_every_entry",
        ],
        |on| Box::pin(every_end_comes_with_the_bound(on)),
    ),
    (&["a_planted_entry_goes_away"], |on| Box::pin(a_planted_entry_ends_with_the_bound(on))),
    (&["an_unknown_outcome_removes_too"], |on| Box::pin(an_unknown_outcome_has_the_bound(on))),
    (
        &[
            "a_slow_reader_can_not_bring_the_old_version",
            "a_revocation_beats_an_update_under_way",
            "a_refused_swap_removes",
            "a_failed_update_changes_nothing",
            "every_change_shows",
            "an_update_does_not_renew_an_entry",
            "a_role_that_was_taken_back_stays_so",
        ],
        |on| Box::pin(an_old_version_ends_with_the_bound(on)),
    ),
    (&["a_shorter_session_is_forgotten"], |on| Box::pin(a_shorter_session_ends_in_time(on))),
    (&["others_are_reckoned_with"], |on| Box::pin(the_longest_bound_counts(on))),
    (&["the_grace_starts_with_the_first_use"], |on| Box::pin(the_grace_ends_with_the_bound(on))),
    (&["a_late_touch_revives_nothing"], |on| Box::pin(a_late_touch_changes_nothing(on))),
    (&["an_entry_never_outlives_its_session"], |on| Box::pin(a_short_session_is_exact(on))),
    (&["a_value_is_loaded_once"], |on| Box::pin(reads::each_loads_for_itself(on))),
    (
        &["the_own_node_knows_at_once", "waiting_out_covers_near_caches", "the_bounds_add_up"],
        |on| Box::pin(near_caches_add_up(on)),
    ),
    (&["nothing_from_before_a_forget"], |on| Box::pin(reads::a_forgotten_value_ends(on))),
    (&["everything_is_counted_once"], |on| Box::pin(reads::reads_and_hits_are_counted(on))),
];

/// What stands for the case called `name` over this pair's cache, if anything does.
pub(super) fn instead(on: &PairBench, name: &str) -> Option<Twin> {
    if on.is_linearizable() {
        return None;
    }
    TWINS.iter().find(|(names, _)| names.contains(&name)).map(|(_, twin)| *twin)
}

/// On a cache of class Eventual a fill from before an update may have come after its removal: goes
/// past it, and notes the bound.
pub(super) async fn past_stale_fills(on: &PairBench, node: &Node, id: SessionId) -> Outcome {
    if !on.is_linearizable() {
        bound(on, node)?;
        on.evict(id).await?;
    }
    DONE
}

/// Notes the bound that `node` declares, and returns it.
fn bound(on: &PairBench, node: &Node) -> Result<Duration, Violation> {
    match node.app.store().guarantee().healthy {
        Visibility::Within(bound) if bound > Duration::ZERO => {
            on.weakness.note("eventual", bound);
            Ok(bound)
        }
        _ => Err(Violation::new("an eventual cache declares no bound")),
    }
}

/// Declared is what counts, and afterwards nobody is let in.
async fn refused_after(
    on: &PairBench,
    nodes: [&Node; 2],
    tokens: &[Token],
    declared: Visibility,
) -> Outcome {
    expect(declared, Visibility::Within(bound(on, nodes[0])?))?;
    on.runtime.settle().await;
    on.runtime.advance(declared.bound());
    for node in nodes {
        for token in tokens {
            ensure(!node.accepts(token).await, "accepted after the bound")?;
        }
    }
    DONE
}

async fn a_stale_fill_ends_with_the_bound(on: &PairBench) -> Outcome {
    for (op, point) in
        [(Op::Find, Point::After), (Op::Reserve, Point::Before), (Op::Swap, Point::Before)]
    {
        let (one, other, token) = two_nodes(on).await?;
        on.runtime.settle().await;
        let wire = if op == Op::Find { &one.db } else { &one.cache };
        let mut held = wire.hold(op, point);
        let writer = async {
            held.reached().await;
            let done = other.app.admin_revoke(token.id(), Reason::Admin).await;
            held.release();
            done
        };
        let (_, done) = join(one.accepts(&token), writer).await;
        on.runtime.settle().await;
        // A reader held before its read comes too late; any other fills with what is gone, and
        // until the bound that is believed: or the case would show nothing.
        let is_stale = op != Op::Reserve;
        expect(on.is_cached(token.id()).await?, is_stale)?;
        expect(other.accepts(&token).await, is_stale)?;
        refused_after(on, [&one, &other], &[token], done?.visibility).await?;
    }
    DONE
}

async fn every_end_comes_with_the_bound(on: &PairBench) -> Outcome {
    let (one, other) = (on.node()?, on.node()?);
    let user = user_id(1)?;
    let mut tokens = Vec::new();
    for number in 0..7 {
        tokens.push(on.log_in_warm(if number % 2 == 0 { &one } else { &other }).await?);
    }
    // A second logout vouches for the first one, whose removal was lost.
    one.cache.fail(Op::Remove);
    let first = one.app.logout(&tokens[0]).await?;
    expect(first.visibility, Visibility::Within(bound(on, &one)?))?;
    let again = other.app.logout(&tokens[0]).await?;
    expect((again.count, again.visibility), (0, first.visibility))?;
    let done = other.app.revoke_all(&user, Reason::LogoutEverywhere).await?;
    expect(done.count, 6)?;
    refused_after(on, [&one, &other], &tokens, done.visibility).await?;
    let last = on.log_in_warm(&one).await?;
    let Some(deleted) = other.app.delete_user(&user).await? else {
        return Err(Violation::new("nobody was deleted"));
    };
    refused_after(on, [&one, &other], &[last], deleted.visibility).await
}

async fn a_planted_entry_ends_with_the_bound(on: &PairBench) -> Outcome {
    let (one, other, token) = two_nodes(on).await?;
    ensure(one.accepts(&token).await, "not accepted")?;
    on.runtime.settle().await;
    let key = PairBench::key(token.id());
    let Some(stale) = on.secondary.get(&key).await? else {
        return expect("none", "an entry");
    };
    let done = one.app.admin_revoke(token.id(), Reason::Admin).await?;
    let day = Ttl::from_secs_const(86_400);
    if let Reservation::Granted(lease) = on.secondary.reserve(&key, day).await? {
        on.secondary.swap(&key, &lease, Some(&stale), SwapTtl::Set(day)).await?;
    }
    ensure(on.is_cached(token.id()).await?, "the entry could not be planted")?;
    // However long the cache keeps it: its stamp is what ends it.
    refused_after(on, [&one, &other], &[token], done.visibility).await
}

async fn an_unknown_outcome_has_the_bound(on: &PairBench) -> Outcome {
    let (one, other) = (on.node()?, on.node()?);
    let token = on.log_in_warm(&one).await?;
    one.db.lose_reply(Op::Revoke);
    let lost = one.app.admin_revoke(token.id(), Reason::Admin).await;
    ensure(lost.is_err(), "a lost reply was taken for success")?;
    let again = one.app.admin_revoke(token.id(), Reason::Admin).await?;
    let kept = on.log_in_warm(&one).await?;
    one.db.fail(Op::Revoke);
    ensure(one.app.admin_revoke(kept.id(), Reason::Admin).await.is_err(), "no error")?;
    ensure(one.accepts(&kept).await, "a failed revocation logged somebody out")?;
    refused_after(on, [&one, &other], &[token], again.visibility).await
}

async fn an_old_version_ends_with_the_bound(on: &PairBench) -> Outcome {
    let (one, other, token) = two_nodes(on).await?;
    ensure(one.accepts(&token).await, "not accepted")?;
    on.runtime.settle().await;
    let Some(live) = other.app.authenticate_fresh(&token).await.live() else {
        return expect("absent", "live");
    };
    one.db.fail(Op::Update);
    ensure(one.app.set_data(&live, json("1")?).await.is_err(), "no error")?;
    one.cache.fail(Op::Remove);
    let done = one.app.set_data(&live, json("2")?).await?;
    ensure(matches!(done, DataUpdate::Updated { .. }), "not updated")?;
    let change = UserChange { role: Some(Role::new("admin")?), ..UserChange::default() };
    let changed = one.app.update_user(&user_id(1)?, 1, change).await?;
    on.runtime.settle().await;
    let length = bound(on, &one)?;
    expect(changed.visibility, Visibility::Within(length))?;
    on.runtime.advance(length);
    for node in [&one, &other] {
        let Some(live) = node.app.authenticate(&token).await.live() else {
            return expect("absent", "live");
        };
        expect(live.session().data.as_str(), "2")?;
        expect(live.user().map(|user| user.role.as_str()), Some("admin"))?;
    }
    let policy =
        Policy { max_sessions: Some(SessionLimit { max: 1, evict: true }), ..Policy::default() };
    let strict = on.node_with(PairBench::config(), policy)?;
    let newest = on.log_in(&strict).await?;
    expect(&newest.evicted, &vec![token.id()])?;
    refused_after(on, [&one, &other], &[token], newest.visibility).await
}

async fn a_shorter_session_ends_in_time(on: &PairBench) -> Outcome {
    let (one, other, token) = two_nodes(on).await?;
    ensure(one.accepts(&token).await, "not accepted")?;
    on.runtime.settle().await;
    let length = bound(on, &one)?;
    let soon = one.app.now().plus(Duration::from_mins(2));
    let visibility = Visibility::Within(length);
    expect(other.app.extend(&token, soon).await?, Extended::Until { deadline: soon, visibility })?;
    let answer = one.look(token.id()).await?;
    let version = answer.snapshot.as_ref().map_or(0, |found| found.session.version);
    let change = SessionChange { expires_at: Some(soon), ..SessionChange::default() };
    one.app.store().update((token.id(), version), change, answer.seen, one.app.now()).await?;
    on.runtime.settle().await;
    on.runtime.advance(length.max(Duration::from_mins(2)));
    for node in [&one, &other] {
        ensure(!node.accepts(&token).await, "accepted after deadline and bound")?;
    }
    DONE
}

async fn the_longest_bound_counts(on: &PairBench) -> Outcome {
    let node = on.node()?;
    let own = bound(on, &node)?;
    for (name, length) in [("longer", own * 2), ("shorter", own / 2)] {
        let token = on.log_in_warm(&node).await?;
        let name = CacheName::new(name)?;
        let ttl = Ttl::new(length).unwrap_or(Ttl::MIN);
        let other = CacheRegistration { name: name.clone(), scope: CacheScope::Process, ttl };
        on.primary.register(&other).await?;
        let done = node.app.admin_revoke(token.id(), Reason::Admin).await?;
        expect(done.visibility, Visibility::Within(length.max(own)))?;
        on.primary.unregister(&name).await?;
    }
    DONE
}

async fn the_grace_ends_with_the_bound(on: &PairBench) -> Outcome {
    let (one, other) = (on.node()?, on.node()?);
    let old = on.log_in_warm(&one).await?;
    let RotationOutcome::Rotated { token: new, .. } = one.app.rotate(&old).await? else {
        return Err(Violation::new("not rotated"));
    };
    ensure(one.accepts(&old).await, "there is no grace")?;
    for node in [&one, &other] {
        ensure(node.accepts(&new).await, "the new secret is refused")?;
        on.runtime.settle().await;
    }
    on.runtime.advance(bound(on, &one)? + Duration::from_secs(11));
    for node in [&one, &other] {
        ensure(node.refusal(&old).await.is_some(), "the old secret outlived grace and bound")?;
        ensure(node.accepts(&new).await, "the new secret died with the old one")?;
    }
    DONE
}

async fn a_late_touch_changes_nothing(on: &PairBench) -> Outcome {
    let (node, other) = (on.node()?, on.node()?);
    let token = on.log_in_warm(&node).await?;
    on.runtime.advance(Duration::from_hours(24));
    ensure(node.accepts(&token).await, "not accepted")?;
    on.runtime.settle().await;
    let done = other.app.admin_revoke(token.id(), Reason::Admin).await?;
    let before = on.primary.find(&token.id()).await?;
    node.app.flush_touches().await?;
    expect(on.primary.find(&token.id()).await?, before)?;
    refused_after(on, [&node, &other], &[token], done.visibility).await
}

async fn a_short_session_is_exact(on: &PairBench) -> Outcome {
    let (one, other, token) = two_nodes(on).await?;
    let soon = one.app.now().plus(Duration::from_secs(10));
    let extended = one.app.extend(&token, soon).await?;
    ensure(matches!(extended, Extended::Until { .. }), "not shortened")?;
    on.runtime.advance(Duration::from_millis(9_999));
    for node in [&one, &other] {
        ensure(node.accepts(&token).await, "not accepted before its end")?;
        on.runtime.settle().await;
    }
    ensure(on.is_cached(token.id()).await?, "the last millisecond was not cached")?;
    on.runtime.advance(Duration::from_millis(1));
    ensure(!on.is_cached(token.id()).await?, "the entry outlived the session")?;
    for node in [&one, &other] {
        ensure(!node.accepts(&token).await, "accepted after its end")?;
    }
    bound(on, &one).map(drop)
}

async fn near_caches_add_up(on: &PairBench) -> Outcome {
    let plain = bound(on, &on.node()?)?;
    let near = Duration::from_secs(7);
    let config = LayeredConfig { near_ttl: Ttl::new(near), ..PairBench::config() };
    let one = on.node_with(config.clone(), Policy::default())?;
    let other = on.node_with(config, Policy::default())?;
    let guarantee = one.app.store().guarantee();
    expect((guarantee.cache_failure, guarantee.healthy.bound()), (plain + near, plain + near))?;
    let token = on.log_in_warm(&one).await?;
    ensure(other.accepts(&token).await, "not accepted")?;
    let done = one.app.admin_revoke(token.id(), Reason::Admin).await?;
    refused_after(on, [&one, &other], &[token], done.visibility).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_twin_stands_for_cases_that_exist() {
        let names = super::super::names();
        for name in TWINS.iter().flat_map(|(names, _)| *names) {
            assert!(names.contains(name), "{name}");
        }
    }
}
