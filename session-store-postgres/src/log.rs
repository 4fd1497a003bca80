//! Statements about the invalidation log. Its entries are written by triggers alone.

use std::ops::ControlFlow;
use std::time::Duration;

use session_store_core::{
    CacheName, CacheRegistration, CacheScope, Drained, LogEntry, LogId, Result, Ttl,
};
use sqlx::{PgConnection, PgPool, Row};

use crate::ending;
use crate::error::classify;
use crate::row;
use crate::schema::Schema;
use crate::transaction::{Tries, begin, finish};

/// How much longer than a cache's TTL an entry is kept, for whoever read before the commit and has yet
/// to fill.
const SLACK_MS: i64 = 10_000;

/// How many entries a step of a purge is about.
const BATCH: i64 = 1_000;

pub(crate) async fn register(
    on: &mut PgConnection,
    schema: &Schema,
    cache: &CacheRegistration,
) -> Result<()> {
    let sql = "INSERT INTO {p}session_caches AS c (name, is_shared, ttl) VALUES ($1, $2, $3) \
         ON CONFLICT (name) DO UPDATE SET is_shared = excluded.is_shared, \
         ttl = greatest(c.ttl, excluded.ttl)";
    let query = sqlx::query(schema.sql(sql))
        .bind(cache.name.as_str())
        .bind(cache.scope == CacheScope::Shared)
        .bind(i64::try_from(cache.ttl.as_millis()).unwrap_or(i64::MAX));
    query.execute(on).await.map_err(classify).map(drop)
}

/// Forgets a cache, and the entries that only waited for it.
///
/// Everybody locks entries before acknowledgements, and either in the order of their numbers, or skips
/// what is locked.
pub(crate) async fn unregister(
    on: &mut PgConnection,
    schema: &Schema,
    cache: &CacheName,
) -> Result<()> {
    for sql in [
        "DELETE FROM {p}session_caches WHERE name = $1",
        // Also those that stay: whoever works on one may be after its acknowledgements next.
        "SELECT count(*) FROM (SELECT seq FROM {p}session_log \
         WHERE $1::text IS NOT NULL ORDER BY seq FOR UPDATE) locked",
        "WITH done AS MATERIALIZED (SELECT seq FROM {p}session_log l \
             WHERE $1::text IS NOT NULL AND NOT EXISTS ( \
             SELECT 1 FROM {p}session_caches c WHERE c.is_shared AND NOT EXISTS ( \
             SELECT 1 FROM {p}session_log_acks a WHERE a.seq = l.seq AND a.cache = c.name)) \
             ORDER BY seq FOR UPDATE) \
         DELETE FROM {p}session_log WHERE seq IN (SELECT seq FROM done)",
        "WITH done AS MATERIALIZED (SELECT seq, cache FROM {p}session_log_acks \
             WHERE cache = $1 ORDER BY seq FOR UPDATE) \
         DELETE FROM {p}session_log_acks WHERE (seq, cache) IN (SELECT seq, cache FROM done)",
    ] {
        let query = sqlx::query(schema.sql(sql)).bind(cache.as_str());
        query.execute(&mut *on).await.map_err(classify)?;
    }
    Ok(())
}

pub(crate) async fn caches(
    on: &mut PgConnection,
    schema: &Schema,
) -> Result<Vec<CacheRegistration>> {
    let sql = schema.sql("SELECT name, is_shared, ttl FROM {p}session_caches ORDER BY name");
    let rows = sqlx::query(sql).fetch_all(on).await.map_err(classify)?;
    let read = |row: &sqlx::postgres::PgRow| {
        let is_shared = row.try_get(1).map_err(classify)?;
        let length = Duration::from_millis(row::unsigned(row, 2)?.max(1));
        Ok(CacheRegistration {
            name: CacheName::new(row.try_get::<String, _>(0).map_err(classify)?)?,
            scope: if is_shared { CacheScope::Shared } else { CacheScope::Process },
            ttl: Ttl::new(length).unwrap_or(Ttl::MIN),
        })
    };
    rows.iter().map(read).collect()
}

pub(crate) async fn drain(
    on: &mut PgConnection,
    schema: &Schema,
    cache: &CacheName,
    limit: u32,
) -> Result<Drained> {
    let sql = "SELECT l.seq, l.session_id, l.user_id FROM {p}session_log l \
         WHERE NOT EXISTS (SELECT 1 FROM {p}session_log_acks a \
                           WHERE a.seq = l.seq AND a.cache = $1) \
         ORDER BY l.seq LIMIT $2";
    let query = sqlx::query(schema.sql(sql)).bind(cache.as_str()).bind(i64::from(limit) + 1);
    let mut rows = query.fetch_all(&mut *on).await.map_err(classify)?;
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let more = rows.len() > limit;
    rows.truncate(limit);
    let mut entries = Vec::with_capacity(rows.len());
    for row in &rows {
        let id = LogId(row.try_get(0).map_err(classify)?);
        let sessions = match row::user_id(row, 2)? {
            None => vec![row::id(row, 1)?],
            // All there are now: whoever logs in later reads later.
            Some(user) if schema.is_key(&user) => ending::ids_of(on, schema, &user).await?,
            Some(_) => Vec::new(),
        };
        entries.push(LogEntry { id, sessions });
    }
    Ok(Drained { entries, more })
}

pub(crate) async fn acknowledge(
    on: &mut PgConnection,
    schema: &Schema,
    cache: &CacheName,
    entries: &[LogId],
) -> Result<()> {
    let numbers: Vec<i64> = entries.iter().map(|LogId(number)| *number).collect();
    let note = "INSERT INTO {p}session_log_acks (seq, cache) \
         SELECT seq, $2 FROM {p}session_log WHERE seq = ANY($1) ORDER BY seq ON CONFLICT DO NOTHING";
    let query = sqlx::query(schema.sql(note)).bind(numbers.clone()).bind(cache.as_str());
    query.execute(&mut *on).await.map_err(classify)?;
    // What every shared cache has removed concerns nobody any more.
    for sql in [
        "WITH done AS MATERIALIZED (SELECT seq FROM {p}session_log l \
             WHERE seq = ANY($1) AND NOT EXISTS ( \
             SELECT 1 FROM {p}session_caches c WHERE c.is_shared AND NOT EXISTS ( \
             SELECT 1 FROM {p}session_log_acks a WHERE a.seq = l.seq AND a.cache = c.name)) \
             ORDER BY seq FOR UPDATE) \
         DELETE FROM {p}session_log WHERE seq IN (SELECT seq FROM done)",
        "WITH done AS MATERIALIZED (SELECT seq, cache FROM {p}session_log_acks a \
             WHERE seq = ANY($1) AND NOT EXISTS ( \
             SELECT 1 FROM {p}session_log l WHERE l.seq = a.seq) ORDER BY seq, cache FOR UPDATE) \
         DELETE FROM {p}session_log_acks WHERE (seq, cache) IN (SELECT seq, cache FROM done)",
    ] {
        let query = sqlx::query(schema.sql(sql)).bind(numbers.clone());
        query.execute(&mut *on).await.map_err(classify)?;
    }
    Ok(())
}

/// Notes which entries are there, and removes those that have outlived everything they could concern:
/// a bounded number of each, in a transaction of its own. Whether there may be more.
///
/// An entry is as old as its first sight. When it was written says nothing: until its transaction was
/// committed, caches were filled with what was before.
pub(crate) async fn purge(pool: &PgPool, schema: &Schema) -> Result<bool> {
    let mut tries = Tries::default();
    loop {
        let mut on = begin(pool).await?;
        let outcome = purge_some(&mut on, schema).await;
        if let ControlFlow::Break(done) = finish(on, outcome, &mut tries).await? {
            return Ok(done);
        }
    }
}

async fn purge_some(on: &mut PgConnection, schema: &Schema) -> Result<bool> {
    // Looked for once, however it is joined: what locks and skips finds others the second time.
    let see = "WITH new AS MATERIALIZED ( \
             SELECT seq FROM {p}session_log WHERE seen_at IS NULL ORDER BY seq LIMIT $1 \
             FOR UPDATE SKIP LOCKED) \
         UPDATE {p}session_log SET seen_at = (extract(epoch FROM clock_timestamp()) * 1000)::bigint \
         WHERE seq IN (SELECT seq FROM new)";
    let seen = sqlx::query(schema.sql(see)).bind(BATCH).execute(&mut *on).await;
    // A time that is fixed for the statement, so that the index can be looked into with it.
    let forget = "WITH old AS MATERIALIZED (SELECT seq FROM {p}session_log WHERE seen_at < \
             (extract(epoch FROM statement_timestamp()) * 1000)::bigint - $2 - \
             coalesce((SELECT max(ttl) FROM {p}session_caches WHERE is_shared), 0) \
             ORDER BY seen_at, seq LIMIT $1 FOR UPDATE SKIP LOCKED), \
         acks AS (DELETE FROM {p}session_log_acks WHERE seq IN (SELECT seq FROM old)) \
         DELETE FROM {p}session_log WHERE seq IN (SELECT seq FROM old)";
    let seen = seen.map_err(classify)?.rows_affected();
    let query = sqlx::query(schema.sql(forget)).bind(BATCH).bind(SLACK_MS);
    let forgotten = query.execute(&mut *on).await.map_err(classify)?.rows_affected();
    // Acknowledged while the entry was removed.
    let strays = "WITH strays AS MATERIALIZED (SELECT seq, cache FROM {p}session_log_acks WHERE seq < \
             coalesce((SELECT min(seq) FROM {p}session_log), 9223372036854775807) \
             ORDER BY seq, cache LIMIT $1 FOR UPDATE SKIP LOCKED) \
         DELETE FROM {p}session_log_acks WHERE (seq, cache) IN (SELECT seq, cache FROM strays)";
    let query = sqlx::query(schema.sql(strays)).bind(BATCH);
    let strays = query.execute(on).await.map_err(classify)?.rows_affected();
    Ok([seen, forgotten, strays].iter().any(|count| *count >= BATCH.unsigned_abs()))
}
