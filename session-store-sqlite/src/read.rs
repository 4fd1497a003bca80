//! Statements that only read.

use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, params};
use session_store_core::{
    Census, CredentialEpoch, Cursor, Error, ErrorKind, Json, Listing, Page, Result, Session,
    SessionId, Snapshot, Timestamp, UserId, Which,
};

use crate::error::{NAME, classify, error};
use crate::row::{self, SESSION_COLUMNS};
use crate::schema::Schema;

/// What `Session::state` calls active, at the moment `?1`.
pub(crate) const ACTIVE: &str = "revoked_at IS NULL AND expires_at > ?1 \
     AND (absolute_expires_at IS NULL OR absolute_expires_at > ?1)";
/// What `Session::state` calls expired, at the moment `?1`.
pub(crate) const EXPIRED: &str =
    "revoked_at IS NULL AND (expires_at <= ?1 OR absolute_expires_at <= ?1)";

pub(crate) fn find(
    connection: &Connection,
    schema: &Schema,
    id: &SessionId,
) -> Result<Option<Snapshot>> {
    let found = connection
        .prepare_cached(&schema.find)
        .and_then(|mut find| find.query_row([id.as_bytes().as_slice()], row::snapshot).optional())
        .map_err(classify)?;
    let user = found.as_ref().and_then(|found| found.user.as_ref());
    if let Some(user) = user.filter(|_| !schema.owns_users()) {
        // The application wrote it, so that nobody has checked it yet.
        Json::parse(user.claims.as_str())
            .map_err(|cause| error(ErrorKind::Corrupt).caused_by(cause))?;
    }
    Ok(found)
}

pub(crate) fn epoch(
    connection: &Connection,
    schema: &Schema,
    user: &UserId,
) -> Result<CredentialEpoch> {
    let sql = schema.sql("SELECT credential_epoch FROM {p}session_users WHERE user_id = ?1");
    let found = connection
        .prepare_cached(&sql)
        .and_then(|mut read| {
            read.query_row([user.as_str()], |row| row::unsigned(row, 0)).optional()
        })
        .map_err(classify)?;
    Ok(CredentialEpoch(found.unwrap_or(0)))
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

pub(crate) fn list(
    connection: &Connection,
    schema: &Schema,
    key: &Value,
    which: Which,
    page: &Page,
) -> Result<Listing<Session>> {
    let (at, id) = position(page);
    if page.after.is_some() && id.len() != 16 {
        return Err(Error::invalid(NAME, "cursor"));
    }
    let sql = list_sql(schema);
    let now = match which {
        Which::Live(now) => Some(now.as_millis()),
        Which::All => None,
    };
    let limit = i64::from(page.limit.get()) + 1;
    let items = connection
        .prepare_cached(&sql)
        .and_then(|mut list| {
            list.query_map(params![now, key, at, id, limit], row::session)?.collect()
        })
        .map_err(classify)?;
    Ok(cut(items, page, |last: &Session| Cursor {
        at: last.created_at,
        key: last.id.as_bytes().to_vec(),
    }))
}

pub(crate) fn list_sql(schema: &Schema) -> String {
    schema.sql(&format!(
        "SELECT {SESSION_COLUMNS} FROM {{p}}sessions s \
         WHERE s.user_id = ?2 AND (s.created_at, s.id) > (?3, ?4) \
         AND (?1 IS NULL OR ({ACTIVE})) ORDER BY s.created_at, s.id LIMIT ?5"
    ))
}

pub(crate) fn census(
    connection: &Connection,
    schema: &Schema,
    now: Timestamp,
    user: Option<&Value>,
) -> Result<Census> {
    let filter = if user.is_some() { "WHERE user_id = ?2" } else { "WHERE ?2 IS NULL" };
    let sql = schema.sql(&format!(
        "SELECT count(*) FILTER (WHERE {ACTIVE}), \
                count(*) FILTER (WHERE {ACTIVE} AND user_id IS NULL), \
                count(DISTINCT CASE WHEN {ACTIVE} THEN user_id END), \
                count(*) FILTER (WHERE {EXPIRED}), \
                count(*) FILTER (WHERE revoked_at IS NOT NULL), \
                count(*) FILTER (WHERE created_at > ?3 AND created_at <= ?1), \
                count(*) FILTER (WHERE revoked_at > ?3 AND revoked_at <= ?1) \
         FROM {{p}}sessions {filter}"
    ));
    let day_ago = now.minus(std::time::Duration::from_hours(24)).as_millis();
    connection
        .prepare_cached(&sql)
        .and_then(|mut count| {
            count.query_row(params![now.as_millis(), user, day_ago], |row| {
                Ok(Census {
                    active: row::unsigned(row, 0)?,
                    guests: row::unsigned(row, 1)?,
                    users: row::unsigned(row, 2)?,
                    expired: row::unsigned(row, 3)?,
                    revoked: row::unsigned(row, 4)?,
                    created_last_day: row::unsigned(row, 5)?,
                    revoked_last_day: row::unsigned(row, 6)?,
                })
            })
        })
        .map_err(classify)
}
