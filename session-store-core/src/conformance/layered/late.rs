//! Messages that arrive late or twice.

use std::time::Duration;

use futures_util::future::join;

use super::super::checks;
use super::super::report::{ensure, expect};
use super::super::runner::Outcome;
use super::super::sample::json;
use super::super::wire::{Op, Point};
use super::{PairBench, two_nodes};
use crate::layered::Visibility;
use crate::session::Reason;
use crate::time::Ttl;

checks! { ($) layered_late: PairBench;
    "K6-R17" a_repeated_reservation_fills_nothing
        "A copy of a reservation that arrives after a revocation does not let its owner fill.",
    "K6-U04" an_update_does_not_renew_an_entry
        "A swap near the end of an entry leaves its end where it was.",
}

async fn a_repeated_reservation_fills_nothing(on: &PairBench) -> Outcome {
    let (one, other, token) = two_nodes(on).await?;
    on.runtime.settle().await;
    let mut held = one.cache.hold(Op::Swap, Point::Before);
    let first = one.accepts(&token);
    ensure(first.await, "not accepted")?;
    held.reached().await;
    let revoke = other.app.admin_revoke(token.id(), Reason::Admin);
    let repeat = async {
        // The copy is applied whenever the network likes; here before and after the removal.
        let ttl = Ttl::new(Duration::from_secs(3)).unwrap_or(Ttl::MIN);
        on.secondary.reserve(&PairBench::key(token.id()), ttl).await
    };
    let (done, copy) = join(revoke, repeat).await;
    copy?;
    expect(done?.visibility, Visibility::Immediate)?;
    let ttl = Ttl::new(Duration::from_secs(3)).unwrap_or(Ttl::MIN);
    on.secondary.reserve(&PairBench::key(token.id()), ttl).await?;
    held.release();
    on.runtime.settle().await;
    ensure(!on.is_cached(token.id()).await?, "a fill under a repeated reservation was taken")?;
    ensure(!other.accepts(&token).await, "accepted after a revocation")
}

async fn an_update_does_not_renew_an_entry(on: &PairBench) -> Outcome {
    let node = on.node()?;
    let token = on.log_in_warm(&node).await?;
    on.runtime.advance(Duration::from_secs(290));
    let Some(live) = node.app.authenticate(&token).await.live() else {
        return expect("absent", "live");
    };
    node.cache.reset();
    let _ = node.app.set_data(&live, json("2")?).await?;
    expect((node.cache.count(Op::Swap), node.cache.count(Op::Remove)), (1, 0))?;
    ensure(on.is_cached(token.id()).await?, "the entry is gone")?;
    on.runtime.advance(Duration::from_secs(10));
    ensure(!on.is_cached(token.id()).await?, "an update renewed the entry")
}
