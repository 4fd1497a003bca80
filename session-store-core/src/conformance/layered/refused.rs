//! A cache that may be read and refuses to be written, as one that misses its replicas or its disk.

use std::time::Duration;

use super::super::checks;
use super::super::report::{ensure, expect};
use super::super::runner::Outcome;
use super::super::sample::NOW;
use super::{DONE, PairBench};
use crate::secondary::{Record, Reservation, SwapTtl};
use crate::sessions::{Refusal, RotationOutcome};
use crate::time::Ttl;
use crate::token::Token;

checks! { ($) layered_refused: PairBench;
    "X8-L-37" a_cache_that_takes_nothing_fails_nothing
        "While a cache can be read and not written, the owner of a rotated session always gets in.",
}

async fn a_cache_that_takes_nothing_fails_nothing(on: &PairBench) -> Outcome {
    let node = on.node()?;
    // More often than a stranger might ask, within one second.
    let times = 2 * node.app.store().config().confirms_per_second;
    let old = on.log_in_warm(&node).await?;
    let unknown = Token::generate(NOW)?;
    let key = PairBench::key(unknown.id());
    let ttl = Ttl::new(Duration::from_mins(1)).unwrap_or(Ttl::MIN);
    if let Reservation::Granted(lease) = on.secondary.reserve(&key, ttl).await? {
        let garbage = Record::new(b"garbage".as_slice());
        on.secondary.swap(&key, &lease, Some(&garbage), SwapTtl::Set(ttl)).await?;
    }
    node.cache.set_read_only(true);
    let RotationOutcome::Rotated { token: new, .. } = node.app.rotate(&old).await? else {
        return ensure(false, "not rotated");
    };
    for _ in 0..times {
        ensure(node.accepts(&new).await, "the owner of a new secret was not let in")?;
        on.runtime.settle().await;
        // What can't be read, and can't be cleared, is a miss again and again.
        expect(node.refusal(&unknown).await, Some(Refusal::Unknown))?;
        on.runtime.settle().await;
    }
    node.cache.set_read_only(false);
    on.runtime.advance(node.app.store().config().breaker_pause);
    ensure(node.accepts(&new).await, "not accepted afterwards")?;
    on.runtime.settle().await;
    DONE
}
