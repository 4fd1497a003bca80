//! Revocation against everything that could undo it.

use std::pin::pin;
use std::time::Duration;

use futures_util::future::{Either, join, select};

use super::super::checks;
use super::super::report::{Violation, ensure, expect};
use super::super::runner::Outcome;
use super::super::wire::{Op, Point};
use super::{DONE, PairBench, two_nodes};
use crate::layered::{LayeredConfig, OnCacheFailure, Visibility};
use crate::session::Reason;

checks! { ($) layered_revoke: PairBench;
    "K6-R01 K6-R02 L-30 X8-L-01" a_slow_reader_can_not_bring_it_back
        "A reader that read before the revocation fills nothing after it.",
    "K6-R03 L-32" a_reader_before_its_reservation_reads_after
        "A reader held between get and reserve reads after the revocation.",
    "K6-R05" until_it_returns_both_answers_are_right
        "While a revocation is under way a hit may be accepted; it has not returned.",
    "K6-R06 X8-L-06" the_commit_comes_first "The removal is sent only after the commit was acknowledged.",
    "K6-R07" a_second_revocation_removes_too
        "A second revocation, with nothing left to revoke, still removes the entry.",
    "K6-R08" a_planted_entry_goes_away "Revoking what is unknown or gone removes a stale entry.",
    "K6-R09 L-22" an_unknown_outcome_removes_too
        "When the reply of the commit is lost, the entry is removed and the retry succeeds.",
    "K6-R10 L-21" a_failed_removal_is_never_immediate
        "A removal that failed gives a bound, and the bound holds.",
    "K6-R11" waiting_makes_it_immediate "WaitOut and WaitDrain return once nothing old is left.",
    "K6-R13 K6-R14" a_caller_that_goes_away_changes_nothing
        "A revocation whose caller is dropped at any moment is completed.",
    "K6-R15 L-33" an_expired_lease_fills_nothing "A reader whose lease has expired fills nothing.",
    "K6-R19 K6-R20 L-34" eviction_and_flush_are_harmless
        "Losing the lease at any moment refuses the fill and fails nobody.",
    "K6-R12" a_late_removal_hurts_nobody "A removal that arrives late costs a miss and no session.",
}

async fn a_slow_reader_can_not_bring_it_back(on: &PairBench) -> Outcome {
    for (op, point) in [(Op::Find, Point::After), (Op::Swap, Point::Before)] {
        let (one, other, token) = two_nodes(on).await?;
        on.runtime.settle().await;
        let wire = if op == Op::Find { &one.db } else { &one.cache };
        let mut held = wire.hold(op, point);
        let reader = one.accepts(&token);
        let writer = async {
            held.reached().await;
            let done = other.app.admin_revoke(token.id(), Reason::Admin).await;
            held.release();
            done
        };
        let (_, done) = join(reader, writer).await;
        expect(done?.visibility, Visibility::Immediate)?;
        on.runtime.settle().await;
        ensure(!on.is_cached(token.id()).await?, "a stale read was cached")?;
        for node in [&one, &other] {
            ensure(!node.accepts(&token).await, "a revoked session was accepted")?;
        }
    }
    DONE
}

async fn a_reader_before_its_reservation_reads_after(on: &PairBench) -> Outcome {
    let (one, other, token) = two_nodes(on).await?;
    on.runtime.settle().await;
    let mut held = one.cache.hold(Op::Reserve, Point::Before);
    let reader = one.accepts(&token);
    let writer = async {
        held.reached().await;
        let done = other.app.admin_revoke(token.id(), Reason::Admin).await;
        held.release();
        done
    };
    let (accepted, done) = join(reader, writer).await;
    expect(done?.visibility, Visibility::Immediate)?;
    ensure(!accepted, "a reader read before it had reserved")?;
    on.runtime.settle().await;
    ensure(!on.is_cached(token.id()).await?, "a revoked session is cached")
}

async fn until_it_returns_both_answers_are_right(on: &PairBench) -> Outcome {
    let (one, other, token) = two_nodes(on).await?;
    ensure(one.accepts(&token).await, "not accepted")?;
    on.runtime.settle().await;
    let mut held = other.cache.hold(Op::Remove, Point::Before);
    let writer = other.app.admin_revoke(token.id(), Reason::Admin);
    let reader = async {
        held.reached().await;
        let during = one.accepts(&token).await;
        held.release();
        during
    };
    let (done, during) = join(writer, reader).await;
    expect((done?.count, during), (1, true))?;
    ensure(!one.accepts(&token).await, "accepted after the revocation returned")
}

async fn the_commit_comes_first(on: &PairBench) -> Outcome {
    let node = on.node()?;
    let token = on.log_in_warm(&node).await?;
    node.cache.reset();
    let mut held = node.db.hold(Op::Revoke, Point::After);
    let writer = node.app.admin_revoke(token.id(), Reason::Admin);
    let watcher = async {
        held.reached().await;
        let removals = node.cache.count(Op::Remove);
        held.release();
        removals
    };
    let (done, removals) = join(writer, watcher).await;
    let _ = done?;
    expect((removals, node.cache.count(Op::Remove)), (0, 1))
}

async fn a_second_revocation_removes_too(on: &PairBench) -> Outcome {
    let (one, other, token) = two_nodes(on).await?;
    ensure(one.accepts(&token).await, "not accepted")?;
    on.runtime.settle().await;
    let mut held = one.cache.hold(Op::Remove, Point::Before);
    let first = one.app.admin_revoke(token.id(), Reason::Admin);
    let second = async {
        held.reached().await;
        let Some(user) = on.log_in(&other).await?.session.user_id else {
            return Err(Violation::new("a guest"));
        };
        let done = other.app.revoke_all(&user, Reason::LogoutEverywhere).await?;
        let accepted = other.accepts(&token).await;
        held.release();
        Ok((done, accepted))
    };
    let (first, second) = join(first, second).await;
    let (done, accepted) = second?;
    expect((first?.count, done.count, done.visibility), (1, 1, Visibility::Immediate))?;
    ensure(!accepted, "a second revoke-all returned before the entry was gone")
}

async fn a_planted_entry_goes_away(on: &PairBench) -> Outcome {
    let (one, other, token) = two_nodes(on).await?;
    ensure(one.accepts(&token).await, "not accepted")?;
    on.runtime.settle().await;
    let key = PairBench::key(token.id());
    let Some(stale) = on.secondary.get(&key).await? else {
        return expect("none", "an entry");
    };
    let _ = one.app.admin_revoke(token.id(), Reason::Admin).await?;
    let ttl = crate::time::Ttl::new(Duration::from_mins(1)).unwrap_or(crate::time::Ttl::MIN);
    if let crate::secondary::Reservation::Granted(lease) = on.secondary.reserve(&key, ttl).await? {
        let set = crate::secondary::SwapTtl::Set(ttl);
        on.secondary.swap(&key, &lease, Some(&stale), set).await?;
    }
    ensure(on.is_cached(token.id()).await?, "the entry could not be planted")?;
    let again = other.app.logout(&token).await?;
    expect((again.count, again.visibility), (0, Visibility::Immediate))?;
    ensure(!other.accepts(&token).await, "a planted entry was accepted after a logout")
}

async fn an_unknown_outcome_removes_too(on: &PairBench) -> Outcome {
    let node = on.node()?;
    let token = on.log_in_warm(&node).await?;
    node.db.lose_reply(Op::Revoke);
    let lost = node.app.admin_revoke(token.id(), Reason::Admin).await;
    ensure(lost.is_err(), "a lost reply was taken for success")?;
    ensure(!node.accepts(&token).await, "the commit happened and the entry stayed")?;
    let again = node.app.admin_revoke(token.id(), Reason::Admin).await?;
    expect(again.visibility, Visibility::Immediate)?;
    let kept = on.log_in_warm(&node).await?;
    node.db.fail(Op::Revoke);
    ensure(node.app.admin_revoke(kept.id(), Reason::Admin).await.is_err(), "no error")?;
    ensure(node.accepts(&kept).await, "a failed revocation logged somebody out")
}

async fn a_failed_removal_is_never_immediate(on: &PairBench) -> Outcome {
    for lost in [false, true] {
        let (one, other, token) = two_nodes(on).await?;
        ensure(one.accepts(&token).await, "not accepted")?;
        on.runtime.settle().await;
        if lost {
            other.cache.lose_reply(Op::Remove);
        } else {
            other.cache.fail(Op::Remove);
        }
        let done = other.app.admin_revoke(token.id(), Reason::Admin).await?;
        let bound = other.app.store().guarantee().cache_failure;
        expect((done.count, done.visibility), (1, Visibility::Within(bound)))?;
        on.runtime.advance(bound);
        for node in [&one, &other] {
            ensure(!node.accepts(&token).await, "accepted after the bound")?;
        }
    }
    DONE
}

async fn waiting_makes_it_immediate(on: &PairBench) -> Outcome {
    let waits = [OnCacheFailure::WaitOut, OnCacheFailure::WaitDrain(Duration::from_secs(5))];
    for on_cache_failure in waits {
        let config = LayeredConfig { on_cache_failure, ..PairBench::config() };
        let node = on.node_with(config, crate::policy::Policy::default())?;
        node.app.store().register().await?;
        let token = on.log_in_warm(&node).await?;
        node.cache.fail(Op::Remove);
        let bound = node.app.store().guarantee().cache_failure;
        let began = node.app.now();
        node.cache.reset();
        let step = if on_cache_failure == OnCacheFailure::WaitOut { bound } else { SOON };
        let time = async {
            loop {
                on.runtime.settle().await;
                on.runtime.advance(step);
            }
        };
        let revoke = node.app.admin_revoke(token.id(), Reason::Admin);
        let done = match select(pin!(revoke), pin!(time)).await {
            Either::Left((done, _)) => done?,
            Either::Right((never, _)) => never,
        };
        expect(done.visibility, Visibility::Immediate)?;
        ensure(node.app.now() > began, "it did not wait")?;
        ensure(!node.accepts(&token).await, "accepted after Immediate")?;
    }
    DONE
}

const SOON: Duration = Duration::from_millis(100);

async fn a_caller_that_goes_away_changes_nothing(on: &PairBench) -> Outcome {
    for polls in 1..=6 {
        let node = on.node()?;
        let token = on.log_in_warm(&node).await?;
        {
            let mut revoke = std::pin::pin!(node.app.admin_revoke(token.id(), Reason::Admin));
            for _ in 0..polls {
                let _ = futures_util::poll!(revoke.as_mut());
            }
        }
        on.runtime.settle().await;
        ensure(!on.is_cached(token.id()).await?, "an entry of a revoked session stayed")?;
        ensure(!node.accepts(&token).await, "a dropped caller took the revocation along")?;
    }
    DONE
}

async fn an_expired_lease_fills_nothing(on: &PairBench) -> Outcome {
    let (one, other, token) = two_nodes(on).await?;
    on.runtime.settle().await;
    let mut held = one.db.hold(Op::Find, Point::After);
    let slow = one.accepts(&token);
    let fast = async {
        held.reached().await;
        on.runtime.advance(Duration::from_secs(4));
        let accepted = other.accepts(&token).await;
        on.runtime.settle_but(1).await;
        let done = other.app.admin_revoke(token.id(), Reason::Admin).await;
        held.release();
        (accepted, done)
    };
    let (_, (accepted, done)) = join(slow, fast).await;
    ensure(accepted, "the second reader was not accepted")?;
    let _ = done?;
    on.runtime.settle().await;
    ensure(!on.is_cached(token.id()).await?, "a reader without a lease filled the cache")
}

async fn eviction_and_flush_are_harmless(on: &PairBench) -> Outcome {
    for op in [Op::Reserve, Op::Swap] {
        let (one, other, token) = two_nodes(on).await?;
        on.runtime.settle().await;
        let point = if op == Op::Reserve { Point::After } else { Point::Before };
        let mut held = one.cache.hold(op, point);
        let reader = one.accepts(&token);
        let evictor = async {
            held.reached().await;
            on.evict(token.id()).await?;
            held.release();
            Ok::<_, Violation>(other.accepts(&token).await)
        };
        let (first, second) = join(reader, evictor).await;
        ensure(first && second?, "an eviction failed a lookup")?;
        on.runtime.settle().await;
        let _ = one.app.admin_revoke(token.id(), Reason::Admin).await?;
        ensure(!other.accepts(&token).await, "accepted after a revocation")?;
    }
    DONE
}

async fn a_late_removal_hurts_nobody(on: &PairBench) -> Outcome {
    let node = on.node()?;
    let old = on.log_in_warm(&node).await?;
    let _ = node.app.admin_revoke(old.id(), Reason::Admin).await?;
    let token = on.log_in_warm(&node).await?;
    on.secondary.remove(&[PairBench::key(old.id()), PairBench::key(token.id())]).await?;
    ensure(node.accepts(&token).await, "a late removal logged somebody out")
}
