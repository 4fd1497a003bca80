//! Every index is used by the statements that it is for, as they are sent.

use session_store_core::{
    Page, PrimaryStore, Reason, Selection, SweepBounds, Timestamp, User, Which,
};
use session_store_postgres::{PostgresHarness, PostgresStore};
use sqlx::Row;

use crate::fixture::{NOW, address, server, user};

/// How often an index was looked into, by its name.
async fn scans(on: &PostgresHarness, namespace: &str, index: &str) -> i64 {
    let mut shell = <sqlx::PgConnection as sqlx::Connection>::connect(&address()).await.unwrap();
    let sql =
        "SELECT idx_scan FROM pg_stat_user_indexes WHERE schemaname = $1 AND indexrelname = $2";
    let row = sqlx::query(sql).bind(on.schema(namespace)).bind(index).fetch_one(&mut shell);
    row.await.unwrap().get(0)
}

/// A hundred users with a hundred sessions each: a tenth has expired, a tenth was revoked.
async fn filled(on: &PostgresHarness, namespace: &str) -> PostgresStore {
    let mut config = on.fresh(namespace).await.unwrap();
    // One connection, which tells what it did when it has something else to do.
    config.max_connections = 1;
    let store = PostgresStore::connect(&config).await.unwrap();
    for number in 0..100 {
        let new = User::new(user(&format!("u{number}")), NOW);
        store.insert_user(&new, NOW).await.unwrap();
    }
    let schema = on.schema(namespace);
    let now = NOW.as_millis();
    on.run(format!(
        "INSERT INTO {schema}.sessions (id, user_id, secret_hash, created_at, last_seen_at, \
         expires_at, idle_timeout, rotated_at, remember, amr, data, version, credential_epoch, \
         external_sid, revoked_at, revoked_reason) \
         SELECT decode(lpad(to_hex(n), 32, '0'), 'hex'), 'u' || n % 100, \
         decode(repeat('07', 32), 'hex'), n, n, {now} + CASE WHEN n % 10 = 3 THEN -n ELSE 9000000 + n \
         END, 1000, 0, false, '[]', '{{}}', 1, 0, CASE WHEN n % 100 = 7 THEN 'sid' || n END, \
         CASE WHEN n % 10 = 5 THEN {now} - n END, CASE WHEN n % 10 = 5 THEN 'logout' END \
         FROM generate_series(1, 10000) n; ANALYZE {schema}.sessions; ANALYZE {schema}.users"
    ))
    .await
    .unwrap();
    store
}

#[tokio::test]
async fn every_index_is_used_by_what_it_is_for() {
    let on = server();
    let store = filled(&on, "plans").await;
    let page = Page::first(10);
    let ada = user("u42");
    let looked = async |index: &str| scans(&on, "plans", index).await;
    let by_user = looked("sessions_by_user").await;
    store.list(&ada, Which::Live(NOW), &page).await.unwrap();
    settled(&on, &store, "sessions_by_user", by_user).await;

    let by_user = looked("sessions_by_user").await;
    let done = store.revoke(&Selection::AllOf(ada), Reason::Admin, NOW).await.unwrap();
    assert!(done.revoked.len() > 50);
    settled(&on, &store, "sessions_by_user", by_user).await;

    let deadline = looked("sessions_by_deadline").await;
    let revoked = looked("sessions_by_revocation").await;
    let day = Timestamp::from_millis(NOW.as_millis() - 5_000);
    let bounds = SweepBounds { expired_before: day, revoked_before: day };
    assert_eq!(store.sweep(&bounds, 100).await.unwrap().removed, 100);
    settled(&on, &store, "sessions_by_deadline", deadline).await;
    settled(&on, &store, "sessions_by_revocation", revoked).await;

    let by_time = looked("users_by_time").await;
    store.list_users(&page).await.unwrap();
    settled(&on, &store, "users_by_time", by_time).await;

    // For applications: what an identity provider knows of a session is its sid.
    let schema = on.schema("plans");
    let sql = format!("EXPLAIN SELECT id FROM {schema}.sessions WHERE external_sid = 'sid107'");
    let plan: Vec<String> =
        sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).fetch_all(store.pool()).await.unwrap();
    assert!(plan.iter().any(|line| line.contains("sessions_by_sid")), "{plan:#?}");
}

#[tokio::test]
async fn a_purge_looks_into_the_index_for_what_is_new_and_for_what_is_old() {
    let on = server();
    let mut config = on.fresh("purge").await.unwrap();
    config.max_connections = 1;
    let store = PostgresStore::connect(&config).await.unwrap();
    let log = format!("{}.session_log", on.schema("purge"));
    let bounds = SweepBounds { expired_before: Timestamp::EPOCH, revoked_before: Timestamp::EPOCH };
    // Nearly all of it was seen, and is kept. One thing is to be done, then the other: what finds
    // nothing to do looks into the index as well, or reads everything.
    for seen_at in ["NULL::bigint", "0"] {
        on.run(format!(
            "INSERT INTO {log} (session_id, seen_at) \
             SELECT decode(lpad(to_hex(n), 32, '0'), 'hex'), CASE WHEN n % 100 = 0 THEN {seen_at} \
             ELSE 9000000000000 + n END FROM generate_series(1, 20000) n; ANALYZE {log}"
        ))
        .await
        .unwrap();
        let before = scans(&on, "purge", "session_log_by_sight").await;
        store.sweep(&bounds, 10).await.unwrap();
        // Once for each of both.
        settled_in(&on, &store, ("purge", "session_log_by_sight"), before + 1).await;
    }
}

/// Waits until the statistics, which come late, show one more look than before.
async fn settled(on: &PostgresHarness, store: &PostgresStore, index: &str, before: i64) {
    settled_in(on, store, ("plans", index), before).await;
}

/// The same for an index of another namespace.
async fn settled_in(
    on: &PostgresHarness,
    store: &PostgresStore,
    (namespace, index): (&str, &str),
    before: i64,
) {
    for _ in 0..500 {
        if scans(on, namespace, index).await > before {
            return;
        }
        store.count_users().await.unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("{index} was not used");
}
