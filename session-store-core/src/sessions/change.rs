//! Changing a session's document or deadline, and listing a user's devices.

use super::authenticate::Live;
use super::judge::Refusal;
use super::rotate::TRIES;
use super::{Sessions, judge};
use crate::error::{Error, ErrorKind, Result};
use crate::json::Json;
use crate::layered::Visibility;
use crate::primary::{Census, Listing, Page, PrimaryStore, SessionChange, Update, Which};
use crate::secondary::SecondaryStore;
use crate::session::{Metadata, Session};
use crate::time::Timestamp;
use crate::token::{SessionId, Token};
use crate::user::UserId;

/// What became of a change to a session.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum DataUpdate {
    /// Done; the version that is stored now.
    Updated {
        /// For the next change.
        version: u64,
        /// From when on no node sees the old document.
        visibility: Visibility,
    },
    /// Somebody else was faster; authenticate again and decide anew.
    Conflict,
    /// The session has ended.
    Absent(Refusal),
}

/// What became of another deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Extended {
    /// Done.
    Until {
        /// The deadline that is stored now.
        deadline: Timestamp,
        /// From when on no node sees the old one: a longer one may be served until then.
        visibility: Visibility,
    },
    /// The session has ended.
    Absent(Refusal),
}

/// A session as its user may see it: no secret, no hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// The handle for "log out that device".
    pub id: SessionId,
    /// When the user logged in there.
    pub created_at: Timestamp,
    /// When it was last used, as far as is known.
    pub last_seen_at: Timestamp,
    /// Until when it stays logged in without use.
    pub expires_at: Timestamp,
    /// From where.
    pub metadata: Metadata,
    /// Whether the user asked to stay logged in there.
    pub remember: bool,
    /// The assurance level reached there.
    pub aal: Option<u8>,
    /// Whether it is the session that asks.
    pub is_current: bool,
}

impl Device {
    fn of(session: Session, current: Option<SessionId>) -> Self {
        Self {
            is_current: current == Some(session.id),
            id: session.id,
            created_at: session.created_at,
            last_seen_at: session.last_seen_at,
            expires_at: session.expires_at,
            metadata: session.metadata,
            remember: session.remember,
            aal: session.aal,
        }
    }
}

impl<P: PrimaryStore + 'static, S: SecondaryStore + 'static> Sessions<P, S> {
    /// Replaces the application's document of a session, if nobody else changed the session since
    /// `live` was found.
    ///
    /// # Contract
    /// - Of two changes based on the same answer one is `Conflict`, whatever they change
    ///   \[P-36 X8-Y-23\]; the start of a grace, which this library writes beside a request, is
    ///   overlooked, and nothing else is \[X8-Y-15 X8-Y-24\].
    /// - A session that was ended meanwhile is `Absent` and stays so \[P-31 P-33\].
    /// - Data over the limit is `TooLarge` before any store is asked \[X8-Y-12\].
    pub async fn set_data(&self, live: &Live, data: Json) -> Result<DataUpdate> {
        self.check_data(&data)?;
        let change = SessionChange { data: Some(data), ..SessionChange::default() };
        let (session, now) = (live.session(), self.host().now());
        let (id, seen) = (session.id, live.seen.clone());
        let mut done =
            self.store().update((id, session.version), change.clone(), seen, now).await?;
        if let Update::Conflict { .. } = done.update
            && let Some(version) = self.version_by_grace(session).await?
        {
            done = self.store().update((id, version), change, None, now).await?;
        }
        Ok(match done.update {
            Update::Updated(updated) => DataUpdate::Updated {
                version: updated.snapshot.session.version,
                visibility: done.visibility,
            },
            Update::Conflict { .. } => DataUpdate::Conflict,
            Update::Missing => DataUpdate::Absent(Refusal::Unknown),
        })
    }

    /// The current version, if nothing but the start of a grace, which this library itself writes
    /// beside a request, lies between it and `known`.
    async fn version_by_grace(&self, known: &Session) -> Result<Option<u64>> {
        let Some(found) = self.store().find_fresh(&known.id).await?.snapshot else {
            return Ok(None);
        };
        let current = &found.session;
        let alike = Session {
            previous: current.previous,
            last_seen_at: current.last_seen_at,
            expires_at: current.expires_at,
            version: current.version,
            ..known.clone()
        };
        let is_next = current.version == known.version + 1 && known.previous != current.previous;
        Ok((is_next && alike == *current).then_some(current.version))
    }

    /// Sets the deadline of a session, capped by the absolute one; may shorten it. Later use moves
    /// it again by the idle timeout.
    ///
    /// # Contract
    /// - The absolute deadline caps it \[P-55\].
    /// - A deadline that has passed, or beyond the year 9999, is `InvalidExpiry`, and nothing
    ///   changes \[P-56 X8-Y-19\].
    /// - A shorter one is kept by every node \[P-57 L-07\].
    pub async fn extend(&self, token: &Token, deadline: Timestamp) -> Result<Extended> {
        for _ in 0..TRIES {
            let now = self.host().now();
            if deadline <= now || deadline >= Timestamp::MAX {
                return Err(Error::new(ErrorKind::InvalidExpiry, "core"));
            }
            let checked = self.check(token, now, true).await?;
            let Some(snapshot) = checked.answer.snapshot else {
                return Ok(Extended::Absent(Refusal::Unknown));
            };
            if let Err(refusal) = checked.verdict {
                return Ok(Extended::Absent(refusal));
            }
            let session = &snapshot.session;
            let expires_at = session.cap(deadline);
            let change = SessionChange { expires_at: Some(expires_at), ..SessionChange::default() };
            let done =
                self.store().update((session.id, session.version), change, None, now).await?;
            match done.update {
                Update::Updated(_) => {
                    // Use of before must not move it again.
                    self.shared.touches.forget(&[session.id]);
                    let visibility = done.visibility;
                    return Ok(Extended::Until { deadline: expires_at, visibility });
                }
                Update::Conflict { .. } => {}
                Update::Missing => return Ok(Extended::Absent(Refusal::Unknown)),
            }
        }
        Err(Self::conflict())
    }

    /// A user's active sessions, oldest first; `current` is marked.
    ///
    /// # Contract
    /// - It comes from the primary \[L-58\].
    /// - It shows no secret and no hash \[P-69\].
    pub async fn list(
        &self,
        user: &UserId,
        current: Option<SessionId>,
        page: &Page,
    ) -> Result<Listing<Device>> {
        let which = Which::Live(self.host().now());
        let found = self.store().primary().list(user, which, page).await?;
        let items = found.items.into_iter().map(|session| Device::of(session, current)).collect();
        Ok(Listing { items, next: found.next })
    }

    /// How many sessions there are of each kind, in all or of one user.
    pub async fn census(&self, user: Option<&UserId>) -> Result<Census> {
        self.store().primary().census(self.host().now(), user).await
    }

    /// What `token` is worth by the word of the primary, for logs and support; changes nothing.
    pub async fn explain(&self, token: &Token) -> Result<Result<judge::Presented, Refusal>> {
        let now = self.host().now();
        Ok(self.check(token, now, true).await?.verdict)
    }
}
