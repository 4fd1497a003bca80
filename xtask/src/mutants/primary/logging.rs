//! A broken log.

use session_store_core::{CacheName, CacheRegistration, Drained, LogId, Result};

use super::{Broken, Defect};

impl Broken {
    pub(super) async fn note_cache(&self, cache: &CacheRegistration) -> Result<()> {
        if self.defect == Defect::ForgetsLongerTtls {
            self.inner.unregister(&cache.name).await?;
        }
        self.state().caches.insert(cache.name.clone());
        self.inner.register(cache).await
    }

    pub(super) async fn forget_cache(&self, cache: &CacheName) -> Result<()> {
        if self.defect == Defect::KeepsDeadCaches {
            return Ok(());
        }
        self.inner.unregister(cache).await
    }

    pub(super) async fn known_caches(&self) -> Result<Vec<CacheRegistration>> {
        let mut all = self.inner.caches().await?;
        if self.defect == Defect::KnowsOnlyItself {
            let first = self.state().caches.first().cloned();
            all.retain(|known| Some(&known.name) == first.as_ref());
        }
        Ok(all)
    }

    pub(super) async fn pending(&self, cache: &CacheName, limit: u32) -> Result<Drained> {
        let mut drained = self.inner.drain(cache, limit).await?;
        let mut state = self.state();
        match self.defect {
            Defect::UpdatesAreNotLogged => drained
                .entries
                .retain(|entry| !entry.sessions.iter().any(|id| state.updated.contains(id))),
            Defect::UserChangesAreNotLogged => {
                drained.entries.retain(|entry| entry.sessions.len() == 1);
            }
            Defect::TheLogNeverEnds => drained.more = true,
            Defect::TheLogEndsEarly => drained.more = false,
            Defect::DrainsOneAtATime => {
                drained.more |= drained.entries.len() > 1;
                drained.entries.truncate(1);
            }
            _ => {}
        }
        state.drained.extend(drained.entries.iter().map(|entry| entry.id));
        Ok(drained)
    }

    pub(super) async fn forget_entries(&self, cache: &CacheName, entries: &[LogId]) -> Result<()> {
        let mut all = entries.to_vec();
        if let (Defect::AcknowledgesOlder, Some(last)) = (self.defect, entries.iter().max()) {
            all.extend(self.state().drained.range(..last));
        }
        if self.defect == Defect::AcknowledgesForAll {
            let caches = self.state().caches.clone();
            for name in &caches {
                self.inner.acknowledge(name, &all).await?;
            }
        }
        self.inner.acknowledge(cache, &all).await
    }

    /// Forgets everything that is in the log.
    pub(in super::super) async fn silence(&self) -> Result<()> {
        let caches = self.state().caches.clone();
        for name in &caches {
            let entries = self.inner.drain(name, 10_000).await?.entries;
            let entries: Vec<_> = entries.iter().map(|entry| entry.id).collect();
            self.inner.acknowledge(name, &entries).await?;
        }
        Ok(())
    }
}
