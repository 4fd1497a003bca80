//! The lease protocol for values of a foreign source: somebody else's session endpoint, say.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use base64ct::{Base64UrlUnpadded, Encoding};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

use crate::error::{Error, ErrorKind, Result};
use crate::host::Host;
use crate::layered::{
    Duty, Fetched, FlightKey, LOST_TASKS, Leases, Put, Seen, Shield, ShieldTimes, Source,
};
use crate::secondary::{CacheKey, Record, SecondaryStore};
use crate::time::Ttl;

const VALUE: u8 = b'V';
const VERSION: u8 = 1;

/// How a [`Cached`] works.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct CachedConfig {
    /// Prepended to every cache key. Default: `cached:`.
    pub key_prefix: String,
    /// How long a value may be served. Default: 5 s.
    pub ttl: Ttl,
    /// How long a lease may be held; a source that takes longer is not cached. Default: 3 s.
    pub lease_ttl: Ttl,
    /// How long one operation of the cache may take. Default: 250 ms.
    pub cache_deadline: Duration,
    /// How many values may be written to the cache at once; more are dropped. Default: 1024.
    pub max_fills: usize,
}

impl Default for CachedConfig {
    fn default() -> Self {
        Self {
            key_prefix: "cached:".to_owned(),
            ttl: Ttl::from_secs_const(5),
            lease_ttl: Ttl::from_secs_const(3),
            cache_deadline: Duration::from_millis(250),
            max_fills: 1024,
        }
    }
}

/// A value, and how it was got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded<T> {
    /// The value; `None` when the source says that there is none. That is never cached.
    pub value: Option<Arc<T>>,
    /// `Secondary`, `Primary` (the source), or `Joined` (a load begun by another request).
    pub source: Source,
    /// How long it took.
    pub elapsed: Duration,
}

/// A cache in front of a source that this library knows nothing about.
///
/// Keys are hashed, so that a token may be one. Clones share everything.
///
/// # Contract
/// - A value is loaded once however many ask at the same time, and then served for `ttl`
///   \[X8-F-01\].
/// - After `forget` returned, no load that began before is served \[X8-F-02\].
/// - An error of the source is an error, and nothing is cached \[X8-F-03\].
/// - Trouble with the cache fails nothing \[X8-F-04\].
pub struct Cached<S, T> {
    inner: Arc<Inner<S, T>>,
}

struct Inner<S, T> {
    leases: Leases<S, Option<Arc<T>>>,
    host: Host,
    config: CachedConfig,
    values: PhantomData<T>,
}

impl<S, T> Clone for Cached<S, T> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

impl<S, T> fmt::Debug for Cached<S, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cached").field("config", &self.inner.config).finish_non_exhaustive()
    }
}

impl<S, T> Cached<S, T>
where
    S: SecondaryStore + 'static,
    T: Serialize + DeserializeOwned + Send + Sync + 'static,
{
    /// A cache of `T` in `secondary`; a configuration that can't work is `Configuration`.
    pub fn new(secondary: S, config: CachedConfig, host: Host) -> Result<Self> {
        if config.max_fills == 0 || config.cache_deadline.is_zero() {
            let what = "max_fills and cache_deadline of a Cached: more than zero";
            return Err(Error::configuration("core", what));
        }
        if config.key_prefix.len() > 128 || config.key_prefix.contains('\0') {
            return Err(Error::configuration("core", "key_prefix: at most 128 bytes without NUL"));
        }
        let overrun = secondary.promise().overrun;
        let times = ShieldTimes {
            deadline: config.cache_deadline,
            pause: Duration::from_secs(1),
            quarantine: config.ttl.as_duration() + config.lease_ttl.as_duration() + overrun,
        };
        let shield = Shield::new(secondary, host.clone(), times);
        let leases = Leases::new(shield, host.clone(), config.lease_ttl, config.max_fills);
        Ok(Self { inner: Arc::new(Inner { leases, host, config, values: PhantomData }) })
    }

    /// The value of `key`, from the cache or by `load`.
    ///
    /// `load` may be called more than once: when the task that ran it was lost.
    pub async fn get_or_load<F, L>(&self, key: &str, load: F) -> Result<Loaded<T>>
    where
        F: Fn() -> L,
        L: Future<Output = Result<Option<T>>> + Send + 'static,
    {
        let inner = &self.inner;
        let began = inner.host.clock.monotonic();
        let key = self.key(key);
        for _ in 0..LOST_TASKS {
            let (seen, own) = match inner.leases.see(&key).await {
                Seen::Entry(record) => match decode(&record) {
                    Some(value) => {
                        let value = Some(Arc::new(value));
                        return Ok(self.loaded(value, Source::Secondary, began));
                    }
                    None => (Some(record), Some(Duty::Clear)),
                },
                Seen::Lease(lease, own) => (Some(lease), own.then_some(Duty::Fill)),
                Seen::Blind => (None, None),
            };
            if seen.is_none() {
                // Without a lease a joined load could be one from before a `forget`.
                return Ok(self.loaded(load().await?.map(Arc::new), Source::Primary, began));
            }
            let flight_key = FlightKey { key: key.clone(), seen };
            let (flight, pilot) = inner.leases.flights.board(&flight_key, own);
            let source = if pilot.is_some() { Source::Primary } else { Source::Joined };
            if let Some(pilot) = pilot {
                let (work, ttl) = (load(), inner.config.ttl);
                inner.leases.take_off(pilot, Box::pin(async move { fetched(work.await?, ttl) }));
            }
            if let Some(outcome) = flight.landed().await {
                return Ok(self.loaded(outcome?.value, source, began));
            }
        }
        Err(Error::new(ErrorKind::Timeout, "core"))
    }

    /// Makes every node forget `key`; an error means that the old value may be served for the rest
    /// of its time.
    pub async fn forget(&self, key: &str) -> Result<()> {
        self.inner.leases.shield.remove(&[self.key(key)]).await
    }

    fn loaded(&self, value: Option<Arc<T>>, source: Source, began: Duration) -> Loaded<T> {
        let elapsed = self.inner.host.clock.monotonic().saturating_sub(began);
        Loaded { value, source, elapsed }
    }

    fn key(&self, key: &str) -> CacheKey {
        let digest = Base64UrlUnpadded::encode_string(&Sha256::digest(key.as_bytes()));
        CacheKey::trusted(format!("{}{VERSION}:{digest}", self.inner.config.key_prefix))
    }
}

fn fetched<T: Serialize>(value: Option<T>, ttl: Ttl) -> Result<Fetched<Option<Arc<T>>>> {
    let Some(value) = value else {
        return Ok(Fetched { value: None, put: Put::Nothing });
    };
    let mut bytes = vec![VALUE, VERSION];
    serde_json::to_writer(&mut bytes, &value)
        .map_err(|error| Error::new(ErrorKind::Corrupt, "core").caused_by(error))?;
    Ok(Fetched { value: Some(Arc::new(value)), put: Put::Value(Record::new(bytes), ttl) })
}

fn decode<T: DeserializeOwned>(record: &Record) -> Option<T> {
    match record.as_bytes() {
        [VALUE, VERSION, json @ ..] => serde_json::from_slice(json).ok(),
        _ => None,
    }
}
