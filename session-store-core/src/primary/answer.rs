//! What the operations of a primary store return.

use crate::session::{SessionIds, Snapshot};
use crate::time::Timestamp;

/// What `find` found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// The session as stored; `None` when there is none.
    pub snapshot: Option<Snapshot>,
    /// The server's time during the read, if it has a clock of its own.
    pub server_time: Option<Timestamp>,
}

/// What `insert` did besides inserting.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inserted {
    /// Sessions revoked to keep the limit, least recently used first.
    pub evicted: SessionIds,
}

/// What became of an update.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Update {
    /// Done.
    Updated(Box<Updated>),
    /// Somebody else was faster; the version that is stored now.
    Conflict {
        /// The version to read and try again with.
        current: u64,
    },
    /// There is no such session, or it is revoked or expired.
    Missing,
}

/// An update that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Updated {
    /// The session as stored now.
    pub snapshot: Snapshot,
    /// Sessions revoked because a promotion had to keep the limit.
    pub evicted: SessionIds,
}

/// What became of one touch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Touched {
    /// The session is active; its deadline as stored now.
    Active {
        /// The deadline, whether this touch moved it or not.
        expires_at: Timestamp,
    },
    /// There is no such session, or it is revoked or expired.
    Missing,
}

/// Which sessions a revocation ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RevokedSessions {
    /// Ended by this call.
    pub revoked: SessionIds,
    /// Selected, and ended by an earlier call that may not have reached the caches yet.
    pub earlier: SessionIds,
}

/// A user that was deleted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Deleted {
    /// Every session that was removed with the user.
    pub sessions: SessionIds,
}

/// What a sweep did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// How many sessions were removed.
    pub removed: u64,
    /// Whether there is more to do: sessions to remove, or entries of the log that are due.
    pub more: bool,
}

/// How many sessions there are of each kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// Active sessions, guests included.
    pub active: u64,
    /// Active sessions without a user.
    pub guests: u64,
    /// Users with at least one active session.
    pub users: u64,
    /// Expired and not swept yet.
    pub expired: u64,
    /// Revoked and not swept yet.
    pub revoked: u64,
    /// Created within 24 hours before `now`, whatever became of them.
    pub created_last_day: u64,
    /// Revoked within 24 hours before `now`.
    pub revoked_last_day: u64,
}
