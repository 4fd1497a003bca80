//! Poolers before Postgres: what is told to the server gets there, and what can't be is refused.

use std::time::Duration;

use session_store::postgres::{PostgresConfig, PostgresHarness, PostgresStore};
use session_store::{CacheName, CacheRegistration, CacheScope, ErrorKind, PrimaryStore, Ttl};
use sqlx::postgres::PgPoolOptions;
use sqlx::{Connection, Executor, PgConnection, Row};

use super::node::{Outcome, said};
use super::private::Private;
use super::{World, ensure};
use crate::servers::install::free_port;
use crate::servers::{pgbouncer, postgres};

/// A Postgres, and the pooler before it.
async fn pooled(mode: &str) -> Outcome<(Private, Private, PostgresHarness, String)> {
    let (truth, pooler) = (Private::new()?, Private::new()?);
    postgres::make(&truth.home.folder).map_err(said)?;
    let port = free_port().map_err(said)?;
    postgres::launch(&truth.home, port).map_err(said)?;
    let url = pgbouncer::before(&pooler.home, &postgres::url(port), mode).map_err(said)?;
    let shell = PostgresHarness::new(postgres::url(port));
    shell.run("CREATE SCHEMA shop".to_owned()).await.map_err(said)?;
    Ok((truth, pooler, shell, url))
}

pub(super) async fn settings_pass_a_pooler(_: &World) -> Outcome<String> {
    // With what is often put there, which drops options without a word; and as it comes.
    for mode in [
        "pool_mode = session\nignore_startup_parameters = extra_float_digits,options\n",
        "pool_mode = session\n",
    ] {
        let (_truth, _pooler, shell, url) = pooled(mode).await?;
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
        shell.run(there.to_owned()).await.map_err(said)?;
        let mut busy = Vec::new();
        for _ in 0..config.max_connections {
            let mut on = store.pool().acquire().await.map_err(said)?;
            let row = on.fetch_one("SHOW statement_timeout").await.map_err(said)?;
            let timeout: String = row.try_get(0).map_err(said)?;
            ensure(timeout == "12345ms", &format!("statement_timeout is {timeout}"))?;
            busy.push(on);
        }
    }
    Ok("tables and timeouts are where they belong, in session mode".to_owned())
}

pub(super) async fn poolers_are_refused_by_name(_: &World) -> Outcome<String> {
    // It takes turns between two servers that nobody else uses.
    let mode = "pool_mode = transaction\nserver_round_robin = 1\ndefault_pool_size = 2\n\
         ignore_startup_parameters = extra_float_digits,options\n";
    let (_truth, _pooler, _, url) = pooled(mode).await?;
    let mut warm = Vec::new();
    for _ in 0..2 {
        let mut on = PgConnection::connect(&url).await.map_err(said)?;
        on.execute("BEGIN").await.map_err(said)?;
        warm.push(on);
    }
    for mut on in warm {
        on.execute("ROLLBACK").await.map_err(said)?;
        on.close().await.map_err(said)?;
    }
    let refused = PostgresStore::connect(&PostgresConfig::new(url)).await.err();
    let refused = refused.ok_or("a pooler that takes turns was accepted")?;
    let is_named = matches!(refused.kind(), ErrorKind::Configuration { what }
        if what.contains("session mode"));
    ensure(is_named, &format!("{refused} {:?}", std::error::Error::source(&refused)))?;

    // One as it comes does not take what drivers say first.
    let (_truth, _pooler, _, url) = pooled("pool_mode = session\n").await?;
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
    Ok("one that takes turns, and one that refuses what drivers say first".to_owned())
}
