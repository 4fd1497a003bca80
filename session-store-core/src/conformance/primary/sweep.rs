//! Sweeping dead sessions.

use futures_util::future::{join, join_all};

use super::super::checks;
use super::super::report::{ensure, expect};
use super::super::runner::Outcome;
use super::super::sample::{HOUR, NOW, at, guest, id, new, touch};
use super::PrimaryBench;
use crate::primary::{Selection, SweepBounds, Swept, Touched};
use crate::session::{Reason, Session};

checks! { ($) primary_sweep: PrimaryBench;
    "P-79 X8-P-07" exactly_the_dead_are_removed
        "Expired ones up to the bound and revoked ones past retention go, nothing else.",
    "P-80" a_sweep_is_bounded "A sweep removes at most its limit, the oldest first, and ends.",
    "P-81" parallel_sweeps_share_the_work "Parallel sweeps neither fail nor count one twice.",
    "P-82 X8-P-08 K6-C01" a_touched_session_survives "A session that was touched in time survives.",
}

fn bounds(expired: i64, revoked: i64) -> SweepBounds {
    SweepBounds { expired_before: at(expired), revoked_before: at(revoked) }
}

async fn exactly_the_dead_are_removed(on: &PrimaryBench) -> Outcome {
    for (number, expires) in [(1, 10), (2, 20), (3, 21), (4, HOUR), (5, HOUR), (6, HOUR)] {
        on.store.insert(&new(Session { expires_at: at(expires), ..guest(number) }), NOW).await?;
    }
    on.store.revoke(&Selection::Ids(vec![id(5)]), Reason::Logout, at(1)).await?;
    on.store.revoke(&Selection::Ids(vec![id(6)]), Reason::Logout, at(9)).await?;
    let swept = on.store.sweep(&bounds(20, 5), 100).await?;
    expect(swept, Swept { removed: 3, more: false })?;
    for (number, is_there) in [(1, false), (2, false), (3, true), (4, true), (5, false), (6, true)]
    {
        expect((number, on.stored(id(number)).await?.is_some()), (number, is_there))?;
    }
    expect(on.store.sweep(&bounds(20, 5), 100).await?, Swept { removed: 0, more: false })
}

async fn a_sweep_is_bounded(on: &PrimaryBench) -> Outcome {
    for number in 1..=25 {
        let expires_at = at(i64::from(26 - number));
        on.store.insert(&new(Session { expires_at, ..guest(number) }), NOW).await?;
    }
    let first = on.store.sweep(&bounds(HOUR, 0), 10).await?;
    expect(first, Swept { removed: 10, more: true })?;
    ensure(on.stored(id(25)).await?.is_none(), "the oldest is still there")?;
    ensure(on.stored(id(1)).await?.is_some(), "the youngest went first")?;
    let mut rounds = 1;
    while on.store.sweep(&bounds(HOUR, 0), 10).await?.more {
        rounds += 1;
        ensure(rounds < 9, "a sweep does not end")?;
    }
    expect(on.store.census(NOW, None).await?, crate::primary::Census::default())
}

async fn parallel_sweeps_share_the_work(on: &PrimaryBench) -> Outcome {
    for number in 1..=40 {
        on.store.insert(&new(Session { expires_at: at(1), ..guest(number) }), NOW).await?;
    }
    let stores = [&on.store, &on.second];
    let bounds = bounds(5, 0);
    let sweeps = join_all((0..4).map(|n| stores[n % 2].sweep(&bounds, 40))).await;
    let mut removed = 0;
    for swept in sweeps {
        removed += swept?.removed;
    }
    expect(removed, 40)
}

async fn a_touched_session_survives(on: &PrimaryBench) -> Outcome {
    for number in 1..=10 {
        on.store.insert(&new(Session { expires_at: at(100), ..guest(number) }), NOW).await?;
        let batch = [touch(number, 50, HOUR)];
        let sweep = bounds(200, 0);
        let (touched, swept) = join(on.second.touch(&batch), on.store.sweep(&sweep, 9)).await;
        let is_there = on.stored(id(number)).await?.is_some();
        expect(swept?.removed == 0, is_there)?;
        let wanted =
            if is_there { Touched::Active { expires_at: at(HOUR) } } else { Touched::Missing };
        expect(touched?, vec![wanted])?;
    }
    Ok(())
}
