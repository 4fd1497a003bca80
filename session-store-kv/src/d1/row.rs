//! Rows to records and back.

use std::time::Duration;

use serde::Deserialize;
use session_store_core::{
    CredentialEpoch, Email, Json, Metadata, PasswordHash, Previous, Projection, Reason, Result,
    Revocation, Role, SecretHash, Session, Snapshot, Timestamp, Ttl, User, UserId,
};

use super::database::{Value, bytes, id};
use super::error::corrupt;

/// The columns of a session, as [`SessionRow`] names them.
pub(crate) const SESSION_COLUMNS: &str = "s.id, s.user_id, s.secret_hash, s.previous_hash, \
     s.previous_until, s.created_at, s.authenticated_at, s.last_seen_at, s.expires_at, \
     s.absolute_expires_at, s.idle_timeout, s.rotated_at, s.ip, s.user_agent, s.device, \
     s.remember, s.aal, s.amr, s.external_sid, s.data, s.version, s.credential_epoch, \
     s.revoked_at, s.revoked_reason";

/// What a session's reader learns of the user, as [`SessionRow`] names it.
pub(crate) const PROJECTION: &str = "u.role AS user_role, u.is_verified AS user_is_verified, \
     u.claims AS user_claims, u.email AS user_email";

/// The columns of a user, as [`UserRow`] names them.
pub(crate) const USER_COLUMNS: &str = "u.id, u.email, u.password_hash, u.is_verified, u.role, \
     u.created_at, u.last_login_at, u.claims, u.version";

/// A session as stored; the projection is there where it was asked for.
#[derive(Debug, Deserialize)]
pub(crate) struct SessionRow {
    id: String,
    user_id: Option<String>,
    secret_hash: String,
    previous_hash: Option<String>,
    previous_until: Option<i64>,
    created_at: i64,
    authenticated_at: Option<i64>,
    last_seen_at: i64,
    expires_at: i64,
    absolute_expires_at: Option<i64>,
    idle_timeout: u64,
    rotated_at: i64,
    ip: Option<String>,
    user_agent: Option<String>,
    device: Option<String>,
    remember: i64,
    aal: Option<u8>,
    amr: String,
    external_sid: Option<String>,
    data: String,
    version: u64,
    credential_epoch: u64,
    revoked_at: Option<i64>,
    revoked_reason: Option<String>,
    user_role: Option<String>,
    user_is_verified: Option<i64>,
    user_claims: Option<String>,
    user_email: Option<String>,
}

fn time(millis: Option<i64>) -> Option<Timestamp> {
    millis.map(Timestamp::from_millis)
}

impl SessionRow {
    pub(crate) fn session(&self) -> Result<Session> {
        let previous = match &self.previous_hash {
            None => None,
            Some(hash) => Some(Previous {
                hash: SecretHash::from_bytes(bytes(hash)?),
                until: time(self.previous_until),
            }),
        };
        // A row revoked by hand may have no reason, or one of its own.
        let reason = self.revoked_reason.as_deref().and_then(Reason::parse);
        let reason = reason.unwrap_or(Reason::Admin);
        let ip = self.ip.as_ref().map(|text| text.parse()).transpose().map_err(|_| corrupt())?;
        let idle = Ttl::new(Duration::from_millis(self.idle_timeout)).ok_or_else(corrupt)?;
        Ok(Session {
            id: id(&self.id)?,
            user_id: self.user_id.as_ref().map(UserId::new).transpose().map_err(|_| corrupt())?,
            secret_hash: SecretHash::from_bytes(bytes(&self.secret_hash)?),
            previous,
            created_at: Timestamp::from_millis(self.created_at),
            authenticated_at: time(self.authenticated_at),
            last_seen_at: Timestamp::from_millis(self.last_seen_at),
            expires_at: Timestamp::from_millis(self.expires_at),
            absolute_expires_at: time(self.absolute_expires_at),
            idle_timeout: idle,
            rotated_at: Timestamp::from_millis(self.rotated_at),
            metadata: Metadata {
                ip,
                user_agent: self.user_agent.clone(),
                device: self.device.clone(),
            },
            remember: self.remember != 0,
            aal: self.aal,
            amr: serde_json::from_str(&self.amr).map_err(|_| corrupt())?,
            external_sid: self.external_sid.clone(),
            data: Json::trusted(self.data.as_str()),
            version: self.version,
            credential_epoch: CredentialEpoch(self.credential_epoch),
            revoked: time(self.revoked_at).map(|at| Revocation { at, reason }),
        })
    }

    pub(crate) fn snapshot(&self) -> Result<Snapshot> {
        let session = self.session()?;
        let user = session.user_id.clone().map(|id| self.projection(id)).transpose()?;
        Ok(Snapshot { session, user })
    }

    fn projection(&self, id: UserId) -> Result<Projection> {
        let role = self.user_role.as_ref().ok_or_else(corrupt)?;
        let claims = self.user_claims.as_ref().ok_or_else(corrupt)?;
        Ok(Projection {
            id,
            role: Role::new(role).map_err(|_| corrupt())?,
            is_verified: self.user_is_verified == Some(1),
            claims: Json::trusted(claims.as_str()),
            email: self.user_email.as_ref().and_then(|text| Email::parse(text).ok()),
        })
    }
}

/// Every column of a session, in the order of [`SESSION_COLUMNS`].
pub(crate) fn values(session: &Session) -> Vec<Value> {
    let previous = session.previous;
    vec![
        (&session.id).into(),
        session.user_id.as_ref().into(),
        session.secret_hash.into(),
        previous.map(|previous| previous.hash).into(),
        previous.and_then(|previous| previous.until).into(),
        session.created_at.into(),
        session.authenticated_at.into(),
        session.last_seen_at.into(),
        session.expires_at.into(),
        session.absolute_expires_at.into(),
        session.idle_timeout.as_millis().into(),
        session.rotated_at.into(),
        session.metadata.ip.map(|ip| ip.to_string()).into(),
        session.metadata.user_agent.clone().into(),
        session.metadata.device.clone().into(),
        session.remember.into(),
        session.aal.map(u32::from).into(),
        amr(&session.amr),
        session.external_sid.clone().into(),
        session.data.as_str().into(),
        session.version.into(),
        session.credential_epoch.0.into(),
        session.revoked.map(|end| end.at).into(),
        session.revoked.map(|end| end.reason.as_str()).into(),
    ]
}

/// How a user was authenticated, as a document.
pub(crate) fn amr(amr: &[String]) -> Value {
    Value::Text(serde_json::Value::from(amr).to_string())
}

/// A user as stored.
#[derive(Debug, Deserialize)]
pub(crate) struct UserRow {
    id: String,
    email: Option<String>,
    password_hash: Option<String>,
    is_verified: i64,
    role: String,
    created_at: i64,
    last_login_at: Option<i64>,
    claims: String,
    version: u64,
    /// There where the epoch was asked for.
    #[serde(default)]
    pub(crate) credential_epoch: u64,
}

impl UserRow {
    pub(crate) fn user(&self) -> Result<User> {
        let unreadable = |_| corrupt();
        let password = self.password_hash.as_ref().map(PasswordHash::new);
        Ok(User {
            id: UserId::new(&self.id).map_err(unreadable)?,
            email: self.email.as_ref().map(Email::parse).transpose().map_err(unreadable)?,
            password_hash: password.transpose().map_err(unreadable)?,
            is_verified: self.is_verified != 0,
            role: Role::new(&self.role).map_err(unreadable)?,
            created_at: Timestamp::from_millis(self.created_at),
            last_login_at: time(self.last_login_at),
            claims: Json::trusted(self.claims.as_str()),
            version: self.version,
        })
    }
}
