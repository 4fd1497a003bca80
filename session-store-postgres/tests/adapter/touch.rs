//! Touches that come in one batch, and sessions of it that somebody else has locked.

use std::time::Duration;

use session_store_core::{ErrorKind, PrimaryStore, Touch, Touched};
use session_store_postgres::{PostgresHarness, PostgresStore};

use crate::fixture::{HOUR, NOW, server, session, store};
use crate::races::{is_waited_for, say, shell};

/// The session with this number was used.
fn used(number: u32) -> Touch {
    let id = session(number, None).session.id;
    Touch { id, seen_at: NOW, expires_at: NOW.plus(2 * HOUR) }
}

fn written() -> Touched {
    Touched::Active { expires_at: used(0).expires_at }
}

const NONE: [u32; 0] = [];

/// Guests with the numbers from 1.
async fn guests(on: &PostgresHarness, namespace: &str, count: u32) -> PostgresStore {
    let store = store(on, namespace).await;
    for number in 1..=count {
        store.insert(&session(number, None), NOW).await.unwrap();
    }
    store
}

/// Somebody who has locked the session with this number.
async fn locker(on: &PostgresHarness, namespace: &str, number: u32) -> sqlx::PgConnection {
    let mut shell = shell(on, namespace).await;
    let id = session(number, None).session.id;
    let sql = format!("SELECT FROM sessions WHERE encode(id, 'hex') = '{id}' FOR UPDATE");
    say(&mut shell, &sql).await;
    shell
}

/// The numbers up to `count` of those that have not been touched.
async fn unwritten(store: &PostgresStore, count: u32) -> Vec<u32> {
    let mut left = Vec::new();
    for number in 1..=count {
        let found = store.find(&session(number, None).session.id).await.unwrap().snapshot;
        if found.unwrap().session.expires_at != NOW.plus(2 * HOUR) {
            left.push(number);
        }
    }
    left
}

#[tokio::test]
async fn touches_of_one_session_are_one_after_the_other() {
    let on = server();
    let store = store(&on, "twice").await;
    let minutes = |count: u64| NOW.plus(Duration::from_mins(count));
    for number in 1..=3 {
        store.insert(&session(number, Some("ada")), NOW).await.unwrap();
    }
    let touch = |number, at: u64| Touch {
        id: session(number, None).session.id,
        seen_at: minutes(at),
        expires_at: minutes(at).plus(HOUR),
    };
    // They end at 60: the second touch of the first is in time because of the first one.
    let touches =
        [touch(1, 59), touch(2, 10), touch(1, 90), touch(3, 90), touch(3, 59), touch(1, 20)];
    let active = |at: u64| Touched::Active { expires_at: minutes(at).plus(HOUR) };
    let wanted = [active(59), active(10), active(90), Touched::Missing, active(59), active(90)];
    assert_eq!(store.touch(&touches).await.unwrap(), wanted);
    let found = store.find(&session(1, None).session.id).await.unwrap().snapshot.unwrap();
    assert_eq!(found.session.last_seen_at, minutes(90));
    assert_eq!(found.session.expires_at, minutes(90).plus(HOUR));
}

#[tokio::test]
async fn one_locked_session_stops_the_touch_of_no_other() {
    let on = server();
    let store = guests(&on, "one_locked", 500).await;
    let all: Vec<_> = (1..=500).map(used).collect();
    let forgotten = locker(&on, "one_locked", 250).await;
    let refused = store.touch(&all).await.unwrap_err();
    assert_eq!(refused.kind(), &ErrorKind::Unavailable);
    let said = std::error::Error::source(&refused).unwrap().to_string();
    assert!(said.contains(&used(250).id.to_string()) && said.contains("pg_locks"), "{said}");
    assert_eq!(unwritten(&store, 500).await, [250]);
    drop(forgotten);
    while store.touch(&all).await.is_err() {}
    assert_eq!(unwritten(&store, 500).await, NONE);
}

#[tokio::test]
async fn the_others_are_written_while_one_is_waited_for() {
    let on = server();
    let store = guests(&on, "waited", 4).await;
    let mut other = locker(&on, "waited", 2).await;
    let (missing, twice) = (used(9), used(2));
    let batch = [used(1), missing, used(2), used(3), twice, used(4)];
    let touching = tokio::spawn({
        let store = store.clone();
        async move { store.touch(&batch).await }
    });
    is_waited_for(&mut other).await;
    assert_eq!(unwritten(&store, 4).await, [2]);
    say(&mut other, "COMMIT").await;
    let wanted = [written(), Touched::Missing, written(), written(), written(), written()];
    assert_eq!(touching.await.unwrap().unwrap(), wanted);
    assert_eq!(unwritten(&store, 4).await, NONE);
}

#[tokio::test]
async fn one_that_is_ended_while_it_is_waited_for_is_missing() {
    let on = server();
    let store = guests(&on, "ended_meanwhile", 3).await;
    for batch in [vec![used(1), used(3)], vec![used(2)]] {
        let ended = batch[0].id;
        let mut other = shell(&on, "ended_meanwhile").await;
        let sql = "UPDATE sessions SET revoked_at = 1, revoked_reason = 'admin' WHERE";
        say(&mut other, &format!("{sql} encode(id, 'hex') = '{ended}'")).await;
        let touching = tokio::spawn({
            let store = store.clone();
            async move { store.touch(&batch).await }
        });
        is_waited_for(&mut other).await;
        say(&mut other, "COMMIT").await;
        let outcomes = touching.await.unwrap().unwrap();
        assert_eq!(outcomes[0], Touched::Missing);
        assert!(outcomes[1..].iter().all(|outcome| *outcome == written()));
    }
}

#[tokio::test]
async fn what_is_let_go_while_another_one_is_waited_for_is_written() {
    let on = server();
    let store = guests(&on, "let_go", 5).await;
    let mut forgotten = locker(&on, "let_go", 1).await;
    let mut brief = locker(&on, "let_go", 2).await;
    let touching = tokio::spawn({
        let store = store.clone();
        async move { store.touch(&(1..=5).map(used).collect::<Vec<_>>()).await }
    });
    is_waited_for(&mut forgotten).await;
    say(&mut brief, "ROLLBACK").await;
    assert_eq!(touching.await.unwrap().unwrap_err().kind(), &ErrorKind::Unavailable);
    assert_eq!(unwritten(&store, 5).await, [1]);
    say(&mut forgotten, "ROLLBACK").await;
}

#[tokio::test]
async fn a_locked_session_is_not_waited_for_as_long_as_a_statement_may_take() {
    let on = server();
    let mut config = on.fresh("alone").await.unwrap();
    config.deadline = Duration::from_mins(10);
    // Shorter than touches are patient, and longer than anybody should wait.
    let calm = PostgresStore::connect(&config).await.unwrap();
    for number in [1, 2] {
        calm.insert(&session(number, None), NOW).await.unwrap();
    }
    for timeout in [Duration::from_millis(300), Duration::from_mins(5)] {
        config.statement_timeout = timeout;
        let store = PostgresStore::connect(&config).await.unwrap();
        let mut other = locker(&on, "alone", 1).await;
        for batch in [&[used(1)][..], &[used(1), used(2)][..], &[used(1), used(1)][..]] {
            let refused = store.touch(batch).await.unwrap_err();
            assert_eq!(refused.kind(), &ErrorKind::Unavailable);
        }
        assert_eq!(unwritten(&calm, 2).await, [1]);
        say(&mut other, "COMMIT").await;
        assert_eq!(calm.touch(&[used(1)]).await.unwrap(), [written()]);
        say(&mut other, "UPDATE sessions SET expires_at = expires_at - 3600000").await;
    }
}

#[tokio::test]
async fn a_row_of_the_application_that_refers_to_a_session_is_not_in_the_way() {
    let on = server();
    let store = guests(&on, "referred", 2).await;
    let mut other = shell(&on, "referred").await;
    say(&mut other, "SELECT FROM sessions FOR KEY SHARE").await;
    assert_eq!(store.touch(&[used(1), used(2)]).await.unwrap(), [written(); 2]);
    say(&mut other, "ROLLBACK").await;
}
