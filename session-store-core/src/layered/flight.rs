//! Reads of the primary that several requests share.
//!
//! A flight is keyed by the cache key **and the exact record its passengers saw there**, and it
//! stays joinable until its fill is done. Keyed by the session alone, a request that arrives after
//! a revocation could join a read from before it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_channel::oneshot;
use futures_util::FutureExt;
use futures_util::future::Shared;
use parking_lot::Mutex;

use crate::error::Result;
use crate::secondary::{CacheKey, Record};

/// What a flight is known by: the cache key, and what was seen there. `None`: the cache could not
/// be read, so a passenger may only use a read that began after its own arrival.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct FlightKey {
    pub(crate) key: CacheKey,
    pub(crate) seen: Option<Record>,
}

/// A moment in the order of arrivals and departures of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Ticket(u64);

impl Ticket {
    pub(crate) fn to_bytes(self) -> [u8; 8] {
        self.0.to_be_bytes()
    }
}

/// A read that is under way, or has landed and is still filling the cache.
#[derive(Debug)]
pub(crate) struct Flight<V: Clone> {
    /// When it began; its read came later.
    pub(crate) begun: Ticket,
    landed: Shared<oneshot::Receiver<Result<V>>>,
    gone: Shared<oneshot::Receiver<()>>,
}

impl<V: Clone> Flight<V> {
    /// What was read; `None` when the task that did it was lost.
    pub(crate) async fn landed(&self) -> Option<Result<V>> {
        self.landed.clone().await.ok()
    }

    /// Completes when nobody can join any more.
    pub(crate) async fn gone(&self) {
        // Both a signal and a lost task mean that the flight has left the map.
        let _ = self.gone.clone().await;
    }
}

/// What is to be done in the cache after a read has landed, at the record that was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Duty {
    /// Replace the own lease by what was read.
    Fill,
    /// Take a value away that was found to be old; or replace it, keeping its time, on a cache without
    /// conditional writes.
    Refresh,
    /// Delete a record that can't be read.
    Clear,
}

/// A flight that can still be joined.
#[derive(Debug)]
struct Open<V: Clone> {
    flight: Arc<Flight<V>>,
    /// A passenger may bring the duty: the owner of a lease need not be the first to board.
    duty: Option<Duty>,
}

/// All flights of one layered store.
#[derive(Debug)]
pub(crate) struct Flights<V: Clone> {
    open: Mutex<HashMap<FlightKey, Open<V>>>,
    order: AtomicU64,
}

/// The right and duty to do the read of one flight. Dropping it ends the flight.
#[derive(Debug)]
pub(crate) struct Pilot<V: Clone> {
    flights: Arc<Flights<V>>,
    key: FlightKey,
    land: Option<oneshot::Sender<Result<V>>>,
    has_left: bool,
    /// Dropped last, which tells those who wait for the next flight.
    _leave: oneshot::Sender<()>,
}

/// A flight, and the duty to fly it if nobody did yet.
pub(crate) type Boarded<V> = (Arc<Flight<V>>, Option<Pilot<V>>);

impl<V: Clone> Flights<V> {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { open: Mutex::new(HashMap::new()), order: AtomicU64::new(0) })
    }

    /// The present moment.
    pub(crate) fn ticket(&self) -> Ticket {
        Ticket(self.order.fetch_add(1, Ordering::SeqCst))
    }

    /// Whether those who saw `seen` at `key` could join somebody now.
    pub(crate) fn is_open(&self, key: &CacheKey, seen: &Record) -> bool {
        let key = FlightKey { key: key.clone(), seen: Some(seen.clone()) };
        self.open.lock().contains_key(&key)
    }

    /// Joins the flight of `key`, or starts it, and leaves `duty` to whoever flies it.
    pub(crate) fn board(self: &Arc<Self>, key: &FlightKey, duty: Option<Duty>) -> Boarded<V> {
        let mut open = self.open.lock();
        if let Some(found) = open.get_mut(key) {
            found.duty = found.duty.or(duty);
            return (Arc::clone(&found.flight), None);
        }
        let (land, landed) = oneshot::channel();
        let (leave, gone) = oneshot::channel();
        let flight =
            Arc::new(Flight { begun: self.ticket(), landed: landed.shared(), gone: gone.shared() });
        open.insert(key.clone(), Open { flight: Arc::clone(&flight), duty });
        let pilot = Pilot {
            flights: Arc::clone(self),
            key: key.clone(),
            land: Some(land),
            has_left: false,
            _leave: leave,
        };
        (flight, Some(pilot))
    }
}

impl<V: Clone> Pilot<V> {
    /// What the passengers saw in the cache.
    pub(crate) fn key(&self) -> &FlightKey {
        &self.key
    }

    /// Gives the passengers what was read; they don't wait for the fill.
    pub(crate) fn land(&mut self, outcome: Result<V>) {
        if let Some(land) = self.land.take() {
            // Nobody may be waiting any more, which is no error.
            let _ = land.send(outcome);
        }
    }

    /// The next thing to do; when there is none, the flight can't be joined any more.
    pub(crate) fn duty(&mut self) -> Option<Duty> {
        let mut open = self.flights.open.lock();
        let duty = open.get_mut(&self.key).and_then(|found| found.duty.take());
        if duty.is_none() {
            open.remove(&self.key);
            self.has_left = true;
        }
        duty
    }
}

impl<V: Clone> Drop for Pilot<V> {
    fn drop(&mut self) {
        if !self.has_left {
            self.flights.open.lock().remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flight_whose_task_is_lost_can_be_flown_again() {
        let flights = Flights::<u8>::new();
        let key = FlightKey { key: CacheKey::new("key").unwrap(), seen: None };
        let (_, pilot) = flights.board(&key, None);
        assert!(pilot.is_some());
        assert!(flights.board(&key, None).1.is_none());
        drop(pilot);
        assert!(flights.board(&key, None).1.is_some());
    }

    #[test]
    fn a_flight_can_be_joined_until_there_is_nothing_left_to_do() {
        let flights = Flights::<u8>::new();
        let key = FlightKey { key: CacheKey::new("key").unwrap(), seen: None };
        let mut pilot = flights.board(&key, Some(Duty::Fill)).1.unwrap();
        pilot.land(Ok(7));
        assert_eq!(pilot.duty(), Some(Duty::Fill));
        assert!(flights.board(&key, Some(Duty::Refresh)).1.is_none());
        assert_eq!(pilot.duty(), Some(Duty::Refresh));
        assert_eq!(pilot.duty(), None);
        // Its leaving takes no later flight along.
        let (_, next) = flights.board(&key, None);
        drop(pilot);
        assert!(flights.board(&key, None).1.is_none());
        drop(next);
    }
}
