//! What the operations of a primary store take.

use crate::json::Json;
use crate::session::{Metadata, Previous, Session, SessionIds, SessionLimit};
use crate::time::{Timestamp, Ttl};
use crate::token::{SecretHash, SessionId};
use crate::user::{CredentialEpoch, UserId};

/// What to change about a session; the default changes nothing but the version.
///
/// Identity can't be changed: there is no field for the id or the time of creation, and the user
/// changes only by a promotion.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SessionChange {
    /// A new deadline; stored as given, the caller has capped it. Not after `now`: `InvalidExpiry`.
    pub expires_at: Option<Timestamp>,
    /// The application's document.
    pub data: Option<Json>,
    /// Where the session is used from.
    pub metadata: Option<Metadata>,
    /// Another secret.
    pub rotation: Option<Rotation>,
    /// When the grace of the previous secret ends, once the new one was presented.
    pub previous_until: Option<Timestamp>,
    /// A fresh proof of who the user is.
    pub elevation: Option<Elevation>,
    /// The user of a session that was a guest's.
    pub promotion: Option<Promotion>,
}

impl SessionChange {
    /// Makes the change to `session`; version and limits are the adapter's.
    pub fn apply(&self, session: &mut Session) {
        if let Some(expires_at) = self.expires_at {
            session.expires_at = expires_at;
        }
        if let Some(data) = &self.data {
            session.data = data.clone();
        }
        if let Some(metadata) = &self.metadata {
            session.metadata = metadata.clone();
        }
        if let Some(rotation) = &self.rotation {
            session.secret_hash = rotation.secret_hash;
            session.previous = rotation.previous;
            session.rotated_at = rotation.rotated_at;
        }
        if let (Some(until), Some(previous)) = (self.previous_until, &mut session.previous) {
            previous.until = Some(until);
        }
        if let Some(elevation) = &self.elevation {
            session.authenticated_at = Some(elevation.authenticated_at);
            session.aal = elevation.aal;
            session.amr.clone_from(&elevation.amr);
        }
        if let Some(promotion) = &self.promotion {
            session.user_id = Some(promotion.user_id.clone());
            session.credential_epoch = promotion.credential_epoch;
            session.remember = promotion.remember;
            session.idle_timeout = promotion.idle_timeout;
            session.absolute_expires_at = promotion.absolute_expires_at;
            session.external_sid.clone_from(&promotion.external_sid);
        }
    }
}

/// Another secret for the same session, written in one statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rotation {
    /// The hash of the new secret.
    pub secret_hash: SecretHash,
    /// The secret it replaces, and until when that is accepted.
    pub previous: Option<Previous>,
    /// When the rotation happened.
    pub rotated_at: Timestamp,
}

/// A fresh proof of who the user is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Elevation {
    /// When it was given.
    pub authenticated_at: Timestamp,
    /// The assurance level reached.
    pub aal: Option<u8>,
    /// How.
    pub amr: Vec<String>,
}

/// A guest becomes a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Promotion {
    /// The user.
    pub user_id: UserId,
    /// The user's epoch when the credentials were verified.
    pub credential_epoch: CredentialEpoch,
    /// The limit to enforce in the same transaction, the promoted session included.
    pub limit: Option<SessionLimit>,
    /// Whether the user asked to stay logged in.
    pub remember: bool,
    /// How long it lives without activity from now on.
    pub idle_timeout: Ttl,
    /// The end of its life, however active.
    pub absolute_expires_at: Option<Timestamp>,
    /// The session's name at an identity provider.
    pub external_sid: Option<String>,
}

/// A session was used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Touch {
    /// Which.
    pub id: SessionId,
    /// When; the session must have been active then.
    pub seen_at: Timestamp,
    /// The deadline that follows from it; the adapter caps it at the stored absolute deadline.
    pub expires_at: Timestamp,
}

/// Which sessions to revoke.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    /// One session.
    One {
        /// Its id.
        id: SessionId,
        /// When given, the session must belong to this user; ids are public.
        owner: Option<UserId>,
    },
    /// Every session of a user. Bumps the credential epoch.
    AllOf(UserId),
    /// Every session of a user but one. Bumps the credential epoch and gives the spared session
    /// the new one; its version stays, since nothing that it shows has changed.
    AllBut(UserId, SessionId),
    /// Sessions of everybody, at most `limit` of them.
    Everyone {
        /// Those that were created at or before this moment.
        created_before: Timestamp,
        /// The largest number to revoke in this call.
        limit: u32,
    },
    /// These sessions.
    Ids(SessionIds),
}

/// Which of a user's sessions to list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// Those active at this moment.
    Live(Timestamp),
    /// All that are stored.
    All,
}

/// What a sweep may remove.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SweepBounds {
    /// Sessions whose deadline lies at or before this moment.
    pub expired_before: Timestamp,
    /// Sessions revoked at or before this moment.
    pub revoked_before: Timestamp,
}
