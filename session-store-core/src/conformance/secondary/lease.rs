//! Leases and compare-and-set.

use std::collections::HashSet;

use futures_util::future::join_all;

use super::super::checks;
use super::super::report::{Violation, ensure, expect};
use super::super::runner::Outcome;
use super::{SecondaryBench, seconds, value};
use crate::secondary::{Reservation, SwapTtl};

checks! { ($) secondary_lease: SecondaryBench;
    "S-22 C-04" one_reservation_is_granted
        "Of 32 concurrent reservations exactly one is granted, and the others see its lease.",
    "S-24" an_equal_record_is_replaced "A swap of the record that is there replaces it.",
    "S-25 S-26" another_record_is_left_alone "A swap of another record, or of none, changes nothing.",
    "S-28" a_removed_lease_can_not_be_filled
        "A fill under a lease that was removed, or taken by another, is refused.",
    "S-43" a_swap_creates_nothing "A swap on an absent key leaves it absent.",
    "X8-S-02 K6-R18" leases_never_repeat "No two grants carry the same lease.",
}

async fn one_reservation_is_granted(on: &SecondaryBench) -> Outcome {
    let key = on.key("race")?;
    let results = join_all((0..32).map(|_| on.store.reserve(&key, seconds(3)))).await;
    let (mut granted, mut seen) = (Vec::new(), Vec::new());
    for result in results {
        match result? {
            Reservation::Granted(lease) => granted.push(lease),
            Reservation::Occupied(lease) => seen.push(lease),
        }
    }
    expect((granted.len(), seen.len()), (1, 31))?;
    ensure(granted[0].is_lease(), "what was granted is no lease")?;
    ensure(seen.iter().all(|lease| *lease == granted[0]), "others see another lease")?;
    expect(on.store.get(&key).await?, granted.pop())
}

async fn an_equal_record_is_replaced(on: &SecondaryBench) -> Outcome {
    let key = on.key("swap")?;
    on.put(&key, &value("1"), seconds(60)).await?;
    let new = value("2");
    ensure(on.store.swap(&key, &value("1"), Some(&new), SwapTtl::Keep).await?, "refused")?;
    expect(on.store.get(&key).await?, Some(new.clone()))?;
    ensure(on.store.swap(&key, &new, None, SwapTtl::Keep).await?, "a deletion is refused")?;
    expect(on.store.get(&key).await?, None)
}

async fn another_record_is_left_alone(on: &SecondaryBench) -> Outcome {
    let key = on.key("swap")?;
    on.put(&key, &value("1"), seconds(60)).await?;
    for wrong in [value("2"), value(""), value("11"), value("1 ")] {
        for new in [Some(value("9")), None] {
            let ttl = SwapTtl::Set(seconds(60));
            expect(on.store.swap(&key, &wrong, new.as_ref(), ttl).await?, false)?;
            expect(on.store.get(&key).await?, Some(value("1")))?;
        }
    }
    Ok(())
}

async fn a_removed_lease_can_not_be_filled(on: &SecondaryBench) -> Outcome {
    let key = on.key("lease")?;
    let Reservation::Granted(old) = on.store.reserve(&key, seconds(3)).await? else {
        return Err(Violation::new("not granted"));
    };
    on.store.remove(std::slice::from_ref(&key)).await?;
    let fill = SwapTtl::Set(seconds(60));
    expect(on.store.swap(&key, &old, Some(&value("old")), fill).await?, false)?;
    let Reservation::Granted(new) = on.store.reserve(&key, seconds(3)).await? else {
        return Err(Violation::new("a removed lease still occupies the key"));
    };
    expect(on.store.swap(&key, &old, Some(&value("old")), fill).await?, false)?;
    expect(on.store.swap(&key, &new, Some(&value("new")), fill).await?, true)?;
    expect(on.store.get(&key).await?, Some(value("new")))
}

async fn a_swap_creates_nothing(on: &SecondaryBench) -> Outcome {
    let key = on.key("absent")?;
    let fill = SwapTtl::Set(seconds(60));
    for expected in [value("1"), crate::secondary::Record::lease(b"guess")] {
        expect(on.store.swap(&key, &expected, Some(&value("2")), fill).await?, false)?;
        expect(on.store.get(&key).await?, None)?;
    }
    Ok(())
}

async fn leases_never_repeat(on: &SecondaryBench) -> Outcome {
    let key = on.key("lease")?;
    let mut seen = HashSet::new();
    for _ in 0..500 {
        let Reservation::Granted(lease) = on.store.reserve(&key, seconds(3)).await? else {
            return Err(Violation::new("not granted"));
        };
        ensure(seen.insert(lease.as_bytes().to_vec()), "a lease was granted twice")?;
        on.store.remove(std::slice::from_ref(&key)).await?;
    }
    Ok(())
}
