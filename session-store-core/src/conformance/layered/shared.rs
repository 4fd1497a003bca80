//! What several services on one cache share, and what they don't.

use super::super::checks;
use super::super::report::{ensure, expect};
use super::super::runner::Outcome;
use super::super::wire::Op;
use super::{PairBench, two_nodes};
use crate::layered::LayeredConfig;
use crate::policy::Policy;
use crate::primary::Page;

checks! { ($) layered_shared: PairBench;
    "L-04" an_emptied_cache_costs_reads_only
        "After the cache was emptied everybody is accepted, the list is whole, and entries return.",
    "L-55" services_read_each_others_entries
        "Two services with one prefix share entries; with another prefix they don't.",
}

async fn an_emptied_cache_costs_reads_only(on: &PairBench) -> Outcome {
    let node = on.node()?;
    let mut tokens = Vec::new();
    for _ in 0..3 {
        tokens.push(on.log_in_warm(&node).await?);
    }
    for token in &tokens {
        on.evict(token.id()).await?;
    }
    let user = super::super::sample::user_id(1)?;
    let listed = node.app.list(&user, None, &Page::first(10)).await?;
    expect(listed.items.len(), 3)?;
    for token in &tokens {
        ensure(node.accepts(token).await, "an empty cache logged somebody out")?;
        on.runtime.settle().await;
        ensure(on.is_cached(token.id()).await?, "the entry does not return")?;
    }
    Ok(())
}

async fn services_read_each_others_entries(on: &PairBench) -> Outcome {
    let (one, other, token) = two_nodes(on).await?;
    ensure(one.accepts(&token).await, "not accepted")?;
    on.runtime.settle().await;
    other.begin().await?;
    ensure(other.accepts(&token).await, "not accepted by another service")?;
    expect(other.db.count(Op::Find), 0)?;
    let config = LayeredConfig { key_prefix: "other:".to_owned(), ..PairBench::config() };
    let stranger = on.node_with(config, Policy::default())?;
    expect(stranger.app.store().config().key_prefix.as_str(), "other:")?;
    stranger.begin().await?;
    ensure(stranger.accepts(&token).await, "not accepted under another prefix")?;
    expect(stranger.db.count(Op::Find), 1)
}
