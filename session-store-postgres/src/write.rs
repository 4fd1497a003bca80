//! Statements that create and change sessions.
//!
//! Locks are taken in one order everywhere: the user's row of `session_users`, the user, then sessions
//! by id. A lock is a statement of its own: it does not renew the snapshot of the statement it is in.
//! Touches have no part in it: they wait for no session while they hold another one.

use session_store_core::{
    CredentialEpoch, Error, ErrorKind, Inserted, Json, NewSession, Promotion, Reason, Result,
    Session, SessionChange, SessionId, SessionIds, SessionLimit, State, Timestamp, Update, Updated,
    UserId,
};
use sqlx::PgConnection;

use crate::error::{NAME, classify, classify_write, error};
use crate::read::{self, ACTIVE};
use crate::row::{self, SESSION_COLUMNS};
use crate::schema::Schema;
use crate::{ending, transaction, users};

/// The largest `data` document, in bytes.
pub(crate) const MAX_DATA_BYTES: usize = 1 << 20;

const INSERT: &str = "INSERT INTO {p}sessions (id, user_id, secret_hash, previous_hash, \
    previous_until, created_at, authenticated_at, last_seen_at, expires_at, absolute_expires_at, \
    idle_timeout, rotated_at, ip, user_agent, device, remember, aal, amr, external_sid, data, \
    version, credential_epoch, revoked_at, revoked_reason) VALUES ($1, $2{key}, $3, $4, $5, $6, $7, \
    $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, $24)";

const UPDATE: &str = "UPDATE {p}sessions SET user_id = $2{key}, secret_hash = $3, \
    previous_hash = $4, previous_until = $5, created_at = $6, authenticated_at = $7, \
    last_seen_at = $8, expires_at = $9, absolute_expires_at = $10, idle_timeout = $11, \
    rotated_at = $12, ip = $13, user_agent = $14, device = $15, remember = $16, aal = $17, \
    amr = $18, external_sid = $19, data = $20, version = $21, credential_epoch = $22, \
    revoked_at = $23, revoked_reason = $24 WHERE id = $1";

/// What no statement is needed to refuse.
pub(crate) fn check_new(session: &Session, now: Timestamp) -> Result<()> {
    check_size(Some(&session.data))?;
    if session.has_ended(now) {
        return Err(error(ErrorKind::InvalidExpiry));
    }
    Ok(())
}

pub(crate) async fn insert(
    on: &mut PgConnection,
    schema: &Schema,
    new: &NewSession,
    now: Timestamp,
) -> Result<Inserted> {
    let session = &new.session;
    let evicted = match &session.user_id {
        None => SessionIds::new(),
        Some(user) => {
            let owner = Owner { user, epoch: session.credential_epoch, limit: new.limit };
            // A taken id is told before anybody is evicted for it.
            if exists(on, schema, &session.id).await? {
                return Err(error(ErrorKind::Conflict));
            }
            log_in(on, schema, &owner, &session.id, now).await?
        }
    };
    let query = row::bind(sqlx::query(schema.sql(INSERT)), session);
    query.execute(on).await.map_err(classify)?;
    Ok(Inserted { evicted })
}

pub(crate) fn check_change(change: &SessionChange, now: Timestamp) -> Result<()> {
    check_size(change.data.as_ref())?;
    if change.expires_at.is_some_and(|deadline| deadline <= now) {
        return Err(error(ErrorKind::InvalidExpiry));
    }
    Ok(())
}

/// Whether a change must survive a crash of the server once it was confirmed: all but what the
/// application keeps in its session.
pub(crate) fn is_lasting(change: &SessionChange) -> bool {
    let SessionChange {
        expires_at,
        data: _,
        metadata: _,
        rotation,
        previous_until,
        elevation,
        promotion,
    } = change;
    expires_at.is_some()
        || rotation.is_some()
        || previous_until.is_some()
        || elevation.is_some()
        || promotion.is_some()
}

pub(crate) async fn update(
    on: &mut PgConnection,
    schema: &Schema,
    (id, version): (&SessionId, u64),
    change: &SessionChange,
    now: Timestamp,
) -> Result<Update> {
    let evicted = match &change.promotion {
        None => SessionIds::new(),
        Some(promotion) => match promote(on, schema, (id, version), promotion, now).await? {
            Ok(evicted) => evicted,
            Err(refusal) => return Ok(refusal),
        },
    };
    let Some(mut session) = lock(on, schema, id).await? else {
        return Ok(Update::Missing);
    };
    if session.state(now) != State::Active {
        return Ok(Update::Missing);
    }
    if session.version != version {
        return Ok(Update::Conflict { current: session.version });
    }
    change.apply(&mut session);
    session.version += 1;
    let query = row::bind(sqlx::query(schema.sql(UPDATE)), &session);
    query.execute(&mut *on).await.map_err(classify)?;
    let sql = sqlx::AssertSqlSafe(read::find_sql(schema));
    let row =
        sqlx::query(sql).bind(id.as_bytes().as_slice()).fetch_one(on).await.map_err(classify)?;
    let snapshot = row::snapshot(&row, 1, schema.owns_users())?;
    Ok(snapshot.map_or(Update::Missing, |snapshot| {
        Update::Updated(Box::new(Updated { snapshot, evicted }))
    }))
}

/// The session as it is once nobody else can change it.
async fn lock(on: &mut PgConnection, schema: &Schema, id: &SessionId) -> Result<Option<Session>> {
    let sql = format!("SELECT {SESSION_COLUMNS} FROM {{p}}sessions s WHERE s.id = $1 FOR UPDATE");
    let found = sqlx::query(schema.sql(&sql))
        .bind(id.as_bytes().as_slice())
        .fetch_optional(on)
        .await
        .map_err(classify)?;
    found.as_ref().map(row::session).transpose()
}

/// Locks the user before the session, as a login does. `Err`: the session can't be promoted.
async fn promote(
    on: &mut PgConnection,
    schema: &Schema,
    (id, version): (&SessionId, u64),
    promotion: &Promotion,
    now: Timestamp,
) -> Result<std::result::Result<SessionIds, Update>> {
    let user = &promotion.user_id;
    let sql = format!("SELECT {SESSION_COLUMNS} FROM {{p}}sessions s WHERE s.id = $1");
    let found = sqlx::query(schema.sql(&sql))
        .bind(id.as_bytes().as_slice())
        .fetch_optional(&mut *on)
        .await
        .map_err(classify)?;
    // Read without a lock, to evict nobody in vain; it is read again under one.
    let Some(session) = found.as_ref().map(row::session).transpose()? else {
        return Ok(Err(Update::Missing));
    };
    if session.state(now) != State::Active {
        return Ok(Err(Update::Missing));
    }
    if session.version != version {
        return Ok(Err(Update::Conflict { current: session.version }));
    }
    if session.user_id.as_ref().is_some_and(|owner| owner != user) {
        return Err(Error::invalid(NAME, "promotion of a session that has another user"));
    }
    let owner = Owner { user, epoch: promotion.credential_epoch, limit: promotion.limit };
    log_in(on, schema, &owner, id, now).await.map(Ok)
}

/// A login that is to be checked.
struct Owner<'a> {
    user: &'a UserId,
    epoch: CredentialEpoch,
    limit: Option<SessionLimit>,
}

/// Checks user and epoch, makes room for the session `id`, and records the login.
async fn log_in(
    on: &mut PgConnection,
    schema: &Schema,
    owner: &Owner<'_>,
    id: &SessionId,
    now: Timestamp,
) -> Result<SessionIds> {
    schema.check_key(owner.user)?;
    let sql = "INSERT INTO {p}session_users (user_id, credential_epoch) VALUES ($1, 0) \
         ON CONFLICT DO NOTHING";
    let known = sqlx::query(schema.sql(sql)).bind(owner.user.as_str());
    known.execute(&mut *on).await.map_err(classify)?;
    // Not a shared lock: overlapping logins would starve whoever wants to revoke all.
    let sql = "SELECT credential_epoch FROM {p}session_users WHERE user_id = $1 FOR NO KEY UPDATE";
    let query = sqlx::query(schema.sql(sql)).bind(owner.user.as_str());
    let row = query.fetch_one(&mut *on).await.map_err(classify)?;
    let epoch = CredentialEpoch(row::unsigned(&row, 0)?);
    if !users::lock(on, schema, owner.user, "FOR KEY SHARE").await? {
        return Err(error(ErrorKind::UnknownUser));
    }
    if owner.epoch < epoch {
        return Err(error(ErrorKind::StaleCredentials));
    }
    let evicted = make_room(on, schema, (owner.user, id), owner.limit, now).await?;
    if schema.owns_users() {
        let sql = "UPDATE {p}users SET last_login_at = $2 WHERE id = $1";
        let query = sqlx::query(schema.sql(sql)).bind(owner.user.as_str()).bind(now.as_millis());
        query.execute(on).await.map_err(classify)?;
    }
    Ok(evicted)
}

/// Ends as many of the user's active sessions, other than `but`, as the limit calls for.
async fn make_room(
    on: &mut PgConnection,
    schema: &Schema,
    (user, but): (&UserId, &SessionId),
    limit: Option<SessionLimit>,
    now: Timestamp,
) -> Result<SessionIds> {
    let Some(limit) = limit else {
        return Ok(SessionIds::new());
    };
    let own = "SELECT id FROM {p}sessions WHERE user_id = $1{key} ORDER BY id FOR UPDATE";
    let query = sqlx::query(schema.sql(own)).bind(user.as_str());
    query.fetch_all(&mut *on).await.map_err(classify)?;
    let sql = format!(
        "SELECT s.id FROM {{p}}sessions s WHERE s.user_id = $2{{key}} AND s.id <> $3 AND {ACTIVE} \
         ORDER BY s.last_seen_at, s.id"
    );
    let rows = sqlx::query(schema.sql(&sql))
        .bind(now.as_millis())
        .bind(user.as_str())
        .bind(but.as_bytes().as_slice())
        .fetch_all(&mut *on)
        .await
        .map_err(classify)?;
    let mut active = rows.iter().map(|row| row::id(row, 0)).collect::<Result<SessionIds>>()?;
    let room = usize::try_from(limit.max.max(1) - 1).unwrap_or(usize::MAX);
    let surplus = active.len().saturating_sub(room);
    if surplus > 0 && !limit.evict {
        return Err(error(ErrorKind::TooManySessions));
    }
    active.truncate(surplus);
    if surplus > 0 {
        transaction::make_lasting(on).await?;
    }
    ending::end(on, schema, &active, Reason::Limit, now).await?;
    Ok(active)
}

async fn exists(on: &mut PgConnection, schema: &Schema, id: &SessionId) -> Result<bool> {
    let sql = schema.sql("SELECT 1 FROM {p}sessions WHERE id = $1");
    let query = sqlx::query(sql).bind(id.as_bytes().as_slice());
    Ok(query.fetch_optional(on).await.map_err(classify)?.is_some())
}

fn check_size(data: Option<&Json>) -> Result<()> {
    if data.is_some_and(|data| data.as_str().len() > MAX_DATA_BYTES) {
        let limit = MAX_DATA_BYTES;
        return Err(error(ErrorKind::TooLarge { what: "session data", limit }));
    }
    Ok(())
}

/// A guest's session is one statement.
pub(crate) async fn insert_guest(
    on: &mut PgConnection,
    schema: &Schema,
    session: &Session,
) -> Result<Inserted> {
    let query = row::bind(sqlx::query(schema.sql(INSERT)), session);
    query.execute(on).await.map_err(classify_write)?;
    Ok(Inserted { evicted: SessionIds::new() })
}
