//! What the item of a user remembers for a while: the latest barriers and the latest logins.

use aws_sdk_dynamodb::types::AttributeValue;
use session_store_core::{Reason, Revocation, Session, SessionId, Timestamp};

use super::key::{moment, parse_moment};

/// One login, as its entry is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Recent {
    pub(super) at: Timestamp,
    pub(super) id: SessionId,
}

/// One revoke-all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) barrier: u64,
    pub(super) end: Revocation,
}

impl Recent {
    pub(super) fn of(session: &Session) -> Self {
        Self { at: session.created_at, id: session.id }
    }

    /// These as the item has them.
    pub(super) fn set<'a>(all: impl IntoIterator<Item = &'a Self>) -> AttributeValue {
        AttributeValue::Ss(all.into_iter().map(|one| moment(one.at, &one.id)).collect())
    }

    pub(super) fn parse(text: &str) -> Option<Self> {
        let (at, id) = parse_moment(text)?;
        Some(Self { at, id: SessionId::parse(id)? })
    }
}

impl std::fmt::Display for Mark {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}:{}", self.barrier, self.end.at.as_millis(), self.end.reason.as_str())
    }
}

impl Mark {
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split(':');
        let barrier = parts.next()?.parse().ok()?;
        let at = parts.next()?.parse().ok()?;
        let reason = Reason::parse(parts.next()?).unwrap_or(Reason::Admin);
        Some(Self { barrier, end: Revocation { at: Timestamp::from_millis(at), reason } })
    }
}
