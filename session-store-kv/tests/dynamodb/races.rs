//! What others do between two calls of one operation.

use session_store_core::{
    NewSession, PrimaryStore, Reason, Role, Selection, Session, SessionLimit, State, SweepBounds,
    Timestamp, Touch, UserChange, UserUpdate,
};

use crate::lab::{Lab, NOW, ada, document, guest, id, later, new, number, refused, session, text};
use crate::wire::Mischief;

#[tokio::test]
async fn a_session_that_a_sweep_moves_meanwhile_is_found_by_a_revocation_of_everybody() {
    let lab = Lab::new("movedmeanwhile").await;
    PrimaryStore::insert(&lab.store, &new(guest(8)), NOW).await.unwrap();
    // It stays filed by the hour, lives for three, and in between so many are filed that one page
    // does not reach it.
    let touch = Touch { id: id(8), seen_at: later(1), expires_at: later(3 * 3600) };
    PrimaryStore::touch(&lab.store, &[touch]).await.unwrap();
    let item = lab.item("Q#0", &format!("e#{:016x}#{}", later(3600).as_millis(), id(8))).await;
    let place = item.unwrap();
    let fillers = (1..=501).map(|copy| {
        let (mut filler, other) = (place.clone(), id(1000 + copy * 8));
        let sk = format!("e#{:016x}#{other}", later(2 * 3600).as_millis());
        filler.insert("sk".to_owned(), text(&sk));
        filler.insert("id".to_owned(), text(&other.to_string()));
        filler
    });
    lab.put_all(fillers.collect()).await;
    let everyone = Selection::Everyone { created_before: later(1), limit: 10 };
    let revoke = PrimaryStore::revoke(&lab.store, &everyone, Reason::Admin, later(2));
    let other = lab.node().await;
    let sweep = async {
        let bounds = SweepBounds { expired_before: later(3601), revoked_before: Timestamp::EPOCH };
        PrimaryStore::sweep(&other, &bounds, 10).await.unwrap();
    };
    // Of the first shard, and there the second page.
    let done = lab.between((&Mischief::Pass, "Query", 2), revoke, sweep).await.unwrap();
    assert_eq!(done.revoked, [id(8)]);
}

#[tokio::test]
async fn a_login_does_not_hold_up_a_change_of_its_user_and_is_named_by_it() {
    let lab = Lab::new("loginmeanwhile").await;
    lab.log_in(1).await;
    let change = UserChange { role: Some(Role::new("admin").unwrap()), ..UserChange::default() };
    let user = ada();
    let update = PrimaryStore::update_user(&lab.store, &user, 1, &change);
    let other = lab.node().await;
    let login = async {
        PrimaryStore::insert(&other, &new(session(2)), NOW).await.unwrap();
    };
    let done =
        lab.between((&Mischief::Pass, "TransactWriteItems", 1), update, login).await.unwrap();
    let UserUpdate::Updated { user, mut sessions } = done else { panic!("{done:?}") };
    sessions.sort_unstable();
    assert_eq!((user.role.as_str(), sessions), ("admin", vec![id(1), id(2)]));
    assert_eq!(lab.wire.calls("TransactWriteItems").len(), 1, "it was refused");
    // Nothing of the login was written over.
    let account = PrimaryStore::find_user(&lab.store, &ada()).await.unwrap().unwrap();
    assert_eq!((account.user.version, account.user.last_login_at), (2, Some(NOW)));
}

#[tokio::test]
async fn a_touch_does_not_hold_up_the_revocation_that_spares_its_session() {
    let lab = Lab::new("touchmeanwhile").await;
    lab.log_in(2).await;
    let others = Selection::AllBut(ada(), id(1));
    let revoke = PrimaryStore::revoke(&lab.store, &others, Reason::LogoutRemote, later(2));
    let other = lab.node().await;
    let touch = async {
        let touch = Touch { id: id(1), seen_at: later(1), expires_at: later(3700) };
        PrimaryStore::touch(&other, &[touch]).await.unwrap();
    };
    let done =
        lab.between((&Mischief::Pass, "TransactWriteItems", 1), revoke, touch).await.unwrap();
    assert_eq!(done.revoked, [id(2)]);
    // One raises the barrier, one writes down what it meant, one forgets that this was to be done.
    assert_eq!(lab.wire.calls("TransactWriteItems").len(), 3, "it was refused");
    let spared = PrimaryStore::find(&lab.store, &id(1)).await.unwrap().snapshot.unwrap().session;
    assert_eq!((spared.state(later(2)), spared.expires_at), (State::Active, later(3700)));
}

#[tokio::test]
async fn a_revocation_between_is_not_undone_by_the_one_that_spares() {
    let lab = Lab::new("revokedmeanwhile").await;
    lab.log_in(2).await;
    let others = Selection::AllBut(ada(), id(1));
    let revoke = PrimaryStore::revoke(&lab.store, &others, Reason::LogoutRemote, later(2));
    let other = lab.node().await;
    let logout = async {
        let one = Selection::One { id: id(1), owner: None };
        PrimaryStore::revoke(&other, &one, Reason::Logout, later(1)).await.unwrap();
    };
    lab.between((&Mischief::Pass, "TransactWriteItems", 1), revoke, logout).await.unwrap();
    for (name, reason) in [(1, Reason::Logout), (2, Reason::LogoutRemote)] {
        let found = PrimaryStore::find(&lab.store, &id(name)).await.unwrap().snapshot.unwrap();
        assert_eq!(found.session.state(later(2)), State::Revoked(reason));
    }
}

#[tokio::test]
async fn a_login_that_ended_sessions_and_then_came_too_late_is_no_simple_refusal() {
    let lab = Lab::new("endedmeanwhile").await;
    lab.register().await;
    let data = document(250_000);
    for number in 1..=18 {
        let heavy = Session { data: data.clone(), ..session(number) };
        PrimaryStore::insert(&lab.store, &new(heavy), NOW).await.unwrap();
    }
    let limit = Some(SessionLimit { max: 1, evict: true });
    let login = NewSession { session: Session { data, ..session(99) }, limit };
    let insert = PrimaryStore::insert(&lab.store, &login, NOW);
    let other = lab.node().await;
    let all = async {
        let all = Selection::AllOf(ada());
        PrimaryStore::revoke(&other, &all, Reason::LogoutEverywhere, later(1)).await.unwrap();
    };
    // The first transaction ends what the login's own has no room for.
    let kind = refused(lab.between((&Mischief::Pass, "TransactWriteItems", 2), insert, all).await);
    assert_eq!(kind, session_store_core::ErrorKind::Timeout);
}

#[tokio::test]
async fn what_was_begun_for_a_user_of_before_is_not_done_to_the_next() {
    let lab = Lab::new("begunbefore").await;
    lab.log_in(1).await;
    lab.delete_item("U#ada").await;
    let mut job = lab.item("S#none", "0").await.unwrap_or_default();
    for (name, value) in [("pk", text("R#jobs")), ("sk", text("ada")), ("k", text("job"))] {
        job.insert(name.to_owned(), value);
    }
    // By a node whose clock was ahead.
    let barrier = number(later(7200));
    for (name, value) in [
        ("v", aws_sdk_dynamodb::types::AttributeValue::N("1".to_owned())),
        ("user", text("ada")),
        ("work", text("remove")),
        ("until", number(NOW)),
        ("barrier", barrier),
    ] {
        job.insert(name.to_owned(), value);
    }
    lab.put(job).await;
    lab.register().await;
    let account = PrimaryStore::find_user(&lab.store, &ada()).await.unwrap().unwrap();
    let login = Session { credential_epoch: account.credential_epoch, ..session(2) };
    PrimaryStore::insert(&lab.store, &new(login), NOW).await.unwrap();
    let bounds = SweepBounds { expired_before: later(1), revoked_before: Timestamp::EPOCH };
    PrimaryStore::sweep(&lab.store, &bounds, 10).await.unwrap();
    let found = PrimaryStore::find(&lab.store, &id(2)).await.unwrap().snapshot.unwrap();
    assert_eq!(found.session.state(later(1)), State::Active);
}
