//! Registration: a cache is used only once the database knows of it, so that whoever revokes reckons
//! with it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::join;

use super::shield::within;
use super::{Layered, Topology};
use crate::error::{Error, Result};
use crate::primary::{CacheRegistration, CacheScope, PrimaryStore};
use crate::secondary::SecondaryStore;
use crate::time::{Timestamp, Ttl};
use crate::token::SessionId;

/// A session that nobody has: asked for when only the time is wanted.
const NOBODY: SessionId = SessionId::from_bytes([0; 16]);

/// What near caches are registered as: nobody can purge those of other processes.
pub(super) const NEAR: &str = "near";

/// What a cache may be used for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Usage {
    /// Everything.
    Whole,
    /// It may be read, and is left as it is: nobody knows whether it is registered.
    Hits,
    /// It is not registered.
    #[default]
    Nothing,
}

/// When to try to register again, and what the cache may be used for until that has succeeded.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pause {
    has_failed: bool,
    until: Duration,
    usage: Usage,
}

/// What a look at the database has shown.
struct Known {
    /// What it did not know of.
    missing: Vec<CacheRegistration>,
    is_clock_right: bool,
}

/// Whether the cache is registered and the clock was compared: until when it had been distrusted
/// before that. Read by every lookup.
#[derive(Debug, Default)]
pub(super) struct Registered(AtomicU64);

impl Registered {
    fn note(&self, before: Duration) {
        let nanos = u64::try_from(before.as_nanos()).unwrap_or(u64::MAX);
        self.0.store(nanos.saturating_add(1), Ordering::Release);
    }

    fn forget(&self) {
        self.0.store(0, Ordering::Release);
    }

    fn get(&self) -> Option<Duration> {
        self.0.load(Ordering::Acquire).checked_sub(1).map(Duration::from_nanos)
    }
}

impl<P: PrimaryStore + 'static, S: SecondaryStore + 'static> Layered<P, S> {
    /// Makes this cache known to the database. The first lookup does so by itself, and until it has
    /// succeeded no cache is used; to call it at the start shows early whether it works.
    ///
    /// # Contract
    /// - From then on every handle on the database knows the bound of this cache, beside those of others
    ///   \[X8-G-04 X8-G-10\]. A near cache that others can only wait for is registered too \[X8-G-12\].
    /// - A cache that could not be registered is not used \[X8-G-09\].
    /// - Where the cache is registered already, no right to write is needed \[X8-G-09\].
    /// - For a cache of class Eventual the clocks are compared too, in a read of the primary: a host
    ///   whose clock is wrong believes no entry, not even the first \[K6-K03\].
    pub async fn register(&self) -> Result<()> {
        let before = self.inner.host.clock.distrusted_until();
        let own = self.registrations();
        if own.is_empty() {
            self.note_registered(before);
            return Ok(());
        }
        let found = self.look_up(own).await?;
        for missing in &found.missing {
            self.inner.primary.register(missing).await?;
        }
        if found.is_clock_right {
            self.note_registered(before);
        }
        Ok(())
    }

    /// What the database says of this cache, and of the time where that matters.
    async fn look_up(&self, own: Vec<CacheRegistration>) -> Result<Known> {
        let (caches, compared) = join(self.inner.primary.caches(), self.compare_clocks()).await;
        let is_clock_right = compared?;
        let caches = caches?;
        self.reckon(&caches);
        let is_missing = |own: &CacheRegistration| {
            let is_own = |one: &CacheRegistration| {
                one.name == own.name && one.scope == own.scope && one.ttl >= own.ttl
            };
            !caches.iter().any(is_own)
        };
        Ok(Known { missing: own.into_iter().filter(is_missing).collect(), is_clock_right })
    }

    /// Whoever has only hits never reads the primary, which tells the time along with each read.
    async fn compare_clocks(&self) -> Result<bool> {
        let inner = &self.inner;
        if inner.leases.shield.is_linearizable() {
            return Ok(true);
        }
        let now = inner.host.now();
        let found = inner.primary.find(&NOBODY).await?;
        Ok(found.server_time.is_none_or(|server| self.compare(now, server)))
    }

    /// Compares this host's time with that of a read of the primary.
    pub(super) fn compare(&self, own: Timestamp, server: Timestamp) -> bool {
        let inner = &self.inner;
        let is_right = inner.leases.shield.compare_clocks(own, server, inner.config.max_skew);
        if !is_right {
            // A quiet while sets no clock right: it is compared again before it is believed.
            inner.registered.forget();
            inner.pause.lock().usage = Usage::Nothing;
        }
        is_right
    }

    /// The moment that this host calls `now`, by the clock of the server that the latest reads came from,
    /// if the two differ by more than `max_skew`.
    pub(crate) fn by_the_server(&self, now: Timestamp) -> Option<Timestamp> {
        self.inner.leases.shield.by_the_server(now)
    }

    /// `before`: until when the clock had been distrusted before it was compared.
    fn note_registered(&self, before: Duration) {
        self.inner.registered.note(before);
    }

    /// Takes the registration for granted: for a host that makes a store per request, and on which one
    /// with the same primary and configuration was registered before.
    ///
    /// # Contract
    /// - A hit then costs one operation of the cache, from the first lookup on \[X8-G-09\].
    pub fn registered_before(&self) {
        self.note_registered(self.inner.host.clock.distrusted_until());
    }

    /// Whether the next store of this host may take its registration for granted.
    ///
    /// # Contract
    /// - Not while the clock is known to be wrong, nor before it was compared again \[K6-K03\].
    pub fn is_registered(&self) -> bool {
        let inner = &self.inner;
        let Some(before) = inner.registered.get() else { return false };
        let shield = &inner.leases.shield;
        let is_compared = || before == inner.host.clock.distrusted_until();
        shield.is_linearizable() || (is_compared() && shield.is_clock_right())
    }

    /// What the cache may be used for: nobody else reckons with one that is not registered. The first
    /// requests wait for one of them to register it; after a failure it is left alone for a while, and
    /// nobody waits for the next attempt but who makes it.
    pub(super) async fn usage(&self) -> Usage {
        let inner = &self.inner;
        if !inner.leases.shield.is_clock_right() {
            // Whatever is read meanwhile compares it.
            inner.leases.shield.counters.bypassed.add();
            return Usage::Nothing;
        }
        if self.is_registered() {
            return Usage::Whole;
        }
        let attempt = if inner.pause.lock().has_failed {
            inner.registering.try_lock_arc()
        } else {
            Some(inner.registering.lock_arc().await)
        };
        let pause = *inner.pause.lock();
        if self.is_registered() {
            return Usage::Whole;
        }
        let Some(attempt) = attempt else { return pause.usage };
        if pause.has_failed && inner.host.clock.monotonic() < pause.until {
            return pause.usage;
        }
        let this = self.clone();
        // Beside the caller: one that goes away takes nothing along.
        let outcome = self.detached(async move {
            let usage = this.attempt().await;
            drop(attempt);
            Ok(usage)
        });
        outcome.await.unwrap_or_default()
    }

    async fn attempt(&self) -> Usage {
        let inner = &self.inner;
        let before = inner.host.clock.distrusted_until();
        match self.try_register().await {
            Ok(true) => {
                self.note_registered(before);
                Usage::Whole
            }
            Ok(false) => Usage::Nothing,
            Err((usage, error)) => {
                tracing::error!(%error, ?usage, "cache not registered");
                let until = inner.host.clock.monotonic() + inner.config.breaker_pause;
                *inner.pause.lock() = Pause { has_failed: true, until, usage };
                usage
            }
        }
    }

    /// Whether the clock is right, once the cache is registered.
    async fn try_register(&self) -> Result<bool, (Usage, Error)> {
        let (inner, own) = (&self.inner, self.registrations());
        if own.is_empty() {
            return Ok(true);
        }
        let deadline = inner.config.read_deadline;
        let found = match within(&inner.host, deadline, self.look_up(own)).await {
            Ok(found) => found,
            // Whoever has put an entry there had registered the cache, and the entry says its end.
            Err(error) if error.is_retryable() && !inner.leases.shield.is_linearizable() => {
                return Err((Usage::Hits, error));
            }
            Err(error) => return Err((Usage::Nothing, error)),
        };
        for missing in &found.missing {
            let registered = within(&inner.host, deadline, inner.primary.register(missing)).await;
            registered.map_err(|error| (Usage::Nothing, error))?;
        }
        Ok(found.is_clock_right)
    }

    /// Every cache that this handle fills: the one it shares, and its near cache, which others can
    /// only wait for.
    fn registrations(&self) -> Vec<CacheRegistration> {
        let near = self.inner.far_near_ttl().map(|ttl| CacheRegistration {
            name: self.inner.config.cache_name.of_kind(NEAR),
            scope: CacheScope::Process,
            ttl,
        });
        self.registration().into_iter().chain(near).collect()
    }

    /// How this cache is known to the database; `None` where there is none. One inside the only
    /// process is as good as shared. Caches of several processes are one entry, and nobody speaks
    /// for the others.
    pub(super) fn registration(&self) -> Option<CacheRegistration> {
        let inner = &self.inner;
        let config = &inner.config;
        let (name, scope) = if inner.is_cacheless() {
            return None;
        } else if inner.leases.shield.is_shared() {
            (config.cache_name.clone(), CacheScope::Shared)
        } else if config.topology == Topology::SingleProcess {
            (config.cache_name.of_kind("single"), CacheScope::Shared)
        } else {
            (config.cache_name.of_kind("process"), CacheScope::Process)
        };
        let ttl = Ttl::new(inner.failure_bound()).unwrap_or(inner.cache_ttl);
        Some(CacheRegistration { name, scope, ttl })
    }
}
