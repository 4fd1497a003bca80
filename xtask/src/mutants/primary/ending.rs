//! Broken revocations and sweeps.

use std::time::Duration;

use session_store_core::{
    ErrorKind, Reason, Result, Revocation, RevokedSessions, Selection, SessionId, State,
    SweepBounds, Swept, Timestamp, UserId, Which,
};

use super::super::stage::{error, pause};
use super::{Broken, Defect};

impl Broken {
    pub(super) async fn end(
        &self,
        selection: &Selection,
        reason: Reason,
        now: Timestamp,
    ) -> Result<RevokedSessions> {
        let selection = match (self.defect, selection) {
            (Defect::RefusesEmptyLists, Selection::Ids(ids)) if ids.is_empty() => {
                return Err(error(ErrorKind::Unavailable));
            }
            (Defect::RevokesNothing, Selection::AllOf(user)) => {
                let revoked = self.ids(user, Which::Live(now)).await?;
                return Ok(RevokedSessions { revoked, earlier: Vec::new() });
            }
            (Defect::TheSparedIsStale, Selection::AllBut(_, spared)) => {
                if let Some(stored) = self.truth(spared).await? {
                    self.state().stale.insert(*spared, stored.credential_epoch);
                }
                selection.clone()
            }
            _ => self.reselect(selection, now).await?,
        };
        let mut done = self.inner.revoke(&selection, reason, now).await?;
        match self.defect {
            Defect::NamesNothing => done.revoked.clear(),
            Defect::ForgetsEarlier => done.earlier.clear(),
            Defect::NamesTheEndedAgain => done.revoked.append(&mut done.earlier),
            Defect::LastRevocationWins => {
                let mut state = self.state();
                for id in done.revoked.iter().chain(&done.earlier) {
                    state.ended.insert(*id, Revocation { at: now, reason });
                }
            }
            _ => {}
        }
        Ok(done)
    }

    /// The selection that is revoked instead.
    async fn reselect(&self, selection: &Selection, now: Timestamp) -> Result<Selection> {
        Ok(match (self.defect, selection) {
            (Defect::IgnoresOwners, Selection::One { id, .. }) => {
                Selection::One { id: *id, owner: None }
            }
            (Defect::SparesNobody, Selection::AllBut(user, _)) => Selection::AllOf(user.clone()),
            (Defect::OthersStayTrusted, Selection::AllBut(user, spared)) => {
                let mut ids = self.ids(user, Which::All).await?;
                ids.retain(|id| id != spared);
                Selection::Ids(ids)
            }
            (Defect::RevokesAPage, Selection::AllOf(user)) => {
                let mut ids = self.ids(user, Which::All).await?;
                ids.truncate(100);
                Selection::Ids(ids)
            }
            (Defect::RevokesASnapshot, Selection::AllOf(user)) => {
                let ids = self.ids(user, Which::All).await?;
                pause().await;
                Selection::Ids(ids)
            }
            (Defect::RevokesUnbounded, &Selection::Everyone { created_before, .. }) => {
                Selection::Everyone { created_before, limit: u32::MAX }
            }
            (Defect::RevokesLaterOnes, &Selection::Everyone { limit, .. }) => {
                Selection::Everyone { created_before: Timestamp::MAX, limit }
            }
            (Defect::DeadOnesFillTheStep, Selection::Everyone { limit, .. }) => {
                let mut open = Vec::new();
                for id in self.known_ids() {
                    if let Some(stored) = self.truth(&id).await?
                        && !matches!(stored.state(now), State::Revoked(_))
                    {
                        open.push((stored.expires_at, id));
                    }
                }
                open.sort_unstable();
                open.truncate(usize::try_from(*limit).unwrap_or(usize::MAX));
                Selection::Ids(open.into_iter().map(|(_, id)| id).collect())
            }
            _ => selection.clone(),
        })
    }

    pub(super) async fn ids(&self, user: &UserId, which: Which) -> Result<Vec<SessionId>> {
        Ok(self.all_of(user, which).await?.into_iter().map(|session| session.id).collect())
    }

    pub(super) fn known_ids(&self) -> Vec<SessionId> {
        self.state().known.keys().copied().collect()
    }

    pub(super) async fn clear(&self, bounds: &SweepBounds, limit: u32) -> Result<Swept> {
        let hour = Duration::from_hours(1);
        let mut bounds = *bounds;
        match self.defect {
            Defect::SweepsTheLiving => bounds.expired_before = bounds.expired_before.plus(hour),
            Defect::SweepsNoRevoked => bounds.revoked_before = Timestamp::EPOCH,
            Defect::SweepsCountTwice => return self.clear_twice(&bounds, limit).await,
            Defect::SweepsTheTouched => return self.clear_touched(&bounds, limit).await,
            Defect::SweepsAreLogged => {
                let dead = self.dead(&bounds).await?;
                self.inner.revoke(&Selection::Ids(dead), Reason::Admin, Timestamp::EPOCH).await?;
            }
            _ => {}
        }
        let limit = if self.defect == Defect::SweepsUnbounded { u32::MAX } else { limit };
        let mut swept = self.inner.sweep(&bounds, limit).await?;
        match self.defect {
            Defect::SweepsNeverEnd => swept.more = true,
            Defect::SweepsEndEarly => swept.more = false,
            _ => {}
        }
        Ok(swept)
    }

    /// Known sessions whose deadline has passed.
    async fn dead(&self, bounds: &SweepBounds) -> Result<Vec<SessionId>> {
        let mut dead = Vec::new();
        for id in self.known_ids() {
            let stored = self.truth(&id).await?;
            if stored.is_some_and(|stored| stored.expires_at <= bounds.expired_before) {
                dead.push(id);
            }
        }
        Ok(dead)
    }

    /// Counts first, and removes afterwards.
    async fn clear_twice(&self, bounds: &SweepBounds, limit: u32) -> Result<Swept> {
        let dead = self.dead(bounds).await?.len() as u64;
        pause().await;
        let swept = self.inner.sweep(bounds, limit).await?;
        Ok(Swept { removed: dead.min(limit.into()), more: swept.more })
    }

    /// Selects first, and removes what was selected.
    async fn clear_touched(&self, bounds: &SweepBounds, limit: u32) -> Result<Swept> {
        let dead = self.dead(bounds).await?;
        pause().await;
        pause().await;
        let swept = self.inner.sweep(bounds, limit).await?;
        self.state().hidden.extend(dead);
        Ok(swept)
    }
}
