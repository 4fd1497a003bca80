//! The twins about reads: nobody shares one, and each is counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures_util::future::join_all;

use super::super::super::report::{ensure, expect};
use super::super::super::runner::Outcome;
use super::super::super::wire::{Op, Point, Wire};
use super::super::background::counted;
use super::super::{DONE, PairBench, two_nodes};
use super::bound;
use crate::cached::{Cached, CachedConfig, Loaded};
use crate::error::Result;
use crate::layered::{Source, Stats};
use crate::secondary::SecondaryStore;
use crate::token::Token;

pub(super) async fn each_reads_for_itself(on: &PairBench) -> Outcome {
    let (one, other, token) = two_nodes(on).await?;
    on.runtime.settle().await;
    for node in [&one, &other] {
        node.begin().await?;
        on.evict(token.id()).await?;
        let answers = join_all((0..20).map(|_| node.accepts(&token))).await;
        ensure(answers.iter().all(|accepted| *accepted), "not all were accepted")?;
        on.runtime.settle().await;
        expect(node.db.count(Op::Find), 20)?;
        ensure(on.is_cached(token.id()).await?, "nobody filled the cache")?;
    }
    bound(on, &one).map(drop)
}

pub(super) async fn a_failed_read_hangs_nobody(on: &PairBench) -> Outcome {
    let node = on.node()?;
    let token = on.log_in(&node).await?.token;
    on.runtime.settle().await;
    node.db.fail(Op::Find);
    let answers = join_all((0..10).map(|_| node.app.authenticate(&token))).await;
    let accepted = answers.into_iter().filter_map(crate::sessions::Authentication::live).count();
    // The failure is that of one request, and an outage to it alone.
    expect(accepted, 9)?;
    ensure(node.accepts(&token).await, "not accepted after a failed read")?;
    bound(on, &node).map(drop)
}

type Numbers = Cached<Arc<dyn SecondaryStore>, u32>;

/// A cache of numbers, and how long it is believed.
fn numbers(on: &PairBench, wire: &Wire) -> Result<(Numbers, Duration)> {
    let secondary = (Arc::clone(&on.secondary), false);
    let parts = on.parts(secondary, (&Wire::default(), wire), on.host());
    let length = Duration::from_secs(5);
    on.weakness.note("eventual", length);
    Ok((Cached::new(parts.secondary, CachedConfig::default(), parts.host)?, length))
}

async fn value(numbers: &Numbers, count: &Arc<AtomicU32>) -> Result<Loaded<u32>> {
    let load = || {
        let count = Arc::clone(count);
        async move { Ok(Some(count.fetch_add(1, Ordering::SeqCst))) }
    };
    numbers.get_or_load("a raw token", load).await
}

pub(super) async fn each_loads_for_itself(on: &PairBench) -> Outcome {
    let (numbers, length) = numbers(on, &Wire::default())?;
    let count = Arc::default();
    for loaded in join_all((0..20).map(|_| value(&numbers, &count))).await {
        ensure(loaded?.value.is_some(), "nothing was loaded")?;
    }
    on.runtime.settle().await;
    ensure(count.load(Ordering::SeqCst) <= 20, "somebody loaded twice")?;
    expect(value(&numbers, &count).await?.source, Source::Secondary)?;
    on.runtime.advance(length);
    expect(value(&numbers, &count).await?.source, Source::Primary)
}

pub(super) async fn a_forgotten_value_ends(on: &PairBench) -> Outcome {
    let wire = Wire::default();
    let (numbers, length) = numbers(on, &wire)?;
    let count = Arc::default();
    let mut held = wire.hold(Op::Swap, Point::Before);
    value(&numbers, &count).await?;
    held.reached().await;
    numbers.forget("a raw token").await?;
    held.release();
    on.runtime.settle().await;
    // The late put is believed, or the case would show nothing; and no longer than any other.
    expect(value(&numbers, &count).await?.source, Source::Secondary)?;
    on.runtime.advance(length);
    expect(value(&numbers, &count).await?.value.as_deref(), Some(&1))
}

pub(super) async fn reads_and_hits_are_counted(on: &PairBench) -> Outcome {
    let node = on.node()?;
    let token = on.log_in(&node).await?.token;
    let look = async |token: &Token| {
        node.accepts(token).await;
        DONE
    };
    let zero = Stats::default();
    let read = Stats { primary_reads: 1, ..zero };
    let miss = Stats { fills: 1, ..read };
    expect(counted(on, &node, look(&token)).await?, miss)?;
    expect(counted(on, &node, look(&token)).await?, Stats { hits: 1, ..zero })?;
    // What is not there is not remembered.
    let nobody = Token::generate(node.app.now())?;
    for _ in 0..2 {
        expect(counted(on, &node, look(&nobody)).await?, read)?;
    }
    bound(on, &node).map(drop)
}
