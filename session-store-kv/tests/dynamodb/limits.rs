//! What DynamoDB takes at once.

use std::time::Duration;

use session_store_core::{
    CacheKey, ErrorKind, NewSession, PrimaryStore, Reason, Record, Reservation, SecondaryStore,
    Selection, Session, SessionLimit, SwapTtl, Ttl, User,
};

use crate::lab::{Lab, NOW, ada, bounds, cache, document, guest, id, new, refused, session};
use crate::wire::{Mischief, Wire};

/// The largest batch or transaction of these calls, and no table but one in any of them.
fn largest(wire: &Wire, action: &str, count: impl Fn(&serde_json::Value) -> usize) -> usize {
    wire.calls(action).iter().map(|call| count(&call.body)).max().unwrap_or(0)
}

fn batch(body: &serde_json::Value) -> usize {
    let batches = body["RequestItems"].as_object().unwrap();
    batches.values().map(|batch| batch.get("Keys").unwrap_or(batch).as_array().unwrap().len()).sum()
}

fn steps(body: &serde_json::Value) -> usize {
    body["TransactItems"].as_array().unwrap().len()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_batch_and_no_transaction_is_too_large() {
    let lab = Lab::new("sizes").await;
    lab.log_in(320).await;
    let all = Selection::AllOf(ada());
    PrimaryStore::revoke(&lab.store, &all, Reason::Admin, NOW).await.unwrap();
    assert_eq!(largest(&lab.wire, "TransactWriteItems", steps), 100);
    assert_eq!(largest(&lab.wire, "BatchGetItem", batch), 100);
    PrimaryStore::sweep(&lab.store, &bounds(0, 0), 160).await.unwrap();
    PrimaryStore::delete_user(&lab.store, &ada(), NOW).await.unwrap();
    assert_eq!(largest(&lab.wire, "TransactWriteItems", steps), 100);
    assert_eq!(largest(&lab.wire, "BatchGetItem", batch), 100);
    assert_eq!(largest(&lab.wire, "BatchWriteItem", batch), 25);
    for kind in ["session", "entry", "deadline"] {
        assert_eq!(lab.count(kind).await, 0, "{kind}");
    }
}

#[tokio::test]
async fn transactions_over_large_sessions_stay_below_four_megabytes() {
    let lab = Lab::new("heavy").await;
    lab.register().await;
    let data = document(250_000);
    for number in 1..=40 {
        let heavy = Session { data: data.clone(), ..session(number) };
        PrimaryStore::insert(&lab.store, &new(heavy), NOW).await.unwrap();
    }
    lab.wire.reset();
    let all = Selection::AllOf(ada());
    let done = PrimaryStore::revoke(&lab.store, &all, Reason::Admin, NOW).await.unwrap();
    assert_eq!(done.revoked.len(), 40);
    let updates = |body: &serde_json::Value| {
        let steps = body["TransactItems"].as_array().unwrap().iter();
        steps.filter(|step| step.get("Update").is_some()).count()
    };
    let most = largest(&lab.wire, "TransactWriteItems", updates);
    assert!((2..=16).contains(&most), "{most} sessions of 250 KB in one transaction");
    let swept = PrimaryStore::sweep(&lab.store, &bounds(0, 0), 40).await.unwrap();
    assert_eq!(swept.removed, 40);
}

#[tokio::test]
async fn what_is_too_large_is_refused_before_any_call() {
    let lab = Lab::new("toolarge").await;
    let limit = lab.store.promise().max_data_bytes;
    let over = Session { data: document(limit + 1), ..guest(1) };
    let kind = refused(PrimaryStore::insert(&lab.store, &new(over), NOW).await);
    assert_eq!(kind, ErrorKind::TooLarge { what: "session data", limit });
    // The other fields have no limit of their own here; all together they must fit.
    let mut wide = Session { data: document(limit), ..guest(2) };
    wide.metadata.user_agent = Some("x".repeat(200_000));
    let kind = refused(PrimaryStore::insert(&lab.store, &new(wide), NOW).await);
    assert_eq!(kind, ErrorKind::TooLarge { what: "session", limit: 399 * 1024 });
    assert!(lab.wire.all().is_empty());
}

#[tokio::test]
async fn what_is_left_unprocessed_is_done_in_the_end() {
    let lab = Lab::new("unprocessed").await;
    lab.log_in(90).await;
    lab.wire.plan("BatchGetItem", &Mischief::Half, 5);
    lab.wire.plan("BatchWriteItem", &Mischief::Half, 9);
    let done = PrimaryStore::delete_user(&lab.store, &ada(), NOW).await.unwrap().unwrap();
    assert_eq!(done.sessions.len(), 90);
    assert!(lab.wire.is_at_peace());
    for kind in ["session", "entry", "deadline", "job"] {
        assert_eq!(lab.count(kind).await, 0, "{kind}");
    }
}

#[tokio::test]
async fn what_stays_unprocessed_is_asked_for_less_and_less_often() {
    for (namespace, action) in [("backread", "BatchGetItem"), ("backwrite", "BatchWriteItem")] {
        let lab = Lab::with(namespace, |calls| calls.patience = Duration::from_secs(2)).await;
        lab.log_in(1).await;
        // Half of one item is none: nothing is ever done.
        lab.wire.plan(action, &Mischief::Half, 10_000);
        let failed = PrimaryStore::delete_user(&lab.store, &ada(), NOW).await.unwrap_err();
        assert!(failed.is_retryable(), "{failed}");
        // At once it would be thousands; 5 ms, 10, 20 up to 400 are a dozen, however they spread.
        let calls = lab.wire.calls(action).len();
        assert!((2..30).contains(&calls), "{calls} of {action} in two seconds");
    }
}

#[tokio::test]
async fn a_lookup_is_two_reads_at_most() {
    let lab = Lab::new("tworeads").await;
    lab.log_in(1).await;
    PrimaryStore::insert(&lab.store, &new(guest(2)), NOW).await.unwrap();
    for (number, is_there, reads) in [(1, true, 2), (2, true, 1), (3, false, 1)] {
        lab.wire.reset();
        let found = PrimaryStore::find(&lab.store, &id(number)).await.unwrap().snapshot;
        assert_eq!(found.is_some(), is_there, "{number}");
        let calls: Vec<_> = lab.wire.all().into_iter().map(|call| call.action).collect();
        assert_eq!(calls, vec!["GetItem"; reads], "{number}");
    }
}

#[tokio::test]
async fn a_cache_removes_in_batches_until_nothing_is_left_unprocessed() {
    let (cache, wire, _clock) = cache("removal").await;
    let mut keys = Vec::new();
    for number in 0..60 {
        let key = CacheKey::new(format!("key{number}")).unwrap();
        cache.reserve(&key, Ttl::new(std::time::Duration::from_secs(3)).unwrap()).await.unwrap();
        keys.push(key);
    }
    // The same key twice in one batch is an error to DynamoDB.
    keys.push(keys[0].clone());
    wire.reset();
    wire.plan("BatchWriteItem", &Mischief::Half, 4);
    cache.remove(&keys).await.unwrap();
    assert!(wire.is_at_peace());
    assert_eq!(largest(&wire, "BatchWriteItem", batch), 25);
    for key in &keys {
        assert_eq!(cache.get(key).await.unwrap(), None);
    }
}

#[tokio::test]
async fn a_record_of_another_size_than_declared_never_reaches_the_wire() {
    let (cache, wire, _clock) = cache("record").await;
    let key = CacheKey::new("large").unwrap();
    let ttl = Ttl::new(std::time::Duration::from_secs(3)).unwrap();
    let Reservation::Granted(lease) = cache.reserve(&key, ttl).await.unwrap() else {
        panic!("not granted");
    };
    wire.reset();
    let limit = cache.promise().max_record_bytes;
    let over = Record::new(vec![b'V'; limit + 1]);
    let kind = refused(cache.swap(&key, &lease, Some(&over), SwapTtl::Keep).await);
    assert!(matches!(kind, ErrorKind::TooLarge { .. }), "{kind:?}");
    assert!(wire.all().is_empty());
}

#[tokio::test]
async fn a_login_that_ends_large_sessions_stays_below_four_megabytes() {
    let lab = Lab::new("heavylogin").await;
    lab.register().await;
    let data = document(250_000);
    for number in 1..=18 {
        let heavy = Session { data: data.clone(), ..session(number) };
        PrimaryStore::insert(&lab.store, &new(heavy), NOW).await.unwrap();
    }
    lab.wire.reset();
    let limit = Some(SessionLimit { max: 1, evict: true });
    let login = NewSession { session: Session { data, ..session(99) }, limit };
    let done = PrimaryStore::insert(&lab.store, &login, NOW).await.unwrap();
    assert_eq!(done.evicted.len(), 18);
    let touched = |body: &serde_json::Value| {
        let steps = body["TransactItems"].as_array().unwrap().iter();
        let large = |step: &&serde_json::Value| {
            let step = step.as_object().unwrap().values().next().unwrap();
            let key = step.get("Key").unwrap_or(&step["Item"]);
            key["pk"]["S"].as_str().unwrap().starts_with("S#")
        };
        steps.filter(large).count()
    };
    let most = largest(&lab.wire, "TransactWriteItems", touched);
    assert!((2..=16).contains(&most), "{most} sessions of 250 KB in one transaction");
}

#[tokio::test]
async fn the_largest_session_can_be_ended_and_the_largest_user_logged_out() {
    let lab = Lab::new("brimful").await;
    let mut user = User::new(ada(), NOW);
    for length in (1..).map(|step| 400 * 1024 - step * 64) {
        user.claims = document(length);
        match PrimaryStore::insert_user(&lab.store, &user, NOW).await {
            Ok(()) => break,
            Err(failed) => assert!(matches!(failed.kind(), ErrorKind::TooLarge { .. }), "{failed}"),
        }
    }
    let mut login = Session { data: document(lab.store.promise().max_data_bytes), ..session(1) };
    for length in (1..).map(|step| 150 * 1024 - step * 16) {
        login.metadata.user_agent = Some("x".repeat(length));
        match PrimaryStore::insert(&lab.store, &new(login.clone()), NOW).await {
            Ok(_) => break,
            Err(failed) => assert!(matches!(failed.kind(), ErrorKind::TooLarge { .. }), "{failed}"),
        }
    }
    let all = Selection::AllOf(ada());
    let done = PrimaryStore::revoke(&lab.store, &all, Reason::LogoutEverywhere, NOW).await.unwrap();
    assert_eq!(done.revoked, [id(1)]);
    for _ in 0..40 {
        PrimaryStore::revoke(&lab.store, &all, Reason::LogoutEverywhere, NOW).await.unwrap();
    }
}
