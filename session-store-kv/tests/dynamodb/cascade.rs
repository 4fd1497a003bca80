//! Many sessions of one user, and a crash in the middle.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::{Either, select};
use session_store_core::{
    CredentialEpoch, PrimaryStore, Reason, Revocation, RevokedSessions, Selection, Session, State,
    SweepBounds, Timestamp, Touch, User,
};
use session_store_kv::dynamo::DynamoStore;
use tokio::sync::Semaphore;

use crate::lab::{Lab, NOW, ada, bounds, client, id, later, new, session};
use crate::wire::{Mischief, Wire};

/// Lets `work` go on until so many calls of `action` were sent, and drops it there.
async fn crash<T: std::fmt::Debug>(
    lab: &Lab,
    (action, count): (&str, usize),
    work: impl Future<Output = T>,
) {
    let enough = async {
        while lab.wire.calls(action).len() < count {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    match select(pin!(work), pin!(enough)).await {
        Either::Left((done, _)) => panic!("done before the crash: {done:?}"),
        Either::Right(_) => lab.wire.reset(),
    }
}

async fn state(store: &impl PrimaryStore, number: u32) -> Option<State> {
    let found = store.find(&id(number)).await.unwrap().snapshot;
    found.map(|found| found.session.state(NOW))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn ten_thousand_sessions_go_with_their_user_through_a_crash() {
    const MANY: u32 = 10_000;
    let lab = Lab::new("cascade").await;
    lab.log_in(MANY).await;
    assert_eq!(lab.count("session").await, 10_000);
    let until = later(600);
    crash(&lab, ("BatchWriteItem", 150), PrimaryStore::delete_user(&lab.store, &ada(), until))
        .await;
    let left = lab.count("session").await;
    assert!(left > 100 && left < 10_000, "the crash came too early or too late: {left}");
    let other = lab.node().await;
    for number in (1..=MANY).step_by(97) {
        assert_eq!(state(&other, number).await, None, "{number}");
    }
    let late = PrimaryStore::insert(&other, &new(session(MANY + 1)), NOW).await;
    assert_eq!(late.unwrap_err().kind(), &session_store_core::ErrorKind::UnknownUser);

    let done = PrimaryStore::delete_user(&other, &ada(), until).await.unwrap();
    let mut named = done.unwrap().sessions;
    named.sort_unstable();
    // Those too that the first attempt had removed: their entries may still be in a cache.
    assert_eq!(named, (1..=MANY).map(id).collect::<Vec<_>>());
    for kind in ["session", "entry", "deadline", "job"] {
        assert_eq!(lab.count(kind).await, 0, "{kind}");
    }
    assert_eq!(PrimaryStore::delete_user(&other, &ada(), until).await.unwrap(), None);
}

#[tokio::test]
async fn a_sweep_finishes_a_deletion_and_keeps_the_names_until_the_quarantine_ends() {
    let lab = Lab::new("sweptaway").await;
    lab.log_in(600).await;
    let until = later(600);
    crash(&lab, ("BatchWriteItem", 5), PrimaryStore::delete_user(&lab.store, &ada(), until)).await;
    let other = lab.node().await;
    PrimaryStore::sweep(&other, &bounds(599, 0), 10).await.unwrap();
    assert_eq!((lab.count("session").await, lab.count("deadline").await), (0, 0));
    assert_eq!((lab.count("entry").await, lab.count("job").await), (600, 1));
    PrimaryStore::sweep(&other, &bounds(600, 0), 10).await.unwrap();
    assert_eq!((lab.count("entry").await, lab.count("job").await), (0, 0));
}

#[tokio::test]
async fn whoever_deletes_after_a_crash_among_the_names_does_not_claim_to_know_them() {
    let lab = Lab::new("names").await;
    lab.log_in(300).await;
    // 300 sessions and places take 24 calls; what comes after them removes entries.
    let ada = ada();
    let deletion = PrimaryStore::delete_user(&lab.store, &ada, later(600));
    crash(&lab, ("BatchWriteItem", 28), deletion).await;
    assert_eq!(lab.count("session").await, 0);
    let names = lab.count("entry").await;
    assert!(names > 0 && names < 300, "the crash came too early or too late: {names}");
    let other = lab.node().await;
    assert_eq!(PrimaryStore::delete_user(&other, &ada, later(600)).await.unwrap(), None);
    assert_eq!((lab.count("entry").await, lab.count("job").await), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_several_who_delete_a_user_each_names_all_sessions_or_none() {
    let lab = Lab::new("several").await;
    lab.log_in(300).await;
    let mut work = Vec::new();
    for _ in 0..6 {
        let store = lab.node().await;
        work.push(tokio::spawn(async move {
            PrimaryStore::delete_user(&store, &ada(), later(600)).await.unwrap()
        }));
    }
    let mut complete = 0;
    for one in work {
        if let Some(deleted) = one.await.unwrap() {
            assert_eq!(deleted.sessions.len(), 300);
            complete += 1;
        }
    }
    assert!(complete > 0);
    for kind in ["session", "entry", "deadline", "job"] {
        assert_eq!(lab.count(kind).await, 0, "{kind}");
    }
}

#[tokio::test]
async fn a_user_who_comes_back_before_the_end_of_a_deletion_has_only_new_sessions() {
    let lab = Lab::new("comesback").await;
    lab.log_in(200).await;
    crash(&lab, ("BatchWriteItem", 3), PrimaryStore::delete_user(&lab.store, &ada(), later(1)))
        .await;
    PrimaryStore::insert_user(&lab.store, &User::new(ada(), later(2)), later(2)).await.unwrap();
    let account = PrimaryStore::find_user(&lab.store, &ada()).await.unwrap().unwrap();
    let login = Session { credential_epoch: account.credential_epoch, ..session(900) };
    PrimaryStore::insert(&lab.store, &new(login), NOW).await.unwrap();
    assert_eq!(state(&lab.store, 900).await, Some(State::Active));
    for number in 1..=200 {
        assert_eq!(state(&lab.store, number).await, None);
    }
    assert_eq!(PrimaryStore::census(&lab.store, NOW, None).await.unwrap().active, 1);
    PrimaryStore::sweep(&lab.store, &bounds(2, 0), 10).await.unwrap();
    assert_eq!((lab.count("session").await, lab.count("entry").await), (1, 1));
    assert_eq!(state(&lab.store, 900).await, Some(State::Active));
}

#[tokio::test]
async fn a_user_taken_away_by_hand_leaves_nothing_to_the_next_of_that_name() {
    let lab = Lab::new("byhand").await;
    lab.log_in(2).await;
    lab.delete_item("U#ada").await;
    assert_eq!(state(&lab.store, 1).await, None);
    PrimaryStore::insert_user(&lab.store, &User::new(ada(), later(1)), later(1)).await.unwrap();
    assert_eq!((state(&lab.store, 1).await, state(&lab.store, 2).await), (None, None));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_revoke_all_holds_from_its_first_write_through_a_crash() {
    let lab = Lab::new("everywhere").await;
    lab.log_in(1_000).await;
    let all = Selection::AllOf(ada());
    let first = PrimaryStore::revoke(&lab.store, &all, Reason::LogoutEverywhere, later(1));
    crash(&lab, ("TransactWriteItems", 9), first).await;
    let other = lab.node().await;
    let end = Revocation { at: later(1), reason: Reason::LogoutEverywhere };
    for number in (1..=1_000).step_by(7) {
        let found = PrimaryStore::find(&other, &id(number)).await.unwrap().snapshot.unwrap();
        assert_eq!(found.session.revoked, Some(end), "{number}");
        assert_eq!(found.session.version, 2);
    }
    // The first one's moment and reason stand, and every session is named.
    let done = PrimaryStore::revoke(&other, &all, Reason::Admin, later(2)).await.unwrap();
    assert_eq!((done.revoked.len(), done.earlier.len()), (0, 1_000));
    let found = PrimaryStore::find(&other, &id(500)).await.unwrap().snapshot.unwrap().session;
    assert_eq!((found.revoked, found.version), (Some(end), 2));
    assert_eq!(lab.count("job").await, 0);
}

#[tokio::test]
async fn a_sweep_writes_down_what_a_crashed_revoke_all_meant() {
    let lab = Lab::new("resumed").await;
    lab.log_in(200).await;
    let but = Selection::AllBut(ada(), id(5));
    let first = PrimaryStore::revoke(&lab.store, &but, Reason::LogoutEverywhere, NOW);
    crash(&lab, ("TransactWriteItems", 3), first).await;
    let other = lab.node().await;
    PrimaryStore::sweep(&other, &bounds(0, 0), 0).await.unwrap();
    assert_eq!(lab.count("job").await, 0);
    let filed = lab.filed().await;
    let of = |letter: &str| filed.iter().filter(|place| place.starts_with(letter)).count();
    assert_eq!((of("e#"), of("x#"), of("r#")), (1, 199, 199));
    assert_eq!(state(&other, 5).await, Some(State::Active));
    let spared = PrimaryStore::find(&other, &id(5)).await.unwrap().snapshot.unwrap().session;
    assert_eq!((spared.credential_epoch, spared.version), (CredentialEpoch(1), 1));
    let again = Selection::Ids(vec![id(1)]);
    let done = PrimaryStore::revoke(&other, &again, Reason::Admin, NOW).await.unwrap();
    assert_eq!(done, RevokedSessions { revoked: vec![], earlier: vec![id(1)] });
}

#[tokio::test]
async fn a_sweep_that_goes_on_with_a_revoke_all_leaves_the_names_to_a_deletion() {
    let lab = Lab::new("leftnames").await;
    lab.log_in(60).await;
    let (user, all) = (ada(), Selection::AllOf(ada()));
    let crashed = PrimaryStore::revoke(&lab.store, &all, Reason::LogoutEverywhere, NOW);
    crash(&lab, ("TransactWriteItems", 2), crashed).await;
    assert_eq!(lab.count("job").await, 1);
    let wire = Wire::default();
    let sweeper = DynamoStore::connect(client(&lab.server, &wire), &lab.config).await.unwrap();
    wire.reset();
    let gates = [Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0))];
    wire.plan("GetItem", &Mischief::Wait(Arc::clone(&gates[0])), 1);
    lab.wire.plan("Query", &Mischief::Wait(Arc::clone(&gates[1])), 1);
    let sent = async |wire: &Wire, action: &str| {
        while wire.calls(action).is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let sweep = async {
        // What was revoked stays for a while.
        let bounds = SweepBounds { revoked_before: Timestamp::EPOCH, ..bounds(0, 0) };
        PrimaryStore::sweep(&sweeper, &bounds, 10).await.unwrap();
        gates[1].add_permits(1);
    };
    let deletion = async {
        // The sweep has read what is to be done, and not yet whose it is.
        sent(&wire, "GetItem").await;
        PrimaryStore::delete_user(&lab.store, &user, later(600)).await.unwrap()
    };
    let order = async {
        sent(&lab.wire, "Query").await;
        gates[0].add_permits(1);
    };
    let ((), deleted, ()) = futures_util::future::join3(sweep, deletion, order).await;
    assert_eq!(deleted.map(|done| done.sessions.len()), Some(60));
    for kind in ["session", "entry", "deadline", "job"] {
        assert_eq!(lab.count(kind).await, 0, "{kind}");
    }
}

#[tokio::test]
async fn a_revoke_all_leaves_the_names_to_a_deletion_that_came_behind_its_barrier() {
    let lab = Lab::new("behind").await;
    lab.log_in(60).await;
    let (user, all) = (ada(), Selection::AllOf(ada()));
    let wire = Wire::default();
    let other = DynamoStore::connect(client(&lab.server, &wire), &lab.config).await.unwrap();
    wire.reset();
    lab.wire.reset();
    let gates = [Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0))];
    // The barrier is there, and who is behind it is about to be read.
    wire.plan("GetItem", &Mischief::Pass, 1);
    wire.plan("GetItem", &Mischief::Wait(Arc::clone(&gates[0])), 1);
    lab.wire.plan("Query", &Mischief::Wait(Arc::clone(&gates[1])), 1);
    let revocation = async {
        let done = PrimaryStore::revoke(&other, &all, Reason::LogoutEverywhere, NOW).await;
        gates[1].add_permits(1);
        done.unwrap()
    };
    let deletion = async {
        while wire.calls("GetItem").len() < 2 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        PrimaryStore::delete_user(&lab.store, &user, later(600)).await.unwrap()
    };
    let order = async {
        // The deletion is committed, and about to learn the names.
        while lab.wire.calls("Query").is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        gates[0].add_permits(1);
    };
    let (done, deleted, ()) = futures_util::future::join3(revocation, deletion, order).await;
    assert_eq!(deleted.map(|done| done.sessions.len()), Some(60));
    assert_eq!(done.revoked.len() + done.earlier.len(), 60);
    for kind in ["session", "entry", "deadline", "job"] {
        assert_eq!(lab.count(kind).await, 0, "{kind}");
    }
}

#[tokio::test]
async fn a_sweep_that_misses_a_session_leaves_its_name_to_the_deletion_that_removed_it() {
    let lab = Lab::new("leftname").await;
    lab.log_in(1).await;
    let touch = Touch { id: id(1), seen_at: later(1), expires_at: later(7200) };
    PrimaryStore::touch(&lab.store, &[touch]).await.unwrap();
    let (wire, never) = (Wire::default(), Arc::new(Semaphore::new(0)));
    let sweeper = DynamoStore::connect(client(&lab.server, &wire), &lab.config).await.unwrap();
    let gate = Arc::new(Semaphore::new(0));
    wire.plan("BatchGetItem", &Mischief::Wait(Arc::clone(&gate)), 1);
    lab.wire.reset();
    lab.wire.plan("TransactWriteItems", &Mischief::Pass, 1);
    lab.wire.plan("TransactWriteItems", &Mischief::Wait(never), 1);
    let until = later(9000);
    let interrupted = async {
        while wire.calls("BatchGetItem").is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        // The place was read, and the session is about to be.
        let ada = ada();
        let deletion = PrimaryStore::delete_user(&lab.store, &ada, until);
        crash(&lab, ("TransactWriteItems", 2), deletion).await;
        gate.add_permits(1);
    };
    let bounds = bounds(3600, 0);
    let sweep = PrimaryStore::sweep(&sweeper, &bounds, 10);
    let (swept, ()) = futures_util::future::join(sweep, interrupted).await;
    assert_eq!(swept.unwrap().removed, 0);
    assert_eq!((lab.count("session").await, lab.count("job").await), (0, 1));
    let done = PrimaryStore::delete_user(&sweeper, &ada(), until).await.unwrap();
    assert_eq!(done.map(|done| done.sessions), Some(vec![id(1)]));
    assert_eq!((lab.count("entry").await, lab.count("deadline").await), (0, 0));
}

#[tokio::test]
async fn a_revoke_all_after_a_crashed_deletion_names_what_a_cache_may_hold() {
    let lab = Lab::new("allofgone").await;
    lab.log_in(200).await;
    crash(&lab, ("BatchWriteItem", 3), PrimaryStore::delete_user(&lab.store, &ada(), later(600)))
        .await;
    assert!(lab.count("session").await > 0, "the crash came too late");
    let other = lab.node().await;
    let all = Selection::AllOf(ada());
    for _ in 0..2 {
        let done = PrimaryStore::revoke(&other, &all, Reason::Admin, NOW).await.unwrap();
        let mut earlier = done.earlier;
        earlier.sort_unstable();
        assert_eq!((done.revoked, earlier), (vec![], (1..=200).map(id).collect::<Vec<_>>()));
    }
    assert_eq!((lab.count("session").await, lab.count("deadline").await), (0, 0));
    // The names are left to whoever repeats the deletion.
    let done = PrimaryStore::delete_user(&other, &ada(), later(600)).await.unwrap();
    assert_eq!(done.map(|done| done.sessions.len()), Some(200));
    let done = PrimaryStore::revoke(&other, &all, Reason::Admin, NOW).await.unwrap();
    assert_eq!(done, RevokedSessions::default());
}

#[tokio::test]
async fn a_revoke_all_of_a_user_who_came_back_names_the_sessions_of_before() {
    let lab = Lab::new("allofback").await;
    lab.log_in(100).await;
    crash(&lab, ("BatchWriteItem", 3), PrimaryStore::delete_user(&lab.store, &ada(), later(1)))
        .await;
    PrimaryStore::insert_user(&lab.store, &User::new(ada(), later(2)), later(2)).await.unwrap();
    let all = Selection::AllOf(ada());
    let done = PrimaryStore::revoke(&lab.store, &all, Reason::Admin, later(2)).await.unwrap();
    assert_eq!((done.revoked.len(), done.earlier.len()), (0, 100));
    for kind in ["session", "entry", "deadline", "job"] {
        assert_eq!(lab.count(kind).await, 0, "{kind}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_session_is_found_once_its_user_is_deleted() {
    let lab = Lab::new("oncedeleted").await;
    lab.log_in(300).await;
    let is_deleted = Arc::new(AtomicBool::new(false));
    let mut work = Vec::new();
    for lane in 1..=8 {
        let (store, is_deleted) = (lab.node().await, Arc::clone(&is_deleted));
        work.push(tokio::spawn(async move {
            let mut late = 0;
            while late < 20 {
                for number in (lane..=300).step_by(40) {
                    let was_deleted = is_deleted.load(Ordering::SeqCst);
                    let found = PrimaryStore::find(&store, &id(number)).await.unwrap().snapshot;
                    if was_deleted {
                        assert_eq!(found, None, "{number}");
                        late += 1;
                    }
                }
            }
        }));
    }
    let done = PrimaryStore::delete_user(&lab.store, &ada(), later(600)).await.unwrap();
    is_deleted.store(true, Ordering::SeqCst);
    assert_eq!(done.map(|done| done.sessions.len()), Some(300));
    for one in work {
        one.await.unwrap();
    }
}
