//! A sweep of a table that was not swept for a long time.

use std::sync::atomic::{AtomicU64, Ordering};

use session_store_core::{PrimaryStore, Reason, Selection, SweepBounds, Touch};
use session_store_postgres::{PostgresHarness, PostgresStore};
use sqlx::{AssertSqlSafe, Connection, Executor};

use crate::fixture::{HOUR, NOW, address, server, session, store, user};

const LIVE: u32 = 1_000_000;
const BATCH: u32 = 20_000;

#[tokio::test]
async fn a_million_are_swept_beside_traffic() {
    let on = server();
    let store = store(&on, "million").await;
    let schema = on.schema("million");
    let (now, soon) = (NOW.as_millis(), NOW.plus(2 * HOUR).as_millis());
    // The first million is live, the second has expired, every row at a moment of its own.
    on.run(format!(
        "INSERT INTO {schema}.sessions (id, secret_hash, created_at, last_seen_at, expires_at, \
         idle_timeout, rotated_at, remember, amr, data, version, credential_epoch) \
         SELECT decode(lpad(to_hex(n), 32, '0'), 'hex'), decode(repeat('07', 32), 'hex'), 0, 0, \
         CASE WHEN n <= {LIVE} THEN {soon} ELSE {now} - n END, 3600000, 0, false, '[]', '{{}}', 1, 0 \
         FROM generate_series(1, 2 * {LIVE}) n; ANALYZE {schema}.sessions"
    ))
    .await
    .unwrap();
    let bounds = SweepBounds { expired_before: NOW, revoked_before: NOW };
    let (mut removed, mut batches) = (0, 0);
    let served = AtomicU64::new(0);
    let is_done = AtomicU64::new(0);
    let sweeping = async {
        loop {
            let swept = store.sweep(&bounds, BATCH).await.unwrap();
            (removed, batches) = (removed + swept.removed, batches + 1);
            if !swept.more {
                break;
            }
        }
        is_done.store(1, Ordering::Relaxed);
    };
    let traffic = async {
        let mut number = LIVE;
        while is_done.load(Ordering::Relaxed) == 0 {
            number -= 10;
            let live = session(number, None).session.id;
            let found = store.find(&live).await.unwrap();
            assert!(found.snapshot.is_some(), "a live session was swept");
            let touch = Touch { id: live, seen_at: NOW, expires_at: NOW.plus(3 * HOUR) };
            store.touch(&[touch]).await.unwrap();
            let new = session(3 * LIVE + number, Some("ada"));
            store.insert(&new, NOW).await.unwrap();
            let one = Selection::One { id: new.session.id, owner: Some(user("ada")) };
            store.revoke(&one, Reason::Logout, NOW.plus(HOUR)).await.unwrap();
            served.fetch_add(1, Ordering::Relaxed);
        }
    };
    tokio::join!(sweeping, traffic);
    assert_eq!((removed, batches), (u64::from(LIVE), LIVE / BATCH));
    assert!(served.load(Ordering::Relaxed) > 10, "the sweep let nobody through");
    let census = store.census(NOW, None).await.unwrap();
    assert_eq!((census.active, census.expired), (u64::from(LIVE), 0));
}

/// A transaction of somebody else that has done `sql`.
async fn shell(on: &PostgresHarness, namespace: &str, sql: &str) -> sqlx::PgConnection {
    let mut shell = sqlx::PgConnection::connect(&address()).await.unwrap();
    let path = format!("SET search_path TO {}; BEGIN; {sql}", on.schema(namespace));
    shell.execute(sqlx::raw_sql(AssertSqlSafe(path))).await.unwrap();
    shell
}

/// Three sessions, the first of which expired first; and what sweeps them.
async fn dead(on: &PostgresHarness, namespace: &str) -> (PostgresStore, SweepBounds) {
    let store = store(on, namespace).await;
    for number in 1..=3 {
        let mut new = session(number, Some("ada"));
        new.session.expires_at = NOW.plus(HOUR * number);
        store.insert(&new, NOW).await.unwrap();
    }
    let bounds = SweepBounds { expired_before: NOW.plus(HOUR * 4), revoked_before: NOW };
    (store, bounds)
}

#[tokio::test]
async fn a_sweep_leaves_alone_what_somebody_works_on() {
    let on = server();
    let (store, bounds) = dead(&on, "worked_on").await;
    let first = "SELECT 1 FROM sessions ORDER BY expires_at LIMIT 1 FOR UPDATE";
    let mut other = shell(&on, "worked_on", first).await;
    // It would wait for the other, and come to `Timeout`.
    let swept = store.sweep(&bounds, 10).await.unwrap();
    assert_eq!((swept.removed, swept.more), (2, false));
    other.execute("ROLLBACK").await.unwrap();
    assert_eq!(store.sweep(&bounds, 10).await.unwrap().removed, 1);
}

#[tokio::test]
async fn a_session_that_is_being_extended_survives_a_sweep() {
    let on = server();
    let (store, bounds) = dead(&on, "extended").await;
    let later = NOW.plus(HOUR * 9).as_millis();
    let first = "(SELECT id FROM sessions ORDER BY expires_at LIMIT 1)";
    let extended = format!("UPDATE sessions SET expires_at = {later} WHERE id = {first}");
    let mut other = shell(&on, "extended", &extended).await;
    assert_eq!(store.sweep(&bounds, 10).await.unwrap().removed, 2);
    other.execute("COMMIT").await.unwrap();
    let swept = store.sweep(&bounds, 10).await.unwrap();
    assert_eq!((swept.removed, swept.more), (0, false));
    let found = store.find(&session(1, None).session.id).await.unwrap().snapshot.unwrap();
    assert_eq!(found.session.expires_at.as_millis(), later);
}

#[tokio::test]
async fn a_log_that_can_not_be_purged_hides_nothing_that_was_removed() {
    let on = server();
    let (store, bounds) = dead(&on, "unpurged").await;
    let schema = on.schema("unpurged");
    on.run(format!(
        "CREATE FUNCTION {schema}.no() RETURNS trigger LANGUAGE plpgsql AS $body$ \
         BEGIN RAISE EXCEPTION 'no'; END $body$; \
         CREATE TRIGGER no BEFORE UPDATE ON {schema}.session_log FOR EACH ROW \
         EXECUTE FUNCTION {schema}.no(); \
         INSERT INTO {schema}.session_log (session_id) VALUES (decode(repeat('07', 16), 'hex'))"
    ))
    .await
    .unwrap();
    store.sweep(&bounds, 10).await.unwrap_err();
    on.run(format!("DROP TRIGGER no ON {schema}.session_log")).await.unwrap();
    assert_eq!(store.sweep(&bounds, 10).await.unwrap().removed, 3);
}
