//! What is written into the log, by SQL typed by hand and by the store itself, and when it may go.

use std::time::Duration;

use session_store_core::{
    CacheName, CacheRegistration, CacheScope, PrimaryStore, Reason, Rotation, SecretHash,
    Selection, SessionChange, SessionId, SweepBounds, Timestamp, Touch, Touched, Ttl, User,
};
use session_store_postgres::{PostgresHarness, PostgresStore};
use sqlx::Executor;

use crate::fixture::{HOUR, NOW, address, server, session, store, user};

/// The purge goes by the server's time: none of it may pass while a test runs.
const TTL: Duration = Duration::from_mins(10);
/// Nothing is dead before it.
const NOTHING: SweepBounds =
    SweepBounds { expired_before: Timestamp::EPOCH, revoked_before: Timestamp::EPOCH };

async fn registered(on: &PostgresHarness, namespace: &str) -> (PostgresStore, CacheName) {
    let store = store(on, namespace).await;
    let name = CacheName::main();
    let ttl = Ttl::new(TTL).unwrap();
    let cache = CacheRegistration { name: name.clone(), scope: CacheScope::Shared, ttl };
    store.register(&cache).await.unwrap();
    (store, name)
}

/// Drains and acknowledges everything; the sessions named, each as often as it is.
async fn drain(store: &PostgresStore, name: &CacheName) -> Vec<SessionId> {
    let drained = store.drain(name, 1000).await.unwrap();
    let entries: Vec<_> = drained.entries.iter().map(|entry| entry.id).collect();
    store.acknowledge(name, &entries).await.unwrap();
    drained.entries.into_iter().flat_map(|entry| entry.sessions).collect()
}

/// What is typed, and whether a cache may hold what was before.
const TYPED: &[(&str, bool)] = &[
    ("secret_hash = decode(repeat('08', 32), 'hex')", true),
    ("previous_hash = decode(repeat('09', 32), 'hex')", true),
    ("previous_hash = NULL", true),
    ("previous_until = 5", true),
    ("created_at = 5", true),
    ("authenticated_at = 5", true),
    ("last_seen_at = last_seen_at + 5", false),
    ("last_seen_at = 5", false),
    ("expires_at = expires_at + 5", false),
    ("expires_at = expires_at - 5", true),
    ("absolute_expires_at = 9000000000000", true),
    ("idle_timeout = 5", true),
    ("rotated_at = 5", true),
    ("ip = '192.0.2.7'", true),
    ("user_agent = 'x'", true),
    ("device = 'x'", true),
    ("remember = NOT remember", true),
    ("aal = 1", true),
    ("amr = '[\"pwd\"]'", true),
    ("external_sid = 'x'", true),
    ("data = '{\"a\":1}'", true),
    ("version = version + 1", true),
    ("credential_epoch = 7", true),
    ("user_id = NULL", true),
    ("revoked_at = 5", true),
    ("revoked_reason = 'admin'", true),
    ("id = decode(repeat('01', 16), 'hex')", true),
];

#[tokio::test]
async fn every_column_typed_by_hand_is_logged_once_unless_a_touch_moves_it() {
    let on = server();
    let (store, cache) = registered(&on, "typed").await;
    let schema = on.schema("typed");
    let mut columns: Vec<String> = sqlx::query_scalar(
        "SELECT column_name::text FROM information_schema.columns \
         WHERE table_schema = $1 AND table_name = 'sessions'",
    )
    .bind(&schema)
    .fetch_all(store.pool())
    .await
    .unwrap();
    columns.retain(|name| !TYPED.iter().any(|(sql, _)| sql.starts_with(&format!("{name} ="))));
    assert_eq!(columns, [""; 0], "columns without a test");
    let id = session(1, None).session.id;
    let hex = id.to_string();
    store.insert(&session(1, Some("ada")), NOW).await.unwrap();
    for (sql, is_logged) in TYPED {
        let typed = format!("UPDATE {schema}.sessions SET {sql} WHERE encode(id, 'hex') = '{hex}'");
        on.run(typed).await.unwrap();
        let wanted = if *is_logged { vec![id] } else { vec![] };
        assert_eq!(drain(&store, &cache).await, wanted, "{sql}");
    }
}

#[tokio::test]
async fn the_store_itself_causes_one_entry_for_a_change_and_none_for_a_touch() {
    let on = server();
    let (store, cache) = registered(&on, "own_writes").await;
    let id = |number| session(number, None).session.id;
    for number in 1..=3 {
        store.insert(&session(number, Some("ada")), NOW).await.unwrap();
    }
    let seen_at = NOW.plus(HOUR / 2);
    let touch = |number| Touch { id: id(number), seen_at, expires_at: seen_at.plus(HOUR) };
    let touched = store.touch(&[touch(1), touch(2)]).await.unwrap();
    assert!(touched.iter().all(|touched| matches!(touched, Touched::Active { .. })));
    assert_eq!(drain(&store, &cache).await, []);
    let rotation =
        Rotation { secret_hash: SecretHash::from_bytes([8; 32]), previous: None, rotated_at: NOW };
    let change = SessionChange { rotation: Some(rotation), ..SessionChange::default() };
    store.update(&id(1), 1, &change, NOW).await.unwrap();
    assert_eq!(drain(&store, &cache).await, [id(1)]);
    // The one that is spared has another epoch from now on.
    let but = Selection::AllBut(user("ada"), id(1));
    store.revoke(&but, Reason::Logout, NOW).await.unwrap();
    let mut named = drain(&store, &cache).await;
    named.sort();
    assert_eq!(named, [id(1), id(2), id(3)]);
    // What was ended is ended, and what is dead concerns nobody.
    store.revoke(&Selection::AllOf(user("ada")), Reason::Admin, NOW).await.unwrap();
    assert_eq!(drain(&store, &cache).await, [id(1)]);
    store.delete_user(&user("ada"), NOW).await.unwrap();
    assert_eq!(drain(&store, &cache).await, []);
    store.insert_user(&User::new(user("eve"), NOW), NOW).await.unwrap();
    store.insert(&session(4, Some("eve")), NOW).await.unwrap();
    store.delete_user(&user("eve"), NOW).await.unwrap();
    assert_eq!(drain(&store, &cache).await, [id(4)]);
}

/// How many entries there are, and how many of them no sweep has seen.
async fn count(store: &PostgresStore) -> (i64, i64) {
    let sql = "SELECT count(*), count(*) FILTER (WHERE seen_at IS NULL) FROM session_log";
    sqlx::query_as(sql).fetch_one(store.pool()).await.unwrap()
}

#[tokio::test]
async fn a_log_that_nobody_drains_is_purged_in_steps() {
    let on = server();
    let (first, _) = registered(&on, "undrained").await;
    let schema = on.schema("undrained");
    on.run(format!(
        "INSERT INTO {schema}.session_log (session_id, seen_at) \
         SELECT decode(lpad(to_hex(n), 32, '0'), 'hex'), CASE WHEN n % 2 = 0 THEN 0 END \
         FROM generate_series(1, 6000) n"
    ))
    .await
    .unwrap();
    // Whatever the server takes for cheap: with the second, what is joined is looked up over and over.
    let loops = [
        "",
        "?options=-c%20enable_hashjoin%3Doff%20-c%20enable_mergejoin%3Doff%20\
         -c%20enable_hashagg%3Doff%20-c%20enable_sort%3Doff%20-c%20enable_material%3Doff",
    ];
    let mut stores = Vec::new();
    for options in loops {
        let mut config = on.config("undrained");
        config.url += options;
        stores.push(PostgresStore::connect(&config).await.unwrap());
    }
    for step in 1..=3 {
        let swept = stores[step % 2].sweep(&NOTHING, 10).await.unwrap();
        let step = i64::try_from(step).unwrap();
        // What was only seen now is kept for as long as somebody may need it.
        assert_eq!(count(&first).await, (6000 - 1000 * step, 3000 - 1000 * step));
        assert!(swept.more);
    }
    assert!(!first.sweep(&NOTHING, 10).await.unwrap().more);
    assert_eq!(count(&first).await, (3000, 0));
}

#[tokio::test]
async fn an_entry_is_kept_for_a_ttl_from_when_it_could_be_seen() {
    let on = server();
    let (store, cache) = registered(&on, "held_back").await;
    store.insert(&session(1, Some("ada")), NOW).await.unwrap();
    let mut shell = <sqlx::PgConnection as sqlx::Connection>::connect(&address()).await.unwrap();
    let schema = on.schema("held_back");
    // Typed an hour ago, and committed now: meanwhile caches were filled with what was before.
    let typed = format!(
        "SET search_path TO {schema}; BEGIN; DELETE FROM sessions; \
         UPDATE session_log SET logged_at = logged_at - 3600000"
    );
    shell.execute(sqlx::raw_sql(sqlx::AssertSqlSafe(typed))).await.unwrap();
    shell.execute("COMMIT").await.unwrap();
    for _ in 0..2 {
        store.sweep(&NOTHING, 10).await.unwrap();
        assert_eq!(store.drain(&cache, 10).await.unwrap().entries.len(), 1);
    }
    // An hour later.
    on.run(format!("UPDATE {schema}.session_log SET seen_at = seen_at - 3600000")).await.unwrap();
    store.sweep(&NOTHING, 10).await.unwrap();
    assert_eq!(store.drain(&cache, 10).await.unwrap().entries, []);
}
