//! The layered store: one primary and one secondary, joined so that they never disagree.

mod read;
mod lease;
mod flight;
mod confirm;
mod near;
mod write;
mod revoke;
mod drain;
mod register;
mod shield;
mod config;
mod promise;
mod counters;
mod nocache;

use std::sync::Arc;
use std::time::Duration;

use async_lock::Semaphore;
use futures_channel::oneshot;

pub use config::{LayeredConfig, OnCacheFailure, Topology};
pub use nocache::NoCache;
pub use promise::{Answer, Changed, Guarantee, Revoked, Source, Stats, Visibility};
pub use read::Accept;

pub(crate) use flight::{Duty, FlightKey};
pub(crate) use lease::{Fetched, Leases, Put, Seen};
pub(crate) use read::LOST_TASKS;
pub(crate) use shield::{Shield, ShieldTimes};

use crate::codec;
use crate::error::{Error, ErrorKind, Result};
use crate::host::Host;
use crate::primary::PrimaryStore;
use crate::secondary::{CacheKey, SecondaryStore};
use crate::session::Snapshot;
use crate::time::Ttl;
use crate::token::SessionId;
use confirm::Limiter;
use drain::Bounds;
use near::Near;
use register::{Pause, Registered};

/// A primary store behind a cache that never contradicts it.
///
/// A cheap handle; clones share everything. The protocol is a lease fill on the way in and "commit,
/// then remove" on the way out: Facebook's memcache leases (NSDI '13) with the invalidation made
/// reliable instead of best-effort.
///
/// # Contract
/// - After a revocation returned [`Visibility::Immediate`], no lookup on any node that begins later
///   finds the session \[K6-R01 K6-R02 K6-R03 K6-R05 K6-F01\].
/// - After a revocation returned [`Visibility::Within`], none does once that time has passed
///   \[K6-R10\].
/// - After an update returned, no lookup that begins later finds an older version \[K6-U01\].
/// - A hit costs one operation of the cache and none of the primary; a miss costs a get, a reserve,
///   one statement and a swap, the swap off the response path \[L-01 L-02\].
/// - Any number of concurrent misses of one session in one process cost one primary read
///   \[L-40 K6-F03\].
/// - Another node reads once for itself, and a read that fails leaves nobody waiting
///   \[K6-F04 K6-F05\].
/// - Eviction, a restart of the cache, an expired lease or a late removal at any moment cost a read
///   and nothing else \[K6-R12 K6-R15 K6-R17 K6-R19 K6-U04\].
/// - An entry never outlives its session \[L-05\].
/// - An emptied cache costs reads, and nothing else \[L-04\].
/// - Services with one `key_prefix` share entries, others don't \[L-55\].
/// - A cache of class Eventual may serve any old version, remember absence and apply a fill at any
///   time: the bound holds \[K6-K01 K6-K02\], and no login is hidden \[K6-K04\].
/// - With a near cache this node sees a revocation at once, and another one within its TTL, which
///   `WaitOut` waits for \[K6-L01 K6-L02 K6-L03 K6-L04\], also if its machine slept \[X8-L-39\].
/// - Unknown ids cost one read per window, and push no live session out of a cache in the process; what
///   a server evicts is for its operator \[L-46\].
/// - Trouble with the cache never fails a lookup \[L-10 L-11\], nor does one that may be read and takes
///   nothing: confirmations that bring the owner in are not counted \[X8-L-37\], while no stranger
///   sends wrong secrets of the same session as fast as they may be confirmed.
/// - Trouble with the primary is an error and never the answer "there is no such session" \[L-15\].
#[derive(Debug)]
pub struct Layered<P, S> {
    inner: Arc<Inner<P, S>>,
}

impl<P, S> Clone for Layered<P, S> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

#[derive(Debug)]
struct Inner<P, S> {
    primary: P,
    leases: Leases<S, Option<Arc<Snapshot>>>,
    near: Option<Near>,
    reads: Semaphore,
    confirms: Semaphore,
    limiter: Limiter,
    host: Host,
    config: LayeredConfig,
    cache_ttl: Ttl,
    registered: Registered,
    /// Held while the cache is being registered.
    registering: Arc<async_lock::Mutex<()>>,
    pause: parking_lot::Mutex<Pause>,
    /// What the database knew of caches when it was asked last.
    reckoned: parking_lot::Mutex<Option<Bounds>>,
}

impl<P: PrimaryStore + 'static, S: SecondaryStore + 'static> Layered<P, S> {
    /// Joins `primary` and `secondary`.
    ///
    /// # Contract
    /// - A configuration that can't work, or that can't be immediate where `require_immediate` asks
    ///   for it, is refused with an explanation \[X8-L-12\].
    pub fn new(primary: P, secondary: S, config: LayeredConfig, host: Host) -> Result<Self> {
        config.check()?;
        let promise = secondary.promise();
        let local = promise.scope == crate::primary::CacheScope::Process;
        let default_ttl = match config.topology {
            Topology::ManyProcesses if local => 5,
            _ => 300,
        };
        let cache_ttl = config.cache_ttl.unwrap_or(Ttl::from_secs_const(default_ttl));
        let times = ShieldTimes {
            deadline: config.cache_deadline,
            pause: config.breaker_pause,
            quarantine: cache_ttl.as_duration() + config.lease_ttl.as_duration() + promise.overrun,
        };
        let shield = Shield::new(secondary, host.clone(), times);
        let inner = Inner {
            primary,
            leases: Leases::new(shield, host.clone(), config.lease_ttl, config.max_fills),
            near: config.near_ttl.map(Near::new),
            reads: Semaphore::new(config.max_reads),
            confirms: Semaphore::new(config.max_confirms),
            limiter: Limiter::new(config.confirms_per_second),
            host,
            cache_ttl,
            config,
            registered: Registered::default(),
            registering: Arc::default(),
            pause: parking_lot::Mutex::default(),
            reckoned: parking_lot::Mutex::default(),
        };
        if inner.config.require_immediate && inner.healthy() != Visibility::Immediate {
            let what = "require_immediate: this cache is eventual, local to one of several \
                        processes, or behind a near cache; see Layered::guarantee";
            return Err(Error::configuration("core", what));
        }
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The store of the truth, for what needs no cache: users, lists, sweeps, counts.
    pub fn primary(&self) -> &P {
        &self.inner.primary
    }

    /// The cache itself.
    pub fn secondary(&self) -> &S {
        &self.inner.leases.shield.inner
    }

    /// Clock and runtime.
    pub fn host(&self) -> &Host {
        &self.inner.host
    }

    /// How this store was configured.
    pub fn config(&self) -> &LayeredConfig {
        &self.inner.config
    }

    /// What has happened since the start.
    pub fn stats(&self) -> Stats {
        self.inner.leases.shield.counters.snapshot()
    }

    /// What this pair promises, in numbers.
    ///
    /// # Contract
    /// - The bounds are those that revocations return and that hold \[K6-R10 X8-L-22\].
    pub fn guarantee(&self) -> Guarantee {
        let inner = &self.inner;
        let promise = inner.leases.shield.promise();
        Guarantee {
            healthy: inner.healthy(),
            cache_failure: inner.failure_bound(),
            rollback: promise
                .may_roll_back
                .then(|| inner.failure_bound().saturating_add(promise.rollback_slack)),
            out_of_band: inner.failure_bound(),
        }
    }

    /// Runs `work` beside the caller, so that a caller that goes away can't cut it in half.
    pub(crate) async fn detached<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        let (done, outcome) = oneshot::channel();
        self.inner.host.runtime.spawn(Box::pin(async move {
            // The caller may have gone away; the work was done for the others.
            let _ = done.send(work.await);
        }));
        outcome.await.unwrap_or_else(|_| Err(Error::new(ErrorKind::Timeout, "core")))
    }
}

impl<P: PrimaryStore + 'static, S: SecondaryStore + 'static> Inner<P, S> {
    fn key(&self, id: &SessionId) -> CacheKey {
        CacheKey::trusted(format!("{}{}:{id}", self.config.key_prefix, codec::VERSION))
    }

    fn keys<'a>(&self, ids: impl IntoIterator<Item = &'a SessionId>) -> Vec<CacheKey> {
        ids.into_iter().map(|id| self.key(id)).collect()
    }

    /// Whether there is no cache at all.
    fn is_cacheless(&self) -> bool {
        self.leases.shield.promise().name == NoCache::NAME
    }

    /// What a revocation returns while everything works and no other cache is registered.
    fn healthy(&self) -> Visibility {
        self.after_telling(self.own_bounds())
    }

    /// What this handle alone would reckon with.
    fn own_bounds(&self) -> Bounds {
        let near = self.far_near_ttl().map_or(Duration::ZERO, Ttl::as_duration);
        Bounds { own: self.failure_bound(), near, others: Visibility::Immediate }
    }

    /// How long near caches that this handle can't purge may serve what they have.
    fn far_near_ttl(&self) -> Option<Ttl> {
        self.config.near_ttl.filter(|_| self.config.topology == Topology::ManyProcesses)
    }

    /// What is left when the cache has been told: near caches of other processes, or entries of a cache
    /// that can't forget at once.
    fn after_telling(&self, bounds: Bounds) -> Visibility {
        let shield = &self.leases.shield;
        let alone = self.config.topology == Topology::SingleProcess;
        if !shield.is_linearizable() || !(shield.is_shared() || alone) {
            Visibility::Within(bounds.own)
        } else if bounds.near.is_zero() {
            Visibility::Immediate
        } else {
            Visibility::Within(bounds.near)
        }
    }

    /// How long after a commit an old entry may be served when nobody can be told: a lease that was
    /// taken before may still be filled, and the entry then lives its whole life.
    fn failure_bound(&self) -> Duration {
        let near = self.config.near_ttl.map_or(Duration::ZERO, Ttl::as_duration);
        let entry = self.cache_ttl.as_duration();
        let shield = &self.leases.shield;
        if shield.is_linearizable() {
            self.config.lease_ttl.as_duration() + entry + shield.promise().overrun + near
        } else {
            entry + self.config.max_skew + near
        }
    }
}
