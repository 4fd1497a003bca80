//! Statements that end and remove sessions.

use rusqlite::types::Value;
use rusqlite::{Connection, ToSql, params};
use session_store_core::{
    Reason, Result, RevokedSessions, Selection, Session, SessionId, State, SweepBounds, Swept,
    Timestamp, UserId,
};

use crate::error::classify;
use crate::row::{self, SESSION_COLUMNS};
use crate::schema::Schema;
use crate::{log, users};

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
    for session in select(connection, schema, selection)? {
        match session.state(now) {
            State::Revoked(_) => done.earlier.push(session.id),
            State::Active => done.revoked.push(session.id),
            State::Expired => {}
        }
        end(connection, schema, &session.id, reason, now)?;
    }
    Ok(done)
}

/// The sessions that `selection` names; the user's epoch is bumped where it names a user.
fn select(connection: &Connection, schema: &Schema, selection: &Selection) -> Result<Vec<Session>> {
    let by = |condition: &str, bound: &[&dyn ToSql]| sessions(connection, schema, condition, bound);
    let of_user = |user: &UserId| match schema.key(user) {
        None => Ok(Vec::new()),
        Some(key) => by("user_id = ?1 ORDER BY id", &[&key]),
    };
    match selection {
        Selection::One { id, owner } => {
            let mut found = by("id = ?1", &[&id.as_bytes().as_slice()])?;
            found.retain(|session| owner.is_none() || session.user_id == *owner);
            Ok(found)
        }
        Selection::AllOf(user) => {
            users::bump(connection, schema, user, None)?;
            of_user(user)
        }
        Selection::AllBut(user, spared) => {
            users::bump(connection, schema, user, None)?;
            let mut found = of_user(user)?;
            found.retain(|session| session.id != *spared);
            restamp(connection, schema, user, spared)?;
            Ok(found)
        }
        Selection::Everyone { limit } => {
            // Active ones first: a step without any tells the caller that all are done.
            by("revoked_at IS NULL ORDER BY expires_at DESC, id LIMIT ?1", &[limit])
        }
        Selection::Ids(ids) => {
            let mut found = Vec::new();
            for id in ids {
                found.extend(by("id = ?1", &[&id.as_bytes().as_slice()])?);
            }
            Ok(found)
        }
    }
}

fn sessions(
    connection: &Connection,
    schema: &Schema,
    condition: &str,
    bound: &[&dyn ToSql],
) -> Result<Vec<Session>> {
    let sql = format!("SELECT {SESSION_COLUMNS} FROM {{p}}sessions s WHERE {condition}");
    connection
        .prepare_cached(&schema.sql(&sql))
        .and_then(|mut list| list.query_map(bound, row::session)?.collect())
        .map_err(classify)
}

/// The spared session keeps its trust: it gets the new epoch, without a new version.
fn restamp(
    connection: &Connection,
    schema: &Schema,
    user: &UserId,
    spared: &SessionId,
) -> Result<()> {
    let Some(key) = schema.key(user) else {
        return Ok(());
    };
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
    control(1)?;
    let expired = remove(connection, schema, ("expires_at", bounds.expired_before), limit)?;
    let left = limit.saturating_sub(u32::try_from(expired).unwrap_or(u32::MAX));
    let revoked = remove(connection, schema, ("revoked_at", bounds.revoked_before), left)?;
    control(0)?;
    log::purge_old(connection, schema)?;
    let removed = (expired + revoked) as u64;
    Ok(Swept { removed, more: removed > 0 && removed == u64::from(limit) })
}

/// Removes the oldest sessions whose `column` lies at or before `until`.
fn remove(
    connection: &Connection,
    schema: &Schema,
    (column, until): (&str, Timestamp),
    limit: u32,
) -> Result<usize> {
    let sql = schema.sql(&format!(
        "DELETE FROM {{p}}sessions WHERE id IN (SELECT id FROM {{p}}sessions \
         WHERE {column} <= ?1 ORDER BY {column}, id LIMIT ?2)"
    ));
    connection
        .prepare_cached(&sql)
        .and_then(|mut delete| delete.execute(params![until.as_millis(), limit]))
        .map_err(classify)
}
