//! Statements that create and change sessions. Each function runs inside the writer's transaction.

use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, params};
use session_store_core::{
    CredentialEpoch, Error, ErrorKind, Inserted, Json, NewSession, Promotion, Reason, Result,
    SessionChange, SessionId, SessionIds, SessionLimit, State, Timestamp, Touch, Touched, Update,
    Updated, UserId,
};

use crate::error::{NAME, classify, error};
use crate::read::ACTIVE;
use crate::schema::Schema;
use crate::{ending, read, row, users};

/// The largest `data` document, in bytes.
pub(crate) const MAX_DATA_BYTES: usize = 1 << 20;

const INSERT: &str = "INSERT INTO {p}sessions (id, user_id, secret_hash, previous_hash, \
    previous_until, created_at, authenticated_at, last_seen_at, expires_at, absolute_expires_at, \
    idle_timeout, rotated_at, ip, user_agent, device, remember, aal, amr, external_sid, data, \
    version, credential_epoch, revoked_at, revoked_reason) \
    VALUES (:id, :user_id, :secret_hash, :previous_hash, :previous_until, :created_at, \
    :authenticated_at, :last_seen_at, :expires_at, :absolute_expires_at, :idle_timeout, \
    :rotated_at, :ip, :user_agent, :device, :remember, :aal, :amr, :external_sid, :data, :version, \
    :credential_epoch, :revoked_at, :revoked_reason)";

const UPDATE: &str = "UPDATE {p}sessions SET user_id = :user_id, secret_hash = :secret_hash, \
    previous_hash = :previous_hash, previous_until = :previous_until, created_at = :created_at, \
    authenticated_at = :authenticated_at, last_seen_at = :last_seen_at, expires_at = :expires_at, \
    absolute_expires_at = :absolute_expires_at, idle_timeout = :idle_timeout, \
    rotated_at = :rotated_at, ip = :ip, user_agent = :user_agent, device = :device, \
    remember = :remember, aal = :aal, amr = :amr, external_sid = :external_sid, data = :data, \
    version = :version, credential_epoch = :credential_epoch, revoked_at = :revoked_at, \
    revoked_reason = :revoked_reason WHERE id = :id";

pub(crate) fn insert(
    connection: &Connection,
    schema: &Schema,
    new: &NewSession,
    now: Timestamp,
) -> Result<Inserted> {
    let session = &new.session;
    check_size(Some(&session.data))?;
    if session.has_ended(now) {
        return Err(error(ErrorKind::InvalidExpiry));
    }
    if exists(connection, schema, &session.id)? {
        return Err(error(ErrorKind::Conflict));
    }
    let (key, evicted) = match &session.user_id {
        None => (None, SessionIds::new()),
        Some(user) => {
            let owner = Owner { user, epoch: session.credential_epoch, limit: new.limit };
            let (key, evicted) = log_in(connection, schema, &owner, &session.id, now)?;
            (Some(key), evicted)
        }
    };
    connection
        .prepare_cached(&schema.sql(INSERT))
        .and_then(|mut insert| row::execute(&mut insert, session, key.as_ref()))
        .map_err(classify)?;
    Ok(Inserted { evicted })
}

pub(crate) fn update(
    connection: &Connection,
    schema: &Schema,
    (id, version): (&SessionId, u64),
    change: &SessionChange,
    now: Timestamp,
) -> Result<Update> {
    check_size(change.data.as_ref())?;
    if change.expires_at.is_some_and(|deadline| deadline <= now) {
        return Err(error(ErrorKind::InvalidExpiry));
    }
    let Some(mut snapshot) = read::find(connection, schema, id)? else {
        return Ok(Update::Missing);
    };
    let session = &mut snapshot.session;
    if session.state(now) != State::Active {
        return Ok(Update::Missing);
    }
    if session.version != version {
        return Ok(Update::Conflict { current: session.version });
    }
    let evicted = match &change.promotion {
        None => SessionIds::new(),
        Some(promotion) => {
            promote(connection, schema, (id, session.user_id.as_ref()), promotion, now)?
        }
    };
    change.apply(session);
    session.version += 1;
    let key = session.user_id.as_ref().map(|user| schema.known_key(user)).transpose()?;
    connection
        .prepare_cached(&schema.sql(UPDATE))
        .and_then(|mut update| row::execute(&mut update, session, key.as_ref()))
        .map_err(classify)?;
    let snapshot = read::find(connection, schema, id)?;
    Ok(snapshot.map_or(Update::Missing, |snapshot| {
        Update::Updated(Box::new(Updated { snapshot, evicted }))
    }))
}

fn promote(
    connection: &Connection,
    schema: &Schema,
    (id, owner): (&SessionId, Option<&UserId>),
    promotion: &Promotion,
    now: Timestamp,
) -> Result<SessionIds> {
    let user = &promotion.user_id;
    if owner.is_some_and(|owner| owner != user) {
        return Err(Error::invalid(NAME, "promotion of a session that has another user"));
    }
    let owner = Owner { user, epoch: promotion.credential_epoch, limit: promotion.limit };
    log_in(connection, schema, &owner, id, now).map(|(_, evicted)| evicted)
}

pub(crate) fn touch(
    connection: &Connection,
    schema: &Schema,
    touches: &[Touch],
) -> Result<Vec<Touched>> {
    let sql = schema.sql(
        "UPDATE {p}sessions SET last_seen_at = max(last_seen_at, ?2), \
         expires_at = max(expires_at, min(?3, coalesce(absolute_expires_at, ?3))) \
         WHERE id = ?1 AND revoked_at IS NULL AND expires_at > ?2 \
         AND (absolute_expires_at IS NULL OR absolute_expires_at > ?2) RETURNING expires_at",
    );
    let mut update = connection.prepare_cached(&sql).map_err(classify)?;
    let one = |touch: &Touch| {
        let id = touch.id.as_bytes().as_slice();
        let bound = params![id, touch.seen_at.as_millis(), touch.expires_at.as_millis()];
        let moved =
            update.query_row(bound, |row| row::time(row, 0)).optional().map_err(classify)?;
        Ok(moved.map_or(Touched::Missing, |expires_at| Touched::Active { expires_at }))
    };
    touches.iter().map(one).collect()
}

/// A login that is to be checked.
struct Owner<'a> {
    user: &'a UserId,
    epoch: CredentialEpoch,
    limit: Option<SessionLimit>,
}

/// Checks user and epoch, makes room for the session `id`, and records the login.
fn log_in(
    connection: &Connection,
    schema: &Schema,
    owner: &Owner<'_>,
    id: &SessionId,
    now: Timestamp,
) -> Result<(Value, SessionIds)> {
    let key = schema.known_key(owner.user)?;
    if !users::exists(connection, schema, owner.user)? {
        return Err(error(ErrorKind::UnknownUser));
    }
    let sql = schema.sql(
        "INSERT INTO {p}session_users (user_id, credential_epoch) VALUES (?1, 0) \
         ON CONFLICT DO NOTHING",
    );
    connection
        .prepare_cached(&sql)
        .and_then(|mut insert| insert.execute([owner.user.as_str()]))
        .map_err(classify)?;
    if owner.epoch < read::epoch(connection, schema, owner.user)? {
        return Err(error(ErrorKind::StaleCredentials));
    }
    let evicted = make_room(connection, schema, (&key, id), owner.limit, now)?;
    if schema.owns_users() {
        let sql = schema.sql("UPDATE {p}users SET last_login_at = ?2 WHERE id = ?1");
        connection
            .prepare_cached(&sql)
            .and_then(|mut update| update.execute(params![key, now.as_millis()]))
            .map_err(classify)?;
    }
    Ok((key, evicted))
}

/// Ends as many of the user's active sessions, other than `but`, as the limit calls for.
fn make_room(
    connection: &Connection,
    schema: &Schema,
    (key, but): (&Value, &SessionId),
    limit: Option<SessionLimit>,
    now: Timestamp,
) -> Result<SessionIds> {
    let Some(limit) = limit else {
        return Ok(SessionIds::new());
    };
    let sql = schema.sql(&format!(
        "SELECT id FROM {{p}}sessions WHERE user_id = ?2 AND id <> ?3 AND {ACTIVE} \
         ORDER BY last_seen_at, id"
    ));
    let bound = params![now.as_millis(), key, but.as_bytes().as_slice()];
    let mut active: SessionIds = connection
        .prepare_cached(&sql)
        .and_then(|mut list| list.query_map(bound, |row| row::id(row, 0))?.collect())
        .map_err(classify)?;
    let room = usize::try_from(limit.max.max(1) - 1).unwrap_or(usize::MAX);
    let surplus = active.len().saturating_sub(room);
    if surplus > 0 && !limit.evict {
        return Err(error(ErrorKind::TooManySessions));
    }
    active.truncate(surplus);
    for id in &active {
        ending::end(connection, schema, id, Reason::Limit, now)?;
    }
    Ok(active)
}

fn exists(connection: &Connection, schema: &Schema, id: &SessionId) -> Result<bool> {
    let sql = schema.sql("SELECT 1 FROM {p}sessions WHERE id = ?1");
    connection
        .prepare_cached(&sql)
        .and_then(|mut read| read.query_row([id.as_bytes().as_slice()], |_| Ok(())).optional())
        .map_err(classify)
        .map(|found| found.is_some())
}

fn check_size(data: Option<&Json>) -> Result<()> {
    if data.is_some_and(|data| data.as_str().len() > MAX_DATA_BYTES) {
        let limit = MAX_DATA_BYTES;
        return Err(error(ErrorKind::TooLarge { what: "session data", limit }));
    }
    Ok(())
}
