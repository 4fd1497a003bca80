//! The lease protocol: an entry comes into existence only through a lease that was placed at its
//! key **before** the source was read, by compare-and-set of exactly that lease.
//!
//! Whatever changes the source commits first and removes the key afterwards, which takes values
//! and leases alike. So no fill can bring back what was read before a change. The argument needs
//! no clocks, and it survives eviction, restarts, lost, late and repeated messages.

use std::sync::Arc;

use async_lock::Semaphore;

use super::flight::{Duty, Flights, Pilot};
use super::shield::Shield;
use crate::codec;
use crate::error::Result;
use crate::host::{BoxFuture, Host};
use crate::secondary::{CacheKey, Record, Reservation, SecondaryStore, SwapTtl};
use crate::time::Ttl;

/// What was seen at a key.
#[derive(Debug)]
pub(crate) enum Seen {
    /// A value, a negative, or something foreign.
    Entry(Record),
    /// A lease, and whether it is the caller's own.
    Lease(Record, bool),
    /// The cache could not be asked.
    Blind,
}

/// What a read of the source brought, and what the cache should hold of it.
#[derive(Clone, Debug)]
pub(crate) struct Fetched<V> {
    pub(crate) value: V,
    pub(crate) put: Put,
}

/// What the cache should hold.
#[derive(Clone, Debug)]
pub(crate) enum Put {
    /// This value.
    Value(Record, Ttl),
    /// That there is none; never with the remaining time of a value.
    Negative(Record, Ttl),
    /// Nothing.
    Nothing,
}

/// A read of the source.
pub(crate) type Read<V> = BoxFuture<'static, Result<Fetched<V>>>;

/// A cache, and the reads that fill it.
#[derive(Debug)]
pub(crate) struct Leases<S, V: Clone> {
    pub(crate) shield: Arc<Shield<S>>,
    pub(crate) flights: Arc<Flights<Fetched<V>>>,
    host: Host,
    lease_ttl: Ttl,
    fills: Arc<Semaphore>,
}

impl<S, V> Leases<S, V>
where
    S: SecondaryStore + 'static,
    V: Clone + Send + Sync + 'static,
{
    pub(crate) fn new(shield: Shield<S>, host: Host, lease_ttl: Ttl, max_fills: usize) -> Self {
        Self {
            shield: Arc::new(shield),
            flights: Flights::new(),
            host,
            lease_ttl,
            fills: Arc::new(Semaphore::new(max_fills)),
        }
    }

    /// Looks at `key` and leaves a lease where nothing is: one operation on a hit, two on a miss.
    /// A lease that nobody here flies by may have been filled while the answer was on its way, so
    /// it is worth one more look.
    pub(crate) async fn see(&self, key: &CacheKey) -> Seen {
        let seen = self.look(key).await;
        match &seen {
            Seen::Lease(lease, false)
                if self.shield.is_linearizable() && !self.flights.is_open(key, lease) =>
            {
                self.look(key).await
            }
            _ => seen,
        }
    }

    async fn look(&self, key: &CacheKey) -> Seen {
        if !self.shield.is_open() {
            self.shield.counters.bypassed.add();
            return Seen::Blind;
        }
        let found = self.shield.get(key).await;
        if !self.shield.is_open() {
            // The stretch may have been lost before the answer: it may be an old one.
            self.shield.counters.bypassed.add();
            return Seen::Blind;
        }
        match found {
            Ok(Some(record)) => self.classify(record, false),
            Ok(None) if !self.shield.may_lease() => {
                self.shield.counters.bypassed.add();
                Seen::Blind
            }
            Ok(None) => match self.shield.reserve(key, self.lease_ttl).await {
                Ok(_) if !self.shield.is_open() => {
                    // Nor is one that came back between the two questions a new one. And what is read
                    // under a lease of the other cache could be older than a removal that somebody
                    // who has not noticed yet makes where nobody looks any more.
                    self.shield.counters.bypassed.add();
                    Seen::Blind
                }
                Ok(Reservation::Granted(lease)) => self.classify(lease, true),
                Ok(Reservation::Occupied(record)) => self.classify(record, false),
                // The lease may be there or come later: a fill would be a guess.
                Err(_) => Seen::Blind,
            },
            Err(_) => Seen::Blind,
        }
    }

    /// Looks at `key` and leaves nothing there: a cache that may be read, but not filled.
    pub(crate) async fn peek(&self, key: &CacheKey) -> Seen {
        let is_open = self.shield.is_open();
        match if is_open { self.shield.get(key).await } else { Ok(None) } {
            Ok(Some(record)) if !record.is_lease() && self.shield.is_open() => Seen::Entry(record),
            _ => {
                self.shield.counters.bypassed.add();
                Seen::Blind
            }
        }
    }

    fn classify(&self, record: Record, own: bool) -> Seen {
        if !own && !record.is_lease() {
            return Seen::Entry(record);
        }
        if self.shield.is_linearizable() {
            return Seen::Lease(record, own);
        }
        // A blind lease is the same for everybody; requests must not share a read by it.
        Seen::Lease(Record::lease(&self.flights.ticket().to_bytes()), own)
    }

    /// Flies the read of `pilot` beside the caller.
    pub(crate) fn take_off(&self, pilot: Pilot<Fetched<V>>, read: Read<V>) {
        let shield = Arc::clone(&self.shield);
        let fills = Arc::clone(&self.fills);
        self.host.runtime.spawn(Box::pin(pilot_task(shield, fills, pilot, read)));
    }
}

/// Reads, lands, fills; only then the flight can't be joined any more.
async fn pilot_task<S: SecondaryStore, V: Clone>(
    shield: Arc<Shield<S>>,
    fills: Arc<Semaphore>,
    mut pilot: Pilot<Fetched<V>>,
    read: Read<V>,
) {
    let outcome = read.await;
    let put = outcome.as_ref().ok().map(|fetched| fetched.put.clone());
    pilot.land(outcome);
    while let Some(duty) = pilot.duty() {
        let Some(seen) = pilot.key().seen.clone() else {
            continue;
        };
        let Some(_permit) = fills.try_acquire() else {
            shield.counters.fills_dropped.add();
            continue;
        };
        perform(&shield, &pilot.key().key, &seen, duty, put.as_ref()).await;
    }
}

/// Does what a landed read owes the cache. A refusal is normal: something was changed meanwhile.
async fn perform<S: SecondaryStore>(
    shield: &Shield<S>,
    key: &CacheKey,
    seen: &Record,
    duty: Duty,
    put: Option<&Put>,
) {
    let (new, ttl) = match (duty, put) {
        (Duty::Fill, Some(Put::Value(record, ttl) | Put::Negative(record, ttl))) => {
            (Some(record), SwapTtl::Set(*ttl))
        }
        (Duty::Refresh, None) => return,
        (Duty::Refresh, Some(Put::Value(record, _))) if codec::is_same(record, seen) => return,
        // Elsewhere late writes are bounded by time alone, and each write may cost money.
        (Duty::Refresh, Some(Put::Value(record, _))) if !shield.is_linearizable() => {
            (Some(record), SwapTtl::Keep)
        }
        // Only a lease is at a key once at most. What was changed and changed back looks as it was seen,
        // and what was read in between must not come to stand there; the next reader fills.
        // A failed read frees its lease at once, so that it isn't a herd until the lease ends.
        (Duty::Fill | Duty::Refresh | Duty::Clear, _) => (None, SwapTtl::Keep),
    };
    match shield.swap(key, seen, new, ttl).await {
        Ok(true) if new.is_some() => shield.counters.fills.add(),
        Ok(false) => shield.counters.fills_refused.add(),
        Ok(true) | Err(_) => {}
    }
}
