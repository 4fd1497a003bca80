//! Values of a foreign source.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures_util::future::{join, join_all};

use super::super::checks;
use super::super::report::{Violation, ensure, expect};
use super::super::runner::Outcome;
use super::super::wire::{Op, Point, Wire};
use super::PairBench;
use crate::cached::{Cached, CachedConfig};
use crate::error::{Error, ErrorKind, Result};
use crate::layered::Source;
use crate::secondary::SecondaryStore;

checks! { ($) layered_cached: PairBench;
    "X8-F-01" a_value_is_loaded_once "Fifty who ask at once cause one load, served for its TTL.",
    "X8-F-02" nothing_from_before_a_forget "After a forget, no load that began before is served.",
    "X8-F-03" errors_and_absences_are_not_cached "An error is an error, and nothing is cached of it.",
    "X8-F-04" a_broken_cache_loads "Trouble with the cache fails nothing.",
}

type Numbers = Cached<Arc<dyn SecondaryStore>, u32>;

fn cached(on: &PairBench) -> Result<(Numbers, Wire)> {
    let wire = Wire::default();
    let secondary = (Arc::clone(&on.secondary), false);
    let parts = on.parts(secondary, (&Wire::default(), &wire), on.host());
    Ok((Cached::new(parts.secondary, CachedConfig::default(), parts.host)?, wire))
}

async fn value(cached: &Numbers, count: &Arc<AtomicU32>) -> Result<(Option<u32>, Source)> {
    let load = || {
        let count = Arc::clone(count);
        async move { Ok(Some(count.fetch_add(1, Ordering::SeqCst))) }
    };
    let loaded = cached.get_or_load("a raw token", load).await?;
    Ok((loaded.value.map(|value| *value), loaded.source))
}

async fn a_value_is_loaded_once(on: &PairBench) -> Outcome {
    let (cached, _) = cached(on)?;
    let count = Arc::default();
    for result in join_all((0..50).map(|_| value(&cached, &count))).await {
        expect(result?.0, Some(0))?;
    }
    on.runtime.settle().await;
    expect(value(&cached, &count).await?, (Some(0), Source::Secondary))?;
    on.runtime.advance(Duration::from_secs(5));
    expect(value(&cached, &count).await?, (Some(1), Source::Primary))
}

async fn nothing_from_before_a_forget(on: &PairBench) -> Outcome {
    let (cached, wire) = cached(on)?;
    let count = Arc::default();
    let mut held = wire.hold(Op::Swap, Point::Before);
    value(&cached, &count).await?;
    held.reached().await;
    let forget = async {
        cached.forget("a raw token").await?;
        let after = value(&cached, &count).await?;
        held.release();
        Ok::<_, Violation>(after)
    };
    let (after, ()) = join(forget, async {}).await;
    expect(after?.0, Some(1))?;
    on.runtime.settle().await;
    ensure(value(&cached, &count).await?.0 != Some(0), "a load from before was served")
}

async fn errors_and_absences_are_not_cached(on: &PairBench) -> Outcome {
    let (cached, _) = cached(on)?;
    let fail = || async { Err(Error::new(ErrorKind::Unavailable, "source")) };
    ensure(cached.get_or_load("key", fail).await.is_err(), "an error was swallowed")?;
    on.runtime.settle().await;
    let nothing = cached.get_or_load("key", || async { Ok(None) }).await?;
    expect(nothing.value, None)?;
    on.runtime.settle().await;
    let there = cached.get_or_load("key", || async { Ok(Some(7)) }).await?;
    expect(there.value.map(|value| *value), Some(7))
}

async fn a_broken_cache_loads(on: &PairBench) -> Outcome {
    let (cached, wire) = cached(on)?;
    let count = Arc::default();
    for op in [Op::Get, Op::Reserve, Op::Swap] {
        wire.fail(op);
        ensure(value(&cached, &count).await?.0.is_some(), "a broken cache failed a load")?;
        on.runtime.settle().await;
        on.runtime.advance(Duration::from_secs(5));
    }
    wire.set_down(true);
    ensure(value(&cached, &count).await?.0.is_some(), "a dead cache failed a load")?;
    ensure(cached.forget("a raw token").await.is_err(), "a failed forget was swallowed")
}
