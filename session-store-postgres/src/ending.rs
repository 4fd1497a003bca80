//! Statements that end and remove sessions.

use session_store_core::{
    Reason, Result, RevokedSessions, Selection, SessionId, SessionIds, SweepBounds, Swept,
    Timestamp, UserId,
};
use sqlx::PgConnection;

use crate::error::classify;
use crate::read::{ACTIVE, EXPIRED};
use crate::row;
use crate::schema::Schema;
use crate::users;

pub(crate) fn bytes<'a>(ids: impl IntoIterator<Item = &'a SessionId>) -> Vec<Vec<u8>> {
    ids.into_iter().map(|id| id.as_bytes().to_vec()).collect()
}

/// Marks sessions that were not revoked before. They are locked already.
pub(crate) async fn end(
    on: &mut PgConnection,
    schema: &Schema,
    ids: &[SessionId],
    reason: Reason,
    now: Timestamp,
) -> Result<()> {
    if ids.is_empty() {
        return Ok(());
    }
    let sql = "UPDATE {p}sessions SET revoked_at = $2, revoked_reason = $3, version = version + 1 \
         WHERE id = ANY($1) AND revoked_at IS NULL";
    let query =
        sqlx::query(schema.sql(sql)).bind(bytes(ids)).bind(now.as_millis()).bind(reason.as_str());
    query.execute(on).await.map_err(classify).map(drop)
}

pub(crate) async fn revoke(
    on: &mut PgConnection,
    schema: &Schema,
    selection: &Selection,
    reason: Reason,
    now: Timestamp,
) -> Result<RevokedSessions> {
    let selected = select(on, schema, selection, now).await?;
    let mut done = RevokedSessions::default();
    let mut open = SessionIds::new();
    for (id, standing) in selected {
        match standing {
            Standing::Revoked => done.earlier.push(id),
            Standing::Active => {
                done.revoked.push(id);
                open.push(id);
            }
            Standing::Expired => open.push(id),
        }
    }
    end(on, schema, &open, reason, now).await?;
    if let Selection::AllBut(user, spared) = selection {
        restamp(on, schema, user, spared).await?;
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

/// The sessions that `selection` names, locked in the order of their ids; the user's epoch is bumped
/// where it names a user.
async fn select(
    on: &mut PgConnection,
    schema: &Schema,
    selection: &Selection,
    now: Timestamp,
) -> Result<Selected> {
    match selection {
        Selection::One { id, owner: None } => by_id(on, schema, bytes([id]), now).await,
        Selection::One { id, owner: Some(owner) } if schema.is_key(owner) => {
            let one = ("id = $2 AND user_id = $3{key}", owner);
            of_user(on, schema, one, Some(id), now).await
        }
        Selection::One { .. } => Ok(Vec::new()),
        Selection::AllOf(user) | Selection::AllBut(user, _) => {
            if !users::bump_known(on, schema, user).await? {
                return Ok(Vec::new());
            }
            let all = ("$2::bytea IS NULL AND user_id = $3{key}", user);
            let mut found = of_user(on, schema, all, None, now).await?;
            if let Selection::AllBut(_, spared) = selection {
                found.retain(|(id, _)| id != spared);
            }
            Ok(found)
        }
        Selection::Everyone { created_before, limit } => {
            of_everyone(on, schema, (*created_before, now), *limit).await
        }
        Selection::Ids(ids) if ids.is_empty() => Ok(Vec::new()),
        Selection::Ids(ids) => by_id(on, schema, bytes(ids), now).await,
    }
}

/// Active ones first: a step without any tells the caller that all are done.
async fn of_everyone(
    on: &mut PgConnection,
    schema: &Schema,
    (created_before, now): (Timestamp, Timestamp),
    limit: u32,
) -> Result<Selected> {
    loop {
        let mut ids = step(on, schema, ACTIVE, (created_before, now), limit).await?;
        let had_active = !ids.is_empty();
        let left = limit.saturating_sub(u32::try_from(ids.len()).unwrap_or(u32::MAX));
        if left > 0 {
            ids.extend(step(on, schema, EXPIRED, (created_before, now), left).await?);
        }
        let locked = by_id(on, schema, ids, now).await?;
        // Somebody else may have ended all of them while they were waited for, which says nothing
        // about the rest: the next statement sees what was committed meanwhile.
        let is_any = locked.iter().any(|(_, standing)| *standing == Standing::Active);
        if is_any || !had_active {
            return Ok(locked);
        }
    }
}

async fn by_id(
    on: &mut PgConnection,
    schema: &Schema,
    ids: Vec<Vec<u8>>,
    now: Timestamp,
) -> Result<Selected> {
    let sql = standing("id = ANY($2)");
    let query = sqlx::query(schema.sql(&sql)).bind(now.as_millis()).bind(ids);
    read(&query.fetch_all(on).await.map_err(classify)?)
}

async fn of_user(
    on: &mut PgConnection,
    schema: &Schema,
    (condition, user): (&str, &UserId),
    id: Option<&SessionId>,
    now: Timestamp,
) -> Result<Selected> {
    let sql = standing(condition);
    let query = sqlx::query(schema.sql(&sql))
        .bind(now.as_millis())
        .bind(id.map(|id| id.as_bytes().to_vec()))
        .bind(user.as_str());
    read(&query.fetch_all(on).await.map_err(classify)?)
}

/// One step of a revocation of everybody, not locked yet.
async fn step(
    on: &mut PgConnection,
    schema: &Schema,
    kind: &str,
    (created_before, now): (Timestamp, Timestamp),
    limit: u32,
) -> Result<Vec<Vec<u8>>> {
    let sql = format!(
        "SELECT s.id FROM {{p}}sessions s WHERE {kind} AND s.created_at <= $2 \
         ORDER BY s.expires_at, s.id LIMIT $3"
    );
    let rows = sqlx::query(schema.sql(&sql))
        .bind(now.as_millis())
        .bind(created_before.as_millis())
        .bind(i64::from(limit))
        .fetch_all(on)
        .await
        .map_err(classify)?;
    rows.iter().map(|row| row::id(row, 0).map(|id| id.as_bytes().to_vec())).collect()
}

fn standing(condition: &str) -> String {
    format!(
        "SELECT s.id, CASE WHEN s.revoked_at IS NOT NULL THEN 0 WHEN {ACTIVE} THEN 1 ELSE 2 \
         END::bigint FROM {{p}}sessions s WHERE {condition} ORDER BY s.id FOR UPDATE"
    )
}

fn read(rows: &[sqlx::postgres::PgRow]) -> Result<Selected> {
    let standing = |row| {
        Ok(match row::unsigned(row, 1)? {
            0 => Standing::Revoked,
            1 => Standing::Active,
            _ => Standing::Expired,
        })
    };
    rows.iter().map(|row| Ok((row::id(row, 0)?, standing(row)?))).collect()
}

/// The spared session keeps its trust: it gets the new epoch, without a new version.
async fn restamp(
    on: &mut PgConnection,
    schema: &Schema,
    user: &UserId,
    spared: &SessionId,
) -> Result<()> {
    if !schema.is_key(user) {
        return Ok(());
    }
    let sql = "UPDATE {p}sessions SET credential_epoch = \
         (SELECT credential_epoch FROM {p}session_users WHERE user_id = $2) \
         WHERE id = $1 AND user_id = $2{key}";
    let query = sqlx::query(schema.sql(sql)).bind(spared.as_bytes().as_slice()).bind(user.as_str());
    query.execute(on).await.map_err(classify).map(drop)
}

/// The ids of every stored session of the user.
pub(crate) async fn ids_of(
    on: &mut PgConnection,
    schema: &Schema,
    user: &UserId,
) -> Result<SessionIds> {
    let sql = "SELECT id FROM {p}sessions WHERE user_id = $1{key} ORDER BY created_at, id";
    let query = sqlx::query(schema.sql(sql)).bind(user.as_str());
    let rows = query.fetch_all(on).await.map_err(classify)?;
    rows.iter().map(|row| row::id(row, 0)).collect()
}

/// Both halves are bounded before they are merged, so that a sweep reads no more than it removes; what
/// somebody else works on is left for the next one.
pub(crate) const DEAD: &str = "WITH expired AS ( \
         SELECT id, expires_at AS died FROM {p}sessions WHERE expires_at <= $1 \
         ORDER BY expires_at, id LIMIT $3 FOR UPDATE SKIP LOCKED), \
     revoked AS ( \
         SELECT id, revoked_at AS died FROM {p}sessions WHERE revoked_at <= $2 \
         ORDER BY revoked_at, id LIMIT $3 FOR UPDATE SKIP LOCKED) \
     SELECT id FROM (SELECT * FROM expired UNION ALL SELECT * FROM revoked) AS dead \
     GROUP BY id ORDER BY min(died), id LIMIT $3";

pub(crate) async fn sweep(
    on: &mut PgConnection,
    schema: &Schema,
    bounds: &SweepBounds,
    limit: u32,
) -> Result<Swept> {
    sqlx::query("SELECT set_config('session_store.sweeping', 'on', true)")
        .execute(&mut *on)
        .await
        .map_err(classify)?;
    let rows = sqlx::query(schema.sql(DEAD))
        .bind(bounds.expired_before.as_millis())
        .bind(bounds.revoked_before.as_millis())
        .bind(i64::from(limit) + 1)
        .fetch_all(&mut *on)
        .await
        .map_err(classify)?;
    let mut dead = rows.iter().map(|row| row::id(row, 0)).collect::<Result<SessionIds>>()?;
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let more = dead.len() > limit;
    dead.truncate(limit);
    let removed = sqlx::query(schema.sql("DELETE FROM {p}sessions WHERE id = ANY($1)"))
        .bind(bytes(&dead))
        .execute(&mut *on)
        .await
        .map_err(classify)?
        .rows_affected();
    Ok(Swept { removed, more })
}
