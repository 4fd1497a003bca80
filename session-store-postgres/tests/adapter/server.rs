//! Poolers, many at once, connections that are gone.

use std::time::Duration;

use futures_util::future::join_all;
use session_store_core::{
    CacheName, CacheRegistration, CacheScope, ErrorKind, PrimaryStore, Reason, Selection,
    SweepBounds, Timestamp, Ttl, User,
};
use session_store_postgres::{PostgresConfig, PostgresStore};

use crate::fixture::{NOW, address, server, session, store, user};

async fn refusal(config: &PostgresConfig) -> session_store_core::Error {
    PostgresStore::connect(config).await.unwrap_err()
}

#[tokio::test]
async fn a_pooler_in_transaction_mode_is_refused_with_advice() {
    let pooler = std::env::var("SESSION_STORE_PGBOUNCER_URL").unwrap_or_else(|_| {
        panic!("no pooler: run `cargo xtask test` or `cargo xtask servers up`")
    });
    for _ in 0..5 {
        let error = refusal(&PostgresConfig::new(&pooler)).await;
        let is_named = matches!(error.kind(), ErrorKind::Configuration { what }
            if what.contains("session mode"));
        assert!(is_named, "{error:?} {:?}", std::error::Error::source(&error));
    }
}

#[tokio::test]
async fn eight_may_start_at_once() {
    let on = server();
    let config = on.fresh("together").await.unwrap();
    for done in join_all((0..8).map(|_| PostgresStore::connect(&config))).await {
        assert_eq!(done.unwrap().count_users().await.unwrap(), 0);
    }
}

#[tokio::test]
async fn the_servers_time_comes_with_a_lookup() {
    let on = server();
    let mut config = on.fresh("clock").await.unwrap();
    config.compare_clocks = true;
    let store = PostgresStore::connect(&config).await.unwrap();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let told = store.find(&session(1, None).session.id).await.unwrap();
    assert_eq!(told.snapshot, None);
    let distance = told.server_time.unwrap().distance(Timestamp::from_epoch(now));
    assert!(distance < Duration::from_mins(1), "{distance:?}");
}

#[tokio::test]
async fn a_sweep_uses_the_index_and_is_bounded() {
    let on = server();
    let store = store(&on, "sweep").await;
    let schema = on.schema("sweep");
    let count = 20_000;
    // Half of them are dead.
    on.run(format!(
        "INSERT INTO {schema}.sessions (id, secret_hash, created_at, last_seen_at, expires_at, \
         idle_timeout, rotated_at, remember, amr, data, version, credential_epoch) \
         SELECT decode(lpad(to_hex(n), 32, '0'), 'hex'), decode(repeat('07', 32), 'hex'), 0, 0, \
         CASE WHEN n % 2 = 0 THEN n ELSE 2000000000000 END, 1000, 0, false, '[]', '{{}}', 1, 0 \
         FROM generate_series(1, {count}) n; ANALYZE {schema}.sessions"
    ))
    .await
    .unwrap();
    let plan: Vec<String> = sqlx::query_scalar(sqlx::AssertSqlSafe(format!(
        "EXPLAIN SELECT id FROM {schema}.sessions WHERE expires_at <= 1900000000000 \
         ORDER BY expires_at, id LIMIT 500 FOR UPDATE SKIP LOCKED"
    )))
    .fetch_all(store.pool())
    .await
    .unwrap();
    assert!(plan.iter().any(|line| line.contains("sessions_by_deadline")), "{plan:#?}");
    let bounds = SweepBounds { expired_before: NOW, revoked_before: NOW };
    let live = session(u32::MAX, Some("ada"));
    let mut removed = 0;
    loop {
        // Beside live traffic.
        let swept = store.sweep(&bounds, 1_000);
        let (swept, inserted) = tokio::join!(swept, store.insert(&live, NOW));
        let swept = swept.unwrap();
        assert!(swept.removed <= 1_000);
        assert!(removed > 0 || inserted.is_ok());
        removed += swept.removed;
        if !swept.more {
            break;
        }
    }
    assert_eq!(removed, count / 2);
}

#[tokio::test]
async fn ten_thousand_sessions_end_in_one_transaction() {
    let on = server();
    let store = store(&on, "many").await;
    let schema = on.schema("many");
    on.run(format!(
        "INSERT INTO {schema}.sessions (id, user_id, secret_hash, created_at, last_seen_at, \
         expires_at, idle_timeout, rotated_at, remember, amr, data, version, credential_epoch) \
         SELECT decode(lpad(to_hex(n), 32, '0'), 'hex'), 'ada', decode(repeat('07', 32), 'hex'), 0, \
         0, 2000000000000, 1000, 0, false, '[]', '{{}}', 1, 0 FROM generate_series(1, 10000) n"
    ))
    .await
    .unwrap();
    let done = store.revoke(&Selection::AllOf(user("ada")), Reason::Admin, NOW).await.unwrap();
    assert_eq!(done.revoked.len(), 10_000);
}

#[tokio::test]
async fn connections_that_the_server_closed_fail_nobody() {
    let on = server();
    let mut config = on.fresh("closed").await.unwrap();
    config.url = format!("{}?application_name=closed", address());
    let store = PostgresStore::connect(&config).await.unwrap();
    store.insert_user(&User::new(user("ada"), NOW), NOW).await.unwrap();
    for round in 0..4 {
        // As many as the pool may have, all of them idle.
        let busy: Vec<_> = join_all((0..6).map(|_| store.pool().acquire())).await;
        drop(busy);
        let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
             WHERE application_name = 'closed'";
        on.run(sql.to_owned()).await.unwrap();
        let new = session(round, Some("ada"));
        if round == 0 {
            assert!(store.find(&new.session.id).await.unwrap().snapshot.is_none());
        } else if round == 1 {
            store.insert(&new, NOW).await.unwrap();
        } else if round == 2 {
            let (name, scope) = (CacheName::new("near").unwrap(), CacheScope::Shared);
            let cache = CacheRegistration { name, scope, ttl: Ttl::MIN };
            store.register(&cache).await.unwrap();
        } else {
            let account = store.find_user(&user("ada")).await.unwrap();
            assert!(account.is_some());
        }
    }
}

/// How many connections of this name the server has.
async fn how_many(name: &str) -> i64 {
    let mut shell = <sqlx::PgConnection as sqlx::Connection>::connect(&address()).await.unwrap();
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE application_name = $1";
    sqlx::query_scalar(sql).bind(name).fetch_one(&mut shell).await.unwrap()
}

#[tokio::test]
async fn connections_that_were_idle_for_too_long_fail_nobody() {
    let on = server();
    let mut config = on.fresh("idle").await.unwrap();
    config.url = format!("{}?application_name=idle", address());
    let store = PostgresStore::connect(&config).await.unwrap();
    for round in 0..2 {
        let busy: Vec<_> = join_all((0..6).map(|_| store.pool().acquire())).await;
        // Those that are made later are not meant: on a busy machine they too may be idle for so long.
        for connection in busy {
            let soon = sqlx::raw_sql("SET idle_session_timeout = 300");
            soon.execute(&mut *connection.unwrap()).await.unwrap();
        }
        while how_many("idle").await > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        if round == 0 {
            let none = store.find(&session(1, None).session.id).await.unwrap();
            assert!(none.snapshot.is_none());
        } else {
            store.insert_user(&User::new(user("ada"), NOW), NOW).await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_pool_that_is_used_up_is_unavailable_and_recovers() {
    let on = server();
    let mut config = on.fresh("full").await.unwrap();
    config.max_connections = 1;
    config.connect_timeout = Duration::from_secs(5);
    let store = PostgresStore::connect(&config).await.unwrap();
    let id = session(1, None).session.id;
    let busy = store.pool().acquire().await.unwrap();
    let refused = store.find(&id).await.unwrap_err();
    assert_eq!(refused.kind(), &ErrorKind::Unavailable);
    let refused = store.insert(&session(1, None), NOW).await.unwrap_err();
    assert_eq!(refused.kind(), &ErrorKind::Unavailable);
    drop(busy);
    assert!(store.find(&id).await.unwrap().snapshot.is_none());
}
