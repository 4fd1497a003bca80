//! Time: nothing dies early, nothing lives longer, nothing lives for ever.

use std::time::Duration;

use super::super::checks;
use super::super::report::{ensure, expect};
use super::super::runner::Outcome;
use super::{SecondaryBench, seconds, value};
use crate::secondary::{Reservation, SwapTtl};
use crate::time::Ttl;

checks! { ($) secondary_ttl: SecondaryBench;
    "S-10 S-11 C-02" a_record_lives_exactly_its_time
        "A record is there until its TTL has passed and absent from then on.",
    "S-12" no_time_left_can_not_be_said "A TTL of nothing can't be expressed.",
    "S-13 S-14" a_lease_lives_exactly_its_time "A lease of 1.5 s ends after 1.5 s.",
    "S-16 S-27" keep_keeps_and_set_sets "Keep leaves the old deadline, Set starts a new one.",
    "S-23" an_expired_key_is_free "A key whose time is over can be reserved again.",
    "X8-S-03" a_deadline_survives_a_clock_set_back "A clock that is set back extends nothing.",
}

fn millis(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// How much later than asked a record may die, as declared.
fn slack(on: &SecondaryBench) -> Duration {
    let promise = on.store.promise();
    if promise.min_ttl > Duration::ZERO || promise.ttl_granularity > millis(1) {
        on.weakness.note("ttl", promise.min_ttl.max(promise.ttl_granularity));
    }
    promise.min_ttl + promise.ttl_granularity
}

async fn a_record_lives_exactly_its_time(on: &SecondaryBench) -> Outcome {
    let slack = slack(on);
    for (name, length) in [("short", 900), ("long", 60_000)] {
        let key = on.key(name)?;
        let ttl = Ttl::new(millis(length)).unwrap_or(Ttl::MIN);
        on.put(&key, &value("1"), ttl).await?;
        on.pass(millis(length - 1)).await;
        ensure(on.store.get(&key).await?.is_some(), "a record died early")?;
        on.pass(slack).await;
        expect(on.store.get(&key).await?, None)?;
    }
    Ok(())
}

async fn no_time_left_can_not_be_said(_: &SecondaryBench) -> Outcome {
    expect(Ttl::new(Duration::ZERO), None)?;
    expect(Ttl::new(Duration::from_nanos(999_999)), None)?;
    let now = super::NOW;
    expect(Ttl::until(now, now), None)?;
    expect(Ttl::until(crate::time::Timestamp::EPOCH, now), None)
}

async fn a_lease_lives_exactly_its_time(on: &SecondaryBench) -> Outcome {
    let slack = slack(on);
    let key = on.key("lease")?;
    let ttl = Ttl::new(millis(1_500)).unwrap_or(Ttl::MIN);
    on.store.reserve(&key, ttl).await?;
    on.pass(millis(1_499)).await;
    ensure(on.store.get(&key).await?.is_some(), "a lease died early")?;
    on.pass(slack).await;
    expect(on.store.get(&key).await?, None)
}

async fn keep_keeps_and_set_sets(on: &SecondaryBench) -> Outcome {
    let slack = slack(on);
    let (kept, set) = (on.key("kept")?, on.key("set")?);
    for key in [&kept, &set] {
        on.put(key, &value("1"), seconds(10)).await?;
    }
    on.pass(millis(5_000)).await;
    let new = value("2");
    on.store.swap(&kept, &value("1"), Some(&new), SwapTtl::Keep).await?;
    on.store.swap(&set, &value("1"), Some(&new), SwapTtl::Set(seconds(10))).await?;
    on.pass(millis(4_999)).await;
    expect(on.store.get(&kept).await?, Some(new.clone()))?;
    on.pass(slack).await;
    expect(on.store.get(&kept).await?, None)?;
    expect(on.store.get(&set).await?, Some(new))?;
    on.pass(millis(5_000)).await;
    expect(on.store.get(&set).await?, None)
}

async fn an_expired_key_is_free(on: &SecondaryBench) -> Outcome {
    let slack = slack(on);
    let key = on.key("free")?;
    on.put(&key, &value("1"), seconds(1)).await?;
    on.pass(millis(999) + slack).await;
    let swapped = on.store.swap(&key, &value("1"), Some(&value("2")), SwapTtl::Keep).await?;
    expect(swapped, false)?;
    let granted = on.store.reserve(&key, seconds(3)).await?;
    ensure(matches!(granted, Reservation::Granted(_)), "an expired record occupies its key")
}

async fn a_deadline_survives_a_clock_set_back(on: &SecondaryBench) -> Outcome {
    let slack = slack(on);
    let key = on.key("clock")?;
    on.put(&key, &value("1"), seconds(10)).await?;
    on.clock.jump(-3_600_000);
    on.pass(millis(9_999) + slack).await;
    expect(on.store.get(&key).await?, None)
}
