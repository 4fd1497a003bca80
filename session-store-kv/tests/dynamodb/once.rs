//! Maintenance as a function that is started by a schedule does it: a process of its own, one round, and
//! an end whether it is done or not.

use std::future::pending;
use std::pin::pin;
use std::time::Duration;

use futures_util::future::{Either, select};
use session_store_core::conformance::TestClock;
use session_store_core::{
    Layered, LayeredConfig, MaintenanceConfig, Policy, PrimaryStore, Selection, Sessions,
    Timestamp, User,
};
use session_store_kv::dynamo::{DynamoCache, DynamoCacheConfig, DynamoStore, create_table};

use crate::lab::{Lab, ada, client, host, id, later, new, session};
use crate::wire::{Mischief, Wire};

/// One start: its own client, store and cache. `None`: time was up.
async fn start(
    lab: &Lab,
    wire: &Wire,
    now: Timestamp,
    time_is_up: impl Future<Output = ()>,
) -> Option<session_store_core::Result<u64>> {
    let clock = TestClock::at(now);
    let client = client(&lab.server, wire);
    let store = DynamoStore::connect(client.clone(), &lab.config).await.unwrap();
    let mut cache = DynamoCacheConfig::new(lab.server.table("oncecache"));
    // A call that a busy server makes the SDK repeat would be counted twice.
    cache.calls.timeout = Duration::from_mins(1);
    let cache = DynamoCache::connect(client, &cache, clock.clone()).await.unwrap();
    let mut config = LayeredConfig::default();
    config.cache_deadline = Duration::from_mins(1);
    let layered = Layered::new(store, cache, config, host(clock)).unwrap();
    let mut policy = Policy::default();
    policy.retention = Duration::ZERO;
    let sessions = Sessions::new(layered, policy).unwrap();
    let mut config = MaintenanceConfig::default();
    config.sweep_batch = 50;
    let round = sessions.maintenance(config).unwrap();
    let done = match select(pin!(round.run_once()), pin!(time_is_up)).await {
        Either::Left((done, _)) => done,
        Either::Right(_) => return None,
    };
    let swept = round.health().lock().swept;
    Some(done.map(|()| swept))
}

#[tokio::test]
async fn a_round_that_is_cut_off_is_gone_on_with_by_the_next_process() {
    let lab = Lab::new("once").await;
    let cache = lab.server.table("oncecache");
    create_table(&lab.server.client(), &cache).await.unwrap();
    lab.log_in(400).await;
    let bob = session_store_core::UserId::new("bob").unwrap();
    PrimaryStore::insert_user(&lab.store, &User::new(bob.clone(), later(0)), later(0))
        .await
        .unwrap();
    let own = session_store_core::Session { user_id: Some(bob.clone()), ..session(900) };
    PrimaryStore::insert(&lab.store, &new(own), later(0)).await.unwrap();
    // A revoke-all that did not get beyond its first write.
    lab.wire.plan("Query", &Mischief::Refuse("AccessDeniedException"), 1);
    let all = Selection::AllOf(bob);
    let crashed =
        PrimaryStore::revoke(&lab.store, &all, session_store_core::Reason::Admin, later(0)).await;
    assert!(crashed.is_err());
    assert_eq!(lab.count("job").await, 1);

    let now = later(3600 + 60 + 1);
    let wire = Wire::default();
    let never = Mischief::Wait(std::sync::Arc::new(tokio::sync::Semaphore::new(0)));
    // After some of the removals nothing is answered any more, until time is up.
    wire.plan("TransactWriteItems", &Mischief::Pass, 8);
    wire.plan("TransactWriteItems", &never, 10_000);
    let time_is_up = async {
        while wire.calls("TransactWriteItems").len() < 9 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let first = start(&lab, &wire, now, time_is_up).await;
    assert!(first.is_none(), "done before time was up: {first:?}");
    let left = lab.count("session").await;
    assert!(left > 0 && left < 401, "cut off too early or too late: {left}");
    assert_eq!(lab.count("job").await, 0);

    let second = start(&lab, &Wire::default(), now, pending()).await;
    // What was sent and not answered may have been done later still.
    let swept = second.unwrap().unwrap();
    assert!(swept > 0 && swept <= left as u64, "{swept} of {left}");
    for kind in ["session", "entry", "deadline", "job"] {
        assert_eq!(lab.count(kind).await, 0, "{kind}");
    }
    // Nothing is left to do, and nothing is done twice.
    let third = start(&lab, &Wire::default(), now, pending()).await;
    assert_eq!(third.unwrap().unwrap(), 0);
    assert_eq!(PrimaryStore::find(&lab.store, &id(1)).await.unwrap().snapshot, None);
    assert!(PrimaryStore::find_user(&lab.store, &ada()).await.unwrap().is_some());
}

#[tokio::test]
async fn a_round_that_can_not_be_made_says_so() {
    let lab = Lab::new("onceoutage").await;
    create_table(&lab.server.client(), &lab.server.table("oncecache")).await.unwrap();
    let wire = Wire::default();
    wire.plan("GetItem", &Mischief::Pass, 2);
    wire.plan("GetItem", &Mischief::Refuse("ExpiredTokenException"), 1);
    let done = start(&lab, &wire, later(1), pending()).await.unwrap();
    let failed = done.unwrap_err();
    let session_store_core::ErrorKind::Configuration { what } = failed.kind() else {
        panic!("{failed}")
    };
    assert!(what.contains("expired"), "{what}");
}
