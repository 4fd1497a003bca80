//! Use of sessions, remembered here and written in batches: a hit never waits for it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use super::Sessions;
use crate::error::Result;
use crate::primary::{PrimaryStore, Touch};
use crate::secondary::SecondaryStore;
use crate::session::Session;
use crate::time::Timestamp;
use crate::token::SessionId;
use crate::user::UserId;

/// How long a touch may wait for company.
pub(super) const FLUSH_EVERY: Duration = Duration::from_secs(5);
/// How many touches one statement writes.
const BATCH: usize = 500;
/// How many sessions are remembered; beyond that the oldest knowledge is worth least, and losing
/// it costs one write each.
const CAPACITY: usize = 100_000;

/// How many statements of one flush may fail: one locked row must not keep the others from being written,
/// and a server that hangs must not be asked for each of them.
const MOST_FAILURES: usize = 3;

/// A use that is not written yet, and whose it was.
#[derive(Clone, Debug)]
struct Queued {
    touch: Touch,
    user: Option<UserId>,
}

/// What is known of use and not written yet, and what was written lately.
#[derive(Debug, Default)]
pub(super) struct Touches {
    queued: Mutex<HashMap<SessionId, Queued>>,
    /// How often a flush has failed: the next one begins elsewhere.
    failures: AtomicUsize,
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

    fn queue(&self, found: Queued) {
        let mut queued = self.queued.lock();
        if queued.len() < CAPACITY {
            queued.insert(found.touch.id, found);
        }
    }

    /// The sessions of `user`, or of all, whose use is queued, in the order of their ids, in which most
    /// adapters lock several.
    fn ids(&self, user: Option<&UserId>) -> Vec<SessionId> {
        let queued = self.queued.lock();
        let is_wanted = |found: &Queued| user.is_none_or(|user| found.user.as_ref() == Some(user));
        let wanted = queued.values().filter(|found| is_wanted(found));
        let mut ids: Vec<_> = wanted.map(|found| found.touch.id).collect();
        drop(queued);
        ids.sort_unstable();
        ids
    }

    /// Takes those of `ids` out of the queue that are still in it.
    fn take(&self, ids: &[SessionId]) -> Vec<Queued> {
        let mut queued = self.queued.lock();
        ids.iter().filter_map(|id| queued.remove(id)).collect()
    }

    fn put_back(&self, unwritten: Vec<Queued>) {
        let mut queued = self.queued.lock();
        for found in unwritten {
            queued.entry(found.touch.id).or_insert(found);
        }
    }

    /// Hands what is queued of `user`, or of all, to `touch` in batches, and puts back what could not be
    /// written; how many there were. Whatever waits for its turn stays in the queue: somebody else may be
    /// in a hurry for it.
    async fn write<F: Future<Output = Result<()>>>(
        &self,
        user: Option<&UserId>,
        touch: impl Fn(Vec<Touch>) -> F,
    ) -> Result<usize> {
        let ids = self.ids(user);
        let mut batches: Vec<_> = ids.chunks(BATCH).collect();
        let begin = self.failures.load(Ordering::Relaxed) % batches.len().max(1);
        batches.rotate_left(begin);
        let mut outcome = Ok(0);
        let mut failures = 0;
        for batch in batches {
            let taken = self.take(batch);
            if taken.is_empty() {
                continue;
            }
            match touch(taken.iter().map(|found| found.touch).collect()).await {
                Ok(()) => outcome = outcome.map(|count| count + taken.len()),
                Err(error) => {
                    self.put_back(taken);
                    self.failures.fetch_add(1, Ordering::Relaxed);
                    failures += 1;
                    outcome = outcome.and(Err(error));
                }
            }
            if failures == MOST_FAILURES {
                break;
            }
        }
        outcome
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
        let touch = Touch { id: session.id, seen_at: now, expires_at };
        touches.queue(Queued { touch, user: session.user_id.clone() });
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
    ///   loses none \[L-51\]; those that could be written are, so that a session that somebody has locked
    ///   logs nobody else out \[X8-Y-25\].
    pub async fn flush_touches(&self) -> Result<usize> {
        self.flush(None).await
    }

    /// Writes what is known of the use of `user`'s sessions, so that the least recently used one is the
    /// one that a login ends. If that fails the login goes on: all that is lost is the order.
    pub(super) async fn flush_touches_of(&self, user: &UserId) {
        if let Err(error) = self.flush(Some(user.clone())).await {
            tracing::warn!(%error, "touches not written before a login");
        }
    }

    async fn flush(&self, user: Option<UserId>) -> Result<usize> {
        let this = self.clone();
        self.store()
            .detached(async move {
                let touch = |batch: Vec<Touch>| {
                    let this = this.clone();
                    async move { this.store().touch(&batch).await.map(drop) }
                };
                this.shared.touches.write(user.as_ref(), touch).await
            })
            .await
    }
}

#[cfg(test)]
mod tests {
    use futures_executor::block_on;

    use super::*;
    use crate::error::{Error, ErrorKind};

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
            let touch = Touch { id: id(number), seen_at: now, expires_at: now };
            touches.queue(Queued { touch, user: None });
        }
        assert_eq!(touches.ids(None).len(), CAPACITY);
    }

    #[test]
    fn a_server_that_hangs_is_asked_a_few_times_and_begins_elsewhere_next_time() {
        let touches = Touches::default();
        let now = Timestamp::EPOCH;
        for number in 0..BATCH * 10 {
            let touch = Touch { id: id(number), seen_at: now, expires_at: now };
            touches.queue(Queued { touch, user: None });
        }
        let first_of = |begun: &Mutex<Vec<SessionId>>| begun.lock().first().copied();
        let hang = |begun: &Mutex<Vec<SessionId>>| {
            let late = |batch: Vec<Touch>| {
                begun.lock().push(batch[0].id);
                // What waits for its turn can be written by others.
                assert_eq!(touches.ids(None).len(), BATCH * 9);
                std::future::ready(Err(Error::new(ErrorKind::Timeout, "test")))
            };
            let done = block_on(touches.write(None, late));
            assert_eq!(done.unwrap_err().kind(), &ErrorKind::Timeout);
            assert_eq!(begun.lock().len(), MOST_FAILURES);
        };
        let (one, two) = (Mutex::default(), Mutex::default());
        hang(&one);
        hang(&two);
        assert_eq!(first_of(&one), Some(id(0)));
        assert_eq!(first_of(&two), Some(id(BATCH * MOST_FAILURES)));
        let done = block_on(touches.write(None, |_| std::future::ready(Ok(()))));
        assert_eq!(done.unwrap(), BATCH * 10, "some were lost");
    }

    #[test]
    fn what_is_written_for_a_user_is_only_theirs() {
        let touches = Touches::default();
        let now = Timestamp::EPOCH;
        let ada = UserId::new("ada").unwrap();
        for (number, user) in [Some(ada.clone()), None, UserId::new("eve").ok()].iter().enumerate()
        {
            let touch = Touch { id: id(number), seen_at: now, expires_at: now };
            touches.queue(Queued { touch, user: user.clone() });
        }
        assert_eq!(touches.ids(Some(&ada)), [id(0)]);
        assert_eq!(touches.take(&[id(0), id(5)]).len(), 1);
        assert_eq!(touches.ids(None), [id(1), id(2)]);
    }
}
