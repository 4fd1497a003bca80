//! Where sessions wait for the sweep, and DynamoDB's own removal.

use session_store_core::{
    ErrorKind, Page, PrimaryStore, Reason, Selection, Session, SessionChange, Swept, Touch, Update,
    Which,
};

use crate::lab::{Lab, NOW, ada, bounds, guest, id, later, new, session};

fn touch(number: u32, seen: u64, expires: u64) -> Touch {
    Touch { id: id(number), seen_at: later(seen), expires_at: later(expires) }
}

fn swept(removed: u64) -> Swept {
    Swept { removed, more: false }
}

#[tokio::test]
async fn a_touch_leaves_the_place_and_the_sweep_moves_it() {
    let lab = Lab::new("moved").await;
    let store = &lab.store;
    PrimaryStore::insert(store, &new(guest(1)), NOW).await.unwrap();
    let before = lab.filed().await;
    PrimaryStore::touch(store, &[touch(1, 10, 7200)]).await.unwrap();
    assert_eq!(lab.filed().await, before);
    assert_eq!(PrimaryStore::sweep(store, &bounds(3600, 0), 10).await.unwrap(), swept(0));
    assert_eq!(lab.filed().await, [format!("e#{:016x}", later(7200).as_millis())]);
    assert_eq!(PrimaryStore::sweep(store, &bounds(7199, 0), 10).await.unwrap(), swept(0));
    assert_eq!(PrimaryStore::sweep(store, &bounds(7200, 0), 10).await.unwrap(), swept(1));
    assert!(lab.filed().await.is_empty());
}

#[tokio::test]
async fn a_session_that_was_shortened_is_swept_when_it_ends() {
    let lab = Lab::new("shortened").await;
    let store = &lab.store;
    PrimaryStore::insert(store, &new(guest(1)), NOW).await.unwrap();
    let change = SessionChange { expires_at: Some(later(60)), ..SessionChange::default() };
    let update = PrimaryStore::update(store, &id(1), 1, &change, NOW).await.unwrap();
    assert!(matches!(update, Update::Updated(_)));
    assert_eq!(PrimaryStore::sweep(store, &bounds(60, 0), 10).await.unwrap(), swept(1));
    assert_eq!((lab.count("session").await, lab.count("deadline").await), (0, 0));
}

#[tokio::test]
async fn a_revoked_session_goes_with_its_deadline_or_its_retention_whichever_comes_first() {
    let lab = Lab::new("ended").await;
    let store = &lab.store;
    lab.log_in(2).await;
    let short = Session { expires_at: later(60), ..session(3) };
    PrimaryStore::insert(store, &new(short), NOW).await.unwrap();
    let some = Selection::Ids(vec![id(2), id(3)]);
    PrimaryStore::revoke(store, &some, Reason::Logout, later(30)).await.unwrap();
    assert_eq!(PrimaryStore::sweep(store, &bounds(59, 29), 10).await.unwrap(), swept(0));
    assert_eq!(PrimaryStore::sweep(store, &bounds(60, 29), 10).await.unwrap(), swept(1));
    assert_eq!(PrimaryStore::sweep(store, &bounds(60, 30), 10).await.unwrap(), swept(1));
    assert_eq!((lab.count("session").await, lab.count("entry").await), (1, 1));
    assert_eq!(lab.filed().await, [format!("e#{:016x}", later(3600).as_millis())]);
}

#[tokio::test]
async fn a_sweep_of_many_that_were_touched_still_finds_the_dead_behind_them() {
    let lab = Lab::new("behind").await;
    let store = &lab.store;
    for number in 1..=40 {
        let expires_at = later(60 + u64::from(number));
        PrimaryStore::insert(store, &new(Session { expires_at, ..guest(number) }), NOW)
            .await
            .unwrap();
    }
    let touches: Vec<_> = (1..=38).map(|number| touch(number, 10, 7200)).collect();
    PrimaryStore::touch(store, &touches).await.unwrap();
    let first = PrimaryStore::sweep(store, &bounds(600, 0), 1).await.unwrap();
    assert_eq!(first, Swept { removed: 1, more: true });
    assert_eq!(PrimaryStore::sweep(store, &bounds(600, 0), 1).await.unwrap(), swept(1));
    assert_eq!(lab.count("session").await, 38);
}

#[tokio::test]
async fn what_dynamodb_removed_by_itself_is_tidied_up() {
    let lab = Lab::new("garbage").await;
    let store = &lab.store;
    lab.log_in(2).await;
    let after = i64::try_from(lab.config.garbage_after.as_secs()).unwrap();
    assert_eq!(lab.ttl(1).await, later(3600).as_millis() / 1000 + after);
    PrimaryStore::touch(store, &[touch(1, 10, 7200)]).await.unwrap();
    assert_eq!(lab.ttl(1).await, later(7200).as_millis() / 1000 + after);
    // Only the session carries a moment of removal: what is filed about it stays.
    lab.delete_item(&format!("S#{}", id(1))).await;
    let listed = PrimaryStore::list(store, &ada(), Which::All, &Page::first(9)).await.unwrap();
    assert_eq!(listed.items.iter().map(|one| one.id).collect::<Vec<_>>(), [id(2)]);
    assert_eq!(PrimaryStore::census(store, NOW, Some(&ada())).await.unwrap().active, 1);
    assert_eq!(PrimaryStore::sweep(store, &bounds(3599, 0), 9).await.unwrap(), swept(0));
    assert_eq!(PrimaryStore::sweep(store, &bounds(3600, 0), 9).await.unwrap(), swept(1));
    for kind in ["session", "entry", "deadline"] {
        assert_eq!(lab.count(kind).await, 0, "{kind}");
    }
}

#[tokio::test]
async fn places_that_a_session_has_left_are_taken_away_and_its_own_is_kept() {
    let lab = Lab::new("left").await;
    let store = &lab.store;
    PrimaryStore::insert(store, &new(guest(1)), NOW).await.unwrap();
    PrimaryStore::touch(store, &[touch(1, 10, 7200)]).await.unwrap();
    // Two that were left, and its own, which is to be moved.
    lab.leave_place(1, 5).await;
    lab.leave_place(1, 6).await;
    for _ in 0..3 {
        assert_eq!(PrimaryStore::sweep(store, &bounds(3600, 0), 9).await.unwrap(), swept(0));
    }
    assert_eq!(lab.filed().await, [format!("e#{:016x}", later(7200).as_millis())]);
}

#[tokio::test]
async fn a_promoted_guest_is_listed_swept_and_removed_with_the_user() {
    let lab = Lab::new("promoted").await;
    let store = &lab.store;
    lab.register().await;
    PrimaryStore::insert(store, &new(guest(1)), NOW).await.unwrap();
    let promotion = session_store_core::Promotion {
        user_id: ada(),
        credential_epoch: session_store_core::CredentialEpoch(0),
        limit: None,
        remember: true,
        idle_timeout: guest(1).idle_timeout,
        absolute_expires_at: None,
        external_sid: None,
    };
    let change = SessionChange { promotion: Some(promotion), ..SessionChange::default() };
    let update = PrimaryStore::update(store, &id(1), 1, &change, NOW).await.unwrap();
    assert!(matches!(update, Update::Updated(_)));
    let listed = PrimaryStore::list(store, &ada(), Which::All, &Page::first(9)).await.unwrap();
    assert_eq!(listed.items.len(), 1);
    // Its place knows the entry by now.
    lab.delete_item(&format!("S#{}", id(1))).await;
    PrimaryStore::sweep(store, &bounds(3600, 0), 9).await.unwrap();
    assert_eq!((lab.count("entry").await, lab.count("deadline").await), (0, 0));
}

#[tokio::test]
async fn what_can_not_be_read_does_not_keep_the_rest_from_being_swept() {
    let lab = Lab::new("unreadable").await;
    let store = &lab.store;
    lab.log_in(1).await;
    for number in 2..=3 {
        PrimaryStore::insert(store, &new(guest(number)), NOW).await.unwrap();
    }
    lab.set_format(&format!("S#{}", id(2)), 2).await;
    assert_eq!(PrimaryStore::sweep(store, &bounds(3600, 0), 9).await.unwrap(), swept(2));
    assert_eq!((lab.count("session").await, lab.count("deadline").await), (1, 1));
    // The same of what was begun; and that it can't be finished is told.
    PrimaryStore::insert(store, &new(guest(4)), NOW).await.unwrap();
    lab.leave_job("bob", "of another version").await;
    let failed = PrimaryStore::sweep(store, &bounds(3600, 0), 9).await.unwrap_err();
    assert_eq!(failed.kind(), &ErrorKind::Corrupt);
    assert_eq!((lab.count("session").await, lab.count("deadline").await), (1, 1));
}
