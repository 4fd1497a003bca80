//! Many writers of the same item.

use std::sync::Arc;
use std::time::Duration;

use session_store_core::{
    Email, ErrorKind, Json, NewSession, PrimaryStore, Reason, Role, Selection, SessionChange,
    SessionLimit, State, Touch, Touched, Update, User, UserChange, UserId, UserUpdate,
};
use session_store_kv::dynamo::DynamoStore;
use tokio::sync::Semaphore;

use crate::lab::{Lab, NOW, ada, client, id, later, new, session, text};
use crate::wire::{CONFLICT, Mischief, Wire};

/// Reads, counts one up, and begins again until nobody was in the way.
async fn count_up(store: &impl PrimaryStore) {
    loop {
        let found = store.find(&id(1)).await.unwrap().snapshot.unwrap().session;
        let count: u32 = found.data.as_str().parse().unwrap();
        let data = Some(Json::parse((count + 1).to_string()).unwrap());
        let change = SessionChange { data, ..SessionChange::default() };
        match store.update(&id(1), found.version, &change, NOW).await.unwrap() {
            Update::Updated(_) => return,
            Update::Conflict { current } => assert!(current > found.version),
            Update::Missing => panic!("the session is gone"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn thirty_two_conditional_writers_lose_nothing() {
    let lab = Lab::new("writers").await;
    lab.register().await;
    let first = Json::parse("0").unwrap();
    let first = session_store_core::Session { data: first, ..session(1) };
    PrimaryStore::insert(&lab.store, &new(first), NOW).await.unwrap();
    let mut work = Vec::new();
    for number in 0..32 {
        // Every other one is a node of its own.
        let store = if number % 2 == 0 { lab.node().await } else { lab.store.clone() };
        work.push(tokio::spawn(async move {
            count_up(&store).await;
            // A touch never makes anybody begin again, and is never lost.
            let seen = later(number);
            let touch = Touch { id: id(1), seen_at: seen, expires_at: later(3600 + number) };
            PrimaryStore::touch(&store, &[touch]).await.unwrap();
        }));
    }
    lab.wire.plan("TransactWriteItems", &CONFLICT, 20);
    for one in work {
        one.await.unwrap();
    }
    let found = PrimaryStore::find(&lab.store, &id(1)).await.unwrap().snapshot.unwrap().session;
    assert_eq!((found.data.as_str(), found.version), ("32", 33));
    assert_eq!((found.last_seen_at, found.expires_at), (later(31), later(3631)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_thirty_two_logins_under_a_limit_as_many_are_left() {
    let lab = Lab::new("limit").await;
    lab.register().await;
    let mut work = Vec::new();
    for number in 1..=32 {
        let store = lab.node().await;
        work.push(tokio::spawn(async move {
            let limit = Some(SessionLimit { max: 2, evict: true });
            let login = NewSession { session: session(number), limit };
            PrimaryStore::insert(&store, &login, NOW).await.unwrap().evicted
        }));
    }
    let mut evicted = Vec::new();
    for one in work {
        evicted.extend(one.await.unwrap());
    }
    evicted.sort_unstable();
    evicted.dedup();
    assert_eq!(evicted.len(), 30);
    assert_eq!(PrimaryStore::census(&lab.store, NOW, Some(&ada())).await.unwrap().active, 2);
}

#[tokio::test]
async fn a_limit_that_has_shrunk_ends_more_than_a_transaction_holds() {
    let lab = Lab::new("shrunk").await;
    lab.log_in(70).await;
    let limit = Some(SessionLimit { max: 1, evict: true });
    let login = NewSession { session: session(99), limit };
    let done = PrimaryStore::insert(&lab.store, &login, NOW).await.unwrap();
    let mut evicted = done.evicted;
    evicted.sort_unstable();
    assert_eq!(evicted, (1..=70).map(id).collect::<Vec<_>>());
    let census = PrimaryStore::census(&lab.store, NOW, Some(&ada())).await.unwrap();
    assert_eq!((census.active, census.revoked), (1, 70));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_thirty_two_registrations_of_an_address_one_succeeds() {
    let lab = Lab::new("address").await;
    let mut work = Vec::new();
    for number in 0..32 {
        let store = lab.node().await;
        work.push(tokio::spawn(async move {
            let mut user = User::new(UserId::new(format!("user-{number}")).unwrap(), NOW);
            user.email = Some(Email::parse("ada@example.org").unwrap());
            PrimaryStore::insert_user(&store, &user, NOW)
                .await
                .map_err(|error| error.kind().clone())
        }));
    }
    let mut registered = 0;
    for one in work {
        match one.await.unwrap() {
            Ok(()) => registered += 1,
            Err(kind) => assert_eq!(kind, ErrorKind::Conflict),
        }
    }
    assert_eq!(registered, 1);
    assert_eq!(PrimaryStore::count_users(&lab.store).await.unwrap(), 1);
}

#[tokio::test]
async fn a_session_spared_between_two_reads_is_not_taken_for_ended() {
    let lab = Lab::new("between").await;
    lab.log_in(3).await;
    let (gate, node) = (Arc::new(Semaphore::new(0)), lab.node().await);
    // The session is read, with the stamp of before, and the user only after the revoke-all.
    lab.wire.plan("GetItem", &Mischief::Pass, 1);
    lab.wire.plan("GetItem", &Mischief::Wait(Arc::clone(&gate)), 1);
    let (own, other) = (id(2), id(1));
    let find = PrimaryStore::find(&lab.store, &own);
    let spare = async {
        while lab.wire.calls("GetItem").len() < 2 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let but = Selection::AllBut(ada(), own);
        PrimaryStore::revoke(&node, &but, Reason::LogoutEverywhere, NOW).await.unwrap();
        gate.add_permits(1);
    };
    let (found, ()) = futures_util::future::join(find, spare).await;
    let found = found.unwrap().snapshot.unwrap().session;
    assert_eq!((found.state(NOW), found.version), (State::Active, 1));
    let ended = PrimaryStore::find(&lab.store, &other).await.unwrap().snapshot.unwrap().session;
    assert_eq!(ended.state(NOW), State::Revoked(Reason::LogoutEverywhere));
}

#[tokio::test]
async fn a_session_is_not_ended_by_half_of_a_transaction_that_spares_it() {
    let lab = Lab::new("halfway").await;
    lab.log_in(1).await;
    // What DynamoDB may show while the transaction is under way: the user with the new barrier, and the
    // session with the old stamp. A read of both conflicts with it.
    let own = id(1);
    lab.add_one("U#ada", "barrier").await;
    lab.set("U#ada", "spared", Some(text(&own.to_string()))).await;
    let find = PrimaryStore::find(&lab.store, &own);
    let rest = async { lab.add_one(&format!("S#{own}"), "stamp").await };
    let found = Box::pin(lab.meeting(find, rest)).await;
    assert_eq!(found.unwrap().snapshot.unwrap().session.state(NOW), State::Active);
}

#[tokio::test]
async fn a_touch_between_two_reads_of_a_spared_session_is_written() {
    let lab = Lab::new("touched").await;
    lab.log_in(3).await;
    let (gate, node) = (Arc::new(Semaphore::new(0)), lab.node().await);
    lab.wire.plan("BatchGetItem", &Mischief::Pass, 1);
    lab.wire.plan("BatchGetItem", &Mischief::Wait(Arc::clone(&gate)), 1);
    let touch = [Touch { id: id(2), seen_at: later(1), expires_at: later(3700) }];
    let touched = PrimaryStore::touch(&lab.store, &touch);
    let spare = async {
        while lab.wire.calls("BatchGetItem").len() < 2 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let but = Selection::AllBut(ada(), id(2));
        PrimaryStore::revoke(&node, &but, Reason::LogoutEverywhere, NOW).await.unwrap();
        gate.add_permits(1);
    };
    let (touched, ()) = futures_util::future::join(touched, spare).await;
    assert_eq!(touched.unwrap(), [Touched::Active { expires_at: later(3700) }]);
}

/// Holds back the next call of `action` on the lab's wire until `meanwhile` is done.
async fn overtaken<T>(
    lab: &Lab,
    action: &'static str,
    work: impl Future<Output = T>,
    meanwhile: impl Future<Output = ()>,
) -> T {
    let gate = Arc::new(Semaphore::new(0));
    lab.wire.reset();
    lab.wire.plan(action, &Mischief::Wait(Arc::clone(&gate)), 1);
    let others = async {
        while lab.wire.calls(action).is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        meanwhile.await;
        gate.add_permits(1);
    };
    futures_util::future::join(work, others).await.0
}

#[tokio::test]
async fn a_touch_that_is_overtaken_by_a_later_one_takes_nothing_back() {
    let lab = Lab::new("overtaken").await;
    lab.log_in(1).await;
    let node = lab.node().await;
    let touch = |seen, end| [Touch { id: id(1), seen_at: later(seen), expires_at: later(end) }];
    let (early, late) = (touch(1, 3700), touch(5, 9000));
    let first = PrimaryStore::touch(&lab.store, &early);
    let second = async { drop(PrimaryStore::touch(&node, &late).await.unwrap()) };
    let touched = overtaken(&lab, "UpdateItem", first, second).await.unwrap();
    assert_eq!(touched, [Touched::Active { expires_at: later(9000) }]);
    let found = PrimaryStore::find(&node, &id(1)).await.unwrap().snapshot.unwrap().session;
    assert_eq!((found.last_seen_at, found.expires_at), (later(5), later(9000)));
}

#[tokio::test]
async fn a_revocation_that_is_overtaken_by_another_leaves_the_first_standing() {
    let lab = Lab::new("standing").await;
    lab.log_in(1).await;
    let node = lab.node().await;
    let one = Selection::One { id: id(1), owner: None };
    let slow = PrimaryStore::revoke(&lab.store, &one, Reason::Admin, later(2));
    let fast = async {
        let done = PrimaryStore::revoke(&node, &one, Reason::Logout, later(1)).await.unwrap();
        assert_eq!(done.revoked, [id(1)]);
    };
    let done = overtaken(&lab, "TransactWriteItems", slow, fast).await.unwrap();
    assert_eq!((done.revoked, done.earlier), (vec![], vec![id(1)]));
    let found = PrimaryStore::find(&node, &id(1)).await.unwrap().snapshot.unwrap().session;
    let end = found.revoked.map(|end| (end.at, end.reason));
    assert_eq!((end, found.version), (Some((later(1), Reason::Logout)), 2));
    assert_eq!(lab.count("deadline").await, 2);
}

#[tokio::test]
async fn a_deletion_that_is_finished_by_another_meanwhile_does_not_claim_to_know_the_names() {
    let lab = Lab::new("finished").await;
    lab.log_in(30).await;
    let node = lab.node().await;
    let user = ada();
    let slow = PrimaryStore::delete_user(&lab.store, &user, later(600));
    let fast = async {
        let done = PrimaryStore::delete_user(&node, &user, later(600)).await.unwrap();
        assert_eq!(done.map(|done| done.sessions.len()), Some(30));
    };
    // It has deleted the user, and is about to ask for the sessions.
    let done = overtaken(&lab, "Query", slow, fast).await.unwrap();
    assert_eq!(done, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn logins_do_not_hold_up_a_revoke_all() {
    let lab = Lab::new("starving").await;
    lab.log_in(4).await;
    let logins: Vec<_> = (10..60)
        .map(|number| {
            let store = lab.store.clone();
            tokio::spawn(async move {
                // From some moment on they are refused: they verified what no longer counts.
                PrimaryStore::insert(&store, &new(session(number)), NOW).await.is_ok()
            })
        })
        .collect();
    let all = Selection::AllOf(ada());
    let node = lab.node().await;
    let done =
        PrimaryStore::revoke(&node, &all, Reason::LogoutEverywhere, NOW).await.unwrap().revoked;
    for (number, login) in (10..60).zip(logins) {
        let is_in = login.await.unwrap();
        assert_eq!(is_in, done.contains(&id(number)), "{number}");
        let found = PrimaryStore::find(&node, &id(number)).await.unwrap().snapshot;
        let state = found.map(|found| found.session.state(NOW));
        assert_eq!(state, is_in.then_some(State::Revoked(Reason::LogoutEverywhere)));
    }
}

#[tokio::test]
async fn a_change_of_a_user_that_a_deletion_has_overtaken_brings_nobody_back() {
    let lab = Lab::new("broughtback").await;
    lab.log_in(1).await;
    let (wire, node) = (Wire::default(), lab.node().await);
    let slow = DynamoStore::connect(client(&lab.server, &wire), &lab.config).await.unwrap();
    let gates = [Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0))];
    lab.wire.plan("TransactWriteItems", &Mischief::Wait(Arc::clone(&gates[0])), 1);
    wire.plan("TransactWriteItems", &Mischief::Wait(Arc::clone(&gates[1])), 1);
    let user = ada();
    let deletion = async {
        let done = PrimaryStore::delete_user(&lab.store, &user, later(600)).await.unwrap();
        gates[1].add_permits(1);
        done
    };
    let held = async |wire: &Wire| {
        while wire.calls("TransactWriteItems").is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let change = async {
        held(&lab.wire).await;
        // The login moves the user on by as much as the deletion will.
        PrimaryStore::insert(&node, &new(session(2)), NOW).await.unwrap();
        let role = Some(Role::new("admin").unwrap());
        let change = UserChange { role, ..UserChange::default() };
        PrimaryStore::update_user(&slow, &user, 1, &change).await
    };
    let order = async {
        held(&wire).await;
        gates[0].add_permits(1);
    };
    let (deleted, changed, ()) = futures_util::future::join3(deletion, change, order).await;
    assert_eq!(deleted.map(|done| done.sessions.len()), Some(2));
    assert_eq!(changed.unwrap(), UserUpdate::Missing);
    assert_eq!(PrimaryStore::find_user(&node, &user).await.unwrap(), None);
    let late = PrimaryStore::insert(&node, &new(session(3)), NOW).await.unwrap_err();
    assert_eq!(late.kind(), &ErrorKind::UnknownUser);
}
