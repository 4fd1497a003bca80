//! What a cache of class Eventual is held to instead, where a case asks for a comparison: its leases
//! are blind, and its fills win over whatever is there. Such a case is `WEAK(eventual, bound)`, and
//! the bound is how long what was filled may live.

use std::time::Duration;

use futures_util::future::join_all;

use super::super::report::{Violation, ensure, expect};
use super::super::runner::Outcome;
use super::{SecondaryBench, seconds, value};
use crate::host::BoxFuture;
use crate::secondary::{CacheClass, Reservation, SwapTtl};

type Twin = for<'a> fn(&'a SecondaryBench) -> BoxFuture<'a, Outcome>;

/// The cases by name, and what stands for them.
const TWINS: &[(&[&str], Twin)] = &[
    (&["one_writer_wins_whole"], |on| Box::pin(the_winner_is_whole(on))),
    (&["one_reservation_is_granted"], |on| Box::pin(every_reservation_is_granted(on))),
    (&["a_removed_lease_can_not_be_filled", "a_swap_creates_nothing"], |on| {
        Box::pin(a_blind_fill_lives_its_time(on))
    }),
    (&["a_lease_lives_exactly_its_time"], |on| Box::pin(a_blind_lease_occupies_nothing(on))),
];

/// What stands for the case called `name` over this cache, if anything does.
pub(super) fn instead(on: &SecondaryBench, name: &str) -> Option<Twin> {
    if on.store.promise().class != CacheClass::Eventual {
        return None;
    }
    TWINS.iter().find(|(names, _)| names.contains(&name)).map(|(_, twin)| *twin)
}

fn note(on: &SecondaryBench, bound: Duration) {
    on.weakness.note("eventual", bound);
}

async fn the_winner_is_whole(on: &SecondaryBench) -> Outcome {
    let key = on.key("race")?;
    let records: Vec<_> = (0..32).map(|n| value(&n.to_string().repeat(400))).collect();
    let first = value("first");
    on.put(&key, &first, seconds(60)).await?;
    let swaps = records.iter().map(|new| on.store.swap(&key, &first, Some(new), SwapTtl::Keep));
    for result in join_all(swaps).await {
        result?;
    }
    let found = on.store.get(&key).await?;
    ensure(found.is_some_and(|found| records.contains(&found)), "what is left is no record")?;
    note(on, Duration::from_mins(1));
    Ok(())
}

async fn every_reservation_is_granted(on: &SecondaryBench) -> Outcome {
    let key = on.key("race")?;
    let mut leases = Vec::new();
    for result in join_all((0..32).map(|_| on.store.reserve(&key, seconds(3)))).await {
        let Reservation::Granted(lease) = result? else {
            return Err(Violation::new("not granted"));
        };
        ensure(lease.is_lease() && !leases.contains(&lease), "a lease was granted twice")?;
        leases.push(lease);
    }
    expect(on.store.get(&key).await?, None)?;
    note(on, Duration::ZERO);
    Ok(())
}

async fn a_blind_fill_lives_its_time(on: &SecondaryBench) -> Outcome {
    let key = on.key("lease")?;
    let fill = SwapTtl::Set(seconds(10));
    let Reservation::Granted(lease) = on.store.reserve(&key, seconds(3)).await? else {
        return Err(Violation::new("not granted"));
    };
    on.store.remove(std::slice::from_ref(&key)).await?;
    expect(on.store.swap(&key, &lease, Some(&value("late")), fill).await?, true)?;
    expect(on.store.get(&key).await?, Some(value("late")))?;
    // A lease without a value leaves nothing, and no swap of a value creates one.
    let other = on.key("other")?;
    expect(on.store.swap(&other, &lease, None, fill).await?, true)?;
    expect(on.store.get(&other).await?, None)?;
    expect(on.store.swap(&other, &value("1"), Some(&value("2")), fill).await?, false)?;
    expect(on.store.get(&other).await?, None)?;
    on.clock.advance(Duration::from_secs(10));
    expect(on.store.get(&key).await?, None)?;
    note(on, Duration::from_secs(10));
    Ok(())
}

async fn a_blind_lease_occupies_nothing(on: &SecondaryBench) -> Outcome {
    let key = on.key("lease")?;
    on.store.reserve(&key, seconds(3)).await?;
    expect(on.store.get(&key).await?, None)?;
    on.put(&key, &value("1"), seconds(10)).await?;
    on.store.reserve(&key, seconds(3)).await?;
    // Nor does it put anything aside.
    expect(on.store.get(&key).await?, Some(value("1")))?;
    note(on, Duration::ZERO);
    Ok(())
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
