//! The life cycle of sessions, for audit logs and metrics.

use std::fmt::Debug;

use crate::layered::Source;
use crate::session::{Reason, SessionIds};
use crate::token::SessionId;
use crate::user::UserId;

/// Something that happened to a session.
///
/// # Contract
/// - Each step of a session's life is told once, by the process that made it \[P-88\].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event<'a> {
    /// A session was created; `None`: for a guest.
    Created {
        /// Which.
        id: SessionId,
        /// Whose.
        user: Option<&'a UserId>,
    },
    /// A token was accepted.
    Authenticated {
        /// Which session.
        id: SessionId,
        /// Where the answer came from.
        source: Source,
    },
    /// A session has a new secret.
    Rotated {
        /// Which.
        id: SessionId,
    },
    /// Sessions were ended.
    Revoked {
        /// Which.
        ids: &'a SessionIds,
        /// Why.
        reason: Reason,
    },
    /// A token of an expired session was presented.
    Expired {
        /// Which session.
        id: SessionId,
    },
    /// A secret that was replaced before its grace ended was presented again: the token may have
    /// been stolen, by this client or from it.
    TheftSuspected {
        /// Which session.
        id: SessionId,
        /// Whose.
        user: Option<&'a UserId>,
    },
    /// The cache was in trouble and the primary answered instead.
    CacheBypassed {
        /// Which session was asked for.
        id: SessionId,
    },
}

/// Who wants to know. Called on the path of a request: it must not block.
pub trait Observer: Debug + Send + Sync {
    /// Something happened.
    fn event(&self, event: &Event<'_>);
}

/// Wants to know nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoObserver;

impl Observer for NoObserver {
    fn event(&self, _event: &Event<'_>) {}
}
