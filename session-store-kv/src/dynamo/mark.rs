//! What the item of a user remembers for a while: the latest barriers and the latest logins.

use aws_sdk_dynamodb::types::AttributeValue;
use session_store_core::{Reason, Result, Revocation, Session, SessionId, Timestamp};

use super::error::corrupt;
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

    pub(super) fn parse(text: &str) -> Result<Self> {
        let (at, id) = parse_moment(text).ok_or_else(corrupt)?;
        Ok(Self { at, id: SessionId::parse(id).ok_or_else(corrupt)? })
    }
}

impl std::fmt::Display for Mark {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}:{}", self.barrier, self.end.at.as_millis(), self.end.reason.as_str())
    }
}

impl Mark {
    pub(super) fn parse(text: &str) -> Result<Self> {
        let mut parts = text.split(':');
        let mut next = || parts.next().ok_or_else(corrupt);
        let barrier = next()?.parse().map_err(|_| corrupt())?;
        let at = next()?.parse().map_err(|_| corrupt())?;
        let reason = Reason::parse(next()?).unwrap_or(Reason::Admin);
        Ok(Self { barrier, end: Revocation { at: Timestamp::from_millis(at), reason } })
    }
}
