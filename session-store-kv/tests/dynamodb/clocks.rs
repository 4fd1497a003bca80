//! A cache whose entries end by the clocks of the nodes, and clocks that differ.

use std::sync::Arc;
use std::time::Duration;

use session_store_core::conformance::TestClock;
use session_store_core::{
    CacheKey, CredentialEpoch, Layered, LayeredConfig, Login, OnCacheFailure, Policy, Reason,
    Record, Reservation, SecondaryStore, Sessions, SwapTtl, Ttl, Visibility,
};
use session_store_kv::dynamo::{DynamoCache, DynamoCacheConfig, DynamoStore, create_table};

use crate::lab::{Lab, NOW, ada, client, host};
use crate::wire::{Mischief, Wire};

const SKEW: i64 = 60_000;

/// A node with a clock of its own, over the table `name`.
async fn node(lab: &Lab, name: &str, ahead: i64) -> (DynamoCache, Wire, Arc<TestClock>) {
    let (wire, clock) = (Wire::default(), TestClock::at(NOW));
    clock.jump(ahead);
    let mut config = DynamoCacheConfig::new(lab.server.table(name));
    config.garbage_after = Duration::from_hours(24 * 365 * 50);
    config.calls.timeout = Duration::from_mins(1);
    config.calls.patience = Duration::from_millis(50);
    create_table(&lab.server.client(), &config.table).await.unwrap();
    let client = client(&lab.server, &wire);
    let cache = DynamoCache::connect(client, &config, clock.clone()).await.unwrap();
    (cache, wire, clock)
}

#[tokio::test]
async fn an_entry_is_served_for_its_time_and_the_skew_and_not_longer() {
    let lab = Lab::new("skewed").await;
    let (writer, _, _) = node(&lab, "skewedcache", SKEW).await;
    let (reader, _, clock) = node(&lab, "skewedcache", 0).await;
    let key = CacheKey::new("key").unwrap();
    let ttl = Ttl::new(Duration::from_mins(5)).unwrap();
    let Reservation::Granted(lease) = writer.reserve(&key, ttl).await.unwrap() else {
        panic!("not granted");
    };
    let value = Record::new(*b"V");
    assert!(writer.swap(&key, &lease, Some(&value), SwapTtl::Set(ttl)).await.unwrap());
    let longest = ttl.as_duration() + reader.promise().overrun;
    assert_eq!(longest, Duration::from_mins(6));
    clock.advance(longest.saturating_sub(Duration::from_millis(1)));
    assert_eq!(reader.get(&key).await.unwrap(), Some(value));
    clock.advance(Duration::from_millis(1));
    assert_eq!(reader.get(&key).await.unwrap(), None);
}

#[tokio::test]
async fn the_bound_that_is_told_when_a_removal_fails_holds_with_skewed_clocks() {
    let lab = Lab::new("skewedbound").await;
    lab.register().await;
    let mut nodes = Vec::new();
    for ahead in [SKEW, 0] {
        let (cache, wire, clock) = node(&lab, "skewedboundcache", ahead).await;
        let mut config = LayeredConfig::default();
        config.on_cache_failure = OnCacheFailure::Report;
        config.cache_deadline = Duration::from_mins(1);
        let server = lab.server.client();
        let store = DynamoStore::connect(server, &lab.config).await.unwrap();
        let layered = Layered::new(store, cache, config, host(clock.clone())).unwrap();
        nodes.push((Sessions::new(layered, Policy::default()).unwrap(), wire, clock));
    }
    let [(ahead, ahead_wire, ahead_clock), (late, _, late_clock)] = nodes.try_into().unwrap();
    let login = Login::new(ada(), CredentialEpoch::default());
    let token = ahead.create(login).await.unwrap().token;
    // The node whose clock is ahead fills the cache, and the other one reads what it wrote.
    assert!(ahead.authenticate(&token).await.live().is_some());
    while ahead.store().stats().fills == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    ahead_wire.plan("BatchWriteItem", &Mischief::Refuse("ThrottlingException"), 10_000);
    let done = ahead.admin_revoke(token.id(), Reason::Logout).await.unwrap();
    let Visibility::Within(bound) = done.visibility else { panic!("{done:?}") };
    assert_eq!(bound, Duration::from_secs(3 + 300 + 60));
    assert_eq!(late.store().guarantee().cache_failure, bound);
    let step = Duration::from_secs(300 + 59);
    for clock in [&ahead_clock, &late_clock] {
        clock.advance(step);
    }
    assert!(late.authenticate(&token).await.live().is_some(), "the skew was not needed");
    let rest = bound.saturating_sub(step);
    for clock in [&ahead_clock, &late_clock] {
        clock.advance(rest);
    }
    assert!(late.authenticate(&token).await.live().is_none(), "accepted behind the bound");
}
