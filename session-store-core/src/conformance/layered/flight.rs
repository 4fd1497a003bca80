//! Requests that share one read: what each of them may believe, and who fills.

use std::pin::pin;
use std::time::Duration;

use futures_util::future::{join, select};

use super::super::checks;
use super::super::report::{ensure, expect};
use super::super::runner::Outcome;
use super::super::wire::{Op, Point};
use super::{PairBench, two_nodes};
use crate::layered::Source;
use crate::primary::Touch;
use crate::session::{Snapshot, State};
use crate::token::Token;

checks! { ($) layered_flight: PairBench;
    "X8-L-15" a_joined_no_is_read_again
        "A 'no' from a read that began before the request arrived is not given to it.",
    "X8-L-26" a_later_no_is_believed
        "A 'no' from a read that began after the request arrived is given to it at once.",
    "X8-L-27" a_joined_yes_is_believed
        "A 'yes' that another request has read is shared, whenever that read began.",
    "X8-L-16" a_late_owner_still_fills
        "Whoever owns the lease fills, also when another request began the read.",
    "X8-L-33" a_landed_read_is_not_repeated
        "Who learns of a lease after its read has filled the cache asks the cache again, not the primary.",
}

/// A session is cached or not; it is used elsewhere while a read of before is on its way back.
async fn a_joined_no_is_read_again(on: &PairBench) -> Outcome {
    for is_cached in [true, false] {
        let (one, other, token) = two_nodes(on).await?;
        let Some(found) = one.look(token.id()).await?.snapshot else {
            return ensure(false, "a new session is absent");
        };
        on.runtime.settle().await;
        if !is_cached {
            on.evict(token.id()).await?;
        }
        let deadline = found.session.expires_at;
        let is_yes = |found: Option<&Snapshot>| {
            found.is_some_and(|found| found.session.state(deadline) == State::Active)
        };
        let (store, id) = (one.app.store(), token.id());
        let mut held = one.db.hold(Op::Find, Point::After);
        let early = store.lookup(&id, deadline, &is_yes);
        let late = async {
            held.reached().await;
            // The early read knows the old deadline.
            let seen_at = deadline.minus(Duration::from_mins(1));
            let expires_at = deadline.plus(Duration::from_hours(1));
            other.app.store().touch(&[Touch { id, seen_at, expires_at }]).await?;
            let mut seen = one.cache.hold(Op::Get, Point::After);
            let mut lookup = pin!(store.lookup(&id, deadline, &is_yes));
            select(lookup.as_mut(), pin!(seen.reached())).await;
            seen.release();
            // It has seen the same record and joins.
            let _ = futures_util::poll!(lookup.as_mut());
            let fill = (!is_cached).then(|| one.cache.hold(Op::Swap, Point::Before));
            held.release();
            // It waits for the flight to leave, however long the fill takes.
            let leave = async {
                if let Some(mut fill) = fill {
                    fill.reached().await;
                    on.runtime.settle_but(1).await;
                    fill.release();
                }
            };
            join(lookup, leave).await.0
        };
        let (_, late) = join(early, late).await;
        ensure(is_yes(late?.snapshot.as_deref()), "a read from before denied a later request")?;
    }
    super::DONE
}

async fn a_later_no_is_believed(on: &PairBench) -> Outcome {
    for is_cached in [false, true] {
        let node = on.node()?;
        let mut nobody = Token::generate(node.app.now())?;
        if is_cached {
            nobody = Token::for_session(on.log_in_warm(&node).await?.id())?;
        }
        node.app.store().register().await?;
        let before = node.db.count(Op::Find);
        let mut seen = node.cache.hold(Op::Get, Point::After);
        let early = node.accepts(&nobody);
        let late = async {
            // The early request has seen what is there, and does not know what comes now.
            seen.reached().await;
            let mut read = node.db.hold(Op::Find, Point::After);
            let later = node.accepts(&nobody);
            let release = async {
                read.reached().await;
                seen.release();
                on.runtime.settle_but(1).await;
                read.release();
            };
            join(later, release).await.0
        };
        let (early, later) = join(early, late).await;
        ensure(!early && !later, "nobody was accepted")?;
        on.runtime.settle().await;
        let stats = node.app.store().stats();
        expect((node.db.count(Op::Find) - before, stats.joined), (1, 1))?;
    }
    super::DONE
}

async fn a_joined_yes_is_believed(on: &PairBench) -> Outcome {
    let (one, other, token) = two_nodes(on).await?;
    let Some(found) = one.look(token.id()).await?.snapshot else {
        return ensure(false, "a new session is absent");
    };
    on.runtime.settle().await;
    let (id, deadline) = (token.id(), found.session.expires_at);
    let is_yes = |found: Option<&Snapshot>| {
        found.is_some_and(|found| found.session.state(deadline) == State::Active)
    };
    let seen_at = deadline.minus(Duration::from_mins(1));
    let expires_at = deadline.plus(Duration::from_hours(1));
    other.app.store().touch(&[Touch { id, seen_at, expires_at }]).await?;
    one.db.reset();
    let mut held = one.db.hold(Op::Find, Point::After);
    let early = one.app.store().lookup(&id, deadline, &is_yes);
    let late = async {
        held.reached().await;
        let release = async {
            on.runtime.settle_but(1).await;
            held.release();
        };
        join(one.app.store().lookup(&id, deadline, &is_yes), release).await.0
    };
    let (early, late) = join(early, late).await;
    expect((early?.source, late?.source), (Source::Primary, Source::Joined))?;
    expect(one.db.count(Op::Find), 1)
}

async fn a_late_owner_still_fills(on: &PairBench) -> Outcome {
    let (node, _, token) = two_nodes(on).await?;
    on.runtime.settle().await;
    let mut granted = node.cache.hold(Op::Reserve, Point::After);
    let owner = node.accepts(&token);
    let rest = async {
        granted.reached().await;
        let mut read = node.db.hold(Op::Find, Point::Before);
        // The lease is there, and its owner does not know it yet.
        let other = node.accepts(&token);
        let release = async {
            read.reached().await;
            granted.release();
            on.runtime.settle_but(1).await;
            read.release();
        };
        join(other, release).await.0
    };
    let (first, second) = join(owner, rest).await;
    ensure(first && second, "not accepted")?;
    on.runtime.settle().await;
    ensure(on.is_cached(token.id()).await?, "the owner of the lease filled nothing")
}

async fn a_landed_read_is_not_repeated(on: &PairBench) -> Outcome {
    let (node, _, token) = two_nodes(on).await?;
    on.runtime.settle().await;
    node.db.reset();
    let mut read = node.db.hold(Op::Find, Point::After);
    let early = node.look(token.id());
    let late = async {
        read.reached().await;
        let mut seen = node.cache.hold(Op::Get, Point::After);
        let release = async {
            seen.reached().await;
            read.release();
            on.runtime.settle_but(1).await;
            seen.release();
        };
        join(node.look(token.id()), release).await.0
    };
    let (early, late) = join(early, late).await;
    expect((early?.source, late?.source), (Source::Primary, Source::Secondary))?;
    expect(node.db.count(Op::Find), 1)
}
