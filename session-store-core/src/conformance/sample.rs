//! Records that cases are made of.

use std::time::Duration;

use crate::json::Json;
use crate::primary::{Touch, Update};
use crate::session::{Metadata, NewSession, Session, SessionLimit};
use crate::time::{Timestamp, Ttl};
use crate::token::{SecretHash, SessionId};
use crate::user::{CredentialEpoch, User, UserId};

use super::report::Violation;

/// When every case begins.
pub(super) const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);

/// A moment `millis` after the beginning, or before it.
pub(super) fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(NOW.as_millis() + millis)
}

pub(super) const HOUR: i64 = 3_600_000;

/// The id of the session with this number.
pub(super) fn id(number: u16) -> SessionId {
    let mut bytes = [0; 16];
    bytes[..6].copy_from_slice(&NOW.as_millis().to_be_bytes()[2..]);
    bytes[14..].copy_from_slice(&number.to_be_bytes());
    SessionId::from_bytes(bytes)
}

pub(super) fn user_id(number: u16) -> Result<UserId, Violation> {
    Ok(UserId::new(format!("user-{number}"))?)
}

pub(super) fn user(number: u16) -> Result<User, Violation> {
    Ok(User::new(user_id(number)?, at(i64::from(number))))
}

/// A guest's session that lives for an hour.
pub(super) fn guest(number: u16) -> Session {
    Session {
        id: id(number),
        user_id: None,
        secret_hash: SecretHash::from_bytes([number.to_be_bytes()[1]; 32]),
        previous: None,
        created_at: NOW,
        authenticated_at: None,
        last_seen_at: NOW,
        expires_at: at(HOUR),
        absolute_expires_at: Some(at(24 * HOUR)),
        idle_timeout: Ttl::new(Duration::from_hours(1)).unwrap_or(Ttl::MIN),
        rotated_at: NOW,
        metadata: Metadata::default(),
        remember: false,
        aal: None,
        amr: Vec::new(),
        external_sid: None,
        data: Json::default(),
        version: 1,
        credential_epoch: CredentialEpoch::default(),
        revoked: None,
    }
}

/// The session `number` of the user `owner`.
pub(super) fn session(number: u16, owner: u16) -> Result<Session, Violation> {
    Ok(Session { user_id: Some(user_id(owner)?), ..guest(number) })
}

pub(super) fn new(session: Session) -> NewSession {
    NewSession { session, limit: None }
}

pub(super) fn limited(session: Session, max: u32, evict: bool) -> NewSession {
    NewSession { session, limit: Some(SessionLimit { max, evict }) }
}

pub(super) fn touch(number: u16, seen: i64, expires: i64) -> Touch {
    Touch { id: id(number), seen_at: at(seen), expires_at: at(expires) }
}

pub(super) fn json(text: &str) -> Result<Json, Violation> {
    Ok(Json::parse(text)?)
}

/// The session after an update that must have been made.
#[track_caller]
pub(super) fn updated(update: Update) -> Result<Session, Violation> {
    match update {
        Update::Updated(updated) => Ok(updated.snapshot.session),
        other => Err(Violation::new(format!("not updated: {other:?}"))),
    }
}
