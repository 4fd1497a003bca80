//! The invalidation log: removals that failed, and SQL typed by hand, reach the cache through it.

use std::sync::atomic::Ordering;

use super::revoke::Purpose;
use super::shield::within;
use super::{Layered, Topology, Visibility};
use crate::error::Result;
use crate::primary::{
    CacheName, CacheRegistration, CacheScope, LogPromise, Page, PrimaryStore, Which,
};
use crate::secondary::SecondaryStore;
use crate::time::Ttl;
use crate::user::UserId;

/// How many entries one round of draining takes.
const PAGE: u32 = 500;

impl<P: PrimaryStore + 'static, S: SecondaryStore + 'static> Layered<P, S> {
    /// Makes this cache known to the database. The first lookup does so by itself, and until it has
    /// succeeded no cache is used; to call it at the start shows early whether it works.
    ///
    /// # Contract
    /// - From then on every handle on the database knows the bound of this cache, beside those of others
    ///   \[X8-G-04 X8-G-10\].
    /// - A cache that could not be registered is not used \[X8-G-09\].
    /// - Where the cache is registered already, no right to write is needed \[X8-G-09\].
    pub async fn register(&self) -> Result<()> {
        let inner = &self.inner;
        if let Some(own) = self.registration() {
            let known = inner.primary.caches().await?;
            let is_known = |one: &CacheRegistration| {
                one.name == own.name && one.scope == own.scope && one.ttl >= own.ttl
            };
            if !known.iter().any(is_known) {
                inner.primary.register(&own).await?;
            }
        }
        inner.is_registered.store(true, Ordering::Release);
        Ok(())
    }

    /// Takes the registration for granted: for a host that makes a store per request, and on which one
    /// with the same primary and configuration was registered before.
    ///
    /// # Contract
    /// - A hit then costs one operation of the cache, from the first lookup on \[X8-G-09\].
    pub fn registered_before(&self) {
        self.inner.is_registered.store(true, Ordering::Release);
    }

    /// Whether the cache may be used: nobody else reckons with one that is not registered. The first
    /// requests wait for one of them to register it; after a failure it is left alone for a while.
    pub(super) async fn is_ready(&self) -> bool {
        let inner = &self.inner;
        if inner.is_registered.load(Ordering::Acquire) {
            return true;
        }
        let mut not_before = inner.registering.lock().await;
        let now = inner.host.clock.monotonic();
        if inner.is_registered.load(Ordering::Acquire) || now < *not_before {
            return inner.is_registered.load(Ordering::Acquire);
        }
        let deadline = inner.config.read_deadline;
        let registered = within(&inner.host, deadline, self.register()).await;
        if let Err(error) = &registered {
            tracing::error!(%error, "cache not registered, and not used");
            *not_before = inner.host.clock.monotonic() + inner.config.breaker_pause;
        }
        registered.is_ok()
    }

    /// Removes from the cache what the log names, and acknowledges exactly the entries whose
    /// removal succeeded. Returns how many that were.
    ///
    /// # Contract
    /// - A revocation whose removal failed, and a change made by hand-typed SQL, reach the cache
    ///   \[K6-A05\].
    /// - An entry whose removal failed is not acknowledged \[X8-G-05\].
    /// - It ends when nothing is left, however long the log is \[X8-G-11\].
    pub async fn drain(&self) -> Result<u64> {
        let inner = &self.inner;
        let Some(name) = self.log_name() else {
            return Ok(0);
        };
        let mut count = 0;
        loop {
            let drained = inner.primary.drain(&name, PAGE).await?;
            if drained.entries.is_empty() {
                return Ok(count);
            }
            let keys = inner.keys(drained.entries.iter().flat_map(|entry| &entry.sessions));
            inner.leases.shield.remove(&keys).await?;
            if let Some(near) = &inner.near {
                near.purge(&keys);
            }
            let entries: Vec<_> = drained.entries.iter().map(|entry| entry.id).collect();
            inner.primary.acknowledge(&name, &entries).await?;
            count += entries.len() as u64;
            if !drained.more {
                return Ok(count);
            }
        }
    }

    /// How this cache is known to the database; `None` where there is none. One inside the only
    /// process is as good as shared. Caches of several processes are one entry, and nobody speaks
    /// for the others.
    fn registration(&self) -> Option<CacheRegistration> {
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

    /// Under which name this cache drains the log; `None` when no log is kept for it.
    pub(super) fn log_name(&self) -> Option<CacheName> {
        let own = self.registration()?;
        let has_log = self.inner.primary.promise().log != LogPromise::None;
        (has_log && own.scope == CacheScope::Shared).then_some(own.name)
    }

    /// How long caches that this handle can't reach may serve old entries. Asked after the commit:
    /// whoever registers later reads later too.
    pub(super) async fn bound_of_others(&self) -> Visibility {
        let inner = &self.inner;
        let own = self.registration().map(|own| own.name);
        match inner.primary.caches().await {
            Ok(caches) => caches
                .iter()
                .filter(|cache| Some(&cache.name) != own.as_ref())
                .map(|cache| Visibility::Within(cache.ttl.as_duration()))
                .fold(Visibility::Immediate, Visibility::weaker),
            Err(error) => {
                tracing::warn!(%error, "registered caches unknown");
                Visibility::Within(inner.failure_bound())
            }
        }
    }

    /// Says for a revocation that named no session what is known of those that were ended before:
    /// their entries are gone if nothing is left in the log.
    pub(super) async fn vouch(&self) -> Visibility {
        let inner = &self.inner;
        let own = if inner.is_cacheless() {
            Visibility::Immediate
        } else if self.log_name().is_some() && self.drain().await.is_ok() {
            self.after_removal(Purpose::Revocation).await
        } else {
            self.after_bound().await
        };
        own.weaker(self.bound_of_others().await)
    }

    /// Makes the caches forget whatever the database still knows of a user's sessions, after an
    /// operation whose outcome is unknown, or that somebody else made.
    pub(super) async fn forget_user(&self, user: &UserId) -> Visibility {
        let inner = &self.inner;
        let mut ids = Vec::new();
        let mut page = Page::first(PAGE);
        while let Ok(listed) = inner.primary.list(user, Which::All, &page).await {
            ids.extend(listed.items.iter().map(|session| session.id));
            let Some(next) = listed.next else { break };
            page = page.behind(next);
        }
        let known = self.forget(inner.keys(&ids), Purpose::Change).await;
        known.weaker(self.vouch().await)
    }
}
