//! What somebody with a console takes away.

use session_store_core::{
    CredentialEpoch, Edit, Email, ErrorKind, NewSession, Page, PrimaryStore, Reason, Selection,
    Session, SessionLimit, State, User, UserChange, UserId, UserUpdate,
};

use crate::lab::{Lab, NOW, ada, bounds, id, later, new, refused, session};

const ADDRESS: &str = "ada@example.org";

fn user(name: &str) -> User {
    let mut user = User::new(UserId::new(name).unwrap(), NOW);
    user.email = Some(Email::parse(ADDRESS).unwrap());
    user
}

#[tokio::test]
async fn nobody_inherits_a_session_however_wrong_a_clock_is() {
    let lab = Lab::new("inherits").await;
    let ahead = later(3600);
    PrimaryStore::insert_user(&lab.store, &User::new(ada(), ahead), ahead).await.unwrap();
    for number in 1..=2 {
        PrimaryStore::insert(&lab.store, &new(session(number)), NOW).await.unwrap();
    }
    let one = Selection::One { id: id(2), owner: None };
    PrimaryStore::revoke(&lab.store, &one, Reason::Logout, NOW).await.unwrap();
    lab.delete_item("U#ada").await;
    // The clock of this node is an hour behind the one that registered ada first.
    lab.register().await;
    for number in 1..=2 {
        let found = PrimaryStore::find(&lab.store, &id(number)).await.unwrap().snapshot;
        assert_eq!(found, None, "{number}");
    }
    assert_eq!(PrimaryStore::census(&lab.store, NOW, Some(&ada())).await.unwrap().active, 0);
}

#[tokio::test]
async fn a_login_that_verified_the_user_of_before_is_stale() {
    for with_entry in [true, false] {
        let lab = Lab::new(if with_entry { "verified" } else { "verifiedaddress" }).await;
        PrimaryStore::insert_user(&lab.store, &user("ada"), NOW).await.unwrap();
        if with_entry {
            PrimaryStore::insert(&lab.store, &new(session(1)), NOW).await.unwrap();
        }
        let all = Selection::AllOf(ada());
        PrimaryStore::revoke(&lab.store, &all, Reason::LogoutEverywhere, NOW).await.unwrap();
        let verified = PrimaryStore::find_user(&lab.store, &ada()).await.unwrap().unwrap();
        assert_eq!(verified.credential_epoch, CredentialEpoch(1));
        lab.delete_item("U#ada").await;
        PrimaryStore::insert_user(&lab.store, &user("ada"), later(1)).await.unwrap();
        for credential_epoch in [CredentialEpoch(0), verified.credential_epoch] {
            let late = Session { credential_epoch, ..session(2) };
            let kind = refused(PrimaryStore::insert(&lab.store, &new(late), NOW).await);
            assert_eq!(kind, ErrorKind::StaleCredentials);
        }
        let again = PrimaryStore::find_user(&lab.store, &ada()).await.unwrap().unwrap();
        let login = Session { credential_epoch: again.credential_epoch, ..session(3) };
        PrimaryStore::insert(&lab.store, &new(login), NOW).await.unwrap();
    }
}

#[tokio::test]
async fn an_address_of_nobody_can_be_claimed_and_one_of_somebody_can_not() {
    let lab = Lab::new("claims").await;
    PrimaryStore::insert_user(&lab.store, &user("ada"), NOW).await.unwrap();
    let kind = refused(PrimaryStore::insert_user(&lab.store, &user("bob"), NOW).await);
    assert_eq!(kind, ErrorKind::Conflict);
    lab.delete_item("U#ada").await;
    assert_eq!(PrimaryStore::find_user_by_email(&lab.store, ADDRESS).await.unwrap(), None);
    PrimaryStore::insert_user(&lab.store, &user("bob"), NOW).await.unwrap();
    let found = PrimaryStore::find_user_by_email(&lab.store, ADDRESS).await.unwrap().unwrap();
    assert_eq!(found.user.id.as_str(), "bob");
    let kind = refused(PrimaryStore::insert_user(&lab.store, &user("ada"), NOW).await);
    assert_eq!(kind, ErrorKind::Conflict);
}

#[tokio::test]
async fn an_address_of_nobody_can_be_claimed_by_a_change_and_by_the_same_id() {
    let lab = Lab::new("changeclaims").await;
    PrimaryStore::insert_user(&lab.store, &user("ada"), NOW).await.unwrap();
    lab.delete_item("U#ada").await;
    PrimaryStore::insert_user(&lab.store, &user("ada"), later(1)).await.unwrap();
    lab.delete_item("U#ada").await;
    let bob = UserId::new("bob").unwrap();
    PrimaryStore::insert_user(&lab.store, &User::new(bob.clone(), NOW), NOW).await.unwrap();
    let email = Edit::Set(Email::parse(ADDRESS).unwrap());
    let change = UserChange { email, ..UserChange::default() };
    let done = PrimaryStore::update_user(&lab.store, &bob, 1, &change).await.unwrap();
    assert!(matches!(done, UserUpdate::Updated { .. }), "{done:?}");
    let found = PrimaryStore::find_user_by_email(&lab.store, ADDRESS).await.unwrap().unwrap();
    assert_eq!(found.user.id, bob);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_who_claim_an_address_of_nobody_one_succeeds() {
    let lab = Lab::new("manyclaims").await;
    PrimaryStore::insert_user(&lab.store, &user("ada"), NOW).await.unwrap();
    lab.delete_item("U#ada").await;
    let mut work = Vec::new();
    for number in 0..16 {
        let store = lab.node().await;
        work.push(tokio::spawn(async move {
            let user = user(&format!("user-{number}"));
            let done = PrimaryStore::insert_user(&store, &user, NOW).await;
            done.map_err(|failed| failed.kind().clone())
        }));
    }
    let mut claimed = 0;
    for one in work {
        match one.await.unwrap() {
            Ok(()) => claimed += 1,
            Err(kind) => assert_eq!(kind, ErrorKind::Conflict),
        }
    }
    assert_eq!(claimed, 1);
}

#[tokio::test]
async fn a_user_who_registered_again_is_listed_once() {
    let lab = Lab::new("listedonce").await;
    PrimaryStore::insert_user(&lab.store, &user("ada"), NOW).await.unwrap();
    for (name, seconds) in [("bob", 20), ("cid", 40)] {
        let at = later(seconds);
        let user = User::new(UserId::new(name).unwrap(), at);
        PrimaryStore::insert_user(&lab.store, &user, at).await.unwrap();
    }
    lab.delete_item("U#ada").await;
    let again = User::new(ada(), later(60));
    PrimaryStore::insert_user(&lab.store, &again, later(60)).await.unwrap();
    let mut page = Page::first(1);
    let mut listed = Vec::new();
    loop {
        let part = PrimaryStore::list_users(&lab.store, &page).await.unwrap();
        listed.extend(part.items.into_iter().map(|user| (user.id.to_string(), user.created_at)));
        match part.next {
            None => break,
            Some(next) => page = page.behind(next),
        }
    }
    let wanted = [("bob", 20), ("cid", 40), ("ada", 60)];
    assert_eq!(listed, wanted.map(|(name, seconds)| (name.to_owned(), later(seconds))));
}

#[tokio::test]
async fn a_user_whom_somebody_has_put_back_can_be_changed_and_deleted() {
    let lab = Lab::new("putback").await;
    PrimaryStore::insert_user(&lab.store, &user("ada"), NOW).await.unwrap();
    let kept = lab.item("U#ada", "0").await.unwrap();
    lab.delete_item("U#ada").await;
    PrimaryStore::insert_user(&lab.store, &user("bob"), NOW).await.unwrap();
    let other = Edit::Set(Email::parse("other@example.org").unwrap());
    let change = UserChange { email: other, ..UserChange::default() };
    lab.put(kept.clone()).await;
    let done = PrimaryStore::update_user(&lab.store, &ada(), 1, &change).await.unwrap();
    assert!(matches!(done, UserUpdate::Updated { .. }), "{done:?}");
    lab.put(kept).await;
    let done = PrimaryStore::delete_user(&lab.store, &ada(), later(1)).await.unwrap();
    assert_eq!(done.map(|done| done.sessions.len()), Some(0));
    let found = PrimaryStore::find_user_by_email(&lab.store, ADDRESS).await.unwrap().unwrap();
    assert_eq!(found.user.id.as_str(), "bob");
}

/// Sessions 1 and 2 of ada; somebody has brought the first back after its logout.
async fn brought_back(namespace: &'static str) -> Lab {
    let lab = Lab::new(namespace).await;
    lab.log_in(2).await;
    let one = Selection::One { id: id(1), owner: None };
    PrimaryStore::revoke(&lab.store, &one, Reason::Logout, NOW).await.unwrap();
    let item = format!("S#{}", id(1));
    lab.set(&item, "revoked_at", None).await;
    lab.set(&item, "revoked_reason", None).await;
    let found = PrimaryStore::find(&lab.store, &id(1)).await.unwrap().snapshot.unwrap();
    assert_eq!(found.session.state(NOW), State::Active);
    lab
}

#[tokio::test]
async fn a_session_that_somebody_brought_back_is_ended_like_any_other() {
    let ways = [
        ("backone", Selection::One { id: id(1), owner: None }, vec![id(1)]),
        ("backall", Selection::AllOf(ada()), vec![id(1), id(2)]),
        ("backbut", Selection::AllBut(ada(), id(2)), vec![id(1)]),
    ];
    for (namespace, which, ended) in ways {
        let lab = brought_back(namespace).await;
        let done = PrimaryStore::revoke(&lab.store, &which, Reason::Admin, later(1)).await.unwrap();
        let mut revoked = done.revoked;
        revoked.sort_unstable();
        assert_eq!(revoked, ended, "{namespace}");
    }
    let lab = brought_back("backeveryone").await;
    let everyone = Selection::Everyone { created_before: later(1), limit: 10 };
    let mut ended = Vec::new();
    loop {
        let done = PrimaryStore::revoke(&lab.store, &everyone, Reason::Admin, later(1)).await;
        match done.unwrap().revoked {
            some if some.is_empty() => break,
            some => ended.extend(some),
        }
    }
    ended.sort_unstable();
    assert_eq!(ended, [id(1), id(2)]);
}

#[tokio::test]
async fn a_session_that_somebody_brought_back_makes_room_and_is_swept() {
    let lab = brought_back("backlimit").await;
    let limit = Some(SessionLimit { max: 1, evict: true });
    let login = NewSession { session: session(3), limit };
    let mut evicted = PrimaryStore::insert(&lab.store, &login, later(1)).await.unwrap().evicted;
    evicted.sort_unstable();
    assert_eq!(evicted, [id(1), id(2)]);
    let lab = brought_back("backsweep").await;
    let swept = PrimaryStore::sweep(&lab.store, &bounds(3600, 3600), 10).await.unwrap();
    assert_eq!(swept.removed, 2);
    // Where it was filed by its first end, nothing but a sweep knows.
    let again = PrimaryStore::sweep(&lab.store, &bounds(3600, 3600), 10).await.unwrap();
    assert_eq!(again.removed, 0);
    for kind in ["session", "entry", "deadline"] {
        assert_eq!(lab.count(kind).await, 0, "{kind}");
    }
}
