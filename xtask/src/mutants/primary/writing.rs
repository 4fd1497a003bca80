//! Broken inserts, updates and touches.

use std::time::Duration;

use session_store_core::{
    ErrorKind, Inserted, Json, NewSession, Reason, Result, Selection, Session, SessionChange,
    SessionId, SessionLimit, Timestamp, Touch, Touched, Update, Updated, UserId, Which,
};

use super::super::stage::{error, pause};
use super::state::blank;
use super::{Broken, Defect};

const SECOND: i64 = 1_000;

impl Broken {
    pub(super) async fn store(&self, new: &NewSession, now: Timestamp) -> Result<Inserted> {
        let mut new = new.clone();
        self.spoil(&mut new, now).await?;
        if let (Some(limit), Some(user)) = (new.limit, new.session.user_id.clone()) {
            self.make_room(&mut new, &user, limit, now).await?;
        }
        if self.defect == Defect::StoresInHalves {
            self.haunt(Session { user_id: None, ..new.session.clone() }).await?;
            pause().await;
            self.state().ghosts.clear();
        }
        let done = self.inner.insert(&new, now).await;
        let done = self.gloss_over(done, &new, now).await?;
        self.remember(&new.session).await;
        Ok(done)
    }

    /// Changes what is stored.
    async fn spoil(&self, new: &mut NewSession, now: Timestamp) -> Result<()> {
        let session = &mut new.session;
        let millis = session.expires_at.as_millis();
        let metadata = &mut session.metadata;
        match self.defect {
            Defect::DropsAField => metadata.device = None,
            Defect::TrimsText => {
                metadata.user_agent = metadata.user_agent.as_deref().map(|text| text.trim().into());
            }
            Defect::CutsText => {
                let cut = |text: &String| text.chars().take(60).collect();
                metadata.user_agent = metadata.user_agent.as_ref().map(cut);
            }
            Defect::RoundsUp => {
                let seconds = (millis + SECOND - 1) / SECOND;
                session.expires_at = Timestamp::from_millis(seconds * SECOND);
            }
            Defect::ShiftsTheZone => {
                session.expires_at = session.expires_at.plus(Duration::from_hours(9));
            }
            Defect::EndsIn2038 => {
                let end = Timestamp::from_millis(i64::from(i32::MAX) * SECOND);
                session.expires_at = session.expires_at.min(end);
            }
            Defect::ZeroIsForever if session.has_ended(now) => {
                session.expires_at = Timestamp::MAX;
            }
            Defect::TrustsOldCredentials => {
                if let Some(user) = &session.user_id
                    && let Some(found) = self.inner.find_user(user).await?
                {
                    session.credential_epoch = found.credential_epoch;
                }
            }
            Defect::IgnoresTheLimit => new.limit = None,
            _ => {}
        }
        Ok(())
    }

    /// The limit, enforced outside the transaction.
    async fn make_room(
        &self,
        new: &mut NewSession,
        user: &UserId,
        limit: SessionLimit,
        now: Timestamp,
    ) -> Result<()> {
        let max = usize::try_from(limit.max).unwrap_or(usize::MAX);
        match self.defect {
            Defect::LimitRaces | Defect::LimitEvictsTheNewest if limit.evict => {
                let mut live = self.all_of(user, Which::Live(now)).await?;
                live.sort_by_key(|session| session.last_seen_at);
                if self.defect == Defect::LimitRaces {
                    pause().await;
                } else {
                    live.reverse();
                }
                let surplus = (live.len() + 1).saturating_sub(max);
                let ids = live.iter().take(surplus).map(|session| session.id).collect();
                self.inner.revoke(&Selection::Ids(ids), Reason::Limit, now).await?;
                new.limit = None;
            }
            Defect::LimitCountsTheDead if !limit.evict => {
                let count = self.all_of(user, Which::All).await?.len();
                return if count < max { Ok(()) } else { Err(error(ErrorKind::TooManySessions)) };
            }
            _ => {}
        }
        Ok(())
    }

    /// What the caller is told of an insert.
    async fn gloss_over(
        &self,
        done: Result<Inserted>,
        new: &NewSession,
        now: Timestamp,
    ) -> Result<Inserted> {
        let mut failure = match done {
            Ok(_) if self.defect == Defect::HidesTheEvicted => return Ok(Inserted::default()),
            Ok(done) => return Ok(done),
            Err(failure) => failure,
        };
        let session = new.session.clone();
        let swallows = match (self.defect, failure.kind()) {
            (Defect::AcceptsStrangers, ErrorKind::UnknownUser)
            | (Defect::Overwrites, ErrorKind::Conflict)
            | (Defect::StoresTheDead, ErrorKind::InvalidExpiry) => true,
            (Defect::ReusesDeadIds, ErrorKind::Conflict) => {
                self.truth(&session.id).await?.is_some_and(|stored| stored.has_ended(now))
            }
            (Defect::CutsData, ErrorKind::TooLarge { .. }) => {
                let cut = Session { data: Json::default(), ..session.clone() };
                let cut = NewSession { session: cut, limit: new.limit };
                match self.inner.insert(&cut, now).await {
                    Ok(done) => return Ok(done),
                    Err(other) => failure = other,
                }
                false
            }
            _ => false,
        };
        if !swallows {
            return Err(failure);
        }
        self.haunt(session).await?;
        Ok(Inserted::default())
    }

    async fn remember(&self, session: &Session) {
        self.state().known.insert(session.id, session.clone());
        self.state().born.insert(session.id, self.handle);
        if self.defect != Defect::IndexRaces {
            return;
        }
        if let Some(user) = &session.user_id {
            let mut ids = self.state().index.get(user).cloned().unwrap_or_default();
            pause().await;
            ids.push(session.id);
            self.state().index.insert(user.clone(), ids);
        }
    }

    pub(super) async fn change(
        &self,
        id: &SessionId,
        version: u64,
        change: &SessionChange,
        now: Timestamp,
    ) -> Result<Update> {
        let known = self.state().known.get(id).cloned();
        let stored = self.truth(id).await?;
        let version = match (self.defect, &stored) {
            (Defect::IgnoresVersions, Some(stored)) => stored.version,
            _ => version,
        };
        let moment = match (self.defect, &stored) {
            (Defect::UpdatesProlongTheDead, Some(stored)) => stored.created_at,
            _ => now,
        };
        let change = self.twisted(change, known.as_ref(), now).await?;
        if change.rotation.is_some() {
            self.state().rotated.insert(*id);
        }
        match self.inner.update(id, version, &change, moment).await? {
            Update::Updated(mut updated) => {
                self.bend(&mut updated.snapshot);
                self.state().updated.insert(*id);
                Ok(Update::Updated(updated))
            }
            Update::Conflict { .. } if self.defect == Defect::HidesTheCurrentVersion => {
                Ok(Update::Conflict { current: version })
            }
            Update::Missing => {
                let session = stored.or(known).unwrap_or_else(|| blank(*id, now));
                self.miss(session, &change).await
            }
            conflict @ Update::Conflict { .. } => Ok(conflict),
        }
    }

    /// The change that is made instead of `change`.
    async fn twisted(
        &self,
        change: &SessionChange,
        known: Option<&Session>,
        now: Timestamp,
    ) -> Result<SessionChange> {
        let mut change = change.clone();
        match self.defect {
            Defect::WritesWholeRows => {
                change.expires_at = change.expires_at.or(known.map(|known| known.expires_at));
            }
            Defect::AcceptsPastDeadlines => {
                let soon = now.plus(Duration::from_millis(1));
                change.expires_at = change.expires_at.map(|end| end.max(soon));
            }
            Defect::ForgetsThePrevious => {
                if let Some(rotation) = &mut change.rotation {
                    rotation.previous = None;
                }
            }
            Defect::DropsElevations => change.elevation = None,
            Defect::PromotionsForgetTheLogin => {
                if let (Some(promotion), Some(known)) = (&mut change.promotion, known) {
                    promotion.idle_timeout = known.idle_timeout;
                    promotion.absolute_expires_at = known.absolute_expires_at;
                    promotion.remember = known.remember;
                }
            }
            Defect::PromotesWithoutLimit => {
                if let Some(promotion) = &mut change.promotion {
                    promotion.limit = None;
                }
            }
            Defect::PromotesWithoutEpoch => {
                if let Some(promotion) = &mut change.promotion
                    && let Some(found) = self.inner.find_user(&promotion.user_id).await?
                {
                    promotion.credential_epoch = found.credential_epoch;
                }
            }
            _ => {}
        }
        Ok(change)
    }

    /// An update of what is not there, or not active.
    async fn miss(&self, mut session: Session, change: &SessionChange) -> Result<Update> {
        let revives = match self.defect {
            Defect::UpdatesUpsert => true,
            Defect::UpdatesRevive => session.revoked.is_some(),
            _ => false,
        };
        change.apply(&mut session);
        if revives {
            session.revoked = None;
            session.version += 1;
            let snapshot = self.haunt(session).await?;
            return Ok(Update::Updated(Box::new(Updated { snapshot, evicted: Vec::new() })));
        }
        if self.defect == Defect::UpdatesLeaveParts {
            self.haunt(session).await?;
        }
        Ok(Update::Missing)
    }

    pub(super) async fn note_use(&self, touches: &[Touch]) -> Result<Vec<Touched>> {
        let mut touches = touches.to_vec();
        match self.defect {
            Defect::RefusesEmptyLists if touches.is_empty() => {
                return Err(error(ErrorKind::Unavailable));
            }
            Defect::SweepsTheTouched => pause().await,
            Defect::SortsAnswers => touches.sort_by_key(|touch| touch.id),
            _ => {}
        }
        for touch in &mut touches {
            self.bend_touch(touch);
        }
        let mut answers = self.inner.touch(&touches).await?;
        for (touch, answer) in touches.iter().zip(&mut answers) {
            self.bend_answer(touch, answer).await?;
        }
        if self.defect == Defect::SkipsTheMissing {
            answers.retain(|answer| *answer != Touched::Missing);
        }
        Ok(answers)
    }

    fn bend_touch(&self, touch: &mut Touch) {
        let Some(known) = self.state().known.get(&touch.id).cloned() else { return };
        match self.defect {
            Defect::TouchesProlongTheDead => {
                let before = known.expires_at.minus(Duration::from_millis(1));
                touch.seen_at = touch.seen_at.min(before);
            }
            Defect::ForgetsUse => touch.seen_at = known.created_at,
            _ => {}
        }
    }

    async fn bend_answer(&self, touch: &Touch, answer: &mut Touched) -> Result<()> {
        let known = self.state().known.get(&touch.id).cloned();
        match (self.defect, *answer) {
            (Defect::TouchesMoveBack, Touched::Active { .. }) => {
                self.state().seen.insert(touch.id, touch.seen_at);
            }
            (
                Defect::TouchesShorten | Defect::TouchesAreUncapped,
                Touched::Active { expires_at },
            ) => {
                let shortens = self.defect == Defect::TouchesShorten;
                let end =
                    if shortens { touch.expires_at } else { touch.expires_at.max(expires_at) };
                self.state().deadlines.insert(touch.id, end);
                *answer = Touched::Active { expires_at: end };
            }
            (Defect::TouchesCountAsWrites, Touched::Active { .. }) => {
                if let Some(stored) = self.truth(&touch.id).await? {
                    let change = SessionChange::default();
                    self.inner.update(&touch.id, stored.version, &change, touch.seen_at).await?;
                }
            }
            (Defect::TouchesRevive, Touched::Missing) => {
                if let Some(known) = known {
                    let expires_at = touch.expires_at;
                    self.haunt(Session { expires_at, revoked: None, ..known }).await?;
                    *answer = Touched::Active { expires_at };
                }
            }
            _ => {}
        }
        Ok(())
    }
}
