//! Another secret for the same session.

use std::sync::Arc;

use super::Sessions;
use super::authenticate::Checked;
use super::create::Login;
use super::judge::{Presented, Refusal};
use crate::error::{Error, Result};
use crate::json::Json;
use crate::layered::Visibility;
use crate::observer::Event;
use crate::primary::{Elevation, PrimaryStore, Promotion, Rotation, SessionChange, Update};
use crate::secondary::SecondaryStore;
use crate::session::{Previous, Reason, Session, Snapshot};
use crate::time::Timestamp;
use crate::token::Token;

/// How often a change is tried again when somebody else was faster.
pub(super) const TRIES: usize = 4;

/// What became of a rotation.
#[derive(Debug)]
#[must_use]
pub enum RotationOutcome {
    /// The client must get this token. The old one is accepted until the new one was used, and for
    /// the grace after that; not at all after a privileged rotation.
    Rotated {
        /// The new token.
        token: Token,
        /// The session as stored now.
        snapshot: Arc<Snapshot>,
        /// From when on every node knows.
        visibility: Visibility,
    },
    /// Another request has just rotated it; keep the token.
    NotNow,
    /// The token is not accepted.
    Absent(Refusal),
}

/// A fresh proof of who the user is.
#[derive(Clone, Debug, Default)]
pub struct Proof {
    /// The assurance level reached.
    pub aal: Option<u8>,
    /// How (RFC 8176 names).
    pub amr: Vec<String>,
}

impl<P: PrimaryStore + 'static, S: SecondaryStore + 'static> Sessions<P, S> {
    /// Replaces the secret, keeping the session.
    ///
    /// # Contract
    /// - Exactly one of two concurrent rotations succeeds \[P-44\].
    /// - The new token is accepted; the session keeps user, data and absolute deadline
    ///   \[P-40 P-43\].
    /// - If the reply is lost, the old token still works and may rotate again once the grace has
    ///   passed \[P-46\].
    /// - The new token is accepted on every node at once, whatever their caches hold \[K6-U08\].
    /// - A revoked, expired or missing session is `Absent`, whichever secret is presented, and
    ///   nothing is created \[P-30 P-33 P-34 P-47\].
    pub async fn rotate(&self, token: &Token) -> Result<RotationOutcome> {
        let now = self.host().now();
        let checked = self.check(token, now, true).await?;
        let (snapshot, presented) = match Self::accepted(checked) {
            Ok(accepted) => accepted,
            Err(refusal) => return Ok(RotationOutcome::Absent(refusal)),
        };
        if self.is_settling(&snapshot.session, presented, now) {
            return Ok(RotationOutcome::NotNow);
        }
        let change = SessionChange::default();
        let previous = Previous { hash: token.secret_hash(), until: None };
        let done = self.replace_secret(&snapshot.session, previous, change, now).await?;
        Ok(done.unwrap_or(RotationOutcome::NotNow))
    }

    /// Records a fresh proof of who the user is, and replaces the secret without grace.
    ///
    /// # Contract
    /// - The old token is refused at once, without suspicion during one grace period \[X8-Y-04\].
    /// - A rotation alone never changes the assurance level \[X8-Y-04\].
    pub async fn elevate(&self, token: &Token, proof: Proof) -> Result<RotationOutcome> {
        self.privileged(token, |now| {
            let Proof { aal, amr } = proof.clone();
            let elevation = Some(Elevation { authenticated_at: now, aal, amr });
            SessionChange { elevation, ..SessionChange::default() }
        })
        .await
    }

    /// Turns a guest's session into that of a user, and replaces the secret without grace. Deadlines
    /// and all else are those of the login; the guest's data stay, unless the login brings some.
    ///
    /// # Contract
    /// - It lives as long as the login asked for, and is known by the name it gave \[X8-Y-17\].
    /// - Epoch, limit and unknown users are treated as in `create` \[X8-P-16\].
    /// - The guest's token is refused at once \[X8-Y-05\].
    /// - A session that has a user already is `InvalidInput` \[X8-Y-05\].
    pub async fn promote(&self, token: &Token, login: Login) -> Result<RotationOutcome> {
        let now = self.host().now();
        let has_data = login.data != Json::default();
        let (_, session) = self.session_for(login, now)?;
        if let Ok(checked) = self.check(token, now, true).await
            && checked.answer.snapshot.is_some_and(|found| found.session.user_id.is_some())
            && checked.verdict.is_ok()
        {
            return Err(Error::invalid("core", "session to promote has a user already"));
        }
        let limit = self.policy().max_sessions;
        if limit.is_some()
            && let Some(user) = &session.user_id
        {
            self.flush_touches_of(user).await;
        }
        self.privileged(token, |now| {
            let promotion = session.user_id.clone().map(|user_id| Promotion {
                user_id,
                credential_epoch: session.credential_epoch,
                limit,
                remember: session.remember,
                idle_timeout: session.idle_timeout,
                absolute_expires_at: session.absolute_expires_at,
                external_sid: session.external_sid.clone(),
            });
            SessionChange {
                promotion,
                expires_at: Some(session.expires_at),
                data: has_data.then(|| session.data.clone()),
                elevation: Some(Elevation {
                    authenticated_at: now,
                    aal: session.aal,
                    amr: session.amr.clone(),
                }),
                metadata: Some(session.metadata.clone()),
                ..SessionChange::default()
            }
        })
        .await
    }

    /// A rotation that changes who the session is trusted to be: no grace whatever the policy says,
    /// else a secret planted before it would be let in.
    async fn privileged(
        &self,
        token: &Token,
        change: impl Fn(Timestamp) -> SessionChange,
    ) -> Result<RotationOutcome> {
        for _ in 0..TRIES {
            let now = self.host().now();
            let checked = self.check(token, now, true).await?;
            let (snapshot, _) = match Self::accepted(checked) {
                Ok(accepted) => accepted,
                Err(refusal) => return Ok(RotationOutcome::Absent(refusal)),
            };
            let previous = Previous { hash: token.secret_hash(), until: Some(now) };
            let done = self.replace_secret(&snapshot.session, previous, change(now), now).await?;
            if let Some(outcome) = done {
                return Ok(outcome);
            }
        }
        Err(Self::conflict())
    }

    fn accepted(checked: Checked) -> Result<(Arc<Snapshot>, Presented), Refusal> {
        let presented = checked.verdict?;
        let snapshot = checked.answer.snapshot.ok_or(Refusal::Unknown)?;
        Ok((snapshot, presented))
    }

    /// `None` when somebody else was faster.
    async fn replace_secret(
        &self,
        session: &Session,
        previous: Previous,
        mut change: SessionChange,
        now: Timestamp,
    ) -> Result<Option<RotationOutcome>> {
        let token = Token::for_session(session.id)?;
        change.rotation = Some(Rotation {
            secret_hash: token.secret_hash(),
            previous: Some(previous),
            rotated_at: now,
        });
        let id = session.id;
        let done = self.store().update((id, session.version), change, None, now).await?;
        Ok(match done.update {
            Update::Updated(updated) => {
                self.tell(&Event::Rotated { id });
                if !updated.evicted.is_empty() {
                    self.tell(&Event::Revoked { ids: &updated.evicted, reason: Reason::Limit });
                }
                let snapshot = Arc::new(updated.snapshot);
                Some(RotationOutcome::Rotated { token, snapshot, visibility: done.visibility })
            }
            Update::Conflict { .. } => None,
            Update::Missing => Some(RotationOutcome::Absent(Refusal::Unknown)),
        })
    }

    /// Whether an automatic rotation should be made for a client that presented this secret.
    pub(super) fn is_rotation_due(
        &self,
        session: &Session,
        presented: Presented,
        now: Timestamp,
    ) -> bool {
        let Some(every) = self.policy().rotation_interval else {
            return false;
        };
        let is_repeat = presented == Presented::Previous;
        let is_old = is_repeat || now.since(session.rotated_at) >= every;
        is_old && !self.is_settling(session, presented, now)
    }

    /// Whether the last rotation is still under way: the new secret has just been handed out, or
    /// the grace of the old one runs. Another rotation now would kill a token in transit.
    fn is_settling(&self, session: &Session, presented: Presented, now: Timestamp) -> bool {
        match session.previous.map(|old| old.until) {
            None => false,
            Some(Some(until)) => now < until,
            Some(None) => {
                presented == Presented::Current
                    || now.since(session.rotated_at) < self.policy().rotation_grace
            }
        }
    }
}
