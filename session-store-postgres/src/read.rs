//! Statements that only read.

use std::sync::Arc;

use session_store_core::{
    Census, Cursor, Error, Found, Listing, Page, Result, Session, SessionId, Timestamp, UserId,
    Which,
};
use sqlx::{AssertSqlSafe, PgConnection, Row};

use crate::error::{NAME, classify};
use crate::row::{self, SESSION_COLUMNS};
use crate::schema::Schema;

/// What `Session::state` calls active, at the moment `$1`.
pub(crate) const ACTIVE: &str = "s.revoked_at IS NULL AND s.expires_at > $1 \
     AND (s.absolute_expires_at IS NULL OR s.absolute_expires_at > $1)";
/// What `Session::state` calls expired, at the moment `$1`.
pub(crate) const EXPIRED: &str =
    "s.revoked_at IS NULL AND (s.expires_at <= $1 OR s.absolute_expires_at <= $1)";

/// One statement, for the session, its user and the time.
pub(crate) fn find_sql(schema: &Schema) -> String {
    schema.text(&format!(
        "SELECT {{clock}}, {SESSION_COLUMNS}, {{projection}} FROM (VALUES (1)) one (only_row) \
         LEFT JOIN {{p}}sessions s ON s.id = $1 LEFT JOIN {{users}} u ON u.{{id}} = s.user_id"
    ))
}

pub(crate) async fn find(
    on: &mut PgConnection,
    schema: &Schema,
    sql: &Arc<str>,
    id: &SessionId,
) -> Result<Found> {
    let row = sqlx::query(AssertSqlSafe(Arc::clone(sql)))
        .bind(id.as_bytes().as_slice())
        .fetch_one(on)
        .await
        .map_err(classify)?;
    Ok(Found {
        server_time: row::maybe_time(&row, 0)?,
        snapshot: row::snapshot(&row, 1, schema.owns_users())?,
    })
}

/// The position that a cursor stands for; the beginning without one.
pub(crate) fn position(page: &Page) -> (i64, Vec<u8>) {
    page.after.as_ref().map_or((-1, Vec::new()), |after| (after.at.as_millis(), after.key.clone()))
}

/// Cuts a list that was read one item too far.
pub(crate) fn cut<T>(mut items: Vec<T>, page: &Page, cursor: impl Fn(&T) -> Cursor) -> Listing<T> {
    let limit = usize::try_from(page.limit.get()).unwrap_or(usize::MAX);
    let has_more = items.len() > limit;
    items.truncate(limit);
    let next = items.last().filter(|_| has_more).map(cursor);
    Listing { items, next }
}

pub(crate) fn list_sql(schema: &Schema) -> String {
    schema.text(&format!(
        "SELECT {SESSION_COLUMNS} FROM {{p}}sessions s \
         WHERE s.user_id = $2{{key}} AND (s.created_at, s.id) > ($3, $4) \
         AND ($1::bigint IS NULL OR ({ACTIVE})) ORDER BY s.created_at, s.id LIMIT $5"
    ))
}

pub(crate) async fn list(
    on: &mut PgConnection,
    schema: &Schema,
    user: &UserId,
    which: Which,
    page: &Page,
) -> Result<Listing<Session>> {
    let (at, id) = position(page);
    if page.after.is_some() && id.len() != 16 {
        return Err(Error::invalid(NAME, "cursor"));
    }
    let now = match which {
        Which::Live(now) => Some(now.as_millis()),
        Which::All => None,
    };
    let rows = sqlx::query(AssertSqlSafe(list_sql(schema)))
        .bind(now)
        .bind(user.as_str())
        .bind(at)
        .bind(id)
        .bind(i64::from(page.limit.get()) + 1)
        .fetch_all(on)
        .await
        .map_err(classify)?;
    let items = rows.iter().map(row::session).collect::<Result<Vec<_>>>()?;
    Ok(cut(items, page, |last: &Session| Cursor {
        at: last.created_at,
        key: last.id.as_bytes().to_vec(),
    }))
}

pub(crate) async fn census(
    on: &mut PgConnection,
    schema: &Schema,
    now: Timestamp,
    user: Option<&UserId>,
) -> Result<Census> {
    let filter = if user.is_some() { "s.user_id = $3{key}" } else { "$3::text IS NULL" };
    let sql = schema.sql(&format!(
        "SELECT count(*) FILTER (WHERE {ACTIVE}), \
                count(*) FILTER (WHERE {ACTIVE} AND s.user_id IS NULL), \
                count(DISTINCT CASE WHEN {ACTIVE} THEN s.user_id END), \
                count(*) FILTER (WHERE {EXPIRED}), \
                count(*) FILTER (WHERE s.revoked_at IS NOT NULL), \
                count(*) FILTER (WHERE s.created_at > $2 AND s.created_at <= $1), \
                count(*) FILTER (WHERE s.revoked_at > $2 AND s.revoked_at <= $1) \
         FROM {{p}}sessions s WHERE {filter}"
    ));
    let day_ago = now.minus(std::time::Duration::from_hours(24)).as_millis();
    let row = sqlx::query(sql)
        .bind(now.as_millis())
        .bind(day_ago)
        .bind(user.map(UserId::as_str))
        .fetch_one(on)
        .await
        .map_err(classify)?;
    debug_assert_eq!(row.len(), 7, "as many as the fields below");
    Ok(Census {
        active: row::unsigned(&row, 0)?,
        guests: row::unsigned(&row, 1)?,
        users: row::unsigned(&row, 2)?,
        expired: row::unsigned(&row, 3)?,
        revoked: row::unsigned(&row, 4)?,
        created_last_day: row::unsigned(&row, 5)?,
        revoked_last_day: row::unsigned(&row, 6)?,
    })
}
