//! Statements that only read.

use serde::Deserialize;
use session_store_core::{
    Census, Cursor, Error, Found, Listing, Page, Result, Session, SessionId, Timestamp, UserId,
    Which,
};

use super::config::D1Config;
use super::database::{Database, Statement, Value, hex};
use super::error::NAME;
use super::row::{PROJECTION, SESSION_COLUMNS, SessionRow};

/// What `Session::state` calls active, at the moment `?1`.
pub(crate) const ACTIVE: &str = "revoked_at IS NULL AND expires_at > ?1 \
     AND (absolute_expires_at IS NULL OR absolute_expires_at > ?1)";
/// What `Session::state` calls expired, at the moment `?1`.
pub(crate) const EXPIRED: &str =
    "revoked_at IS NULL AND (expires_at <= ?1 OR absolute_expires_at <= ?1)";

/// The statement that reads one session with its user.
pub(crate) fn snapshot(database: &Database, id: &SessionId) -> Statement {
    let sql = format!(
        "SELECT {SESSION_COLUMNS}, {PROJECTION} FROM {{p}}sessions s \
         LEFT JOIN {{p}}users u ON u.id = s.user_id \
         WHERE s.id = ?1 AND (s.user_id IS NULL OR u.id IS NOT NULL)"
    );
    database.say(&sql, [id.into()])
}

pub(crate) async fn find(database: &Database, config: &D1Config, id: &SessionId) -> Result<Found> {
    let mut batch = vec![snapshot(database, id)];
    if config.compare_clocks {
        let sql = "SELECT CAST(unixepoch('now', 'subsec') * 1000 AS INTEGER) AS now";
        batch.push(database.say(sql, []));
    }
    let mut answers = database.read(batch).await?;
    let row: Option<SessionRow> = answers.next().first()?;
    let mut snapshot = row.map(|row| row.snapshot()).transpose()?;
    if let Some(user) = snapshot.as_mut().and_then(|found| found.user.as_mut())
        && !config.project_email
    {
        user.email = None;
    }
    let now = answers.next().column::<i64>("now")?;
    Ok(Found { snapshot, server_time: now.first().copied().map(Timestamp::from_millis) })
}

/// The position that a cursor stands for; the beginning without one.
pub(crate) fn position(page: &Page) -> (Value, Vec<u8>) {
    page.after
        .as_ref()
        .map_or((Value::Integer(-1), Vec::new()), |after| (after.at.into(), after.key.clone()))
}

/// Cuts a list that was read one item too far.
pub(crate) fn cut<T>(mut items: Vec<T>, page: &Page, cursor: impl Fn(&T) -> Cursor) -> Listing<T> {
    let limit = usize::try_from(page.limit.get()).unwrap_or(usize::MAX);
    let has_more = items.len() > limit;
    items.truncate(limit);
    let next = items.last().filter(|_| has_more).map(cursor);
    Listing { items, next }
}

pub(crate) async fn list(
    database: &Database,
    user: &UserId,
    which: Which,
    page: &Page,
) -> Result<Listing<Session>> {
    let (at, id) = position(page);
    if page.after.is_some() && id.len() != 16 {
        return Err(Error::invalid(NAME, "cursor"));
    }
    let sql = format!(
        "SELECT {SESSION_COLUMNS} FROM {{p}}sessions s \
         WHERE s.user_id = ?2 AND (s.created_at, s.id) > (?3, ?4) \
         AND (?1 IS NULL OR ({ACTIVE})) ORDER BY s.created_at, s.id LIMIT ?5"
    );
    let now = match which {
        Which::Live(now) => Some(now),
        Which::All => None,
    };
    let limit = i64::from(page.limit.get()) + 1;
    let values = [now.into(), user.into(), at, hex(&id).into(), limit.into()];
    let rows = database.read(vec![database.say(&sql, values)]).await?.next();
    let items = rows.all::<SessionRow>()?.iter().map(SessionRow::session).collect::<Result<_>>()?;
    Ok(cut(items, page, |last: &Session| Cursor {
        at: last.created_at,
        key: last.id.as_bytes().to_vec(),
    }))
}

#[derive(Deserialize)]
struct CensusRow {
    active: u64,
    guests: u64,
    users: u64,
    expired: u64,
    revoked: u64,
    created: u64,
    ended: u64,
}

pub(crate) async fn census(
    database: &Database,
    now: Timestamp,
    user: Option<&UserId>,
) -> Result<Census> {
    let sql = format!(
        "SELECT count(*) FILTER (WHERE {ACTIVE}) AS active, \
                count(*) FILTER (WHERE {ACTIVE} AND user_id IS NULL) AS guests, \
                count(DISTINCT CASE WHEN {ACTIVE} THEN user_id END) AS users, \
                count(*) FILTER (WHERE {EXPIRED}) AS expired, \
                count(*) FILTER (WHERE revoked_at IS NOT NULL) AS revoked, \
                count(*) FILTER (WHERE created_at > ?3 AND created_at <= ?1) AS created, \
                count(*) FILTER (WHERE revoked_at > ?3 AND revoked_at <= ?1) AS ended \
         FROM {{p}}sessions WHERE ?2 IS NULL OR user_id = ?2"
    );
    let day_ago = now.minus(std::time::Duration::from_hours(24));
    let asked = database.say(&sql, [now.into(), user.into(), day_ago.into()]);
    let row: Option<CensusRow> = database.read(vec![asked]).await?.next().first()?;
    Ok(row.map_or_else(Census::default, |row| Census {
        active: row.active,
        guests: row.guests,
        users: row.users,
        expired: row.expired,
        revoked: row.revoked,
        created_last_day: row.created,
        revoked_last_day: row.ended,
    }))
}
