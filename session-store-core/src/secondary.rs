//! The cache: five operations and a promise, as every secondary adapter provides them.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::error::{Error, Result};
use crate::primary::CacheScope;
use crate::time::Ttl;

/// The name of one entry, built by the layered store from a prefix and a session id.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CacheKey(Arc<str>);

impl CacheKey {
    /// The longest key that every back end accepts, in bytes.
    pub const MAX_BYTES: usize = 400;

    /// Checks `text`; `InvalidInput` when it is empty or `.` or `..` or contains NUL, `TooLarge`
    /// when some back end could not take it.
    pub fn new(text: impl AsRef<str>) -> Result<Self> {
        let text = text.as_ref();
        crate::text::check("cache key", text, Self::MAX_BYTES)?;
        if matches!(text, "" | "." | "..") {
            return Err(Error::invalid("core", "cache key"));
        }
        Ok(Self(text.into()))
    }

    /// A key made of a checked prefix and an id.
    pub(crate) fn trusted(text: String) -> Self {
        Self(text.into())
    }

    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for CacheKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// The opaque bytes of one entry: a value, a lease or a negative. `Debug` shows kind and length.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Record(Arc<[u8]>);

impl Record {
    /// The first byte of a lease.
    pub const LEASE: u8 = b'L';

    /// The record whose bytes are these.
    pub fn new(bytes: impl Into<Arc<[u8]>>) -> Self {
        Self(bytes.into())
    }

    /// A lease that carries `token`, which identifies one application of one reservation.
    pub fn lease(token: &[u8]) -> Self {
        let mut bytes = Vec::with_capacity(1 + token.len());
        bytes.push(Self::LEASE);
        bytes.extend_from_slice(token);
        Self::new(bytes)
    }

    /// Whether this is a lease.
    pub fn is_lease(&self) -> bool {
        self.0.first() == Some(&Self::LEASE)
    }

    /// The bytes, as adapters store them.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = self.0.first().map_or('-', |byte| char::from(*byte));
        write!(f, "Record({kind}, {} bytes)", self.0.len())
    }
}

/// What came of a reservation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reservation {
    /// The key was absent; this lease is there now.
    Granted(Record),
    /// Something was there already.
    Occupied(Record),
}

/// How long a swapped-in record may stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SwapTtl {
    /// This long from now.
    Set(Ttl),
    /// As long as the record it replaces would have.
    Keep,
}

/// What a cache can do, declared by its adapter and probed by the suite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheClass {
    /// The operations on one key are linearizable: revocation can be immediate.
    Linearizable,
    /// Everything else: revocation is bounded by the age of an entry.
    Eventual,
}

/// Differences between caches that the layered store and the suite must know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecondaryPromise {
    /// The adapter's name, as errors and reports use it.
    pub name: &'static str,
    /// What it can do.
    pub class: CacheClass,
    /// Who shares it.
    pub scope: CacheScope,
    /// Whether removed entries may come back after a failover or a restart.
    pub may_roll_back: bool,
    /// An entry stays at least this long, whatever TTL is asked for; zero: as asked.
    pub min_ttl: Duration,
    /// TTLs are rounded up to a multiple of this.
    pub ttl_granularity: Duration,
    /// How much longer than its TTL an entry may be served; more than zero where its end is told by
    /// the clocks of the nodes, which differ.
    pub overrun: Duration,
    /// How long after a change of its epoch some node may still not have noticed, and what the clocks of
    /// its servers may add to the life of an entry that comes back; zero where nothing comes back.
    pub rollback_slack: Duration,
    /// The largest record, in bytes.
    pub max_record_bytes: usize,
    /// How many keys one round trip removes.
    pub max_batch: usize,
}

/// A cache with TTLs and compare-and-set on one key.
///
/// Records are opaque to the adapter, except that it mints leases with [`Record::lease`].
///
/// # Contract
/// - Operations on one key are linearizable, if the class says so \[S-40\].
/// - After an error the operation may have happened, may happen later, or never; the key stays
///   usable \[S-50\].
/// - A record may vanish at any time, which is a miss; a removed one never comes back, unless
///   `may_roll_back` \[S-44\].
/// - Keys are literal, whatever characters they contain \[S-07\].
/// - Two prefixes never see each other's entries, even if one is a prefix of the other
///   \[S-34 S-35\].
#[async_trait]
pub trait SecondaryStore: fmt::Debug + Send + Sync {
    /// What this cache, as configured, can do.
    ///
    /// # Contract
    /// - The probes find no less than what is declared \[C-02 C-04\].
    fn promise(&self) -> SecondaryPromise;

    /// Changes when the adapter notices another server, a restart or a lost stretch.
    ///
    /// # Contract
    /// - It stays the same while nothing happens \[X8-S-01\].
    fn epoch(&self) -> u64;

    /// The record at `key`; `None` when there is none or its time is over. One round trip.
    ///
    /// # Contract
    /// - What was put is returned byte for byte \[S-01 S-05\].
    /// - A missing key is `None` \[S-02\].
    /// - A record is there until its TTL has passed and absent from then on \[S-10 S-11\].
    /// - A clock that is set back extends nothing \[X8-S-03\].
    async fn get(&self, key: &CacheKey) -> Result<Option<Record>>;

    /// Puts a lease at `key` if nothing is there; otherwise returns what is there.
    ///
    /// The lease is minted where it is applied, so that a delayed or repeated copy of the request
    /// can't recreate it. Class Eventual grants a blind lease without a round trip.
    ///
    /// # Contract
    /// - Of 32 concurrent reservations exactly one is granted, and the others see it \[S-22\].
    /// - A key whose time is over is free \[S-23\].
    /// - No two grants carry the same lease \[X8-S-02\].
    /// - A lease lives as long as asked, and not longer \[S-13 S-14\].
    async fn reserve(&self, key: &CacheKey, ttl: Ttl) -> Result<Reservation>;

    /// Replaces exactly `expected` by `new`, or deletes it when `new` is `None`; `false` means that
    /// something else was there and nothing changed. Class Eventual puts blindly.
    ///
    /// # Contract
    /// - An equal record is replaced \[S-24\].
    /// - Another record, or none, is left alone \[S-25 S-26 S-43\].
    /// - `Set` starts a new TTL and `Keep` leaves the old deadline \[S-16 S-27\].
    /// - A record over the declared size is `TooLarge`, and nothing changes \[S-06\].
    async fn swap(
        &self,
        key: &CacheKey,
        expected: &Record,
        new: Option<&Record>,
        ttl: SwapTtl,
    ) -> Result<bool>;

    /// Removes values, leases and negatives unconditionally. `Ok` means that the authority of every
    /// key has acknowledged it.
    ///
    /// # Contract
    /// - Every key is absent afterwards, also when some were absent before \[S-08 S-09\].
    /// - A removed lease can't be filled any more \[S-28\].
    /// - More keys than one batch holds are removed all the same \[S-33\].
    async fn remove(&self, keys: &[CacheKey]) -> Result<()>;
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<T: SecondaryStore + ?Sized> SecondaryStore for Arc<T> {
    fn promise(&self) -> SecondaryPromise {
        (**self).promise()
    }

    fn epoch(&self) -> u64 {
        (**self).epoch()
    }

    async fn get(&self, key: &CacheKey) -> Result<Option<Record>> {
        (**self).get(key).await
    }

    async fn reserve(&self, key: &CacheKey, ttl: Ttl) -> Result<Reservation> {
        (**self).reserve(key, ttl).await
    }

    async fn swap(
        &self,
        key: &CacheKey,
        expected: &Record,
        new: Option<&Record>,
        ttl: SwapTtl,
    ) -> Result<bool> {
        (**self).swap(key, expected, new, ttl).await
    }

    async fn remove(&self, keys: &[CacheKey]) -> Result<()> {
        (**self).remove(keys).await
    }
}
