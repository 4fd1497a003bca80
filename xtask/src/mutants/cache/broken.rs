//! The decorator: a cache that does what the one inside does, but for its defect.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use session_store_core::{
    CacheClass, CacheKey, CacheScope, ErrorKind, Record, Reservation, Result, SecondaryPromise,
    SecondaryStore, SwapTtl, Ttl,
};

use super::super::layered::{Link, Quirk};
use super::super::stage::{error, pause};
use super::Defect;

const BATCH: usize = 100;
const KEY_BYTES: usize = 250;
/// So often a call lets others run, so that patience ends with a case that goes round for ever.
const BREATH: u64 = 256;

/// What a broken cache remembers beside the cache it breaks.
#[derive(Debug, Default)]
struct State {
    /// The last record that was put at a key, whatever became of it.
    put: HashMap<CacheKey, Record>,
    /// What was there before that.
    before: HashMap<CacheKey, Record>,
    keys: BTreeSet<CacheKey>,
    missed: HashSet<CacheKey>,
    removed: HashMap<CacheKey, Record>,
    late: Vec<CacheKey>,
    is_busy: bool,
    calls: u64,
}

/// A cache with a defect.
pub(in super::super) struct Broken {
    inner: Arc<dyn SecondaryStore>,
    defect: Defect,
    state: Mutex<State>,
    link: Option<Arc<Link>>,
}

impl fmt::Debug for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Broken").finish_non_exhaustive()
    }
}

/// A record at `key`, whatever was there.
pub(in super::super) async fn put_blindly(
    cache: &dyn SecondaryStore,
    key: &CacheKey,
    new: Option<&Record>,
    ttl: SwapTtl,
) -> Result<bool> {
    cache.remove(std::slice::from_ref(key)).await?;
    let Some(new) = new else { return Ok(true) };
    let ttl = match ttl {
        SwapTtl::Set(ttl) => ttl,
        SwapTtl::Keep => minute(),
    };
    match cache.reserve(key, ttl).await? {
        Reservation::Granted(lease) => cache.swap(key, &lease, Some(new), SwapTtl::Set(ttl)).await,
        Reservation::Occupied(_) => Ok(false),
    }
}

fn minute() -> Ttl {
    Ttl::new(Duration::from_mins(1)).unwrap_or(Ttl::MIN)
}

fn for_ever() -> Ttl {
    Ttl::new(Ttl::MAX).unwrap_or(Ttl::MIN)
}

impl Broken {
    pub(in super::super) fn new(inner: Arc<dyn SecondaryStore>, defect: Defect) -> Self {
        Self { inner, defect, state: Mutex::default(), link: None }
    }

    /// The cache of a node whose protocol is broken.
    pub(in super::super) fn of_node(link: Arc<Link>) -> Self {
        let inner = Arc::clone(&link.secondary);
        Self { inner, defect: Defect::Nothing, state: Mutex::default(), link: Some(link) }
    }

    fn key(&self, key: &CacheKey) -> CacheKey {
        let text = key.as_str();
        let text = match self.defect {
            Defect::FoldsKeys => text.to_lowercase(),
            Defect::CutsKeys => text.chars().take(KEY_BYTES).collect(),
            Defect::DropsTheNamespace => text.rsplit(':').next().unwrap_or(text).to_owned(),
            _ => return key.clone(),
        };
        CacheKey::new(text).unwrap_or_else(|_| key.clone())
    }

    async fn begin(&self, key: &CacheKey) -> Result<CacheKey> {
        let calls = {
            let mut state = self.state.lock();
            state.calls += 1;
            state.calls
        };
        if calls.is_multiple_of(BREATH) {
            pause().await;
        }
        if self.defect == Defect::StaysBusy {
            if std::mem::replace(&mut self.state.lock().is_busy, true) {
                return Err(error(ErrorKind::Unavailable));
            }
            pause().await;
            self.state.lock().is_busy = false;
        }
        Ok(self.key(key))
    }

    fn ttl(&self, ttl: Ttl) -> Ttl {
        let seconds = ttl.as_duration().as_secs();
        match self.defect {
            Defect::ForgetsTtls => for_ever(),
            Defect::FloorsTtls => Ttl::new(Duration::from_secs(seconds)).unwrap_or(Ttl::MIN),
            Defect::FloorsToForEver => {
                Ttl::new(Duration::from_secs(seconds)).unwrap_or_else(for_ever)
            }
            Defect::CeilsTtls => Ttl::new(Duration::from_secs(ttl.as_secs_ceil())).unwrap_or(ttl),
            _ => ttl,
        }
    }

    async fn look(&self, key: &CacheKey) -> Result<Option<Record>> {
        let found = self.inner.get(key).await?;
        let late = std::mem::take(&mut self.state.lock().late);
        self.inner.remove(&late).await?;
        let mut state = self.state.lock();
        Ok(match (self.defect, found) {
            (Defect::CutsAtNul, Some(record)) => {
                let bytes = record.as_bytes().split(|byte| *byte == 0).next();
                Some(Record::new(bytes.unwrap_or_default()))
            }
            (Defect::StoresText, Some(record)) if !record.is_lease() => {
                let text = String::from_utf8_lossy(record.as_bytes()).into_owned();
                Some(Record::new(text.into_bytes()))
            }
            (Defect::MissingIsEmpty, None) => Some(Record::new([].as_slice())),
            (Defect::LostIsAnError, None) if state.put.contains_key(key) => {
                return Err(error(ErrorKind::Unavailable));
            }
            (Defect::ServesTheLast, Some(record)) => {
                Some(state.before.remove(key).unwrap_or(record))
            }
            (Defect::RemembersMisses, None) => {
                state.missed.insert(key.clone());
                None
            }
            (Defect::RemembersMisses, Some(record)) => {
                (!state.missed.contains(key)).then_some(record)
            }
            (Defect::BringsBack, None) => state.removed.remove(key),
            (_, found) => found,
        })
    }

    async fn occupy(&self, key: &CacheKey, ttl: Ttl) -> Result<Reservation> {
        match self.defect {
            Defect::ReservesTwice => {
                if let Some(record) = self.inner.get(key).await? {
                    return Ok(Reservation::Occupied(record));
                }
                pause().await;
                self.inner.remove(std::slice::from_ref(key)).await?;
            }
            Defect::DeadOnesOccupy => {
                let dead = self.state.lock().put.get(key).cloned();
                if let (None, Some(dead)) = (self.inner.get(key).await?, dead) {
                    return Ok(Reservation::Occupied(dead));
                }
            }
            _ => {}
        }
        let ttl = match self.defect {
            Defect::LeasesLiveLonger => ttl.max(minute()),
            Defect::LeasesNeverEnd => for_ever(),
            _ => self.ttl(ttl),
        };
        match self.inner.reserve(key, ttl).await? {
            Reservation::Granted(lease) if self.defect == Defect::SharesLeases => {
                let shared = Record::lease(key.as_str().as_bytes());
                self.inner.swap(key, &lease, Some(&shared), SwapTtl::Keep).await?;
                Ok(Reservation::Granted(shared))
            }
            Reservation::Occupied(_) if self.defect == Defect::HidesTheOccupant => {
                Ok(Reservation::Occupied(Record::lease(&[])))
            }
            other => Ok(other),
        }
    }

    async fn replace(
        &self,
        key: &CacheKey,
        expected: &Record,
        new: Option<&Record>,
        ttl: SwapTtl,
    ) -> Result<bool> {
        let ttl = match (self.defect, ttl) {
            (Defect::KeepSets, SwapTtl::Keep) => SwapTtl::Set(for_ever()),
            (Defect::SetKeeps, SwapTtl::Set(_)) if !expected.is_lease() => SwapTtl::Keep,
            (_, SwapTtl::Set(ttl)) => SwapTtl::Set(self.ttl(ttl)),
            (_, SwapTtl::Keep) => SwapTtl::Keep,
        };
        let found = self.inner.get(key).await?;
        let was_put = self.state.lock().put.get(key) == Some(expected);
        let begins = |found: &Record| found.as_bytes().starts_with(expected.as_bytes());
        let goes_through = match self.defect {
            Defect::NeverSwaps => return Ok(false),
            Defect::PretendsToSwap => return Ok(true),
            Defect::NaiveFill => expected.is_lease(),
            Defect::SwapsAnything => found.is_some(),
            Defect::SwapsAbsent => found.is_none(),
            Defect::SwapsTheDead => found.is_none() && was_put,
            Defect::ComparesTheBeginning => found.as_ref().is_some_and(begins),
            Defect::SwapsTwice if found.as_ref() == Some(expected) => {
                pause().await;
                true
            }
            _ => false,
        };
        if goes_through {
            return put_blindly(&*self.inner, key, new, ttl).await;
        }
        match self.inner.swap(key, expected, new, ttl).await {
            Err(failure) if self.defect == Defect::CutsRecords => {
                let Some(new) = new else { return Err(failure) };
                let limit = self.inner.promise().max_record_bytes;
                let cut = Record::new(new.as_bytes().get(..limit).unwrap_or_default());
                self.inner.swap(key, expected, Some(&cut), ttl).await
            }
            other => other,
        }
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl SecondaryStore for Broken {
    fn promise(&self) -> SecondaryPromise {
        let mut promise = self.inner.promise();
        match self.link.as_ref().map(|link| link.quirk) {
            Some(Quirk::ClaimsToBeShared) => promise.scope = CacheScope::Shared,
            Some(Quirk::ClaimsToBeLinearizable) => promise.class = CacheClass::Linearizable,
            _ => {}
        }
        promise
    }

    fn epoch(&self) -> u64 {
        if self.link.as_ref().is_some_and(|link| link.quirk == Quirk::HidesTheEpoch) {
            return 0;
        }
        let ticks = if self.defect == Defect::EpochsTick { self.state.lock().calls } else { 0 };
        self.inner.epoch() + ticks
    }

    async fn get(&self, key: &CacheKey) -> Result<Option<Record>> {
        let key = self.begin(key).await?;
        match &self.link {
            Some(link) => link.get(&key).await,
            None => self.look(&key).await,
        }
    }

    async fn reserve(&self, key: &CacheKey, ttl: Ttl) -> Result<Reservation> {
        let key = self.begin(key).await?;
        match &self.link {
            Some(link) => link.reserve(&key, ttl).await,
            None => self.occupy(&key, ttl).await,
        }
    }

    async fn swap(
        &self,
        key: &CacheKey,
        expected: &Record,
        new: Option<&Record>,
        ttl: SwapTtl,
    ) -> Result<bool> {
        let key = self.begin(key).await?;
        if let Some(link) = &self.link {
            return link.swap(&key, expected, new, ttl).await;
        }
        let done = self.replace(&key, expected, new, ttl).await?;
        if let (true, Some(new)) = (done, new) {
            let mut state = self.state.lock();
            state.keys.insert(key.clone());
            if !expected.is_lease() {
                state.before.insert(key.clone(), expected.clone());
            }
            state.put.insert(key, new.clone());
        }
        Ok(done)
    }

    async fn remove(&self, keys: &[CacheKey]) -> Result<()> {
        if let Some(link) = &self.link {
            return link.remove(keys).await;
        }
        let mut keys: Vec<_> = keys.iter().map(|key| self.key(key)).collect();
        for key in &keys {
            let found = self.inner.get(key).await?;
            let mut state = self.state.lock();
            if self.defect != Defect::LostIsAnError {
                state.put.remove(key);
            }
            state.before.remove(key);
            match found {
                None if self.defect == Defect::MissingCanNotBeRemoved => {
                    return Err(error(ErrorKind::Unavailable));
                }
                Some(record) if !record.is_lease() => _ = state.removed.insert(key.clone(), record),
                Some(_) if self.defect == Defect::KeepsLeases => state.missed.extend([key.clone()]),
                _ => {}
            }
        }
        match self.defect {
            Defect::RemovesNothing => return Ok(()),
            Defect::KeepsLeases => {
                let leases = std::mem::take(&mut self.state.lock().missed);
                keys.retain(|key| !leases.contains(key));
            }
            Defect::RemovesLater => {
                self.state.lock().late.append(&mut keys);
                return Ok(());
            }
            Defect::LeavesTombstones => {
                let tombstone = Record::new([b'N', 1].as_slice());
                for key in &keys {
                    let ttl = SwapTtl::Set(minute());
                    put_blindly(&*self.inner, key, Some(&tombstone), ttl).await?;
                }
                return Ok(());
            }
            Defect::RemovesOneBatch => keys.truncate(BATCH),
            Defect::RemovesByPrefix => {
                let known = self.state.lock().keys.clone();
                let is_longer = |known: &CacheKey| {
                    keys.iter().any(|key| known.as_str().starts_with(key.as_str()))
                };
                let longer: Vec<_> = known.into_iter().filter(is_longer).collect();
                keys.extend(longer);
            }
            _ => {}
        }
        self.inner.remove(&keys).await
    }
}
