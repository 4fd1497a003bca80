//! Statements about the invalidation log. Its entries are written by triggers alone.

use std::time::Duration;

use serde::Deserialize;
use session_store_core::{
    CacheName, CacheRegistration, CacheScope, Drained, LogEntry, LogId, Result, Ttl,
};

use super::database::{Database, Statement, Value, id};
use super::migrate;

/// How many entries a step of a purge is about.
const BATCH: i64 = 1_000;

/// The entries first seen longer ago than any cache keeps what they are about, and ten seconds for
/// clocks and for whoever read before the commit and has yet to fill.
const OLD: &str = "SELECT seq FROM {p}session_log WHERE seen_at < unixepoch() * 1000 - 10000 - \
     coalesce((SELECT max(ttl) FROM {p}session_caches WHERE is_shared = 1), 0)";

/// The steps of a purge, of `?1` entries each, and whether another would find any (`more`).
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

const FORGET_ACKS: &str =
    "DELETE FROM {p}session_log_acks WHERE seq NOT IN (SELECT seq FROM {p}session_log)";

pub(crate) async fn register(database: &Database, cache: &CacheRegistration) -> Result<()> {
    let is_shared = cache.scope == CacheScope::Shared;
    let register = database.say(
        "INSERT INTO {p}session_caches (name, is_shared, ttl) VALUES (?1, ?2, ?3) \
         ON CONFLICT (name) DO UPDATE SET is_shared = excluded.is_shared, \
         ttl = max(ttl, excluded.ttl) \
         WHERE is_shared <> excluded.is_shared OR ttl < excluded.ttl",
        [cache.name.as_str().into(), is_shared.into(), cache.ttl.as_millis().into()],
    );
    database.write(vec![register]).await.map(drop)
}

/// Forgets a cache, and the entries that only waited for it.
pub(crate) async fn unregister(database: &Database, cache: &CacheName) -> Result<()> {
    let of = || [Value::from(cache.as_str())];
    let batch = vec![
        database.say("DELETE FROM {p}session_caches WHERE name = ?1", of()),
        database.say("DELETE FROM {p}session_log_acks WHERE cache = ?1", of()),
        database.say(
            "DELETE FROM {p}session_log WHERE NOT EXISTS ( \
             SELECT 1 FROM {p}session_caches c WHERE c.is_shared = 1 AND NOT EXISTS ( \
             SELECT 1 FROM {p}session_log_acks a \
             WHERE a.seq = {p}session_log.seq AND a.cache = c.name))",
            [],
        ),
        database.say(FORGET_ACKS, []),
    ];
    database.write(batch).await.map(drop)
}

#[derive(Deserialize)]
struct CacheRow {
    name: String,
    is_shared: i64,
    ttl: u64,
}

pub(crate) async fn registrations(database: &Database) -> Result<Vec<CacheRegistration>> {
    let sql = "SELECT name, is_shared, ttl FROM {p}session_caches ORDER BY name";
    let batch = vec![migrate::version(database), database.say(sql, [])];
    let mut answers = database.read(batch).await?;
    // A Worker opens nothing that could be checked then; whoever registers a cache begins with this.
    migrate::judge(answers.next())?;
    let rows: Vec<CacheRow> = answers.next().all()?;
    let registration = |row: CacheRow| {
        Ok(CacheRegistration {
            name: CacheName::new(row.name)?,
            scope: if row.is_shared == 0 { CacheScope::Process } else { CacheScope::Shared },
            ttl: Ttl::new(Duration::from_millis(row.ttl)).unwrap_or(Ttl::MIN),
        })
    };
    rows.into_iter().map(registration).collect()
}

/// An entry; one about a user is a row per session of theirs, or one without any.
#[derive(Deserialize)]
struct EntryRow {
    seq: i64,
    session_id: Option<String>,
}

pub(crate) async fn drain(database: &Database, cache: &CacheName, limit: u32) -> Result<Drained> {
    let asked = database.say(
        "SELECT l.seq, coalesce(l.session_id, s.id) AS session_id FROM ( \
         SELECT * FROM {p}session_log l WHERE NOT EXISTS ( \
         SELECT 1 FROM {p}session_log_acks a WHERE a.seq = l.seq AND a.cache = ?1) \
         ORDER BY l.seq LIMIT ?2) l \
         LEFT JOIN {p}sessions s ON l.user_id IS NOT NULL AND s.user_id = l.user_id \
         ORDER BY l.seq, s.created_at, s.id",
        [cache.as_str().into(), (i64::from(limit) + 1).into()],
    );
    let rows: Vec<EntryRow> = database.read(vec![asked]).await?.next().all()?;
    let mut entries: Vec<LogEntry> = Vec::new();
    for row in rows {
        if entries.last().is_none_or(|last| last.id != LogId(row.seq)) {
            entries.push(LogEntry { id: LogId(row.seq), sessions: Vec::new() });
        }
        if let (Some(entry), Some(text)) = (entries.last_mut(), row.session_id) {
            entry.sessions.push(id(&text)?);
        }
    }
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let more = entries.len() > limit;
    entries.truncate(limit);
    Ok(Drained { entries, more })
}

pub(crate) async fn acknowledge(
    database: &Database,
    cache: &CacheName,
    entries: &[LogId],
) -> Result<()> {
    let entries: Vec<i64> = entries.iter().map(|LogId(seq)| *seq).collect();
    let entries = Value::Text(serde_json::Value::from(entries).to_string());
    let batch = vec![
        database.say(
            "INSERT INTO {p}session_log_acks (seq, cache) SELECT l.seq, ?2 FROM {p}session_log l \
             WHERE l.seq IN (SELECT value FROM json_each(?1)) ON CONFLICT DO NOTHING",
            [entries.clone(), cache.as_str().into()],
        ),
        // What every shared cache has removed concerns nobody any more.
        database.say(
            "DELETE FROM {p}session_log WHERE seq IN (SELECT value FROM json_each(?1)) \
             AND NOT EXISTS ( \
             SELECT 1 FROM {p}session_caches c WHERE c.is_shared = 1 AND NOT EXISTS ( \
             SELECT 1 FROM {p}session_log_acks a \
             WHERE a.seq = {p}session_log.seq AND a.cache = c.name))",
            [entries.clone()],
        ),
        database.say(
            "DELETE FROM {p}session_log_acks WHERE seq IN (SELECT value FROM json_each(?1)) \
             AND seq NOT IN (SELECT seq FROM {p}session_log)",
            [entries],
        ),
    ];
    database.write(batch).await.map(drop)
}

/// Notes which entries are there, and removes those that have outlived everything they could concern: a
/// bounded number of each. The last statement says whether there may be more (`more`).
///
/// An entry is as old as its first sight. When it was written says nothing: until its transaction was
/// committed, caches were filled with what was before.
pub(crate) fn purge(database: &Database) -> impl Iterator<Item = Statement> {
    let last = PURGE.len() - 1;
    PURGE.iter().enumerate().map(move |(place, template)| {
        let rows = if place < last { Some(BATCH.into()) } else { None };
        database.say(&template.replace("{old}", OLD).replace("{stray}", STRAY), rows)
    })
}
