//! A primary store without a cache.

use std::sync::Arc;

use super::super::checks;
use super::super::report::{ensure, expect};
use super::super::runner::Outcome;
use super::super::wire::{Op, Wire};
use super::{Node, PairBench};
use crate::layered::{LayeredConfig, NoCache, Topology, Visibility};
use crate::policy::Policy;
use crate::session::Reason;
use crate::sessions::Sessions;

checks! { ($) layered_alone: PairBench;
    "X8-L-25" without_a_cache_everything_is_immediate
        "Without a cache each lookup asks the primary, and no cache is known to the database.",
}

async fn without_a_cache_everything_is_immediate(on: &PairBench) -> Outcome {
    let config = LayeredConfig {
        topology: Topology::ManyProcesses,
        require_immediate: true,
        ..PairBench::config()
    };
    let (db, cache) = (Wire::default(), Wire::default());
    let store = on.layered_over(Arc::new(NoCache::new()), config, (&db, &cache), on.host())?;
    let node = Node { app: Sessions::new(store, Policy::default())?, db, cache };
    let token = on.log_in(&node).await?.token;
    for reads in 1..=3 {
        ensure(node.accepts(&token).await, "not accepted")?;
        expect(node.db.count(Op::Find), reads)?;
    }
    let done = node.app.admin_revoke(token.id(), Reason::Admin).await?;
    expect((done.count, done.visibility), (1, Visibility::Immediate))?;
    ensure(!node.accepts(&token).await, "accepted after a revocation")?;
    node.app.store().register().await?;
    expect((node.db.count(Op::Register), on.primary.caches().await?), (0, vec![]))
}
