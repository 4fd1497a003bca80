//! Ending sessions: what revoking, sweeping and limits do to rows that other code left behind.

use crate::support::{HOUR, NOW, drain, file, id, register, session, shell, store, user};
use session_store_core::{PrimaryStore, Reason, Selection, SweepBounds, User, UserId};

#[tokio::test]
async fn everyone_reaches_the_active_behind_many_expired_ones() {
    let (_folder, path) = file();
    let store = store(&path).await;
    for number in 1..=20 {
        store.insert(&session(number, None), NOW).await.unwrap();
    }
    let later = NOW.plus(HOUR);
    let mut alive = session(21, Some("ada"));
    alive.session.expires_at = later.plus(HOUR);
    store.insert(&alive, NOW).await.unwrap();
    let step = Selection::Everyone { created_before: later, limit: 5 };
    let first = store.revoke(&step, Reason::Admin, later).await.unwrap();
    assert_eq!(first.revoked, [id(21)]);
    assert_eq!(store.census(later, None).await.unwrap().active, 0);
}

#[tokio::test]
async fn an_id_given_twice_is_revoked_once() {
    let (_folder, path) = file();
    let store = store(&path).await;
    store.insert(&session(1, Some("ada")), NOW).await.unwrap();
    let twice = Selection::Ids(vec![id(1), id(2), id(1)]);
    let done = store.revoke(&twice, Reason::Admin, NOW).await.unwrap();
    assert_eq!((done.revoked, done.earlier), (vec![id(1)], vec![]));
}

#[tokio::test]
async fn a_row_nobody_can_read_is_still_ended() {
    let (_folder, path) = file();
    let store = store(&path).await;
    for number in 1..=2 {
        store.insert(&session(number, Some("ada")), NOW).await.unwrap();
    }
    shell(
        &path,
        "UPDATE sessions SET amr = 'no list' WHERE id = x'00000000000000000000000000000001'",
    );
    assert!(store.find(&id(1)).await.is_err());
    let all = Selection::AllOf(user("ada"));
    let done = store.revoke(&all, Reason::LogoutEverywhere, NOW).await.unwrap();
    assert_eq!(done.revoked, [id(1), id(2)]);
}

#[tokio::test]
async fn logging_out_a_stranger_leaves_no_row_behind() {
    let (_folder, path) = file();
    let store = store(&path).await;
    let all = Selection::AllOf(user("nobody"));
    store.revoke(&all, Reason::Admin, NOW).await.unwrap();
    store.insert_user(&User::new(user("nobody"), NOW), NOW).await.unwrap();
    let account = store.find_user(&UserId::new("nobody").unwrap()).await.unwrap().unwrap();
    assert_eq!(account.credential_epoch.0, 0);
}

#[tokio::test]
async fn a_sweep_takes_the_longest_dead_first_and_knows_when_it_is_done() {
    let (_folder, path) = file();
    let store = store(&path).await;
    for number in 1..=3 {
        let mut new = session(number, None);
        new.session.expires_at = NOW.plus(HOUR * u32::from(number));
        store.insert(&new, NOW).await.unwrap();
    }
    // The last one dies first.
    let ids = Selection::Ids(vec![id(3)]);
    store.revoke(&ids, Reason::Admin, NOW).await.unwrap();
    let end = NOW.plus(HOUR * 9);
    let bounds = SweepBounds { expired_before: end, revoked_before: end };
    let first = store.sweep(&bounds, 1).await.unwrap();
    assert_eq!((first.removed, first.more), (1, true));
    assert_eq!(store.find(&id(3)).await.unwrap().snapshot, None);
    let rest = store.sweep(&bounds, 2).await.unwrap();
    assert_eq!((rest.removed, rest.more), (2, false));
}

#[tokio::test]
async fn the_control_row_may_be_missing() {
    let (_folder, path) = file();
    let store = store(&path).await;
    let cache = register(&store).await;
    store.insert(&session(1, Some("ada")), NOW).await.unwrap();
    shell(&path, "DELETE FROM session_control; DELETE FROM sessions");
    assert_eq!(drain(&store, &cache).await, [id(1)]);
}
