//! Lookups: the cache, else the truth, then the fill.

use std::fmt;
use std::sync::Arc;

use super::flight::{Duty, FlightKey, Ticket};
use super::lease::{Fetched, Put, Read, Seen};
use super::near::Permit;
use super::register::Usage;
use super::shield::within;
use super::{Answer, Inner, Layered, Source};
use crate::codec::{self, Entry};
use crate::error::{Error, ErrorKind, Result};
use crate::host::Moment;
use crate::primary::{Found, PrimaryStore};
use crate::secondary::{CacheKey, Record, SecondaryStore};
use crate::session::{Snapshot, State};
use crate::time::{Timestamp, Ttl};
use crate::token::SessionId;

/// How often a read may be lost, as in a shutdown of the runtime, before that is an error.
pub(crate) const LOST_TASKS: usize = 3;

/// Whether an answer would let the caller in.
///
/// A cached "yes" is believed. A "no" that another node could have changed meanwhile is confirmed
/// by the primary before it is given.
pub type Accept<'a> = &'a (dyn Fn(Option<&Snapshot>) -> bool + Send + Sync);

/// One lookup.
pub(super) struct Asked<'a> {
    pub(super) id: &'a SessionId,
    pub(super) key: &'a CacheKey,
    /// When it arrived.
    pub(super) ticket: Ticket,
    pub(super) accept: Accept<'a>,
    pub(super) usage: Usage,
    now: Timestamp,
    permit: Option<Permit>,
}

impl fmt::Debug for Asked<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Asked").field("id", self.id).finish_non_exhaustive()
    }
}

impl<P: PrimaryStore + 'static, S: SecondaryStore + 'static> Layered<P, S> {
    /// The session called `id`, as the cache or the primary knows it; not judged here.
    ///
    /// # Contract
    /// - A hit asks the primary nothing, a miss asks it once \[L-01 L-02\].
    /// - Of those who share a miss, the owner of the lease fills, whoever began the read \[X8-L-16\].
    ///   A lease whose read has landed meanwhile is looked at again \[X8-L-33\].
    /// - A "no" that a touch or a rotation on another node could have changed comes from a read of
    ///   the primary that began after the call \[X8-L-13 X8-L-15\]; one that began after it is
    ///   believed, whoever asked for it \[X8-L-26\], and a "yes" whenever its read began \[X8-L-27\].
    /// - On a cache of class Eventual requests share no read \[X8-L-23\].
    /// - A "no" that is confirmed and found unchanged writes nothing to the cache \[X8-L-24\].
    /// - Wrong secrets presented for one session hold up no other one \[X8-L-19\].
    /// - A cache that fails or hangs is passed by, flagged as `degraded`; one that refuses is asked
    ///   again \[L-10 L-12 X8-L-31\].
    /// - A host whose clock is wrong by more than `max_skew` asks no cache of class Eventual
    ///   \[K6-K03\].
    /// - What a cache has brought back from before it lost a stretch of time is not believed, not even
    ///   if it came back between two answers to this call \[X8-L-34\]; and a lease that it gave
    ///   afterwards is not filled \[X8-L-38\].
    /// - An entry that the primary contradicts is taken away, and filled by the next reader: what was read
    ///   beside it is not put in its place \[X8-L-13 X8-L-40\].
    /// - A record that can't be read is a miss, and is deleted \[L-13\].
    /// - An entry of another session is a miss \[L-08\].
    /// - A read that hangs, or whose task is lost, is an error in the end, and nobody waits for it
    ///   for ever \[X8-L-18 X8-L-29\].
    /// - While the primary is down, a hit is served until the entry's own end, and a miss is an
    ///   error \[L-14 L-15\]; on a cache of class Eventual also by a node that starts meanwhile, which
    ///   fills nothing \[X8-L-32 X8-L-36\].
    pub async fn lookup(
        &self,
        id: &SessionId,
        now: Timestamp,
        accept: Accept<'_>,
    ) -> Result<Answer> {
        let inner = &self.inner;
        let key = inner.key(id);
        let ticket = inner.leases.flights.ticket();
        let usage = self.usage().await;
        if let Some(near) = &inner.near
            && let Some(hit) = near.get(&key, Moment::now(&*inner.host.clock))
            && accept(Some(&hit))
        {
            inner.leases.shield.counters.near_hits.add();
            return Ok(Answer::new(Some(hit), Source::Near, None));
        }
        for _ in 0..LOST_TASKS {
            let near = inner.near.as_ref().filter(|_| usage == Usage::Whole);
            let permit = near.map(|near| near.permit(&key, Moment::now(&*inner.host.clock)));
            let asked = Asked { id, key: &key, ticket, accept, usage, now, permit };
            if let Some(answer) = self.look_once(&asked).await? {
                return Ok(answer);
            }
        }
        Err(Error::new(ErrorKind::Timeout, "core"))
    }

    /// The session called `id` from the primary itself, for steps that must not trust any cache.
    ///
    /// # Contract
    /// - Neither cache is asked or changed \[X8-L-14\].
    pub async fn find_fresh(&self, id: &SessionId) -> Result<Answer> {
        let fetched = self.read(id).await?;
        Ok(Answer::new(fetched.value, Source::Primary, None))
    }

    /// `None` when the read that the caller waited for was lost.
    async fn look_once(&self, asked: &Asked<'_>) -> Result<Option<Answer>> {
        let counters = &self.inner.leases.shield.counters;
        let seen = match asked.usage {
            Usage::Whole => self.inner.leases.see(asked.key).await,
            Usage::Hits => self.inner.leases.peek(asked.key).await,
            Usage::Nothing => Seen::Blind,
        };
        match seen {
            Seen::Entry(record) => match codec::decode(&record) {
                Entry::Negative => {
                    counters.negative_hits.add();
                    Ok(Some(Answer::new(None, Source::Secondary, Some(record))))
                }
                Entry::Value(snapshot, fresh_until) if snapshot.session.id == *asked.id => {
                    // An entry of a longer TTL, from a configuration of before, would outlive
                    // the bound that is declared now.
                    let config = &self.inner.config;
                    let ttl = self.inner.cache_ttl.as_duration();
                    let longest = asked.now.plus(ttl).plus(config.max_skew);
                    if fresh_until.is_some_and(|end| end <= asked.now || end > longest) {
                        return self.refill(asked, record).await.map(Some);
                    }
                    self.judge_hit(asked, Arc::new(*snapshot), record).await.map(Some)
                }
                _ => {
                    counters.foreign.add();
                    tracing::warn!(session.id = %asked.id, "cache record can't be read");
                    let (fetched, source) = self.confirm(asked, record, Some(Duty::Clear)).await?;
                    Ok(Some(self.answer(asked, fetched, source, None)))
                }
            },
            Seen::Lease(lease, own) => self.fill(asked, lease, own).await,
            Seen::Blind => {
                let (fetched, source) = self.read_blind(asked).await?;
                let mut answer = Answer::new(fetched.value, source, None);
                answer.degraded = true;
                Ok(Some(answer))
            }
        }
    }

    async fn judge_hit(
        &self,
        asked: &Asked<'_>,
        snapshot: Arc<Snapshot>,
        record: Record,
    ) -> Result<Answer> {
        let fetched = Fetched { value: Some(snapshot), put: Put::Nothing };
        if (asked.accept)(fetched.value.as_deref()) {
            self.inner.leases.shield.counters.hits.add();
            return Ok(self.answer(asked, fetched, Source::Secondary, Some(record)));
        }
        let (fetched, source) = self.confirm(asked, record.clone(), Some(Duty::Refresh)).await?;
        Ok(self.answer(asked, fetched, source, Some(record)))
    }

    /// Reads under a lease, alone or together with whoever saw the same lease.
    async fn fill(&self, asked: &Asked<'_>, lease: Record, own: bool) -> Result<Option<Answer>> {
        let leases = &self.inner.leases;
        let key = FlightKey { key: asked.key.clone(), seen: Some(lease.clone()) };
        let (flight, pilot) = leases.flights.board(&key, own.then_some(Duty::Fill));
        let is_own = pilot.is_some();
        if let Some(pilot) = pilot {
            leases.take_off(pilot, self.read(asked.id));
        }
        let Some(outcome) = flight.landed().await else {
            return Ok(None);
        };
        let fetched = outcome?;
        if is_own {
            return Ok(Some(self.answer(asked, fetched, Source::Primary, None)));
        }
        leases.shield.counters.joined.add();
        if (asked.accept)(fetched.value.as_deref()) || flight.begun > asked.ticket {
            return Ok(Some(self.answer(asked, fetched, Source::Joined, None)));
        }
        flight.gone().await;
        let (fetched, source) = self.confirm(asked, lease, None).await?;
        Ok(Some(self.answer(asked, fetched, source, None)))
    }

    /// Reads for an entry of class Eventual that is past its freshness, and puts the new one.
    async fn refill(&self, asked: &Asked<'_>, record: Record) -> Result<Answer> {
        let (fetched, source) = self.confirm(asked, record, Some(Duty::Fill)).await?;
        Ok(self.answer(asked, fetched, source, None))
    }

    fn answer(
        &self,
        asked: &Asked<'_>,
        fetched: Fetched<Option<Arc<Snapshot>>>,
        source: Source,
        seen: Option<Record>,
    ) -> Answer {
        if let (Some(near), Some(permit), Some(hit)) =
            (&self.inner.near, asked.permit, &fetched.value)
            && (asked.accept)(Some(hit))
            // By a wrong clock, whoever has ended would be accepted from there.
            && self.by_the_server(asked.now).is_none()
        {
            near.insert(asked.key, permit, hit);
        }
        Answer::new(fetched.value, source, seen)
    }

    /// One read of the primary, when its turn comes.
    pub(super) fn read(&self, id: &SessionId) -> Read<Option<Arc<Snapshot>>> {
        let (this, id) = (self.clone(), *id);
        Box::pin(async move {
            let inner = &this.inner;
            let turn = async { Ok(inner.reads.acquire().await) };
            let wait = inner.config.read_wait;
            let _permit = within(&inner.host, wait, turn).await.map_err(|_| this.refused())?;
            inner.leases.shield.counters.primary_reads.add();
            // Taken before the read: an entry is never younger than what it holds.
            let now = inner.host.now();
            let find = inner.primary.find(&id);
            let found = within(&inner.host, inner.config.read_deadline, find).await?;
            if let Some(server) = found.server_time {
                this.compare(now, server);
            }
            Ok(inner.fetched(found, now))
        })
    }
}

impl<P: PrimaryStore + 'static, S: SecondaryStore + 'static> Inner<P, S> {
    /// What the cache should hold of `found`. An entry never outlives the session, so the time that
    /// a lease may take is taken off.
    fn fetched(&self, found: Found, began: Timestamp) -> Fetched<Option<Arc<Snapshot>>> {
        let now = found.server_time.unwrap_or(began);
        let put = match &found.snapshot {
            None => self.negative(),
            Some(snapshot) => match snapshot.session.state(now) {
                State::Active => self.value(snapshot, now),
                State::Revoked(_) => self.negative(),
                State::Expired => Put::Nothing,
            },
        };
        Fetched { value: found.snapshot.map(Arc::new), put }
    }

    fn negative(&self) -> Put {
        self.negative_ttl().map_or(Put::Nothing, |ttl| Put::Negative(codec::negative(), ttl))
    }

    /// How long it is remembered that there is no such session; an eventual cache must not.
    pub(super) fn negative_ttl(&self) -> Option<Ttl> {
        self.config.negative_ttl.filter(|_| self.leases.shield.is_linearizable())
    }

    fn value(&self, snapshot: &Snapshot, now: Timestamp) -> Put {
        let left = snapshot.session.cap(snapshot.session.expires_at).since(now);
        let is_linearizable = self.leases.shield.is_linearizable();
        let (fresh_until, left) = if is_linearizable {
            (None, left.saturating_sub(self.config.lease_ttl.as_duration()))
        } else {
            (Some(now.plus(self.cache_ttl.as_duration())), left)
        };
        let ttl = Ttl::new(left.min(self.cache_ttl.as_duration()));
        match (ttl, codec::encode(snapshot, fresh_until)) {
            (Some(ttl), Ok(record)) => Put::Value(record, ttl),
            _ => Put::Nothing,
        }
    }
}

impl Answer {
    fn new(snapshot: Option<Arc<Snapshot>>, source: Source, seen: Option<Record>) -> Self {
        Self { snapshot, source, seen, degraded: false }
    }
}
