//! The cache's side of a link.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use session_store_core::{
    CacheClass, CacheKey, CacheScope, Record, Reservation, Result, SessionId, SwapTtl, Ttl,
};

use super::super::cache::put_blindly;
use super::encode::encode;
use super::link::guest;
use super::{Link, Quirk};

/// How long the near cache of these nodes keeps an entry.
const NEAR: Duration = Duration::from_secs(1);
/// What "there is no such session" looks like.
const NEGATIVE: [u8; 2] = [b'N', 1];

impl Link {
    pub(in super::super) async fn get(&self, key: &CacheKey) -> Result<Option<Record>> {
        let key = self.key(key);
        let now = self.host.clock.monotonic();
        let generation = self.count.load(Ordering::SeqCst);
        if self.keeps_near() {
            let kept = self.kept.lock().get(&key).cloned();
            if let Some((_, record)) = kept.filter(|(end, _)| now < *end) {
                return Ok(Some(record));
            }
        }
        let found = self.secondary.get(&key).await;
        match (self.quirk, &found) {
            (Quirk::CacheErrorsAreAbsences, Err(_)) => {
                return Ok(Some(Record::new(NEGATIVE.as_slice())));
            }
            (Quirk::ReadsBeforeTheLease, Ok(None)) => {
                let id = key.as_str().rsplit(':').next().and_then(SessionId::parse);
                if let Some(id) = id {
                    let early = self.primary.find(&id).await?;
                    *self.read.lock() = Some(early);
                }
            }
            (Quirk::AsksBoth, Ok(Some(record))) if !record.is_lease() => {
                self.primary.find(&SessionId::from_bytes([0; 16])).await?;
            }
            (Quirk::ServesForEver, Ok(None)) => {
                return Ok(self.kept.lock().get(&key).map(|(_, record)| record.clone()));
            }
            _ => {}
        }
        let found = found?;
        if let Some(record) = &found
            && (self.keeps_near() || self.quirk == Quirk::ServesForEver)
            && !record.is_lease()
            && (self.quirk == Quirk::NearWithoutGenerations
                || generation == self.count.load(Ordering::SeqCst))
        {
            let began = match self.quirk {
                Quirk::NearFromAfter => self.host.clock.monotonic(),
                _ => now,
            };
            let end = began + NEAR;
            self.kept.lock().insert(key.clone(), (end, record.clone()));
        }
        Ok(found.map(|record| self.disguise(&key, record)))
    }

    pub(in super::super) async fn reserve(&self, key: &CacheKey, ttl: Ttl) -> Result<Reservation> {
        let key = self.key(key);
        let granted = match self.secondary.reserve(&key, ttl).await {
            Err(_) if self.quirk == Quirk::FillsAfterATimeout => {
                match self.secondary.get(&key).await {
                    Ok(Some(lease)) if lease.is_lease() => Reservation::Granted(lease),
                    Ok(_) => Reservation::Granted(Record::lease(&[])),
                    Err(error) => return Err(error),
                }
            }
            other => other?,
        };
        Ok(match granted {
            Reservation::Granted(lease) => Reservation::Granted(self.disguise(&key, lease)),
            Reservation::Occupied(record) => Reservation::Occupied(self.disguise(&key, record)),
        })
    }

    pub(in super::super) async fn swap(
        &self,
        key: &CacheKey,
        expected: &Record,
        new: Option<&Record>,
        ttl: SwapTtl,
    ) -> Result<bool> {
        let key = &self.key(key);
        let is_fill = expected.is_lease();
        let real = self.leases.lock().get(key).filter(|_| is_fill).cloned();
        let expected = real.as_ref().unwrap_or(expected);
        let is_eventual = self.secondary.promise().class == CacheClass::Eventual;
        let hour = Ttl::new(Duration::from_hours(1)).unwrap_or(Ttl::MIN);
        let negative = Record::new(NEGATIVE.as_slice());
        let cache = &*self.secondary;
        match self.quirk {
            Quirk::NaiveFill if is_fill => put_blindly(cache, key, new, ttl).await,
            Quirk::NeverFills if is_fill => Ok(false),
            Quirk::FailedReadsKeepTheLease if is_fill && new.is_none() => Ok(true),
            Quirk::EntriesOutliveSessions if is_fill => {
                cache.swap(key, expected, new, SwapTtl::Set(hour)).await
            }
            Quirk::BlindUpdates if !is_fill => put_blindly(cache, key, new, ttl).await,
            Quirk::UpdatesOnlySwap if !is_fill => {
                // Whatever comes of it, it is taken for done.
                let _ = cache.swap(key, expected, new, ttl).await;
                Ok(true)
            }
            Quirk::Unstamped if is_eventual && new.is_some() => {
                let found = self.found.lock().clone();
                let plain = found.and_then(|found| encode(&guest(found), &plain(key)?));
                cache.swap(key, expected, plain.as_ref().or(new), ttl).await
            }
            Quirk::CachesAbsenceBlindly if is_eventual && is_fill => {
                cache.swap(key, expected, new.or(Some(&negative)), ttl).await
            }
            _ => cache.swap(key, expected, new, ttl).await,
        }
    }

    pub(in super::super) async fn remove(&self, keys: &[CacheKey]) -> Result<()> {
        let keys: Vec<_> = keys.iter().map(|key| self.key(key)).collect();
        if self.is_skipping.swap(false, Ordering::SeqCst) {
            return Ok(());
        }
        if self.quirk == Quirk::NearPurgedFirst {
            self.purge();
        }
        match self.quirk {
            Quirk::SwallowsRemoveErrors => {
                // Nobody is told.
                let _ = self.secondary.remove(&keys).await;
            }
            Quirk::RemovesInTheBackground => {
                let cache = Arc::clone(&self.secondary);
                self.host.runtime.spawn(Box::pin(async move {
                    let _ = cache.remove(&keys).await;
                }));
                return Ok(());
            }
            Quirk::RemovesTwice => self.secondary.remove(&[&keys[..], &keys[..]].concat()).await?,
            Quirk::RemovesOneByOne => {
                for key in &keys {
                    self.secondary.remove(std::slice::from_ref(key)).await?;
                }
            }
            _ => self.secondary.remove(&keys).await?,
        }
        if matches!(self.quirk, Quirk::NearWithoutGenerations | Quirk::NearFromAfter) {
            self.purge();
        }
        Ok(())
    }

    fn purge(&self) {
        self.count.fetch_add(1, Ordering::SeqCst);
        self.kept.lock().clear();
    }

    /// Whether this node has a near cache of its own beside the one of the library.
    fn keeps_near(&self) -> bool {
        let near = [Quirk::NearWithoutGenerations, Quirk::NearPurgedFirst, Quirk::NearFromAfter];
        near.contains(&self.quirk) && self.secondary.promise().scope == CacheScope::Shared
    }

    /// What the node is shown of a lease.
    fn disguise(&self, key: &CacheKey, record: Record) -> Record {
        if !record.is_lease() {
            return record;
        }
        let shown = match self.quirk {
            Quirk::FlightsBySession => Record::lease(b"the lease of this session"),
            Quirk::ReadsAlone => {
                let number = self.count.fetch_add(1, Ordering::Relaxed);
                Record::lease(&number.to_be_bytes())
            }
            _ => return record,
        };
        self.leases.lock().insert(key.clone(), record);
        shown
    }
}

/// The key that the default configuration gives the same session.
fn plain(key: &CacheKey) -> Option<CacheKey> {
    let id = key.as_str().rsplit(':').next()?;
    CacheKey::new(format!("ss:1:{id}")).ok()
}
