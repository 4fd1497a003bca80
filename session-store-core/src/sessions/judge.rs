//! The verdict on a presented secret: one function, for hits and misses alike.

use std::time::Duration;

use crate::session::{Reason, Session, Snapshot, State};
use crate::time::Timestamp;
use crate::token::SecretHash;

/// Which secret of a session was presented.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presented {
    /// The one that is valid now.
    Current,
    /// The one before the last rotation, while it is still accepted.
    Previous,
}

/// Why a token was not accepted. For logs and metrics; clients learn only that it was not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Refusal {
    /// It is no token at all.
    Malformed,
    /// Its id comes from the future or from long ago.
    Implausible,
    /// There is no such session.
    Unknown,
    /// The session exists and the secret is another one.
    WrongSecret,
    /// The secret was replaced by a rotation.
    Replaced {
        /// Whether that is suspicious; honest parallel requests may carry the secret from before a
        /// privileged rotation for a moment.
        is_suspicious: bool,
    },
    /// The session's deadline has come, also by the server's clock if that is known to be another one.
    Expired,
    /// The session was ended.
    Revoked(Reason),
}

impl Refusal {
    /// Whether the client's cookie should be cleared. Not for another secret of the session: the
    /// client may hold the newer token already, and the answer to a parallel request with an older
    /// one would take it away. And not for an id of the future: it may be this host's clock that is
    /// wrong.
    ///
    /// # Contract
    /// - A host whose clock is wrong takes nothing from the others' clients: what only its own clock calls
    ///   expired is no refusal \[P-96\]. That shows where reads of the store tell the server's time;
    ///   elsewhere the host's clock is the only one, and must be right.
    pub fn clears_cookie(self) -> bool {
        !matches!(self, Self::Replaced { .. } | Self::WrongSecret | Self::Implausible)
    }
}

/// Judges `hash`, presented for `snapshot` at `now`.
pub(super) fn judge(
    snapshot: Option<&Snapshot>,
    hash: &SecretHash,
    now: Timestamp,
    grace: Duration,
) -> Result<Presented, Refusal> {
    let Some(Snapshot { session, .. }) = snapshot else {
        return Err(Refusal::Unknown);
    };
    let presented = compare(session, hash, now, grace)?;
    match session.state(now) {
        State::Active => Ok(presented),
        State::Expired => Err(Refusal::Expired),
        State::Revoked(reason) => Err(Refusal::Revoked(reason)),
    }
}

fn compare(
    session: &Session,
    hash: &SecretHash,
    now: Timestamp,
    grace: Duration,
) -> Result<Presented, Refusal> {
    if session.secret_hash == *hash {
        return Ok(Presented::Current);
    }
    let previous = session.previous.filter(|old| old.hash == *hash);
    match previous.map(|old| old.until) {
        None => Err(Refusal::WrongSecret),
        // The new secret has not been presented: its reply may have been lost.
        Some(None) => Ok(Presented::Previous),
        Some(Some(until)) if now < until => Ok(Presented::Previous),
        Some(Some(until)) => {
            let is_privileged = until == session.rotated_at;
            let is_suspicious = !is_privileged || now.since(session.rotated_at) >= grace;
            Err(Refusal::Replaced { is_suspicious })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_is_cleared_only_when_nothing_can_come_of_it() {
        for refusal in [
            Refusal::Malformed,
            Refusal::Unknown,
            Refusal::Expired,
            Refusal::Revoked(Reason::Logout),
        ] {
            assert!(refusal.clears_cookie(), "{refusal:?}");
        }
        for refusal in [
            Refusal::Implausible,
            Refusal::WrongSecret,
            Refusal::Replaced { is_suspicious: true },
            Refusal::Replaced { is_suspicious: false },
        ] {
            assert!(!refusal.clears_cookie(), "{refusal:?}");
        }
    }
}
