//! Transactions that are under way: DynamoDB shows their items one by one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use aws_sdk_dynamodb::types::AttributeValue;
use session_store_core::{
    Email, ErrorKind, NewSession, Page, PrimaryStore, Reason, Selection, Session, SessionLimit,
    State, Touch, Touched, User, UserChange, UserId, Which,
};

use crate::lab::{Lab, NOW, ada, id, later, new, session, text};

fn limited(number: u32, max: u32) -> NewSession {
    NewSession { session: session(number), limit: Some(SessionLimit { max, evict: true }) }
}

/// Ada's session 1, and a revoke-all that spares it of which only the user's item can be seen.
async fn half_spared(namespace: &'static str) -> Lab {
    let lab = Lab::new(namespace).await;
    lab.log_in(1).await;
    lab.add_one("U#ada", "barrier").await;
    lab.set("U#ada", "spared", Some(text(&id(1).to_string()))).await;
    lab
}

async fn spare(lab: &Lab) {
    lab.add_one(&format!("S#{}", id(1)), "stamp").await;
}

#[tokio::test]
async fn a_login_that_is_half_visible_counts_against_the_limit() {
    let lab = Lab::new("halflogin").await;
    lab.register().await;
    PrimaryStore::insert(&lab.store, &limited(1, 1), NOW).await.unwrap();
    let hidden = lab.hide(1).await;
    let login = limited(2, 1);
    let second = PrimaryStore::insert(&lab.store, &login, NOW);
    let rest = async {
        for item in hidden {
            lab.put(item).await;
        }
    };
    let done = Box::pin(lab.meeting(second, rest)).await.unwrap();
    assert_eq!(done.evicted, [id(1)]);
    assert_eq!(PrimaryStore::census(&lab.store, NOW, Some(&ada())).await.unwrap().active, 1);
}

#[tokio::test]
async fn a_login_whose_session_is_gone_again_holds_nobody_up() {
    let lab = Lab::new("gonelogin").await;
    lab.register().await;
    PrimaryStore::insert(&lab.store, &limited(1, 1), NOW).await.unwrap();
    lab.hide(1).await;
    PrimaryStore::insert(&lab.store, &limited(2, 1), NOW).await.unwrap();
    // What DynamoDB removes by itself leaves the entry.
    lab.delete_item(&format!("S#{}", id(2))).await;
    PrimaryStore::insert(&lab.store, &limited(3, 1), NOW).await.unwrap();
    assert_eq!(PrimaryStore::census(&lab.store, NOW, Some(&ada())).await.unwrap().active, 1);
}

#[tokio::test]
async fn a_session_that_is_being_spared_counts_against_the_limit() {
    let lab = half_spared("sparedlimit").await;
    let login = limited(2, 1);
    let second = PrimaryStore::insert(&lab.store, &login, NOW);
    let done = Box::pin(lab.meeting(second, spare(&lab))).await.unwrap();
    assert_eq!(done.evicted, [id(1)]);
    assert_eq!(PrimaryStore::census(&lab.store, NOW, Some(&ada())).await.unwrap().active, 1);
}

#[tokio::test]
async fn a_session_that_is_being_spared_is_listed_as_live() {
    let lab = half_spared("sparedlist").await;
    let (user, page) = (ada(), Page::first(9));
    let list = PrimaryStore::list(&lab.store, &user, Which::Live(NOW), &page);
    let listed = Box::pin(lab.meeting(list, spare(&lab))).await.unwrap();
    assert_eq!(listed.items.iter().map(|one| one.id).collect::<Vec<_>>(), [id(1)]);
}

#[tokio::test]
async fn a_session_that_is_being_spared_is_counted_as_active() {
    let lab = half_spared("sparedcensus").await;
    let user = ada();
    let census = PrimaryStore::census(&lab.store, NOW, Some(&user));
    let census = Box::pin(lab.meeting(census, spare(&lab))).await.unwrap();
    assert_eq!((census.active, census.revoked), (1, 0));
}

#[tokio::test]
async fn a_session_that_is_being_spared_is_touched() {
    let lab = half_spared("sparedtouch").await;
    let touch = [Touch { id: id(1), seen_at: later(1), expires_at: later(3700) }];
    let touched = PrimaryStore::touch(&lab.store, &touch);
    let touched = Box::pin(lab.meeting(touched, spare(&lab))).await.unwrap();
    assert_eq!(touched, [Touched::Active { expires_at: later(3700) }]);
}

#[tokio::test]
async fn a_session_that_was_not_spared_is_ended_without_a_second_look() {
    let lab = Lab::new("notspared").await;
    lab.log_in(2).await;
    // A revoke-all that has crashed behind its first write.
    lab.add_one("U#ada", "barrier").await;
    lab.set("U#ada", "spared", Some(text(&id(2).to_string()))).await;
    let found = PrimaryStore::find(&lab.store, &id(1)).await.unwrap().snapshot.unwrap();
    assert_eq!(found.session.state(NOW), State::Revoked(Reason::LogoutEverywhere));
    assert!(lab.wire.calls("TransactGetItems").is_empty());
}

#[tokio::test]
async fn a_revoke_all_names_a_login_that_is_half_visible() {
    let lab = Lab::new("halfall").await;
    lab.log_in(2).await;
    let hidden = lab.hide(1).await;
    let all = Selection::AllOf(ada());
    let revoked = PrimaryStore::revoke(&lab.store, &all, Reason::Admin, NOW);
    let rest = async {
        for item in hidden {
            lab.put(item).await;
        }
    };
    let mut done = Box::pin(lab.meeting(revoked, rest)).await.unwrap();
    done.revoked.sort_unstable();
    assert_eq!((done.revoked, done.earlier), (vec![id(1), id(2)], vec![]));
}

#[tokio::test]
async fn a_deletion_names_a_login_that_is_half_visible() {
    let lab = Lab::new("halfdeleted").await;
    lab.log_in(2).await;
    let (hidden, user) = (lab.hide(1).await, ada());
    let deletion = PrimaryStore::delete_user(&lab.store, &user, later(600));
    let rest = async {
        for item in hidden {
            lab.put(item).await;
        }
    };
    let mut named = Box::pin(lab.meeting(deletion, rest)).await.unwrap().unwrap().sessions;
    named.sort_unstable();
    assert_eq!(named, [id(1), id(2)]);
    for kind in ["session", "entry", "deadline", "job"] {
        assert_eq!(lab.count(kind).await, 0, "{kind}");
    }
}

#[tokio::test]
async fn a_change_of_a_user_names_a_login_that_is_half_visible() {
    let lab = Lab::new("halfchanged").await;
    lab.log_in(1).await;
    let (hidden, user, change) = (lab.hide(1).await, ada(), UserChange::default());
    let update = PrimaryStore::update_user(&lab.store, &user, 1, &change);
    let rest = async {
        for item in hidden {
            lab.put(item).await;
        }
    };
    let done = Box::pin(lab.meeting(update, rest)).await.unwrap();
    let session_store_core::UserUpdate::Updated { sessions, .. } = done else { panic!("{done:?}") };
    assert_eq!(sessions, [id(1)]);
}

#[tokio::test]
async fn an_address_that_changes_hands_is_somebodys_all_the_time() {
    let lab = Lab::new("hands").await;
    let address = Email::parse("ada@example.org").unwrap();
    for name in ["ada", "bob"] {
        let mut user = User::new(UserId::new(name).unwrap(), NOW);
        user.email = (name == "ada").then(|| address.clone());
        PrimaryStore::insert_user(&lab.store, &user, NOW).await.unwrap();
    }
    // Ada's item is seen without it, and the claim still with her name.
    lab.set("U#ada", "email", None).await;
    let find = PrimaryStore::find_user_by_email(&lab.store, "ada@example.org");
    let rest = async {
        lab.set("U#bob", "email", Some(text("ada@example.org"))).await;
        lab.set("E#ada@example.org", "user", Some(text("bob"))).await;
    };
    let found = Box::pin(lab.meeting(find, rest)).await.unwrap();
    assert_eq!(found.map(|account| account.user.id.to_string()).as_deref(), Some("bob"));
}

#[tokio::test]
async fn logins_without_a_limit_leave_few_notes() {
    let lab = Lab::new("notes").await;
    lab.register().await;
    for number in 1..=50 {
        PrimaryStore::insert(&lab.store, &new(session(number)), NOW).await.unwrap();
        let user = lab.item("U#ada", "0").await.unwrap();
        let Some(AttributeValue::Ss(recent)) = user.get("recent") else { panic!("{user:?}") };
        assert!(recent.len() <= 16, "{}", recent.len());
    }
    // With a limit it is one.
    PrimaryStore::insert(&lab.store, &limited(51, 60), NOW).await.unwrap();
    let user = lab.item("U#ada", "0").await.unwrap();
    assert_eq!(user["recent"].as_ss().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_thirty_two_logins_under_a_limit_of_three_exactly_three_are_left() {
    let lab = Lab::new("three").await;
    lab.register().await;
    lab.wire.plan("TransactWriteItems", &crate::wire::CONFLICT, 20);
    let mut work = Vec::new();
    for number in 1..=32 {
        let store = if number % 2 == 0 { lab.node().await } else { lab.store.clone() };
        work.push(tokio::spawn(async move {
            PrimaryStore::insert(&store, &limited(number, 3), NOW).await.unwrap().evicted
        }));
    }
    let mut evicted = Vec::new();
    for one in work {
        evicted.extend(one.await.unwrap());
    }
    let count = evicted.len();
    evicted.sort_unstable();
    evicted.dedup();
    assert_eq!((count, evicted.len()), (29, 29));
    let live = PrimaryStore::list(&lab.store, &ada(), Which::Live(NOW), &Page::first(99)).await;
    let live: Vec<_> = live.unwrap().items.iter().map(|session| session.id).collect();
    assert_eq!(live.len(), 3);
    assert!(live.iter().all(|one| !evicted.contains(one)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn logins_under_a_limit_do_not_starve_a_revoke_all() {
    let lab = Lab::new("limitstarve").await;
    lab.register().await;
    let is_over = Arc::new(AtomicBool::new(false));
    let mut work = Vec::new();
    for lane in 0..8 {
        let (store, is_over) = (lab.node().await, Arc::clone(&is_over));
        work.push(tokio::spawn(async move {
            let mut number = lane * 10_000;
            while !is_over.load(Ordering::SeqCst) {
                let account = PrimaryStore::find_user(&store, &ada()).await.unwrap().unwrap();
                let credential_epoch = account.credential_epoch;
                number += 1;
                let mut login = limited(number, 3);
                login.session = Session { credential_epoch, ..login.session };
                match PrimaryStore::insert(&store, &login, NOW).await {
                    Ok(_) => {}
                    Err(failed) => assert_eq!(failed.kind(), &ErrorKind::StaleCredentials),
                }
            }
        }));
    }
    let node = lab.node().await;
    for _ in 0..5 {
        let all = Selection::AllOf(ada());
        PrimaryStore::revoke(&node, &all, Reason::LogoutEverywhere, NOW).await.unwrap();
    }
    is_over.store(true, Ordering::SeqCst);
    for one in work {
        one.await.unwrap();
    }
    let census = PrimaryStore::census(&node, NOW, Some(&ada())).await.unwrap();
    assert!(census.active <= 3, "{census:?}");
}
