//! How the conformance suite gets at Redis caches.
//!
//! A server keeps its own time, and a case moves its own. So when a case has let time pass, the
//! harness moves the deadlines on the server by as much: what it moves is the deadline that the
//! server itself reports for an entry, so that a TTL which the adapter got wrong stays wrong.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use parking_lot::Mutex;
use session_store_core::conformance::{Guard, SecondaryHarness, TestClock};
use session_store_core::{
    BoxFuture, CacheKey, Clock, Error, Record, Reservation, Result, SecondaryPromise,
    SecondaryStore, SwapTtl, Ttl,
};
use tokio::time::Instant;

use crate::cache::RedisCache;
use crate::config::{Client, RedisConfig};
use crate::driver::{Command, Reply};
use crate::error::{Effect, NAME};
use crate::key::physical;
use crate::route::{self, Routes};

/// How much longer than its time an entry stays on the server, so that it does not end while a case
/// holds its own clock.
const SPARE: u64 = 600_000;
const PATIENCE: Duration = Duration::from_secs(10);

/// Caches on real servers, each with a prefix of its own.
#[derive(Debug)]
pub struct RedisHarness {
    name: &'static str,
    config: RedisConfig,
    /// Tells the keys of this run from those of others.
    run: String,
    times: Mutex<Vec<(Weak<TestClock>, Weak<Time>)>>,
}

impl RedisHarness {
    /// A harness called `name` on the servers that `variable` lists, through `client`. Without the
    /// variable, an error that says how to get a server.
    pub fn from_env(name: &'static str, variable: &str, client: Client) -> Result<Self> {
        let line = std::env::var(variable).map_err(|_| {
            let what = format!(
                "{variable} is not set: run `cargo xtask test`, which starts servers, or set it with \
                 `cargo xtask servers env`"
            );
            Error::configuration(NAME, what)
        })?;
        Self::new(name, &line, client)
    }

    /// A harness on the servers that `line` lists, as [`RedisConfig::parse`] reads it.
    pub fn new(name: &'static str, line: &str, client: Client) -> Result<Self> {
        let mut config = RedisConfig::parse(line)?;
        config.client = client;
        // What is judged here is what happens, not how soon on a busy machine.
        config.deadline = PATIENCE;
        config.connect_timeout = PATIENCE;
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let run = format!("t{}_{}", std::process::id(), since.subsec_nanos());
        Ok(Self { name, config, run, times: Mutex::default() })
    }

    /// The time of the caches that were opened with `clock`.
    fn time(&self, clock: &Arc<TestClock>) -> Result<Arc<Time>> {
        let mut times = self.times.lock();
        times.retain(|(clock, time)| clock.strong_count() > 0 && time.strong_count() > 0);
        let known = times.iter().find(|(other, _)| other.as_ptr() == Arc::as_ptr(clock));
        if let Some(time) = known.and_then(|(_, time)| time.upgrade()) {
            return Ok(time);
        }
        let dialer = route::dialer(&self.config)?;
        // The address of a live clock is nobody else's.
        let prefix = format!("{}_{:x}:", self.run, Arc::as_ptr(clock) as usize);
        let time = Arc::new(Time {
            routes: Routes::new(&self.config.servers, &dialer),
            prefix,
            clock: Arc::clone(clock),
            seen: tokio::sync::Mutex::new(clock.monotonic()),
            deadlines: Mutex::default(),
        });
        times.push((Arc::downgrade(clock), Arc::downgrade(&time)));
        Ok(time)
    }
}

#[async_trait]
impl SecondaryHarness for RedisHarness {
    fn name(&self) -> &str {
        self.name
    }

    async fn open(&self, clock: &Arc<TestClock>) -> Result<(Arc<dyn SecondaryStore>, Guard)> {
        let time = self.time(clock)?;
        let mut config = self.config.clone();
        config.key_prefix = time.prefix.clone();
        let cache = RedisCache::connect(&config).await?;
        Ok((Arc::new(Timed { cache, time: Arc::clone(&time) }), Box::new(time)))
    }

    async fn pass_time(&self, clock: &TestClock, length: Duration) {
        clock.advance(length);
    }

    async fn evict(&self, store: &Arc<dyn SecondaryStore>, key: &CacheKey) -> Result<bool> {
        // What a server evicts is gone just as after a removal.
        store.remove(std::slice::from_ref(key)).await?;
        Ok(true)
    }

    fn patience(&self) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(Duration::from_mins(1)))
    }
}

/// The deadlines of the entries of one case, by its clock.
#[derive(Debug)]
struct Time {
    routes: Routes,
    prefix: String,
    clock: Arc<TestClock>,
    /// The moment up to which the server's entries were aged.
    seen: tokio::sync::Mutex<Duration>,
    deadlines: Mutex<HashMap<Vec<u8>, Duration>>,
}

impl Time {
    async fn ask(&self, key: &[u8], name: &'static str, args: &[&[u8]]) -> Result<i64> {
        let end = Instant::now() + PATIENCE;
        let answer = self.routes.call(key, Command::new(name, args), end).await;
        match answer.map_err(|fault| fault.into_error(name, Effect::Possible))? {
            Reply::Number(number) => Ok(number),
            _ => Err(Error::configuration(NAME, "the harness expected a number")),
        }
    }

    /// Ends on the server what has ended by the clock of the case.
    async fn catch_up(&self) -> Result<()> {
        let mut seen = self.seen.lock().await;
        let now = self.clock.monotonic();
        if *seen == now {
            return Ok(());
        }
        let all: Vec<_> =
            self.deadlines.lock().iter().map(|(key, until)| (key.clone(), *until)).collect();
        for (key, until) in all {
            let left = u64::try_from(until.saturating_sub(now).as_millis()).unwrap_or(u64::MAX);
            if left == 0 {
                self.ask(&key, "PEXPIRE", &[&key, b"0"]).await?;
                self.deadlines.lock().remove(&key);
            } else {
                let millis = left.saturating_add(SPARE).to_string();
                self.ask(&key, "PEXPIRE", &[&key, millis.as_bytes()]).await?;
            }
        }
        *seen = now;
        Ok(())
    }

    /// Notes when an entry ends that was put since `before` and should live for `ttl`.
    async fn note(&self, key: &[u8], ttl: Ttl, before: Instant) -> Result<()> {
        let now = self.clock.monotonic();
        let said = self.ask(key, "PTTL", &[key]).await?;
        let Ok(left) = u64::try_from(said) else {
            // Gone already, or without any end: then the case shall see that it stays.
            self.deadlines.lock().remove(key);
            return Ok(());
        };
        // What has passed on the server since then has not passed for the case.
        let passed = u64::try_from(before.elapsed().as_millis()).unwrap_or(u64::MAX) + 1;
        let is_as_asked = left <= ttl.as_millis() && ttl.as_millis() <= left + passed;
        let length = if is_as_asked { ttl.as_millis() } else { left };
        self.deadlines.lock().insert(key.to_vec(), now + Duration::from_millis(length));
        Ok(())
    }

    /// The same for an entry that should keep the end it had.
    async fn note_kept(&self, key: &[u8], before: i64) -> Result<()> {
        let after = self.ask(key, "PTTL", &[key]).await?;
        let is_kept = after <= before && before - after < 10_000;
        if !is_kept {
            let now = self.clock.monotonic();
            let mut deadlines = self.deadlines.lock();
            match u64::try_from(after) {
                Ok(left) => deadlines.insert(key.to_vec(), now + Duration::from_millis(left)),
                Err(_) => deadlines.remove(key),
            };
        }
        Ok(())
    }
}

/// A cache whose entries age by the clock of a case.
#[derive(Debug)]
struct Timed {
    cache: RedisCache,
    time: Arc<Time>,
}

impl Timed {
    fn key(&self, key: &CacheKey) -> Vec<u8> {
        physical(&self.time.prefix, key)
    }
}

#[async_trait]
impl SecondaryStore for Timed {
    fn promise(&self) -> SecondaryPromise {
        self.cache.promise()
    }

    fn epoch(&self) -> u64 {
        self.cache.epoch()
    }

    async fn get(&self, key: &CacheKey) -> Result<Option<Record>> {
        self.time.catch_up().await?;
        self.cache.get(key).await
    }

    async fn reserve(&self, key: &CacheKey, ttl: Ttl) -> Result<Reservation> {
        self.time.catch_up().await?;
        let before = Instant::now();
        let reservation = self.cache.reserve(key, ttl).await?;
        if matches!(reservation, Reservation::Granted(_)) {
            self.time.note(&self.key(key), ttl, before).await?;
        }
        Ok(reservation)
    }

    async fn swap(
        &self,
        key: &CacheKey,
        expected: &Record,
        new: Option<&Record>,
        ttl: SwapTtl,
    ) -> Result<bool> {
        self.time.catch_up().await?;
        let physical = self.key(key);
        let left = match ttl {
            SwapTtl::Keep => self.time.ask(&physical, "PTTL", &[&physical]).await?,
            SwapTtl::Set(_) => 0,
        };
        let before = Instant::now();
        let is_swapped = self.cache.swap(key, expected, new, ttl).await?;
        if is_swapped && new.is_some() {
            match ttl {
                SwapTtl::Set(ttl) => self.time.note(&physical, ttl, before).await?,
                SwapTtl::Keep => self.time.note_kept(&physical, left).await?,
            }
        }
        Ok(is_swapped)
    }

    async fn remove(&self, keys: &[CacheKey]) -> Result<()> {
        self.time.catch_up().await?;
        self.cache.remove(keys).await
    }
}
