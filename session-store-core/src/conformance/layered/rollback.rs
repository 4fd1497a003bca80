//! A cache that comes back with what had been removed, as after a failover.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::{Either, select};
use parking_lot::Mutex;

use super::super::checks;
use super::super::report::{Violation, ensure, expect};
use super::super::runner::Outcome;
use super::super::wire::{Op, Wire};
use super::entries::{Entries, Kept};
use super::{Node, PairBench};
use crate::error::Result;
use crate::json::Json;
use crate::layered::{LayeredConfig, OnCacheFailure, Visibility};
use crate::policy::Policy;
use crate::primary::{CacheRegistration, CacheScope};
use crate::secondary::{CacheKey, Record, Reservation, SecondaryPromise, SecondaryStore, SwapTtl};
use crate::session::Reason;
use crate::sessions::{DataUpdate, Sessions};
use crate::time::Ttl;

checks! { ($) layered_rollback: PairBench;
    "X8-L-34" an_entry_of_before_is_not_believed
        "What a cache brings back is not believed, even if it comes back between two of its answers.",
    "X8-L-38" a_lease_of_afterwards_is_not_filled
        "A lease that is granted by a cache of another epoch than the miss is not filled.",
    "X8-L-35" a_logout_in_doubt_is_not_immediate
        "While others may still use the cache that was left, no logout is Immediate.",
}

/// How long somebody may not notice.
const SLACK: Duration = Duration::from_millis(1_700);

/// A cache that can be turned back.
#[derive(Debug, Default)]
struct Failing {
    entries: Entries,
    epoch: AtomicU64,
    /// What it comes back with at the next reservation.
    past: Mutex<Option<Kept>>,
}

impl Failing {
    fn turn_back(&self, to: Kept) {
        *self.entries.0.lock() = to;
        self.epoch.fetch_add(1, Ordering::SeqCst);
    }
}

#[async_trait]
impl SecondaryStore for Failing {
    fn promise(&self) -> SecondaryPromise {
        let promise = Entries::promise("failing");
        SecondaryPromise { may_roll_back: true, rollback_slack: SLACK, ..promise }
    }

    fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::SeqCst)
    }

    async fn get(&self, key: &CacheKey) -> Result<Option<Record>> {
        Ok(self.entries.get(key))
    }

    async fn reserve(&self, key: &CacheKey, _ttl: Ttl) -> Result<Reservation> {
        let past = self.past.lock().take();
        if let Some(past) = past {
            self.turn_back(past);
        }
        Ok(self.entries.reserve(key))
    }

    async fn swap(
        &self,
        key: &CacheKey,
        expected: &Record,
        new: Option<&Record>,
        _ttl: SwapTtl,
    ) -> Result<bool> {
        Ok(self.entries.swap(key, expected, new))
    }

    async fn remove(&self, keys: &[CacheKey]) -> Result<()> {
        self.entries.remove(keys);
        Ok(())
    }
}

fn node(
    on: &PairBench,
    cache: &Arc<Failing>,
    config: LayeredConfig,
) -> std::result::Result<Node, Violation> {
    let (db, wire) = (Wire::default(), Wire::default());
    let store = on.layered_over(cache.clone(), config, (&db, &wire), on.host())?;
    Ok(Node { app: Sessions::new(store, Policy::default())?, db, cache: wire })
}

async fn an_entry_of_before_is_not_believed(on: &PairBench) -> Outcome {
    for (between, ttl) in [(false, None), (true, None), (false, Some(Duration::from_hours(1)))] {
        let cache = Arc::new(Failing::default());
        let node = node(on, &cache, PairBench::config())?;
        let guarantee = node.app.store().guarantee();
        let bound = guarantee.rollback.unwrap_or_default();
        expect(bound, guarantee.cache_failure + SLACK)?;
        if let Some(ttl) = ttl.and_then(Ttl::new) {
            // One with a longer TTL may have put what comes back.
            let name = node.app.store().config().cache_name.clone();
            on.primary
                .register(&CacheRegistration { name, scope: CacheScope::Shared, ttl })
                .await?;
        }
        let token = on.log_in_warm(&node).await?;
        let past = cache.entries.0.lock().clone();
        ensure(past.contains_key(&PairBench::key(token.id())), "nothing was cached")?;
        let done = node.app.admin_revoke(token.id(), Reason::Admin).await?;
        expect(done.visibility, Visibility::Immediate)?;
        if between {
            *cache.past.lock() = Some(past);
        } else {
            cache.turn_back(past);
        }
        ensure(!node.accepts(&token).await, "a logout was undone")?;
        ensure(cache.past.lock().is_none(), "the cache was not asked")?;
        let later = ttl.map_or(bound, |ttl| ttl + SLACK);
        on.runtime.advance(later.saturating_sub(Duration::from_millis(1)));
        node.cache.reset();
        ensure(!node.accepts(&token).await, "a logout was undone later")?;
        expect(node.cache.count(Op::Get), 0)?;
    }
    super::DONE
}

async fn a_lease_of_afterwards_is_not_filled(on: &PairBench) -> Outcome {
    let cache = Arc::new(Failing::default());
    let node = node(on, &cache, PairBench::config())?;
    let token = on.log_in_warm(&node).await?;
    // It comes back empty, between the miss and the lease.
    cache.entries.0.lock().clear();
    *cache.past.lock() = Some(Kept::new());
    node.cache.reset();
    ensure(node.accepts(&token).await, "a missing cache failed a lookup")?;
    on.runtime.settle().await;
    ensure(cache.past.lock().is_none(), "no lease was asked for")?;
    expect(node.cache.count(Op::Swap), 0)
}

async fn a_logout_in_doubt_is_not_immediate(on: &PairBench) -> Outcome {
    let cache = Arc::new(Failing::default());
    let node = node(on, &cache, PairBench::config())?;
    let guarantee = node.app.store().guarantee();
    let bound = guarantee.cache_failure;
    let whole = guarantee.rollback.unwrap_or_default();
    let tokens = [on.log_in_warm(&node).await?, on.log_in_warm(&node).await?];
    let end = async |token: usize| -> Result<Visibility> {
        Ok(node.app.admin_revoke(tokens[token].id(), Reason::Admin).await?.visibility)
    };
    expect(end(0).await?, Visibility::Immediate)?;
    // Nobody has looked anything up since.
    cache.turn_back(Kept::new());
    expect(end(1).await?, Visibility::Within(bound))?;
    on.runtime.advance(whole.saturating_sub(Duration::from_millis(1)));
    expect(end(1).await?, Visibility::Within(bound))?;
    on.runtime.advance(Duration::from_millis(1));
    expect(end(1).await?, Visibility::Immediate)?;
    // What was replaced where the history is another one now, others may still see as it was.
    let token = on.log_in_warm(&node).await?;
    let Some(live) = node.app.authenticate(&token).await.live() else {
        return ensure(false, "not accepted");
    };
    let replicated = cache.entries.0.lock().clone();
    cache.turn_back(replicated);
    let changed = node.app.set_data(&live, Json::parse("1")?).await?;
    let is_honest = matches!(
        changed,
        DataUpdate::Updated { visibility: Visibility::Within(length), .. } if length == bound
    );
    ensure(is_honest, "a change passed for seen everywhere")?;
    // Whoever waits it out may be sure.
    let on_cache_failure = OnCacheFailure::WaitOut;
    let node = self::node(on, &cache, LayeredConfig { on_cache_failure, ..PairBench::config() })?;
    let token = on.log_in_warm(&node).await?;
    cache.turn_back(Kept::new());
    let begun = node.app.now();
    let time = async {
        loop {
            on.runtime.settle().await;
            on.runtime.advance(bound);
        }
    };
    let revoke = node.app.admin_revoke(token.id(), Reason::Admin);
    let done = match select(pin!(revoke), pin!(time)).await {
        Either::Left((done, _)) => done?,
        Either::Right((never, _)) => never,
    };
    expect(done.visibility, Visibility::Immediate)?;
    ensure(node.app.now().since(begun) >= bound, "it did not wait")
}
