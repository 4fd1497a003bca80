//! What connecting comes to: bounded waits, schemas of one's own, hosts that are not there.

use std::time::{Duration, Instant};

use session_store_core::{ErrorKind, PrimaryStore, Reason, Selection, User};
use session_store_postgres::{
    Access, ExistingUsers, IdType, InvalidationLog, PostgresConfig, PostgresStore, Users,
};
use sqlx::postgres::PgPoolOptions;
use sqlx::{Connection, Executor, PgPool};
use tokio::net::TcpListener;

use crate::fixture::{NOW, address, server, session, user};

#[tokio::test]
async fn a_migration_that_is_held_up_ends_and_says_by_whom() {
    let on = server();
    let mut config = on.fresh("held").await.unwrap();
    // Long enough for what a busy machine does when nobody holds it up.
    config.connect_timeout = Duration::from_secs(5);
    // As long as the other, as by default: it must not be the one that speaks.
    config.statement_timeout = config.connect_timeout;
    let schema = on.schema("held");
    let mut other = sqlx::PgConnection::connect(&address()).await.unwrap();
    other.execute("SET application_name = 'somebody else'").await.unwrap();
    let advisory = format!(
        "SET search_path TO {schema}; BEGIN; \
         SELECT pg_advisory_xact_lock(x'696f6e73'::int, hashtext(current_schema() || ''))"
    );
    other.execute(sqlx::raw_sql(sqlx::AssertSqlSafe(advisory))).await.unwrap();
    // Also over a pool whose statements may take for ever.
    let path = format!("{}?options=-c%20search_path%3D{schema}", address());
    let pool = PgPoolOptions::new().max_connections(2).connect(&path).await.unwrap();
    for refused in
        [PostgresStore::connect(&config).await, PostgresStore::over(pool.clone(), &config).await]
    {
        let refused = refused.unwrap_err();
        let source = std::error::Error::source(&refused).unwrap().to_string();
        assert_eq!(refused.kind(), &ErrorKind::Unavailable, "{source}");
        let is_named = source.contains("somebody else") && source.contains("pg_stat_activity");
        assert!(is_named, "{source}");
    }
    other.execute("ROLLBACK").await.unwrap();
    PostgresStore::connect(&config).await.unwrap();
    // A lock on a table, which the triggers need that are to go.
    let table = format!("BEGIN; LOCK TABLE {schema}.sessions IN ROW EXCLUSIVE MODE");
    other.execute(sqlx::raw_sql(sqlx::AssertSqlSafe(table))).await.unwrap();
    config.log = InvalidationLog::Off;
    let refused = PostgresStore::connect(&config).await.unwrap_err();
    let source = std::error::Error::source(&refused).unwrap().to_string();
    assert!(source.contains("somebody else") && source.contains("idle in transaction"), "{source}");
    other.execute("ROLLBACK").await.unwrap();
    PostgresStore::connect(&config).await.unwrap();
}

#[tokio::test]
async fn times_that_do_not_fit_are_refused_before_anybody_is_asked() {
    let mut config = PostgresConfig::new("postgres://nobody@127.0.0.1:1/nothing");
    config.deadline = Duration::ZERO;
    let refused = PostgresStore::connect(&config).await.unwrap_err();
    let is_typed = matches!(refused.kind(), ErrorKind::Configuration { .. });
    assert!(is_typed && refused.to_string().contains("deadline is 0ns"), "{refused}");
    let pool = PgPoolOptions::new().connect_lazy(&config.url).unwrap();
    let refused = PostgresStore::over(pool, &config).await.unwrap_err();
    assert!(refused.to_string().contains("deadline is 0ns"), "{refused}");
}

#[tokio::test]
async fn a_server_that_hangs_up_is_dialled_once_for_a_call() {
    let on = server();
    let config = on.fresh("dial").await.unwrap();
    PostgresStore::connect(&config).await.unwrap().pool().close().await;
    // A host that takes connections and drops them, once the store has been opened through it.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (is_up, watch) = tokio::sync::watch::channel(true);
    let dials = std::sync::Arc::new(std::sync::atomic::AtomicU32::new(0));
    let truth = address().split('@').nth(1).unwrap().split('/').next().unwrap().to_owned();
    tokio::spawn({
        let dials = std::sync::Arc::clone(&dials);
        async move {
            loop {
                let (mut client, _) = listener.accept().await.unwrap();
                dials.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                if !*watch.borrow() {
                    continue;
                }
                let (truth, mut watch) = (truth.clone(), watch.clone());
                tokio::spawn(async move {
                    let mut server = tokio::net::TcpStream::connect(truth).await.unwrap();
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut client, &mut server) => {}
                        _ = watch.wait_for(|is_up| !is_up) => {}
                    }
                });
            }
        }
    });
    let mut through = config.clone();
    let (user_part, rest) = config.url.split_once('@').unwrap();
    let database = rest.split_once('/').unwrap().1;
    through.url = format!("{user_part}@127.0.0.1:{port}/{database}");
    through.access = Access::Ready;
    let store = PostgresStore::connect(&through).await.unwrap();
    is_up.send_replace(false);
    let id = session(1, None).session.id;
    // The first one may have had an open connection, and so has learnt that it is closed.
    assert_eq!(store.find(&id).await.unwrap_err().kind(), &ErrorKind::Unavailable);
    dials.store(0, std::sync::atomic::Ordering::SeqCst);
    assert_eq!(store.find(&id).await.unwrap_err().kind(), &ErrorKind::Unavailable);
    // Nothing was sent, so that nothing is unknown.
    let guest = session(2, None);
    assert_eq!(store.insert(&guest, NOW).await.unwrap_err().kind(), &ErrorKind::Unavailable);
    assert_eq!(dials.load(std::sync::atomic::Ordering::SeqCst), 2);
    is_up.send_replace(true);
    assert!(store.find(&id).await.unwrap().snapshot.is_none());
}

#[tokio::test]
async fn a_schema_that_was_printed_and_run_by_hand_is_ready() {
    for namespace in ["printed", "printed_own"] {
        let on = server();
        let mut config = on.fresh(namespace).await.unwrap();
        let schema = on.schema(namespace);
        config.table_prefix = "shop_".to_owned();
        config.access = Access::Ready;
        let mut script = format!("SET search_path TO {schema};\n");
        if namespace == "printed_own" {
            script += "CREATE TABLE people (nr bigint PRIMARY KEY, may text);\n\
                       INSERT INTO people VALUES (7, 'read');\n";
            let mut people = ExistingUsers::new("people", "nr", IdType::Integer);
            people.role_column = Some("may".to_owned());
            config.users = Users::Existing(people);
        }
        let missing = PostgresStore::connect(&config);
        assert!(matches!(missing.await.unwrap_err().kind(), ErrorKind::SchemaMismatch { .. }));
        script += &PostgresStore::migration_sql(&config).unwrap();
        on.run(script).await.unwrap();
        let store = PostgresStore::connect(&config).await.unwrap();
        let name = if namespace == "printed" { "ada" } else { "7" };
        if namespace == "printed" {
            store.insert_user(&User::new(user(name), NOW), NOW).await.unwrap();
        } else {
            // The trigger on the application's table is printed by itself, for its owner.
            let trigger = PostgresStore::user_trigger_sql(&config).unwrap();
            let before = store.promise().log;
            on.run(format!("SET search_path TO {schema};\n{trigger}")).await.unwrap();
            let after = PostgresStore::connect(&config).await.unwrap().promise().log;
            assert_ne!(before, after);
        }
        store.insert(&session(1, Some(name)), NOW).await.unwrap();
        let all = Selection::AllOf(user(name));
        assert_eq!(store.revoke(&all, Reason::Admin, NOW).await.unwrap().revoked.len(), 1);
        // A handle that migrates finds nothing left to do.
        config.access = Access::Migrate;
        PostgresStore::connect(&config).await.unwrap();
    }
}

#[tokio::test]
async fn a_pool_of_the_applications_through_a_pooler_is_refused_too() {
    let pooler = std::env::var("SESSION_STORE_PGBOUNCER_URL").unwrap();
    let pool = PgPoolOptions::new().max_connections(2).connect_lazy(&pooler).unwrap();
    let began = Instant::now();
    let refused = PostgresStore::over(pool, &PostgresConfig::new(&pooler)).await.unwrap_err();
    let is_typed = matches!(refused.kind(), ErrorKind::Configuration { what }
        if what.contains("session mode"));
    assert!(is_typed, "{refused} after {:?}", began.elapsed());
}

#[tokio::test]
async fn tables_of_before_the_first_release_are_refused() {
    let on = server();
    let mut config = on.fresh("unreleased").await.unwrap();
    PostgresStore::connect(&config).await.unwrap();
    let schema = on.schema("unreleased");
    on.run(format!("ALTER TABLE {schema}.session_log DROP COLUMN seen_at")).await.unwrap();
    for access in [Access::Migrate, Access::Ready] {
        config.access = access;
        let refused = PostgresStore::connect(&config).await.unwrap_err();
        let is_named = matches!(refused.kind(), ErrorKind::SchemaMismatch { what }
            if what.contains("seen_at"));
        assert!(is_named, "{refused}");
    }
}

/// What a new connection of `pool` has its server do about silence.
async fn told(pool: &PgPool) -> Vec<String> {
    let mut on = pool.acquire().await.unwrap();
    let sql = "SELECT current_setting(name) FROM unnest(ARRAY['tcp_keepalives_idle', \
         'tcp_keepalives_interval', 'tcp_keepalives_count', 'tcp_user_timeout', \
         'client_connection_check_interval']) WITH ORDINALITY t (name, n) ORDER BY n";
    sqlx::query_scalar(sql).fetch_all(&mut *on).await.unwrap()
}

#[tokio::test]
async fn the_server_is_told_to_notice_when_nobody_is_there() {
    let mut config = PostgresConfig::new(address());
    config.access = Access::Ready;
    let pool = |url: &str, options: PgPoolOptions| options.connect_lazy(url).unwrap();
    let guarded = async |url: &str| {
        let options = config.guard(PgPoolOptions::new()).unwrap();
        told(&pool(url, options)).await
    };
    // What the kernel uses, as it says itself.
    assert_eq!(guarded(&config.url).await, ["10", "2", "5", "20000", "1s"]);
    let own = server().fresh("told").await.unwrap();
    let own = PostgresStore::connect(&own).await.unwrap();
    assert_eq!(told(own.pool()).await, ["10", "2", "5", "20000", "1s"]);
    // Whoever wants to know earlier does, and not later.
    let url = |what: &str| format!("{}?options={what}", config.url);
    let (earlier, later) = (
        url("-c%20tcp_keepalives_idle%3D3%20-c%20tcp_user_timeout%3D6000"),
        url("-c%20tcp_keepalives_idle%3D300%20-c%20tcp_user_timeout%3D600000"),
    );
    assert_eq!(guarded(&earlier).await, ["3", "2", "5", "6000", "1s"]);
    assert_eq!(guarded(&later).await, ["10", "2", "5", "20000", "1s"]);
    // A pool that is the application's alone is left to it.
    assert_ne!(told(&pool(&config.url, PgPoolOptions::new())).await[3], "20000");
}
