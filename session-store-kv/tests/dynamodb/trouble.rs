//! Throttling, conflicts, lost replies: what a real DynamoDB does and no emulator.

use std::fmt::Write;
use std::time::{Duration, Instant};

use aws_sdk_dynamodb::types::AttributeValue;
use session_store_core::{
    CacheKey, Error, ErrorKind, Inserted, PrimaryStore, Reason, Record, Reservation,
    RevokedSessions, SecondaryStore, Selection, SessionChange, SwapTtl, Touch, Touched, Ttl,
    Update,
};

use session_store_kv::dynamo::CallConfig;

use crate::lab::{Lab, NOW, ada, cache, guest, id, impatient_cache, later, new, refused, session};
use crate::wire::{CONFLICT, Mischief};

const THROTTLED: Mischief = Mischief::Refuse("ProvisionedThroughputExceededException");

fn lease() -> Ttl {
    Ttl::new(Duration::from_secs(3)).unwrap()
}

#[tokio::test]
async fn throttling_is_waited_out() {
    let lab = Lab::new("throttled").await;
    lab.register().await;
    for code in ["ProvisionedThroughputExceededException", "ThrottlingException"] {
        for action in
            ["GetItem", "BatchGetItem", "Query", "TransactWriteItems", "UpdateItem", "Scan"]
        {
            lab.wire.plan(action, &Mischief::Refuse(code), 5);
        }
    }
    // What happens to one item of a transaction is told as the reason why it was cancelled.
    for code in ["ProvisionedThroughputExceeded", "ThrottlingError"] {
        lab.wire.plan("TransactWriteItems", &Mischief::Cancel(code), 3);
    }
    PrimaryStore::insert(&lab.store, &new(session(1)), NOW).await.unwrap();
    let touch = Touch { id: id(1), seen_at: later(1), expires_at: later(3700) };
    let touched = PrimaryStore::touch(&lab.store, &[touch]).await.unwrap();
    assert_eq!(touched, [Touched::Active { expires_at: later(3700) }]);
    let all = Selection::AllOf(ada());
    let done = PrimaryStore::revoke(&lab.store, &all, Reason::Admin, later(2)).await.unwrap();
    assert_eq!(done.revoked, [id(1)]);
    let census = PrimaryStore::census(&lab.store, later(2), None).await.unwrap();
    assert_eq!((census.active, lab.wire.is_at_peace()), (0, true));
}

#[tokio::test]
async fn throttling_beyond_patience_is_an_outage_and_no_absence() {
    let lab = Lab::with("patience", |calls| {
        calls.patience = Duration::from_millis(200);
        calls.attempts = 1;
    })
    .await;
    PrimaryStore::insert(&lab.store, &new(guest(1)), NOW).await.unwrap();
    lab.wire.plan("GetItem", &THROTTLED, 10_000);
    let failed = PrimaryStore::find(&lab.store, &id(1)).await.unwrap_err();
    assert_eq!(failed.kind(), &ErrorKind::Unavailable);
    let said = std::error::Error::source(&failed).unwrap().to_string();
    assert!(said.contains("ProvisionedThroughputExceededException"), "{said}");
}

#[tokio::test]
async fn a_conflict_with_another_transaction_is_not_a_conflict_of_the_caller() {
    let lab = Lab::new("conflict").await;
    lab.register().await;
    lab.wire.plan("TransactWriteItems", &CONFLICT, 3);
    PrimaryStore::insert(&lab.store, &new(session(1)), NOW).await.unwrap();
    lab.wire.plan("TransactWriteItems", &CONFLICT, 3);
    let change = SessionChange::default();
    let update = PrimaryStore::update(&lab.store, &id(1), 1, &change, NOW).await.unwrap();
    assert!(matches!(update, Update::Updated(_)));
    lab.wire.plan("UpdateItem", &Mischief::Refuse("TransactionConflictException"), 3);
    let touch = Touch { id: id(1), seen_at: later(1), expires_at: later(3700) };
    let touched = PrimaryStore::touch(&lab.store, &[touch]).await.unwrap();
    assert_eq!(touched, [Touched::Active { expires_at: later(3700) }]);
    assert!(lab.wire.is_at_peace());
}

#[tokio::test]
async fn a_lost_reply_of_a_write_is_asked_for_again_and_nothing_is_done_twice() {
    let lab = Lab::new("lostreply").await;
    lab.register().await;
    lab.wire.reset();
    lab.wire.plan("TransactWriteItems", &Mischief::LoseReply, 1);
    let done = PrimaryStore::insert(&lab.store, &new(session(1)), NOW).await.unwrap();
    assert_eq!(done, Inserted::default());
    let sent = lab.wire.calls("TransactWriteItems");
    assert_eq!(sent.len(), 2);
    assert!(sent[0].body["ClientRequestToken"].is_string());
    assert_eq!(sent[0].body["ClientRequestToken"], sent[1].body["ClientRequestToken"]);
    for version in 1..=3 {
        lab.wire.plan("TransactWriteItems", &Mischief::LoseReply, 1);
        let change = SessionChange::default();
        let update = PrimaryStore::update(&lab.store, &id(1), version, &change, NOW).await.unwrap();
        let Update::Updated(updated) = update else { panic!("{update:?}") };
        assert_eq!(updated.snapshot.session.version, version + 1);
    }
    lab.wire.plan("UpdateItem", &Mischief::LoseReply, 1);
    let touch = Touch { id: id(1), seen_at: later(1), expires_at: later(3700) };
    let touched = PrimaryStore::touch(&lab.store, &[touch]).await.unwrap();
    assert_eq!(touched, [Touched::Active { expires_at: later(3700) }]);
    let one = Selection::One { id: id(1), owner: None };
    lab.wire.plan("TransactWriteItems", &Mischief::LoseReply, 1);
    let done = PrimaryStore::revoke(&lab.store, &one, Reason::Logout, later(2)).await.unwrap();
    assert_eq!(done, RevokedSessions { revoked: vec![id(1)], earlier: vec![] });
    assert!(lab.wire.is_at_peace());
}

#[tokio::test]
async fn throttling_after_a_lost_reply_does_not_make_a_second_transaction() {
    let lab = Lab::new("second").await;
    lab.register().await;
    lab.wire.reset();
    // More than the SDK tries by itself.
    lab.wire.plan("TransactWriteItems", &Mischief::LoseReply, 1);
    lab.wire.plan("TransactWriteItems", &THROTTLED, 5);
    PrimaryStore::insert(&lab.store, &new(session(1)), NOW).await.unwrap();
    lab.wire.plan("TransactWriteItems", &Mischief::LoseReply, 1);
    lab.wire.plan("TransactWriteItems", &THROTTLED, 5);
    let change = SessionChange::default();
    let update = PrimaryStore::update(&lab.store, &id(1), 1, &change, NOW).await.unwrap();
    assert!(matches!(update, Update::Updated(_)), "{update:?}");
    let sent = lab.wire.calls("TransactWriteItems");
    let tokens: std::collections::BTreeSet<_> =
        sent.iter().map(|call| call.body["ClientRequestToken"].to_string()).collect();
    assert_eq!((sent.len(), tokens.len()), (14, 2));
}

#[tokio::test]
async fn throttling_after_a_lost_reply_is_not_told_as_nothing_done() {
    let patience = |calls: &mut CallConfig| calls.patience = Duration::from_millis(200);
    let lab = Lab::with("masked", patience).await;
    lab.wire.plan("TransactWriteItems", &Mischief::LoseReply, 1);
    lab.wire.plan("TransactWriteItems", &THROTTLED, 10_000);
    let kind = refused(PrimaryStore::insert(&lab.store, &new(guest(1)), NOW).await);
    assert_eq!(kind, ErrorKind::Timeout);
    assert!(PrimaryStore::find(&lab.store, &id(1)).await.unwrap().snapshot.is_some());
    // Without a lost reply it is known.
    let kind = refused(PrimaryStore::insert(&lab.store, &new(guest(2)), NOW).await);
    assert_eq!(kind, ErrorKind::Unavailable);
    assert_eq!(PrimaryStore::find(&lab.store, &id(2)).await.unwrap().snapshot, None);
}

#[tokio::test]
async fn whoever_asks_only_once_is_told_that_nobody_knows() {
    let lab = Lab::with("unknown", |calls| calls.attempts = 1).await;
    lab.wire.plan("TransactWriteItems", &Mischief::LoseReply, 1);
    let kind = refused(PrimaryStore::insert(&lab.store, &new(guest(1)), NOW).await);
    assert_eq!(kind, ErrorKind::Timeout);
    assert!(PrimaryStore::find(&lab.store, &id(1)).await.unwrap().snapshot.is_some());
    // A read has changed nothing, so that it is only unavailable.
    lab.wire.plan("GetItem", &Mischief::LoseReply, 1);
    let kind = refused(PrimaryStore::find(&lab.store, &id(1)).await);
    assert_eq!(kind, ErrorKind::Unavailable);
}

#[tokio::test]
async fn an_answer_that_never_comes_is_not_waited_for() {
    let lab = Lab::with("hanging", |calls| {
        calls.timeout = Duration::from_secs(10);
        calls.attempts = 1;
    })
    .await;
    lab.wire.plan("GetItem", &Mischief::Hang, 1);
    let began = Instant::now();
    let kind = refused(PrimaryStore::find(&lab.store, &id(1)).await);
    assert_eq!(kind, ErrorKind::Timeout);
    // The wire would hang for an hour.
    assert!(began.elapsed() < Duration::from_mins(10));
    assert!(lab.wire.is_at_peace());
}

#[tokio::test]
async fn an_outage_before_the_first_write_is_known_to_have_changed_nothing() {
    let lab = Lab::with("nothing", |calls| {
        calls.patience = Duration::from_millis(100);
        calls.attempts = 1;
    })
    .await;
    lab.log_in(2).await;
    for selection in [Selection::Ids(vec![id(1), id(2)]), Selection::AllOf(ada())] {
        lab.wire.plan("TransactWriteItems", &THROTTLED, 1_000);
        let kind = refused(PrimaryStore::revoke(&lab.store, &selection, Reason::Admin, NOW).await);
        assert_eq!(kind, ErrorKind::Unavailable);
    }
    let node = lab.node().await;
    assert_eq!(PrimaryStore::census(&node, NOW, Some(&ada())).await.unwrap().active, 2);
}

#[tokio::test]
async fn a_cascade_that_fails_half_way_claims_nothing() {
    let lab = Lab::with("halfway", |calls| {
        calls.patience = Duration::from_millis(100);
        calls.attempts = 1;
    })
    .await;
    lab.log_in(40).await;
    lab.wire.plan("BatchWriteItem", &THROTTLED, 1_000);
    let failed = PrimaryStore::delete_user(&lab.store, &ada(), later(600)).await.unwrap_err();
    assert_eq!(failed.kind(), &ErrorKind::Timeout);
    let node = lab.node().await;
    assert_eq!(PrimaryStore::find(&node, &id(1)).await.unwrap().snapshot, None);
    let done = PrimaryStore::delete_user(&node, &ada(), later(600)).await.unwrap().unwrap();
    assert_eq!(done.sessions.len(), 40);
}

#[tokio::test]
async fn a_reservation_is_sent_once_and_never_again() {
    let (cache, wire, _clock) = cache("once").await;
    let key = CacheKey::new("key").unwrap();
    for mischief in [Mischief::LoseReply, THROTTLED, Mischief::Refuse("InternalServerError")] {
        wire.reset();
        wire.plan("PutItem", &mischief, 1);
        let failed = cache.reserve(&key, lease()).await.unwrap_err();
        assert!(failed.is_retryable(), "{failed}");
        assert_eq!(failed.backend(), "dynamodb-cache");
        assert_eq!(wire.calls("PutItem").len(), 1, "{mischief:?}");
        cache.remove(std::slice::from_ref(&key)).await.unwrap();
    }
    let granted = cache.reserve(&key, lease()).await.unwrap();
    assert!(matches!(granted, Reservation::Granted(_)));
    let sent = wire.calls("PutItem");
    let leases: Vec<_> = sent.iter().map(|call| call.body["Item"]["record"].to_string()).collect();
    assert_eq!(leases.len(), 2);
    assert_ne!(leases[0], leases[1]);
}

#[tokio::test]
async fn no_write_is_repeated_behind_our_back() {
    let lab = Lab::new("ourrepeats").await;
    lab.log_in(30).await;
    let mischiefs = [Mischief::Refuse("InternalServerError"), Mischief::LoseReply, THROTTLED];
    for action in ["UpdateItem", "TransactWriteItems", "BatchWriteItem"] {
        for mischief in &mischiefs {
            lab.wire.plan(action, mischief, 1);
        }
    }
    let touch = Touch { id: id(1), seen_at: later(1), expires_at: later(3700) };
    let touched = PrimaryStore::touch(&lab.store, &[touch]).await.unwrap();
    assert_eq!(touched, [Touched::Active { expires_at: later(3700) }]);
    // The last one finds out what became of the one that was applied and not answered for.
    assert_eq!(lab.wire.calls("UpdateItem").len(), 4);
    let done = PrimaryStore::delete_user(&lab.store, &ada(), later(600)).await.unwrap();
    assert_eq!(done.map(|done| done.sessions.len()), Some(30));
    assert!(lab.wire.is_at_peace());
    for call in lab.wire.all() {
        let is_write = !["GetItem", "Query", "BatchGetItem"].contains(&call.action.as_str());
        assert!(!is_write || call.repetition == 0, "{} was repeated", call.action);
    }
}

#[tokio::test]
async fn as_many_attempts_are_made_as_are_configured() {
    let lab = Lab::with("attempts", |calls| calls.attempts = 4).await;
    lab.log_in(1).await;
    let touch = [Touch { id: id(1), seen_at: later(1), expires_at: later(3700) }];
    for mischief in [Mischief::Refuse("InternalServerError"), Mischief::LoseReply] {
        lab.wire.reset();
        lab.wire.plan("BatchWriteItem", &mischief, 4);
        let name = session_store_core::CacheName::main();
        let kind = refused(PrimaryStore::unregister(&lab.store, &name).await);
        assert_eq!((kind, lab.wire.calls("BatchWriteItem").len()), (ErrorKind::Timeout, 4));
    }
    lab.wire.plan("UpdateItem", &Mischief::Refuse("InternalServerError"), 4);
    let kind = refused(PrimaryStore::touch(&lab.store, &touch).await);
    assert_eq!((kind, lab.wire.calls("UpdateItem").len()), (ErrorKind::Timeout, 4));
    assert!(lab.wire.is_at_peace());
}

#[tokio::test]
async fn a_touch_or_a_removal_whose_answer_was_lost_is_not_told_as_nothing_done() {
    let patience = |calls: &mut CallConfig| calls.patience = Duration::from_millis(200);
    let lab = Lab::with("lostupdate", patience).await;
    lab.log_in(1).await;
    let touch = [Touch { id: id(1), seen_at: later(1), expires_at: later(3700) }];
    lab.wire.plan("UpdateItem", &Mischief::LoseReply, 1);
    lab.wire.plan("UpdateItem", &THROTTLED, 10_000);
    let kind = refused(PrimaryStore::touch(&lab.store, &touch).await);
    assert_eq!(kind, ErrorKind::Timeout);
    lab.wire.plan("BatchWriteItem", &Mischief::LoseReply, 1);
    lab.wire.plan("BatchWriteItem", &THROTTLED, 10_000);
    let name = session_store_core::CacheName::main();
    let kind = refused(PrimaryStore::unregister(&lab.store, &name).await);
    assert_eq!(kind, ErrorKind::Timeout);
    // Without a lost answer it is known.
    let kind = refused(PrimaryStore::unregister(&lab.store, &name).await);
    assert_eq!(kind, ErrorKind::Unavailable);
}

#[tokio::test]
async fn a_batch_that_is_done_in_part_is_not_told_as_nothing_done() {
    let (cache, wire, _clock) = impatient_cache("partly").await;
    let keys = ["one", "two"].map(|name| CacheKey::new(name).unwrap());
    wire.plan("BatchWriteItem", &Mischief::Half, 1);
    wire.plan("BatchWriteItem", &THROTTLED, 10_000);
    let failed = cache.remove(&keys).await.unwrap_err();
    assert_eq!(failed.kind(), &ErrorKind::Timeout);
    let failed = cache.remove(&keys).await.unwrap_err();
    assert_eq!(failed.kind(), &ErrorKind::Unavailable);
}

#[tokio::test]
async fn a_cache_that_is_throttled_says_so_at_once() {
    let (cache, wire, _clock) = cache("busy").await;
    let key = CacheKey::new("key").unwrap();
    wire.plan("GetItem", &THROTTLED, 3);
    let failed: Error = cache.get(&key).await.unwrap_err();
    assert_eq!(failed.kind(), &ErrorKind::Unavailable);
    // The attempts are those of the SDK; the store would go on.
    assert_eq!(wire.calls("GetItem").len(), 3);
    assert_eq!(cache.get(&key).await.unwrap(), None);
}

#[tokio::test]
async fn errors_show_neither_keys_nor_fields() {
    let lab = Lab::with("secrets", |calls| calls.attempts = 1).await;
    let mut login = guest(1);
    login.metadata.user_agent = Some("confidential".to_owned());
    let codes = ["ValidationException", "AccessDeniedException", "InternalServerError", "Unheard"];
    for code in codes {
        lab.wire.plan("TransactWriteItems", &Mischief::Refuse(code), 1);
        let failed = PrimaryStore::insert(&lab.store, &new(login.clone()), NOW).await.unwrap_err();
        let mut said = format!("{failed} {failed:?}");
        let mut cause = std::error::Error::source(&failed);
        while let Some(next) = cause {
            write!(said, " {next} {next:?}").unwrap();
            cause = next.source();
        }
        assert!(said.contains(code), "{said}");
        assert!(!said.contains("confidential") && !said.contains(&id(1).to_string()), "{said}");
    }
    let shown = format!("{:?}", lab.store);
    assert!(shown.contains(&lab.config.table) && !shown.contains("redential"), "{shown}");
}

#[tokio::test]
async fn an_entry_of_a_clock_that_was_ahead_is_neither_served_nor_replaced() {
    let (cache, _wire, clock) = cache("ahead").await;
    let keys = ["value", "removed", "reserved"].map(|name| CacheKey::new(name).unwrap());
    let mut leases = Vec::new();
    for key in &keys {
        let Reservation::Granted(lease) = cache.reserve(key, lease()).await.unwrap() else {
            panic!("not granted");
        };
        leases.push(lease);
    }
    // Within the skew that is allowed, an entry counts.
    clock.jump(-60_000);
    assert_eq!(cache.get(&keys[0]).await.unwrap().as_ref(), Some(&leases[0]));
    clock.jump(-1);
    assert_eq!(cache.get(&keys[0]).await.unwrap(), None);
    let new = Record::new(*b"V");
    let keep = SwapTtl::Keep;
    assert!(!cache.swap(&keys[0], &leases[0], Some(&new), keep).await.unwrap());
    assert!(!cache.swap(&keys[1], &leases[1], None, keep).await.unwrap());
    let again = cache.reserve(&keys[2], lease()).await.unwrap();
    assert!(matches!(again, Reservation::Granted(other) if other != leases[2]));
}

#[tokio::test]
async fn an_entry_of_another_version_is_a_miss_and_not_in_the_way() {
    let (cache, wire, _clock) = cache("otherformat").await;
    let key = CacheKey::new("key").unwrap();
    let Reservation::Granted(old) = cache.reserve(&key, lease()).await.unwrap() else {
        panic!("not granted");
    };
    let mut item = cache.client().get_item();
    let table = wire.calls("PutItem")[0].body["TableName"].as_str().unwrap().to_owned();
    let text = |text: &str| AttributeValue::S(text.to_owned());
    item = item.table_name(&table).key("pk", text("C#key")).key("sk", text("0"));
    let mut item = item.consistent_read(true).send().await.unwrap().item.unwrap();
    item.insert("v".to_owned(), AttributeValue::N("2".to_owned()));
    let put = cache.client().put_item().table_name(&table);
    put.set_item(Some(item)).send().await.unwrap();
    assert_eq!(cache.get(&key).await.unwrap(), None);
    let new = cache.reserve(&key, lease()).await.unwrap();
    assert!(matches!(new, Reservation::Granted(new) if new != old));
}
