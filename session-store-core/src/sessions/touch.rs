//! Use of sessions, remembered here and written in batches: a hit never waits for it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use super::Sessions;
use crate::error::Result;
use crate::primary::{PrimaryStore, Touch};
use crate::secondary::SecondaryStore;
use crate::session::Session;
use crate::time::Timestamp;
use crate::token::SessionId;

/// How long a touch may wait for company.
pub(super) const FLUSH_EVERY: Duration = Duration::from_secs(5);
/// How many touches one statement writes.
const BATCH: usize = 500;
/// How many sessions are remembered; beyond that the oldest knowledge is worth least, and losing
/// it costs one write each.
const CAPACITY: usize = 100_000;

/// What is known of use and not written yet, and what was written lately.
#[derive(Debug, Default)]
pub(super) struct Touches {
    queued: Mutex<HashMap<SessionId, Touch>>,
    recent: Mutex<HashMap<SessionId, Timestamp>>,
    /// Whether a flush is on its way, by `Maintenance` or by itself.
    is_scheduled: AtomicBool,
}

impl Touches {
    /// Whether nothing is known of a use of `id` since `since`; if so, this one is known from now on.
    fn is_news(&self, id: SessionId, now: Timestamp, every: Duration) -> bool {
        let mut recent = self.recent.lock();
        if recent.get(&id).is_some_and(|last| now.since(*last) < every) {
            return false;
        }
        if recent.len() >= CAPACITY {
            recent.retain(|_, last| now.since(*last) < every);
        }
        if recent.len() >= CAPACITY {
            recent.clear();
        }
        recent.insert(id, now);
        true
    }

    fn queue(&self, touch: Touch) {
        let mut queued = self.queued.lock();
        if queued.len() < CAPACITY {
            queued.insert(touch.id, touch);
        }
    }

    fn take(&self) -> Vec<Touch> {
        let mut touches: Vec<_> = self.queued.lock().drain().map(|(_, touch)| touch).collect();
        // Every writer of several sessions locks them in the order of their ids.
        touches.sort_unstable_by_key(|touch| touch.id);
        touches
    }

    fn put_back(&self, touches: &[Touch]) {
        let mut queued = self.queued.lock();
        for touch in touches {
            queued.entry(touch.id).or_insert(*touch);
        }
    }

    /// Forgets sessions that have ended.
    pub(super) fn forget(&self, ids: &[SessionId]) {
        let mut queued = self.queued.lock();
        for id in ids {
            queued.remove(id);
        }
    }

    fn claim_schedule(&self) -> bool {
        !self.is_scheduled.swap(true, Ordering::AcqRel)
    }

    /// Takes the schedule over from whoever has it, until the claim is dropped.
    pub(super) fn take_schedule(&self) -> Claim<'_> {
        self.is_scheduled.store(true, Ordering::Release);
        Claim(self)
    }
}

/// The duty to flush. Dropped, the next use finds somebody else.
#[derive(Debug)]
pub(super) struct Claim<'a>(&'a Touches);

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.0.is_scheduled.store(false, Ordering::Release);
    }
}

impl<P: PrimaryStore + 'static, S: SecondaryStore + 'static> Sessions<P, S> {
    /// Remembers that `session` is used, if that is news.
    pub(super) fn note_use(&self, session: &Session, now: Timestamp) {
        let every = self.policy().touch_after(session.idle_timeout);
        let touches = &self.shared.touches;
        if now.since(session.last_seen_at) < every || !touches.is_news(session.id, now, every) {
            return;
        }
        let expires_at = session.cap(now.plus(session.idle_timeout.as_duration()));
        let expires_at = expires_at.max(session.expires_at);
        touches.queue(Touch { id: session.id, seen_at: now, expires_at });
        // A short session must be written before it ends, whoever flushes otherwise.
        let patience = session.idle_timeout.as_duration() / 4;
        if patience < FLUSH_EVERY {
            let this = self.clone();
            self.host().runtime.spawn(Box::pin(async move { this.flush_after(patience).await }));
        } else if touches.claim_schedule() {
            let this = self.clone();
            self.host().runtime.spawn(Box::pin(async move {
                let _claim = Claim(&this.shared.touches);
                this.flush_after(FLUSH_EVERY).await;
            }));
        }
    }

    /// Flushes after `wait`, and again until it has succeeded: an outage must log nobody out.
    async fn flush_after(&self, wait: Duration) {
        self.host().runtime.sleep(wait).await;
        while let Err(error) = self.flush_touches().await {
            tracing::warn!(%error, "touches not written");
            self.host().runtime.sleep(FLUSH_EVERY).await;
        }
    }

    /// Writes what is known of use. Returns how many sessions were touched.
    ///
    /// # Contract
    /// - However often a session was used, it is written once per touch interval \[L-50 K6-U07\].
    /// - A session in use is written before it ends, however short its life \[X8-Y-13\], and an
    ///   outage is made up for by itself \[X8-Y-14\].
    /// - A touch of a session that has ended meanwhile changes nothing \[L-52\].
    /// - Touches that could not be written are kept for the next time, and a caller that goes away
    ///   loses none \[L-51\].
    pub async fn flush_touches(&self) -> Result<usize> {
        let this = self.clone();
        self.store()
            .detached(async move {
                let touches = this.shared.touches.take();
                for (written, batch) in touches.chunks(BATCH).enumerate() {
                    if let Err(error) = this.store().touch(batch).await {
                        this.shared.touches.put_back(&touches[written * BATCH..]);
                        return Err(error);
                    }
                }
                Ok(touches.len())
            })
            .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVERY: Duration = Duration::from_millis(10);

    fn id(number: usize) -> SessionId {
        SessionId::from_bytes((number as u128).to_be_bytes())
    }

    #[test]
    fn what_is_old_makes_room_for_what_is_new() {
        let touches = Touches::default();
        let is_news =
            |number, millis| touches.is_news(id(number), Timestamp::from_millis(millis), EVERY);
        let half = CAPACITY / 2;
        assert!((0..half).all(|number| is_news(number, 0)));
        assert!((half..CAPACITY).all(|number| is_news(number, 5)));
        assert_eq!(touches.recent.lock().len(), CAPACITY);
        assert!(is_news(CAPACITY, 10));
        assert_eq!(touches.recent.lock().len(), half + 1);
        assert!(!is_news(half, 10) && is_news(0, 10));
    }

    #[test]
    fn a_full_queue_takes_no_more() {
        let touches = Touches::default();
        let now = Timestamp::EPOCH;
        for number in 0..=CAPACITY {
            touches.queue(Touch { id: id(number), seen_at: now, expires_at: now });
        }
        assert_eq!(touches.take().len(), CAPACITY);
    }
}
