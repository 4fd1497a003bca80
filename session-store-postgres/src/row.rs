//! Rows to records and back.

use std::time::Duration;

use session_store_core::{
    CredentialEpoch, Email, ErrorKind, Json, Metadata, PasswordHash, Previous, Projection, Reason,
    Result, Revocation, Role, SecretHash, Session, SessionId, Snapshot, Timestamp, Ttl, User,
    UserId,
};
use sqlx::postgres::{PgArguments, PgRow};
use sqlx::query::Query;
use sqlx::{Postgres, Row};

use crate::error::{classify, error};

/// The columns of a session, in the order that [`session`] reads them.
pub(crate) const SESSION_COLUMNS: &str = "s.id, s.user_id::text, s.secret_hash, s.previous_hash, \
     s.previous_until, s.created_at, s.authenticated_at, s.last_seen_at, s.expires_at, \
     s.absolute_expires_at, s.idle_timeout, s.rotated_at, s.ip, s.user_agent, s.device, \
     s.remember, s.aal, s.amr, s.external_sid, s.data, s.version, s.credential_epoch, \
     s.revoked_at, s.revoked_reason";
/// How many they are.
const WIDTH: usize = 24;

/// The columns of an owned user, in the order that [`user`] reads them.
pub(crate) const USER_COLUMNS: &str = "u.id, u.email, u.password_hash, u.is_verified, u.role, \
     u.created_at, u.last_login_at, u.claims, u.version";

fn corrupt() -> session_store_core::Error {
    error(ErrorKind::Corrupt)
}

fn checked<T>(value: Result<T>) -> Result<T> {
    value.map_err(|cause| corrupt().caused_by(cause))
}

fn get<'r, T>(row: &'r PgRow, column: usize) -> Result<T>
where
    T: sqlx::Decode<'r, Postgres> + sqlx::Type<Postgres>,
{
    row.try_get(column).map_err(classify)
}

pub(crate) fn time(row: &PgRow, column: usize) -> Result<Timestamp> {
    get(row, column).map(Timestamp::from_millis)
}

pub(crate) fn maybe_time(row: &PgRow, column: usize) -> Result<Option<Timestamp>> {
    Ok(get::<Option<i64>>(row, column)?.map(Timestamp::from_millis))
}

/// A number that is never negative. Postgres knows signed ones only.
pub(crate) fn unsigned(row: &PgRow, column: usize) -> Result<u64> {
    get::<i64>(row, column)?.try_into().map_err(|_| corrupt())
}

fn bytes<const N: usize>(row: &PgRow, column: usize) -> Result<[u8; N]> {
    get::<&[u8]>(row, column)?.try_into().map_err(|_| corrupt())
}

pub(crate) fn id(row: &PgRow, column: usize) -> Result<SessionId> {
    bytes(row, column).map(SessionId::from_bytes)
}

pub(crate) fn user_id(row: &PgRow, column: usize) -> Result<Option<UserId>> {
    get::<Option<String>>(row, column)?.map(|text| checked(UserId::new(text))).transpose()
}

/// The epoch in the last column; users who never logged in have none yet.
pub(crate) fn last_epoch(row: &PgRow) -> Result<CredentialEpoch> {
    let epoch: Option<i64> = get(row, row.len().saturating_sub(1))?;
    epoch.unwrap_or(0).try_into().map(CredentialEpoch).map_err(|_| corrupt())
}

/// The session whose columns begin at `from`.
fn session_at(row: &PgRow, from: usize) -> Result<Session> {
    let at = |column| from + column;
    let amr: String = get(row, at(17))?;
    let idle = Duration::from_millis(get::<i64>(row, at(10))?.unsigned_abs());
    let ip = get::<Option<String>>(row, at(12))?.map(|text| text.parse().map_err(|_| corrupt()));
    let previous = match get::<Option<&[u8]>>(row, at(3))? {
        None => None,
        Some(_) => Some(Previous {
            hash: SecretHash::from_bytes(bytes(row, at(3))?),
            until: maybe_time(row, at(4))?,
        }),
    };
    let revoked = match maybe_time(row, at(22))? {
        None => None,
        Some(moment) => {
            let name: Option<String> = get(row, at(23))?;
            // A row revoked by hand may have no reason, or one of its own.
            let reason = name.as_deref().and_then(Reason::parse).unwrap_or(Reason::Admin);
            Some(Revocation { at: moment, reason })
        }
    };
    let aal = get::<Option<i16>>(row, at(16))?.map(|aal| aal.try_into().map_err(|_| corrupt()));
    Ok(Session {
        id: id(row, at(0))?,
        user_id: user_id(row, at(1))?,
        secret_hash: SecretHash::from_bytes(bytes(row, at(2))?),
        previous,
        created_at: time(row, at(5))?,
        authenticated_at: maybe_time(row, at(6))?,
        last_seen_at: time(row, at(7))?,
        expires_at: time(row, at(8))?,
        absolute_expires_at: maybe_time(row, at(9))?,
        idle_timeout: Ttl::new(idle).ok_or_else(corrupt)?,
        rotated_at: time(row, at(11))?,
        metadata: Metadata {
            ip: ip.transpose()?,
            user_agent: get(row, at(13))?,
            device: get(row, at(14))?,
        },
        remember: get(row, at(15))?,
        aal: aal.transpose()?,
        amr: serde_json::from_str(&amr).map_err(|_| corrupt())?,
        external_sid: get(row, at(18))?,
        data: Json::trusted(get::<String>(row, at(19))?),
        version: unsigned(row, at(20))?,
        credential_epoch: CredentialEpoch(unsigned(row, at(21))?),
        revoked,
    })
}

pub(crate) fn session(row: &PgRow) -> Result<Session> {
    session_at(row, 0)
}

/// The session whose columns begin at `from`, with the projection of its user behind it; `None` when
/// there is no row, or its user is gone.
pub(crate) fn snapshot(row: &PgRow, from: usize, is_checked: bool) -> Result<Option<Snapshot>> {
    if get::<Option<&[u8]>>(row, from)?.is_none() {
        return Ok(None);
    }
    let session = session_at(row, from)?;
    let user = match &session.user_id {
        None => None,
        Some(_) => match projection(row, from + WIDTH, is_checked)? {
            None => return Ok(None),
            found => found,
        },
    };
    Ok(Some(Snapshot { session, user }))
}

fn projection(row: &PgRow, from: usize, is_checked: bool) -> Result<Option<Projection>> {
    let Some(id) = user_id(row, from)? else { return Ok(None) };
    let claims = get::<String>(row, from + 3)?;
    let email = get::<Option<String>>(row, from + 4)?;
    Ok(Some(Projection {
        id,
        role: checked(Role::new(get::<String>(row, from + 1)?))?,
        is_verified: get(row, from + 2)?,
        // What the application wrote, nobody has checked yet.
        claims: if is_checked { Json::trusted(claims) } else { checked(Json::parse(claims))? },
        // An application's own column may hold what is no address; then there is none.
        email: email.and_then(|text| Email::parse(text).ok()),
    }))
}

pub(crate) fn user(row: &PgRow) -> Result<User> {
    Ok(User {
        id: user_id(row, 0)?.ok_or_else(corrupt)?,
        email: get::<Option<String>>(row, 1)?
            .map(|text| checked(Email::parse(text)))
            .transpose()?,
        password_hash: get::<Option<String>>(row, 2)?
            .map(|text| checked(PasswordHash::new(text)))
            .transpose()?,
        is_verified: get(row, 3)?,
        role: checked(Role::new(get::<String>(row, 4)?))?,
        created_at: time(row, 5)?,
        last_login_at: maybe_time(row, 6)?,
        claims: Json::trusted(get::<String>(row, 7)?),
        version: unsigned(row, 8)?,
    })
}

/// What is mapped of a user in the application's own table.
pub(crate) fn projected_user(row: &PgRow) -> Result<User> {
    let projection = projection(row, 0, false)?.ok_or_else(corrupt)?;
    let mut user = User::new(projection.id, Timestamp::EPOCH);
    user.role = projection.role;
    user.claims = projection.claims;
    user.email = get::<Option<String>>(row, 5)?.and_then(|text| Email::parse(text).ok());
    Ok(user)
}

pub(crate) type Bound<'q> = Query<'q, Postgres, PgArguments>;

fn millis(time: Option<Timestamp>) -> Option<i64> {
    time.map(Timestamp::as_millis)
}

/// Binds every column of `session`, in the order of [`SESSION_COLUMNS`].
pub(crate) fn bind<'q>(query: Bound<'q>, session: &Session) -> Bound<'q> {
    query
        .bind(session.id.as_bytes().to_vec())
        .bind(session.user_id.as_ref().map(|user| user.as_str().to_owned()))
        .bind(session.secret_hash.as_bytes().to_vec())
        .bind(session.previous.map(|old| old.hash.as_bytes().to_vec()))
        .bind(millis(session.previous.and_then(|old| old.until)))
        .bind(session.created_at.as_millis())
        .bind(millis(session.authenticated_at))
        .bind(session.last_seen_at.as_millis())
        .bind(session.expires_at.as_millis())
        .bind(millis(session.absolute_expires_at))
        .bind(i64::try_from(session.idle_timeout.as_millis()).unwrap_or(i64::MAX))
        .bind(session.rotated_at.as_millis())
        .bind(session.metadata.ip.map(|ip| ip.to_string()))
        .bind(session.metadata.user_agent.clone())
        .bind(session.metadata.device.clone())
        .bind(session.remember)
        .bind(session.aal.map(i16::from))
        .bind(serde_json::to_string(&session.amr).unwrap_or_else(|_| "[]".to_owned()))
        .bind(session.external_sid.clone())
        .bind(session.data.as_str().to_owned())
        .bind(session.version.cast_signed())
        .bind(session.credential_epoch.0.cast_signed())
        .bind(millis(session.revoked.map(|end| end.at)))
        .bind(session.revoked.map(|end| end.reason.as_str()))
}
