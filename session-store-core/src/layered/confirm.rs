//! Reads that must have begun after the request arrived: whatever another node may have changed is
//! not denied on the word of a cache.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::flight::{Duty, FlightKey};
use super::lease::{Fetched, Read};
use super::read::{Asked, LOST_TASKS};
use super::register::Usage;
use super::shield::within;
use super::{Layered, Source};
use crate::error::{Error, ErrorKind, Result};
use crate::primary::PrimaryStore;
use crate::secondary::{Record, SecondaryStore};
use crate::session::Snapshot;
use crate::token::SessionId;

type Loaded = Fetched<Option<Arc<Snapshot>>>;

/// How many confirmations one session may cause. The id is public: a stranger who presents it with
/// wrong secrets must cost the database little, and the owner nothing.
#[derive(Debug)]
pub(super) struct Limiter {
    per_second: u32,
    windows: Mutex<HashMap<SessionId, (Duration, u32)>>,
}

impl Limiter {
    const WINDOWS: usize = 4096;

    pub(super) fn new(per_second: u32) -> Self {
        Self { per_second, windows: Mutex::default() }
    }

    fn admit(&self, id: &SessionId, now: Duration) -> bool {
        let second = Duration::from_secs(1);
        let mut windows = self.windows.lock();
        if windows.len() >= Self::WINDOWS {
            windows.retain(|_, (start, _)| now.saturating_sub(*start) < second);
        }
        if windows.len() >= Self::WINDOWS && !windows.contains_key(id) {
            return false;
        }
        let (start, count) = windows.entry(*id).or_insert((now, 0));
        if now.saturating_sub(*start) >= second {
            (*start, *count) = (now, 0);
        }
        *count += 1;
        *count <= self.per_second
    }

    /// Forgets a confirmation that was admitted at `then`: it was no stranger's.
    fn give_back(&self, id: &SessionId, then: Duration) {
        let mut windows = self.windows.lock();
        let Some((start, count)) = windows.get_mut(id) else { return };
        if *start <= then {
            *count = count.saturating_sub(1);
        }
        if *count == 0 {
            windows.remove(id);
        }
    }
}

impl<P: PrimaryStore + 'static, S: SecondaryStore + 'static> Layered<P, S> {
    /// Confirms a "no" that `seen` or a joined read suggested.
    pub(super) async fn confirm(
        &self,
        asked: &Asked<'_>,
        seen: Record,
        duty: Option<Duty>,
    ) -> Result<(Loaded, Source)> {
        self.inner.leases.shield.counters.confirms.add();
        // What can't be read denies nothing: it is a miss, which costs a stranger no secret either.
        let is_counted = duty != Some(Duty::Clear);
        let duty = duty.filter(|_| asked.usage == Usage::Whole);
        let key = FlightKey { key: asked.key.clone(), seen: Some(seen) };
        self.read_since(asked, &key, duty, is_counted).await
    }

    /// Reads past the cache, which could not be asked.
    pub(super) async fn read_blind(&self, asked: &Asked<'_>) -> Result<(Loaded, Source)> {
        let key = FlightKey { key: asked.key.clone(), seen: None };
        self.read_since(asked, &key, None, false).await
    }

    /// A read that began after the request arrived; a joined one from before may say "yes" if the
    /// very record that it is keyed by was seen in the cache. Where `is_counted`, so many of a session
    /// bring nobody in per second.
    async fn read_since(
        &self,
        asked: &Asked<'_>,
        key: &FlightKey,
        duty: Option<Duty>,
        is_counted: bool,
    ) -> Result<(Loaded, Source)> {
        let inner = &self.inner;
        let mut lost = 0;
        while lost < LOST_TASKS {
            let (flight, pilot) = inner.leases.flights.board(key, duty);
            let is_own = pilot.is_some();
            let now = inner.host.clock.monotonic();
            if let Some(pilot) = pilot {
                if is_counted && !inner.limiter.admit(asked.id, now) {
                    return Err(self.refused());
                }
                let read =
                    if is_counted { self.read_in_turn(asked.id) } else { self.read(asked.id) };
                inner.leases.take_off(pilot, read);
            }
            // A lost task leaves no answer: start over.
            let Some(outcome) = flight.landed().await else {
                lost += 1;
                continue;
            };
            let fetched = outcome?;
            if is_own {
                if is_counted && (asked.accept)(fetched.value.as_deref()) {
                    // A cache that can't be told what is new has its owner come again and again.
                    inner.limiter.give_back(asked.id, now);
                }
                return Ok((fetched, Source::Primary));
            }
            let may_trust = key.seen.is_some() && (asked.accept)(fetched.value.as_deref());
            if may_trust || flight.begun > asked.ticket {
                inner.leases.shield.counters.joined.add();
                return Ok((fetched, Source::Joined));
            }
            flight.gone().await;
        }
        Err(Error::new(ErrorKind::Timeout, "core"))
    }

    /// A read that confirms, when its turn comes. Those who share it wait in one place: many wrong
    /// secrets for one session take no turn from the others.
    fn read_in_turn(&self, id: &SessionId) -> Read<Option<Arc<Snapshot>>> {
        let (this, read) = (self.clone(), self.read(id));
        Box::pin(async move {
            let inner = &this.inner;
            let turn = async { Ok(inner.confirms.acquire().await) };
            let wait = inner.config.read_wait;
            let _permit = within(&inner.host, wait, turn).await.map_err(|_| this.refused())?;
            read.await
        })
    }

    pub(super) fn refused(&self) -> Error {
        self.inner.leases.shield.counters.reads_refused.add();
        Error::new(ErrorKind::Unavailable, "core")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn id(number: usize) -> SessionId {
        SessionId::from_bytes((number as u128).to_be_bytes())
    }

    #[test]
    fn a_session_is_confirmed_so_often_per_second() {
        let limiter = Limiter::new(2);
        let begin = SECOND * 7;
        let at = |millis| limiter.admit(&id(1), begin + Duration::from_millis(millis));
        assert_eq!([at(0), at(1), at(2), at(999)], [true, true, false, false]);
        assert!(limiter.admit(&id(2), begin), "another session has its own count");
        assert_eq!([at(1_000), at(1_001), at(1_002)], [true, true, false]);
    }

    #[test]
    fn whoever_was_let_in_is_not_counted() {
        let limiter = Limiter::new(1);
        for number in 0..2 * Limiter::WINDOWS {
            assert!(limiter.admit(&id(number), SECOND), "{number}");
            limiter.give_back(&id(number), SECOND);
        }
        assert!(limiter.windows.lock().is_empty());
        let (one, later) = (id(1), SECOND * 2);
        assert!(limiter.admit(&one, SECOND) && limiter.admit(&one, later));
        limiter.give_back(&one, SECOND);
        assert!(!limiter.admit(&one, later), "one of a second ago is no other's");
        limiter.give_back(&one, later);
        limiter.give_back(&one, later);
        limiter.give_back(&one, later);
        assert!(limiter.admit(&one, later));
    }

    #[test]
    fn so_many_sessions_are_counted_at_a_time() {
        let limiter = Limiter::new(2);
        for number in 0..Limiter::WINDOWS {
            assert!(limiter.admit(&id(number), SECOND), "{number}");
        }
        let (known, other) = (id(0), id(Limiter::WINDOWS));
        assert!(!limiter.admit(&other, SECOND));
        assert!(limiter.admit(&known, SECOND));
        let almost = Duration::from_millis(1_999);
        assert!(!limiter.admit(&other, almost));
        assert!(limiter.admit(&other, SECOND * 2), "the counts of a second ago are forgotten");
        assert_eq!(limiter.windows.lock().len(), 1);
    }
}
