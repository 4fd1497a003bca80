//! Recording that sessions were used. A touch moves two times forward and leaves the version alone.

use std::collections::HashMap;

use futures_util::stream::{self, StreamExt, TryStreamExt};
use session_store_core::{Result, Session, SessionId, State, Touch, Touched};

use super::error::uncertain;
use super::key::Key;
use super::owner::Judged;
use super::row::{garbage, number};
use super::step::Terms;
use super::store::DynamoStore;
use super::stored::Stored;

/// The touches of one session, each with its place in the answer.
type Own<'a> = Vec<(usize, &'a Touch)>;

impl DynamoStore {
    pub(super) async fn touch(&self, touches: &[Touch]) -> Result<Vec<Touched>> {
        let mut by_session: HashMap<SessionId, Own<'_>> = HashMap::new();
        for (place, touch) in touches.iter().enumerate() {
            by_session.entry(touch.id).or_default().push((place, touch));
        }
        let ids: Vec<_> = by_session.keys().copied().collect();
        let mut seen = self.look_all(&ids).await?;
        let is_one = by_session.len() <= 1;
        let work: Vec<_> = by_session
            .into_iter()
            .map(|(id, own)| self.touch_one(id, own, seen.remove(&id)))
            .collect();
        let done = stream::iter(work).buffer_unordered(self.calls.parallel());
        let done = done.try_collect::<Vec<_>>().await;
        let done = done.map_err(|failed| if is_one { failed } else { uncertain(failed) })?;
        let mut answers = vec![Touched::Missing; touches.len()];
        for (place, answer) in done.into_iter().flatten() {
            answers[place] = answer;
        }
        Ok(answers)
    }

    async fn touch_one(
        &self,
        id: SessionId,
        own: Own<'_>,
        first: Option<Judged>,
    ) -> Result<Vec<(usize, Touched)>> {
        let mut seen = first;
        let mut pauses = self.calls.pauses();
        loop {
            let Some(Judged { stored, .. }) = seen else {
                return Ok(own.iter().map(|(place, _)| (*place, Touched::Missing)).collect());
            };
            let mut session = stored.session.clone();
            let answers: Vec<_> =
                own.iter().map(|(place, touch)| (*place, apply(&mut session, touch))).collect();
            if session == stored.session || self.write_touch(&stored, &session).await? {
                return Ok(answers);
            }
            // Somebody else has written the session since it was read.
            pauses.pause().await?;
            seen = self.look_all(&[id]).await?.remove(&id);
        }
    }

    /// Whether the session was still as it had been read.
    async fn write_touch(&self, stored: &Stored, session: &Session) -> Result<bool> {
        let change =
            "SET #last_seen_at = :seen, #expires_at = :end, #ttl = :ttl, #rev = #rev + :one";
        let terms = Terms::change(change, "#rev = :rev")
            .with(":seen", number(session.last_seen_at.as_millis()))
            .with(":end", number(session.expires_at.as_millis()))
            .with(":ttl", garbage(session.expires_at, self.config.garbage_after))
            .with(":one", number(1))
            .with(":rev", number(stored.rev));
        self.calls.update_item(&Key::session(stored.id()), &terms).await
    }
}

fn apply(session: &mut Session, touch: &Touch) -> Touched {
    if session.state(touch.seen_at) != State::Active {
        return Touched::Missing;
    }
    session.last_seen_at = session.last_seen_at.max(touch.seen_at);
    session.expires_at = session.expires_at.max(session.cap(touch.expires_at));
    Touched::Active { expires_at: session.expires_at }
}
