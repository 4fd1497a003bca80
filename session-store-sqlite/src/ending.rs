//! Statements that end and remove sessions.

use std::collections::HashSet;

use rusqlite::types::Value;
use rusqlite::{Connection, Row, ToSql, params};
use session_store_core::{
    Reason, Result, RevokedSessions, Selection, SessionId, SweepBounds, Swept, Timestamp, UserId,
};

use crate::error::classify;
use crate::read::{ACTIVE, EXPIRED};
use crate::row;
use crate::schema::Schema;
use crate::{log, users};

/// Both halves are bounded before they are merged, so that a sweep reads no more than it removes.
pub(crate) const DEAD: &str = "SELECT id FROM ( \
     SELECT * FROM (SELECT id, expires_at AS died FROM {p}sessions WHERE expires_at <= ?1 \
                    ORDER BY expires_at, id LIMIT ?3) \
     UNION ALL \
     SELECT * FROM (SELECT id, revoked_at AS died FROM {p}sessions WHERE revoked_at <= ?2 \
                    ORDER BY revoked_at, id LIMIT ?3)) \
     GROUP BY id ORDER BY min(died), id LIMIT ?3";

/// Marks a session that was not revoked before.
pub(crate) fn end(
    connection: &Connection,
    schema: &Schema,
    id: &SessionId,
    reason: Reason,
    now: Timestamp,
) -> Result<()> {
    let sql = schema.sql(
        "UPDATE {p}sessions SET revoked_at = ?2, revoked_reason = ?3, version = version + 1 \
         WHERE id = ?1 AND revoked_at IS NULL",
    );
    let bound = params![id.as_bytes().as_slice(), now.as_millis(), reason.as_str()];
    connection
        .prepare_cached(&sql)
        .and_then(|mut update| update.execute(bound))
        .map_err(classify)
        .map(drop)
}

pub(crate) fn revoke(
    connection: &Connection,
    schema: &Schema,
    selection: &Selection,
    reason: Reason,
    now: Timestamp,
) -> Result<RevokedSessions> {
    let mut done = RevokedSessions::default();
    for (id, state) in select(connection, schema, selection, now)? {
        match state {
            Standing::Revoked => {
                done.earlier.push(id);
                continue;
            }
            Standing::Active => done.revoked.push(id),
            Standing::Expired => {}
        }
        end(connection, schema, &id, reason, now)?;
    }
    Ok(done)
}

/// What a session is worth, by the columns that decide it. The rest of the row is not read: one
/// that nobody can read any more must not keep a user from logging out everywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Active,
    Expired,
    Revoked,
}

type Selected = Vec<(SessionId, Standing)>;

/// The sessions that `selection` names; the user's epoch is bumped where it names a user.
fn select(
    connection: &Connection,
    schema: &Schema,
    selection: &Selection,
    now: Timestamp,
) -> Result<Selected> {
    let at = now.as_millis();
    let by = |condition: &str, bound: &[&dyn ToSql]| standing(connection, schema, condition, bound);
    let one = |id: &SessionId| by("id = ?3", params![at, u32::MAX, id.as_bytes().as_slice()]);
    let of_user = |key: &Value| by("user_id = ?3 ORDER BY id", params![at, u32::MAX, key]);
    match selection {
        Selection::One { id, owner: None } => one(id),
        Selection::One { id, owner: Some(owner) } => match schema.key(owner) {
            None => Ok(Vec::new()),
            Some(key) => {
                let bound = params![at, u32::MAX, id.as_bytes().as_slice(), key];
                by("id = ?3 AND user_id = ?4", bound)
            }
        },
        Selection::AllOf(user) => {
            let Some(key) = users::bump_known(connection, schema, user)? else {
                return Ok(Vec::new());
            };
            of_user(&key)
        }
        Selection::AllBut(user, spared) => {
            let Some(key) = users::bump_known(connection, schema, user)? else {
                return Ok(Vec::new());
            };
            let mut found = of_user(&key)?;
            found.retain(|(id, _)| id != spared);
            restamp(connection, schema, (user, &key), spared)?;
            Ok(found)
        }
        Selection::Everyone { created_before, limit } => {
            // Active ones first: a step without any tells the caller that all are done.
            let last = created_before.as_millis();
            let first = |kind, limit: u32| {
                let condition = format!("{kind} AND created_at <= ?3 ORDER BY expires_at, id");
                by(&condition, params![at, limit, last])
            };
            let mut found = first(ACTIVE, *limit)?;
            let left = limit.saturating_sub(u32::try_from(found.len()).unwrap_or(u32::MAX));
            found.extend(first(EXPIRED, left)?);
            Ok(found)
        }
        Selection::Ids(ids) => {
            let mut seen = HashSet::with_capacity(ids.len());
            let mut found = Vec::with_capacity(ids.len());
            for id in ids.iter().filter(|id| seen.insert(**id)) {
                found.extend(one(id)?);
            }
            Ok(found)
        }
    }
}

/// The moment is bound to `?1`, how many to `?2`.
fn standing(
    connection: &Connection,
    schema: &Schema,
    condition: &str,
    bound: &[&dyn ToSql],
) -> Result<Selected> {
    let sql = schema.sql(&format!(
        "SELECT id, CASE WHEN revoked_at IS NOT NULL THEN 0 WHEN {ACTIVE} THEN 1 ELSE 2 END \
         FROM {{p}}sessions WHERE {condition} LIMIT ?2"
    ));
    let read = |row: &Row<'_>| {
        let standing = match row.get(1)? {
            0 => Standing::Revoked,
            1 => Standing::Active,
            _ => Standing::Expired,
        };
        Ok((row::id(row, 0)?, standing))
    };
    connection
        .prepare_cached(&sql)
        .and_then(|mut list| list.query_map(bound, read)?.collect())
        .map_err(classify)
}

/// The spared session keeps its trust: it gets the new epoch, without a new version.
fn restamp(
    connection: &Connection,
    schema: &Schema,
    (user, key): (&UserId, &Value),
    spared: &SessionId,
) -> Result<()> {
    let sql = schema.sql(
        "UPDATE {p}sessions SET credential_epoch = \
         (SELECT credential_epoch FROM {p}session_users WHERE user_id = ?3) \
         WHERE id = ?1 AND user_id = ?2",
    );
    let bound = params![spared.as_bytes().as_slice(), key, user.as_str()];
    connection.execute(&sql, bound).map_err(classify).map(drop)
}

/// The ids of every stored session of the user with this key.
pub(crate) fn ids_of(
    connection: &Connection,
    schema: &Schema,
    key: &Value,
) -> Result<Vec<SessionId>> {
    let sql = schema.sql("SELECT id FROM {p}sessions WHERE user_id = ?1 ORDER BY created_at, id");
    connection
        .prepare_cached(&sql)
        .and_then(|mut list| list.query_map([key], |row| row::id(row, 0))?.collect())
        .map_err(classify)
}

pub(crate) fn sweep(
    connection: &Connection,
    schema: &Schema,
    bounds: &SweepBounds,
    limit: u32,
) -> Result<Swept> {
    let control = |sweeping: i64| {
        let sql = schema.sql("UPDATE {p}session_control SET sweeping = ?1");
        connection.execute(&sql, [sweeping]).map_err(classify)
    };
    let mut dead = dead(connection, schema, bounds, u64::from(limit) + 1)?;
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let more = dead.len() > limit;
    dead.truncate(limit);
    let sql = schema.sql("DELETE FROM {p}sessions WHERE id = ?1");
    control(1)?;
    for id in &dead {
        connection
            .prepare_cached(&sql)
            .and_then(|mut delete| delete.execute([id.as_bytes().as_slice()]))
            .map_err(classify)?;
    }
    control(0)?;
    let more = log::purge(connection, schema)? || more;
    Ok(Swept { removed: dead.len() as u64, more })
}

/// The first `limit` sessions within `bounds`, those that died first in front.
fn dead(
    connection: &Connection,
    schema: &Schema,
    bounds: &SweepBounds,
    limit: u64,
) -> Result<Vec<SessionId>> {
    let bound = params![
        bounds.expired_before.as_millis(),
        bounds.revoked_before.as_millis(),
        limit.cast_signed(),
    ];
    connection
        .prepare_cached(&schema.sql(DEAD))
        .and_then(|mut list| list.query_map(bound, |row| row::id(row, 0))?.collect())
        .map_err(classify)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::SqliteConfig;
    use crate::{migrate, read, thread};

    fn plan(connection: &Connection, sql: &str) -> String {
        let mut explain = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
        let steps = explain.raw_query().mapped(|row| row.get::<_, String>(3));
        steps.collect::<rusqlite::Result<Vec<_>>>().unwrap().join("; ")
    }

    #[test]
    fn the_statements_in_use_read_no_table_from_end_to_end() {
        let folder = tempfile::tempdir().unwrap();
        let config = SqliteConfig::new(folder.path().join("t.db"));
        let schema = Schema::new(&config).unwrap();
        let mut connection = thread::open_writer(&config).unwrap();
        migrate::migrate(&mut connection, &schema).unwrap();
        let find = plan(&connection, &schema.find);
        assert!(find.contains("PRIMARY KEY") && !find.contains("SCAN"), "{find}");
        let list = plan(&connection, &read::list_sql(&schema));
        assert!(list.contains("sessions_by_user") && !list.contains("SCAN"), "{list}");
        assert!(!list.contains("TEMP B-TREE"), "{list}");
        let dead = plan(&connection, &schema.sql(DEAD));
        for index in ["sessions_by_deadline", "sessions_by_revocation"] {
            assert!(dead.contains(index), "{dead}");
        }
        assert!(!dead.contains("SCAN sessions"), "{dead}");
        for sql in log::purges(&schema) {
            let plan = plan(&connection, &sql);
            assert!(plan.contains("SEARCH") && !plan.contains("SCAN session_log"), "{plan}");
        }
    }
}
