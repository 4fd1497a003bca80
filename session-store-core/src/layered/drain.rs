//! The invalidation log: removals that failed, and SQL typed by hand, reach the cache through it.

use super::{Layered, Topology, Visibility};
use crate::error::Result;
use crate::primary::{CacheRegistration, CacheScope, LogPromise, PrimaryStore};
use crate::secondary::SecondaryStore;
use crate::time::Ttl;

/// How many entries one round of draining takes.
const PAGE: u32 = 500;

impl<P: PrimaryStore + 'static, S: SecondaryStore + 'static> Layered<P, S> {
    /// Makes this cache known to the database. To be called once, before the first lookup.
    ///
    /// # Contract
    /// - From then on every handle on the database knows the bound of this cache \[X8-G-04\].
    pub async fn register(&self) -> Result<()> {
        self.inner.primary.register(&self.registration()).await.map(drop)
    }

    /// Removes from the cache what the log names, and acknowledges exactly the entries whose
    /// removal succeeded. Returns how many that were.
    ///
    /// # Contract
    /// - A revocation whose removal failed, and a change made by hand-typed SQL, reach the cache
    ///   \[K6-A05\].
    /// - An entry whose removal failed is not acknowledged \[X8-G-05\].
    pub async fn drain(&self) -> Result<u64> {
        let inner = &self.inner;
        let registration = self.registration();
        if registration.scope == CacheScope::Process
            || inner.primary.promise().log == LogPromise::None
        {
            return Ok(0);
        }
        let mut count = 0;
        loop {
            let drained = inner.primary.drain(&registration.name, PAGE).await?;
            if drained.entries.is_empty() {
                return Ok(count);
            }
            let keys = inner.keys(drained.entries.iter().flat_map(|entry| &entry.sessions));
            inner.leases.shield.remove(&keys).await?;
            if let Some(near) = &inner.near {
                near.purge(&keys);
            }
            let entries: Vec<_> = drained.entries.iter().map(|entry| entry.id).collect();
            inner.primary.acknowledge(&registration.name, &entries).await?;
            count += entries.len() as u64;
            if !drained.more {
                return Ok(count);
            }
        }
    }

    /// How this cache is known to the database: one inside the only process is as good as shared.
    fn registration(&self) -> CacheRegistration {
        let inner = &self.inner;
        let alone = inner.config.topology == Topology::SingleProcess;
        let is_shared = inner.leases.shield.is_shared() || alone;
        let bound = Ttl::new(inner.failure_bound());
        CacheRegistration {
            name: inner.config.cache_name.clone(),
            scope: if is_shared { CacheScope::Shared } else { CacheScope::Process },
            ttl: bound.unwrap_or(inner.cache_ttl),
        }
    }

    /// How long caches that this handle can't reach may serve old entries. Asked after the commit:
    /// whoever registers later reads later too.
    pub(super) async fn bound_of_others(&self) -> Visibility {
        let inner = &self.inner;
        if inner.primary.promise().log == LogPromise::None {
            return Visibility::Immediate;
        }
        match inner.primary.register(&self.registration()).await {
            Ok(caches) => caches
                .iter()
                .filter(|cache| cache.name != inner.config.cache_name)
                .map(|cache| Visibility::Within(cache.ttl.as_duration()))
                .fold(Visibility::Immediate, Visibility::weaker),
            Err(error) => {
                tracing::warn!(%error, "registered caches unknown");
                Visibility::Within(inner.failure_bound())
            }
        }
    }
}
