//! Rows to records and back.

use rusqlite::types::{Type, Value, ValueRef};
use rusqlite::{Row, ToSql, named_params};
use session_store_core::{
    CredentialEpoch, Email, Error, ErrorKind, Json, Metadata, PasswordHash, Previous, Projection,
    Reason, Result, Revocation, Role, SecretHash, Session, SessionId, Snapshot, Timestamp, Ttl,
    User, UserId,
};
use std::time::Duration;

use crate::error::error;

/// The columns of a session, in the order that [`session`] reads them.
pub(crate) const SESSION_COLUMNS: &str = "s.id, s.user_id, s.secret_hash, s.previous_hash, \
     s.previous_until, s.created_at, s.authenticated_at, s.last_seen_at, s.expires_at, \
     s.absolute_expires_at, s.idle_timeout, s.rotated_at, s.ip, s.user_agent, s.device, \
     s.remember, s.aal, s.amr, s.external_sid, s.data, s.version, s.credential_epoch, \
     s.revoked_at, s.revoked_reason";
/// The first column behind a session's.
const PROJECTION: usize = 24;

/// The columns of an owned user, in the order that [`user`] reads them.
pub(crate) const USER_COLUMNS: &str = "u.id, u.email, u.password_hash, u.is_verified, u.role, \
     u.created_at, u.last_login_at, u.claims, u.version";

type Read<T> = rusqlite::Result<T>;

/// Something stored that can't be read back.
pub(crate) fn corrupt(column: usize) -> rusqlite::Error {
    let cause = error(ErrorKind::Corrupt);
    rusqlite::Error::FromSqlConversionFailure(column, Type::Null, Box::new(cause))
}

pub(crate) fn checked<T>(column: usize, value: Result<T>) -> Read<T> {
    value.map_err(|_: Error| corrupt(column))
}

pub(crate) fn time(row: &Row<'_>, column: usize) -> Read<Timestamp> {
    row.get(column).map(Timestamp::from_millis)
}

pub(crate) fn maybe_time(row: &Row<'_>, column: usize) -> Read<Option<Timestamp>> {
    Ok(row.get::<_, Option<i64>>(column)?.map(Timestamp::from_millis))
}

/// A number that is never negative. SQLite knows signed ones only.
pub(crate) fn unsigned(row: &Row<'_>, column: usize) -> Read<u64> {
    row.get::<_, i64>(column)?.try_into().map_err(|_| corrupt(column))
}

fn bytes<const N: usize>(row: &Row<'_>, column: usize) -> Read<[u8; N]> {
    let found = row.get_ref(column)?.as_blob().map_err(|_| corrupt(column))?;
    found.try_into().map_err(|_| corrupt(column))
}

pub(crate) fn id(row: &Row<'_>, column: usize) -> Read<SessionId> {
    bytes(row, column).map(SessionId::from_bytes)
}

/// A user's key, whatever type the column has.
pub(crate) fn user_id(row: &Row<'_>, column: usize) -> Read<Option<UserId>> {
    let text = match row.get_ref(column)? {
        ValueRef::Null => return Ok(None),
        ValueRef::Integer(number) => number.to_string(),
        ValueRef::Text(text) => std::str::from_utf8(text).map_err(|_| corrupt(column))?.to_owned(),
        ValueRef::Real(_) | ValueRef::Blob(_) => return Err(corrupt(column)),
    };
    checked(column, UserId::new(text)).map(Some)
}

pub(crate) fn session(row: &Row<'_>) -> Read<Session> {
    let amr: String = row.get(17)?;
    let idle = Duration::from_millis(row.get::<_, i64>(10)?.unsigned_abs());
    let ip = row.get::<_, Option<String>>(12)?.map(|text| text.parse().map_err(|_| corrupt(12)));
    let previous = match row.get_ref(3)? {
        ValueRef::Null => None,
        _ => Some(Previous {
            hash: SecretHash::from_bytes(bytes(row, 3)?),
            until: maybe_time(row, 4)?,
        }),
    };
    let revoked = match maybe_time(row, 22)? {
        None => None,
        Some(at) => {
            let name: Option<String> = row.get(23)?;
            // A row revoked by hand may have no reason, or one of its own.
            let reason = name.as_deref().and_then(Reason::parse).unwrap_or(Reason::Admin);
            Some(Revocation { at, reason })
        }
    };
    Ok(Session {
        id: id(row, 0)?,
        user_id: user_id(row, 1)?,
        secret_hash: SecretHash::from_bytes(bytes(row, 2)?),
        previous,
        created_at: time(row, 5)?,
        authenticated_at: maybe_time(row, 6)?,
        last_seen_at: time(row, 7)?,
        expires_at: time(row, 8)?,
        absolute_expires_at: maybe_time(row, 9)?,
        idle_timeout: Ttl::new(idle).ok_or_else(|| corrupt(10))?,
        rotated_at: time(row, 11)?,
        metadata: Metadata { ip: ip.transpose()?, user_agent: row.get(13)?, device: row.get(14)? },
        remember: row.get(15)?,
        aal: row.get(16)?,
        amr: serde_json::from_str(&amr).map_err(|_| corrupt(17))?,
        external_sid: row.get(18)?,
        data: Json::trusted(row.get::<_, String>(19)?),
        version: unsigned(row, 20)?,
        credential_epoch: CredentialEpoch(unsigned(row, 21)?),
        revoked,
    })
}

/// A session with the projection of its user behind it.
pub(crate) fn snapshot(row: &Row<'_>) -> Read<Snapshot> {
    let session = session(row)?;
    let user = match &session.user_id {
        None => None,
        Some(id) => Some(projection(row, id.clone())?),
    };
    Ok(Snapshot { session, user })
}

fn projection(row: &Row<'_>, id: UserId) -> Read<Projection> {
    let email = row.get::<_, Option<String>>(PROJECTION + 3)?;
    Ok(Projection {
        id,
        role: checked(PROJECTION, Role::new(row.get::<_, String>(PROJECTION)?))?,
        is_verified: row.get(PROJECTION + 1)?,
        claims: Json::trusted(row.get::<_, String>(PROJECTION + 2)?),
        // An application's own column may hold what is no address; then there is none.
        email: email.and_then(|text| Email::parse(text).ok()),
    })
}

pub(crate) fn user(row: &Row<'_>) -> Read<User> {
    let email = row.get::<_, Option<String>>(1)?;
    let password = row.get::<_, Option<String>>(2)?;
    Ok(User {
        id: user_id(row, 0)?.ok_or_else(|| corrupt(0))?,
        email: checked(1, email.map(Email::parse).transpose())?,
        password_hash: checked(2, password.map(PasswordHash::new).transpose())?,
        is_verified: row.get(3)?,
        role: checked(4, Role::new(row.get::<_, String>(4)?))?,
        created_at: time(row, 5)?,
        last_login_at: maybe_time(row, 6)?,
        claims: Json::trusted(row.get::<_, String>(7)?),
        version: unsigned(row, 8)?,
    })
}

/// Binds every column of `session` and runs `statement`.
pub(crate) fn execute(
    statement: &mut rusqlite::Statement<'_>,
    session: &Session,
    user_key: Option<&Value>,
) -> rusqlite::Result<usize> {
    let millis = |time: Option<Timestamp>| time.map(Timestamp::as_millis);
    let amr = serde_json::to_string(&session.amr).unwrap_or_else(|_| "[]".to_owned());
    let idle = i64::try_from(session.idle_timeout.as_millis()).unwrap_or(i64::MAX);
    let previous: Option<&[u8]> =
        session.previous.as_ref().map(|old| old.hash.as_bytes().as_slice());
    let key: &dyn ToSql = &user_key;
    statement.execute(named_params! {
        ":id": session.id.as_bytes().as_slice(),
        ":user_id": key,
        ":secret_hash": session.secret_hash.as_bytes().as_slice(),
        ":previous_hash": previous,
        ":previous_until": millis(session.previous.and_then(|old| old.until)),
        ":created_at": session.created_at.as_millis(),
        ":authenticated_at": millis(session.authenticated_at),
        ":last_seen_at": session.last_seen_at.as_millis(),
        ":expires_at": session.expires_at.as_millis(),
        ":absolute_expires_at": millis(session.absolute_expires_at),
        ":idle_timeout": idle,
        ":rotated_at": session.rotated_at.as_millis(),
        ":ip": session.metadata.ip.map(|ip| ip.to_string()),
        ":user_agent": session.metadata.user_agent,
        ":device": session.metadata.device,
        ":remember": session.remember,
        ":aal": session.aal,
        ":amr": amr,
        ":external_sid": session.external_sid,
        ":data": session.data.as_str(),
        ":version": session.version.cast_signed(),
        ":credential_epoch": session.credential_epoch.0.cast_signed(),
        ":revoked_at": millis(session.revoked.map(|end| end.at)),
        ":revoked_reason": session.revoked.map(|end| end.reason.as_str()),
    })
}
