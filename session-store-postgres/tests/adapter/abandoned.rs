//! Calls that nobody waits for any more: whatever they were at, the next one is not in their transaction.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use session_store_core::{
    CacheName, CacheRegistration, CacheScope, PrimaryStore, Reason, Selection, Ttl, User,
};
use session_store_postgres::{PostgresConfig, PostgresStore};
use sqlx::Row;
use sqlx::postgres::PgPoolOptions;

use crate::fixture::{NOW, address, server, session, user};
use crate::gate::Gate;

/// A schema, and the way to it over one connection of this name.
async fn narrow(namespace: &str) -> PostgresConfig {
    let mut config = server().fresh(namespace).await.unwrap();
    config.url = format!("{}?application_name={namespace}", address());
    config.max_connections = 1;
    config
}

/// Waits until nobody of this name sits in a transaction that is going nowhere.
async fn none_is_idle_in_transaction(namespace: &str) {
    let mut shell = <sqlx::PgConnection as sqlx::Connection>::connect(&address()).await.unwrap();
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE application_name = $1 \
         AND state LIKE 'idle in transaction%'";
    for _ in 0..2_000 {
        let row = sqlx::query(sql).bind(namespace).fetch_one(&mut shell).await.unwrap();
        if row.get::<i64, _>(0) == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{namespace}: a connection is idle in a transaction");
}

/// Waits until the connection is made, and nobody uses it.
async fn is_idle(store: &PostgresStore) {
    drop(store.pool().acquire().await.unwrap());
    for _ in 0..20_000 {
        if store.pool().num_idle() > 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("a connection that was returned is not idle");
}

/// Asks for a transaction, and is gone before it is answered.
async fn leave_at_the_beginning(gate: &Gate, store: &PostgresStore, name: &str) {
    is_idle(store).await;
    let before = gate.begun();
    gate.hold();
    let new = User::new(user(name), NOW);
    tokio::select! {
        done = store.insert_user(&new, NOW) => panic!("{done:?} without an answer"),
        () = gate.begins(before) => {}
    }
    gate.release();
}

#[tokio::test]
async fn one_that_left_at_the_beginning_leaves_no_transaction_behind() {
    let config = narrow("left").await;
    let other = PostgresStore::connect(&config).await.unwrap();
    let gate = Gate::open().await;
    let through = gate.on_the_way_to(&config);
    let path = format!("{}&options=-c%20search_path%3D{}", through.url, config.schema.unwrap());
    let pool = PgPoolOptions::new().max_connections(1).test_before_acquire(false);
    let pool = pool.connect(&path).await.unwrap();
    let stores = [
        PostgresStore::connect(&through).await.unwrap(),
        // The application's pool, which has no hook of ours.
        PostgresStore::over(pool, &through).await.unwrap(),
    ];
    for (number, store) in (0..).zip(&stores) {
        leave_at_the_beginning(&gate, store, "bob").await;
        let guest = session(number, None);
        store.insert(&guest, NOW).await.unwrap();
        let found = other.find(&guest.session.id).await.unwrap().snapshot;
        assert!(found.is_some(), "store {number}: said to be stored, and nobody sees it");
        none_is_idle_in_transaction("left").await;

        leave_at_the_beginning(&gate, store, "bob").await;
        let name = CacheName::new(format!("near{number}")).unwrap();
        let cache = CacheRegistration { name, scope: CacheScope::Shared, ttl: Ttl::MIN };
        store.register(&cache).await.unwrap();
        assert!(other.caches().await.unwrap().contains(&cache), "store {number}");
        none_is_idle_in_transaction("left").await;
    }
}

/// What `work` comes to unless it is dropped after so many polls.
async fn for_polls<T>(polls: u32, work: impl Future<Output = T>) -> Option<T> {
    let mut work = pin!(work);
    let mut left = polls;
    poll_fn(|context| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        let polled = work.as_mut().poll(context).map(Some);
        if left == 0 && polled.is_pending() { Poll::Ready(None) } else { polled }
    })
    .await
}

#[tokio::test]
async fn one_that_left_anywhere_leaves_no_transaction_behind() {
    let config = narrow("anywhere").await;
    let store = PostgresStore::connect(&config).await.unwrap();
    let other = PostgresStore::connect(&config).await.unwrap();
    store.insert_user(&User::new(user("ada"), NOW), NOW).await.unwrap();
    let all = Selection::AllOf(user("ada"));
    let mut are_done = false;
    for polls in 1..400 {
        let new = User::new(user(&format!("u{polls}")), NOW);
        is_idle(&store).await;
        let registered = for_polls(polls, store.insert_user(&new, NOW)).await;
        let guest = session(2 * polls, None);
        store.insert(&guest, NOW).await.unwrap();
        let found = other.find(&guest.session.id).await.unwrap().snapshot;
        assert!(found.is_some(), "after {polls} polls: said to be stored, and nobody sees it");
        is_idle(&store).await;
        let ended = for_polls(polls, store.revoke(&all, Reason::Admin, NOW)).await;
        let guest = session(2 * polls + 1, None);
        store.insert(&guest, NOW).await.unwrap();
        let found = other.find(&guest.session.id).await.unwrap().snapshot;
        assert!(found.is_some(), "after {polls} polls: said to be stored, and nobody sees it");
        if registered.is_some() && ended.is_some() {
            are_done = true;
            break;
        }
    }
    assert!(are_done, "never was one done");
    none_is_idle_in_transaction("anywhere").await;
}

/// Waits until so many of this name wait for a lock.
async fn wait_for_locks(namespace: &str, wanted: i64) {
    let mut shell = <sqlx::PgConnection as sqlx::Connection>::connect(&address()).await.unwrap();
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE application_name = $1 \
         AND wait_event_type = 'Lock'";
    for _ in 0..2_000 {
        let row = sqlx::query(sql).bind(namespace).fetch_one(&mut shell).await.unwrap();
        if row.get::<i64, _>(0) == wanted {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{namespace}: there never were {wanted} that wait for a lock");
}

#[tokio::test]
async fn the_server_gives_up_what_nobody_waits_for() {
    let mut config = narrow("given_up").await;
    // Nothing else ends what waits for a lock.
    config.statement_timeout = Duration::from_hours(1);
    config.deadline = Duration::from_hours(2);
    let store = PostgresStore::connect(&config).await.unwrap();
    store.insert_user(&User::new(user("ada"), NOW), NOW).await.unwrap();
    let mut other = <sqlx::PgConnection as sqlx::Connection>::connect(&address()).await.unwrap();
    let locked = format!("BEGIN; LOCK TABLE {}.session_users", config.schema.unwrap());
    sqlx::Executor::execute(&mut other, sqlx::raw_sql(sqlx::AssertSqlSafe(locked))).await.unwrap();
    let all = Selection::AllOf(user("ada"));
    for _ in 0..3 {
        tokio::select! {
            done = store.revoke(&all, Reason::Admin, NOW) => panic!("{done:?} beside a lock"),
            () = wait_for_locks("given_up", 1) => {}
        }
        wait_for_locks("given_up", 0).await;
    }
}
