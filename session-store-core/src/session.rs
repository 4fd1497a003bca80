//! The session record, and the one judgement of whether it is active.

use std::net::IpAddr;

use crate::json::Json;
use crate::time::{Timestamp, Ttl};
use crate::token::{SecretHash, SessionId};
use crate::user::{CredentialEpoch, Projection, UserId};

/// A list of session ids, as operations on many sessions return them.
pub type SessionIds = Vec<SessionId>;

/// One login on one device, as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// Public name; never reused.
    pub id: SessionId,
    /// Whose session it is; `None` for a guest.
    pub user_id: Option<UserId>,
    /// Hash of the secret that is valid now.
    pub secret_hash: SecretHash,
    /// The secret before the last rotation, while it still means something.
    pub previous: Option<Previous>,
    /// When the session was created.
    pub created_at: Timestamp,
    /// When the user last proved who they are in this session.
    pub authenticated_at: Option<Timestamp>,
    /// When the session was last used, as far as touches have been written.
    pub last_seen_at: Timestamp,
    /// The one deadline that readers, sweeps, triggers and caches look at.
    pub expires_at: Timestamp,
    /// Never moves; caps every later `expires_at`.
    pub absolute_expires_at: Option<Timestamp>,
    /// How far activity moves `expires_at`.
    pub idle_timeout: Ttl,
    /// When the secret was last replaced; `created_at` before the first rotation.
    pub rotated_at: Timestamp,
    /// Where the session was created from.
    pub metadata: Metadata,
    /// Whether the user asked to stay logged in.
    pub remember: bool,
    /// Authenticator assurance level (NIST SP 800-63B), if the application uses them.
    pub aal: Option<u8>,
    /// How the user authenticated (RFC 8176 names).
    pub amr: Vec<String>,
    /// The session's name at an identity provider, for back-channel logout.
    pub external_sid: Option<String>,
    /// The application's own document.
    pub data: Json,
    /// Grows by one with every write except a touch.
    pub version: u64,
    /// The user's epoch when the session was created or promoted.
    pub credential_epoch: CredentialEpoch,
    /// Set once, never cleared.
    pub revoked: Option<Revocation>,
}

impl Session {
    /// What the session is worth at `now`.
    ///
    /// The only place that compares a deadline with a clock, for hits and misses alike.
    ///
    /// # Contract
    /// - A session is expired from the very millisecond of its deadline on \[P-10\].
    /// - A revoked session is revoked whatever its deadlines say \[P-13\].
    /// - The absolute deadline ends a session even if `expires_at` lies after it \[P-55\].
    pub fn state(&self, now: Timestamp) -> State {
        if let Some(revocation) = &self.revoked {
            return State::Revoked(revocation.reason);
        }
        if self.has_ended(now) { State::Expired } else { State::Active }
    }

    /// Whether a deadline of the session has come; adapters refuse to insert such a one.
    pub fn has_ended(&self, now: Timestamp) -> bool {
        let absolute = self.absolute_expires_at.unwrap_or(Timestamp::MAX);
        self.expires_at <= now || absolute <= now
    }

    /// `deadline`, but not beyond the absolute one.
    pub fn cap(&self, deadline: Timestamp) -> Timestamp {
        self.absolute_expires_at.map_or(deadline, |absolute| deadline.min(absolute))
    }
}

/// What a session is worth at some moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Valid.
    Active,
    /// Its deadline has come.
    Expired,
    /// Somebody ended it.
    Revoked(Reason),
}

/// The secret that a rotation replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Previous {
    /// Its hash.
    pub hash: SecretHash,
    /// Until when it is accepted; `None` while the new secret has not been presented yet.
    pub until: Option<Timestamp>,
}

/// When and why a session was ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Revocation {
    /// When.
    pub at: Timestamp,
    /// Why.
    pub reason: Reason,
}

/// Why a session was ended. The first reason stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// The user logged out here.
    Logout,
    /// The user ended this session from another one.
    LogoutRemote,
    /// The user logged out everywhere.
    LogoutEverywhere,
    /// An administrator ended it.
    Admin,
    /// A newer session took its place under the limit.
    Limit,
    /// The user's credentials changed.
    Credentials,
    /// A replaced secret was presented again.
    Theft,
    /// The identity provider ended its session.
    Provider,
}

impl Reason {
    const NAMES: [(Self, &'static str); 8] = [
        (Self::Logout, "logout"),
        (Self::LogoutRemote, "logout-remote"),
        (Self::LogoutEverywhere, "logout-everywhere"),
        (Self::Admin, "admin"),
        (Self::Limit, "limit"),
        (Self::Credentials, "credentials"),
        (Self::Theft, "theft"),
        (Self::Provider, "provider"),
    ];

    /// The name that stores and logs use.
    pub fn as_str(self) -> &'static str {
        Self::NAMES.iter().find(|(reason, _)| *reason == self).map_or("admin", |(_, name)| name)
    }

    /// Reads what `as_str` returns; `None` for any other text.
    pub fn parse(name: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(_, known)| *known == name).map(|(reason, _)| *reason)
    }
}

/// Where a session was created from, as shown in the user's list of devices.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metadata {
    /// The address of the client.
    pub ip: Option<IpAddr>,
    /// The `User-Agent` header.
    pub user_agent: Option<String>,
    /// A name for the device.
    pub device: Option<String>,
}

/// What a reader learns: the session, and the projection of its user.
///
/// It is what the cache stores: one cache read answers "who is this?".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The session as stored.
    pub session: Session,
    /// Its user; `None` for a guest.
    pub user: Option<Projection>,
}

/// How many active sessions a user may have, and what happens to one too many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionLimit {
    /// The largest number of active sessions, the new one included; at least 1.
    pub max: u32,
    /// `true`: the least recently used ones are revoked with [`Reason::Limit`]; `false`:
    /// `TooManySessions`.
    pub evict: bool,
}

/// A session to insert.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewSession {
    /// The session; its `version` is 1.
    pub session: Session,
    /// The limit to enforce in the same transaction, if any.
    pub limit: Option<SessionLimit>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_have_one_name_each() {
        for (reason, name) in Reason::NAMES {
            assert_eq!((reason.as_str(), Reason::parse(name)), (name, Some(reason)));
        }
        assert_eq!(Reason::parse("whim"), None);
    }
}
