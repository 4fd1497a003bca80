//! Poolers before Postgres: what is told to the server gets there, and what can't be is refused.

use std::time::Duration;

use futures_util::future::try_join_all;
use session_store::postgres::{PostgresConfig, PostgresHarness, PostgresStore};
use session_store::{CacheName, CacheRegistration, CacheScope, ErrorKind, PrimaryStore, Ttl};
use sqlx::postgres::PgPoolOptions;
use sqlx::{Connection, Executor, PgConnection, Row};

use super::node::{Outcome, said};
use super::private::Private;
use super::{BUSIEST, World, ensure, until};
use crate::servers::{pgbouncer, postgres};

/// A Postgres that poolers may stand before.
struct Truth {
    port: u16,
    shell: PostgresHarness,
    _server: Private,
}

impl Truth {
    fn new() -> Outcome<Self> {
        let server = Private::new()?;
        let (_, port) = server.postgres(|_| Ok(()))?;
        let shell = PostgresHarness::new(postgres::url(port));
        Ok(Self { port, shell, _server: server })
    }

    /// An empty schema, and a pooler; where that is.
    async fn pooled(&self, mode: &str) -> Outcome<(Private, String)> {
        let pooler = Private::new()?;
        let url = pgbouncer::before(&pooler.home, &postgres::url(self.port), mode);
        let empty = "DROP SCHEMA IF EXISTS shop CASCADE; CREATE SCHEMA shop".to_owned();
        self.shell.run(empty).await.map_err(said)?;
        Ok((pooler, url.map_err(said)?))
    }
}

pub(super) async fn settings_pass_a_pooler(_: &World) -> Outcome<String> {
    let truth = Truth::new()?;
    // With what is often put there, which drops options without a word; and as it comes.
    for mode in [
        "pool_mode = session\nignore_startup_parameters = extra_float_digits,options\n",
        "pool_mode = session\n",
    ] {
        let (_pooler, url) = truth.pooled(mode).await?;
        let mut config = PostgresConfig::new(url);
        config.schema = Some("shop".to_owned());
        config.statement_timeout = Duration::from_millis(12_345);
        config.max_connections = 3;
        let store = PostgresStore::connect(&config).await.map_err(said)?;
        let name = CacheName::new("near").map_err(said)?;
        let cache = CacheRegistration { name, scope: CacheScope::Shared, ttl: Ttl::MIN };
        store.register(&cache).await.map_err(said)?;
        let there = "DO $$ BEGIN ASSERT (SELECT count(*) = 1 FROM shop.session_caches); \
             ASSERT to_regclass('public.sessions') IS NULL; END $$";
        truth.shell.run(there.to_owned()).await.map_err(said)?;
        let mut busy = Vec::new();
        for _ in 0..config.max_connections {
            let mut on = store.pool().acquire().await.map_err(said)?;
            let row = on.fetch_one("SHOW statement_timeout").await.map_err(said)?;
            let timeout: String = row.try_get(0).map_err(said)?;
            ensure(timeout == "12345ms", &format!("statement_timeout is {timeout}"))?;
            let row = on.fetch_one("SHOW tcp_user_timeout").await.map_err(said)?;
            let silence: String = row.try_get(0).map_err(said)?;
            ensure(silence == "20000", &format!("tcp_user_timeout is {silence}"))?;
            busy.push(on);
        }
    }
    Ok("tables and timeouts are where they belong, in session mode".to_owned())
}

/// With what drivers say first dropped, as is often put there.
const DROPS: &str = "ignore_startup_parameters = extra_float_digits,options\n";

/// Poolers that give one server to several clients, and how many servers they have: those that take
/// turns between two that nobody else uses, those that take the last one, those that have but one.
const SHARED: &[(&str, usize)] = &[
    ("pool_mode = transaction\nserver_round_robin = 1\ndefault_pool_size = 2", 2),
    ("pool_mode = transaction\ndefault_pool_size = 2", 2),
    ("pool_mode = transaction\ndefault_pool_size = 1", 1),
    ("pool_mode = statement\nserver_round_robin = 1\ndefault_pool_size = 2", 2),
    ("pool_mode = statement", 1),
    ("pool_mode = statement\ndefault_pool_size = 1", 1),
];

/// Has a pooler open as many connections to its server, which `shell` looks at.
async fn open_servers(url: &str, count: usize, shell: &PostgresHarness) -> Outcome {
    // Not what another pooler asked before.
    let question = format!("SELECT pg_sleep(0.5), '{url}'");
    let busy = async || {
        let mut on = PgConnection::connect(url).await.map_err(said)?;
        let asked = sqlx::raw_sql(sqlx::AssertSqlSafe(question.clone())).execute(&mut on);
        asked.await.map_err(said)?;
        on.close().await.map_err(said)
    };
    let are_open = format!(
        "DO $$ BEGIN ASSERT (SELECT count(*) >= {count} FROM pg_stat_activity \
         WHERE query = $q${question}$q$); END $$"
    );
    // On a busy machine one may be done before the next one asks, and lend it its server.
    until(BUSIEST, "a pooler has as many servers as it may", async || {
        try_join_all((0..count).map(|_| busy())).await.is_ok()
            && shell.run(are_open.clone()).await.is_ok()
    })
    .await
    .map(drop)
}

/// That is what such a pooler is known by when it is at the same place whenever it is looked.
async fn refuses_transactions(url: &str) -> Outcome {
    let mut on = PgConnection::connect(url).await.map_err(said)?;
    let refused = on.execute("BEGIN").await.err().ok_or("a transaction in statement mode")?;
    let code = refused.as_database_error().and_then(sqlx::error::DatabaseError::code);
    ensure(code.as_deref() == Some("08P01"), &format!("{refused:?}"))
}

pub(super) async fn poolers_are_refused_by_name(_: &World) -> Outcome<String> {
    let truth = Truth::new()?;
    for (mode, sizes) in SHARED {
        let (_pooler, url) = truth.pooled(&format!("{mode}\n{DROPS}")).await?;
        open_servers(&url, *sizes, &truth.shell).await?;
        if mode.starts_with("pool_mode = statement") {
            refuses_transactions(&url).await?;
        }
        let mut config = PostgresConfig::new(url);
        // Shorter than a pooler lets anybody wait for a server, so that a wait is not an answer.
        config.connect_timeout = Duration::from_secs(10);
        let refused = PostgresStore::connect(&config).await.err();
        let refused = refused.ok_or_else(|| format!("accepted: {mode}"))?;
        let is_named = matches!(refused.kind(), ErrorKind::Configuration { what }
            if what.contains("session mode"));
        let source = std::error::Error::source(&refused);
        ensure(is_named, &format!("{mode}: {refused} {source:?}"))?;
    }

    // One as it comes does not take what drivers say first.
    let (_pooler, url) = truth.pooled("pool_mode = session\n").await?;
    let pool = PgPoolOptions::new().connect_lazy(&url).map_err(said)?;
    let refused = PostgresStore::over(pool, &PostgresConfig::new(&url)).await.err();
    let told = PostgresConfig::new(format!("{url}?options=-c%20search_path%3Dshop"));
    let also = PostgresStore::connect(&told).await.err();
    for (refused, parameter) in [(refused, "extra_float_digits"), (also, "options")] {
        let refused = refused.ok_or("a startup parameter was taken")?;
        let is_named = matches!(refused.kind(), ErrorKind::Configuration { what }
            if what.contains(parameter) && what.contains("ignore_startup_parameters"));
        ensure(is_named, &format!("{refused} {:?}", std::error::Error::source(&refused)))?;
    }
    Ok("those that share servers, and one that refuses what drivers say first".to_owned())
}
