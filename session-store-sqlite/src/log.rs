//! Statements about the invalidation log. Its entries are written by triggers alone.

use rusqlite::{Connection, params};
use session_store_core::{
    CacheName, CacheRegistration, CacheScope, Drained, LogEntry, LogId, Result, Ttl, UserId,
};
use std::time::Duration;

use crate::ending;
use crate::error::classify;
use crate::row;
use crate::schema::Schema;

/// How many entries a step of a purge is about.
const BATCH: i64 = 1_000;

/// The entries first seen longer ago than any cache keeps what they are about, and ten seconds for
/// clocks and for whoever read before the commit and has yet to fill.
const OLD: &str = "SELECT seq FROM {p}session_log WHERE seen_at < unixepoch() * 1000 - 10000 - \
     coalesce((SELECT max(ttl) FROM {p}session_caches WHERE is_shared = 1), 0)";

/// The steps of a purge, of `?1` entries each, and whether another would find any.
const PURGE: [&str; 5] = [
    "UPDATE {p}session_log SET seen_at = unixepoch() * 1000 WHERE seq IN ( \
     SELECT seq FROM {p}session_log WHERE seen_at IS NULL ORDER BY seq LIMIT ?1)",
    "DELETE FROM {p}session_log_acks WHERE seq IN ({old} ORDER BY seen_at, seq LIMIT ?1)",
    "DELETE FROM {p}session_log WHERE seq IN ({old} ORDER BY seen_at, seq LIMIT ?1)",
    // Of entries that were taken away by hand, or that grew old between the two statements above.
    "DELETE FROM {p}session_log_acks WHERE (seq, cache) IN ({stray} ORDER BY seq, cache LIMIT ?1)",
    "SELECT EXISTS (SELECT 1 FROM {p}session_log WHERE seen_at IS NULL) \
     OR EXISTS ({old}) OR EXISTS ({stray}) AS more",
];

/// Acknowledgements of what is not in the log any more.
const STRAY: &str = "SELECT seq, cache FROM {p}session_log_acks WHERE seq < \
     coalesce((SELECT min(seq) FROM {p}session_log), 9223372036854775807)";

pub(crate) fn register(
    connection: &Connection,
    schema: &Schema,
    cache: &CacheRegistration,
) -> Result<()> {
    let sql = schema.sql(
        "INSERT INTO {p}session_caches (name, is_shared, ttl) VALUES (?1, ?2, ?3) \
         ON CONFLICT (name) DO UPDATE SET is_shared = excluded.is_shared, \
         ttl = max(ttl, excluded.ttl) \
         WHERE is_shared <> excluded.is_shared OR ttl < excluded.ttl",
    );
    let ttl = i64::try_from(cache.ttl.as_millis()).unwrap_or(i64::MAX);
    let is_shared = cache.scope == CacheScope::Shared;
    connection
        .execute(&sql, params![cache.name.as_str(), is_shared, ttl])
        .map_err(classify)
        .map(drop)
}

/// Forgets a cache, and the entries that only waited for it.
pub(crate) fn unregister(
    connection: &Connection,
    schema: &Schema,
    cache: &CacheName,
) -> Result<()> {
    for sql in [
        "DELETE FROM {p}session_caches WHERE name = ?1",
        "DELETE FROM {p}session_log_acks WHERE cache = ?1",
    ] {
        connection.execute(&schema.sql(sql), [cache.as_str()]).map_err(classify)?;
    }
    for sql in [
        "DELETE FROM {p}session_log WHERE NOT EXISTS ( \
         SELECT 1 FROM {p}session_caches c WHERE c.is_shared = 1 AND NOT EXISTS ( \
         SELECT 1 FROM {p}session_log_acks a WHERE a.seq = {p}session_log.seq AND a.cache = c.name))",
        "DELETE FROM {p}session_log_acks WHERE seq NOT IN (SELECT seq FROM {p}session_log)",
    ] {
        connection.execute(&schema.sql(sql), []).map_err(classify)?;
    }
    Ok(())
}

pub(crate) fn registrations(
    connection: &Connection,
    schema: &Schema,
) -> Result<Vec<CacheRegistration>> {
    let sql = schema.sql("SELECT name, is_shared, ttl FROM {p}session_caches ORDER BY name");
    let rows: Vec<(String, bool, i64)> = connection
        .prepare_cached(&sql)
        .and_then(|mut list| {
            list.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?.collect()
        })
        .map_err(classify)?;
    rows.into_iter()
        .map(|(name, is_shared, ttl)| {
            let length = Duration::from_millis(ttl.unsigned_abs()).max(Duration::from_millis(1));
            Ok(CacheRegistration {
                name: CacheName::new(name)?,
                scope: if is_shared { CacheScope::Shared } else { CacheScope::Process },
                ttl: Ttl::new(length).unwrap_or(Ttl::MIN),
            })
        })
        .collect()
}

pub(crate) fn drain(
    connection: &Connection,
    schema: &Schema,
    cache: &CacheName,
    limit: u32,
) -> Result<Drained> {
    let sql = schema.sql(
        "SELECT l.seq, l.session_id, l.user_id FROM {p}session_log l \
         WHERE NOT EXISTS (SELECT 1 FROM {p}session_log_acks a \
                           WHERE a.seq = l.seq AND a.cache = ?1) \
         ORDER BY l.seq LIMIT ?2",
    );
    let most = i64::from(limit) + 1;
    let mut rows: Vec<(i64, Option<_>, Option<UserId>)> = connection
        .prepare_cached(&sql)
        .and_then(|mut list| {
            list.query_map(params![cache.as_str(), most], |row| {
                let user = row::user_id(row, 2)?;
                let session = if user.is_some() { None } else { Some(row::id(row, 1)?) };
                Ok((row.get(0)?, session, user))
            })?
            .collect()
        })
        .map_err(classify)?;
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let more = rows.len() > limit;
    rows.truncate(limit);
    let mut entries = Vec::with_capacity(rows.len());
    for (seq, session, user) in rows {
        let mut sessions: Vec<_> = session.into_iter().collect();
        if let Some(key) = user.and_then(|user| schema.key(&user)) {
            sessions.extend(ending::ids_of(connection, schema, &key)?);
        }
        entries.push(LogEntry { id: LogId(seq), sessions });
    }
    Ok(Drained { entries, more })
}

pub(crate) fn acknowledge(
    connection: &Connection,
    schema: &Schema,
    cache: &CacheName,
    entries: &[LogId],
) -> Result<()> {
    let note = schema.sql(
        "INSERT INTO {p}session_log_acks (seq, cache) \
         SELECT ?1, ?2 WHERE EXISTS (SELECT 1 FROM {p}session_log WHERE seq = ?1) \
         ON CONFLICT DO NOTHING",
    );
    // What every shared cache has removed concerns nobody any more.
    let purge = schema.sql(
        "DELETE FROM {p}session_log WHERE seq = ?1 AND NOT EXISTS ( \
         SELECT 1 FROM {p}session_caches c WHERE c.is_shared = 1 AND NOT EXISTS ( \
         SELECT 1 FROM {p}session_log_acks a WHERE a.seq = ?1 AND a.cache = c.name))",
    );
    let forget = schema.sql(
        "DELETE FROM {p}session_log_acks WHERE seq = ?1 \
         AND NOT EXISTS (SELECT 1 FROM {p}session_log WHERE seq = ?1)",
    );
    for LogId(seq) in entries {
        connection
            .prepare_cached(&note)
            .and_then(|mut note| note.execute(params![seq, cache.as_str()]))
            .map_err(classify)?;
        for sql in [&purge, &forget] {
            connection
                .prepare_cached(sql)
                .and_then(|mut delete| delete.execute([seq]))
                .map_err(classify)?;
        }
    }
    Ok(())
}

/// Notes which entries are there, and removes those that have outlived everything they could concern: a
/// bounded number of each. Whether there may be more.
///
/// An entry is as old as its first sight. When it was written says nothing: until its transaction was
/// committed, caches were filled with what was before.
pub(crate) fn purge(connection: &Connection, schema: &Schema) -> Result<bool> {
    let [steps @ .., more] = purges(schema);
    for step in steps {
        connection
            .prepare_cached(&step)
            .and_then(|mut step| step.execute([BATCH]))
            .map_err(classify)?;
    }
    connection
        .prepare_cached(&more)
        .and_then(|mut more| more.query_row([], |row| row.get(0)))
        .map_err(classify)
}

/// The statements of a purge, each about a batch of rows; the last asks whether another would find any.
pub(crate) fn purges(schema: &Schema) -> [String; 5] {
    PURGE.map(|template| schema.sql(&template.replace("{old}", OLD).replace("{stray}", STRAY)))
}
