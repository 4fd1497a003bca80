//! How the conformance suite gets at Redis caches.
//!
//! A server keeps its own time, and a case moves its own. So when a case has let time pass, the
//! harness moves the deadlines on the server by as much: what it moves is the deadline that the
//! server itself reports for an entry, so that a TTL which the adapter got wrong stays wrong.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
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
const SPARE: u64 = 120_000;
/// How far off whole milliseconds are that a server takes from its clock one after the other.
const ROUNDING: i64 = 2;
/// The time of the server that has a key, in ms.
const TIME: &[u8] = b"local t = redis.call('TIME') return t[1] * 1000 + math.floor(t[2] / 1000)";
/// When an entry ends by the time of its server, in ms; negative when it is gone or has no end.
const END: &[u8] = b"local p = redis.call('PTTL', KEYS[1]) if p < 0 then return p end \
    local t = redis.call('TIME') return t[1] * 1000 + math.floor(t[2] / 1000) + p";
/// Lets an entry end in so many ms; when that is.
const AGE: &[u8] = b"redis.call('PEXPIRE', KEYS[1], ARGV[1]) \
    local t = redis.call('TIME') return t[1] * 1000 + math.floor(t[2] / 1000) + ARGV[1]";
const PATIENCE: Duration = Duration::from_secs(10);

/// Caches on real servers, each with a prefix of its own.
#[derive(Debug)]
pub struct RedisHarness {
    name: &'static str,
    config: RedisConfig,
    /// Tells the keys of this harness from those of others.
    run: String,
    count: AtomicU64,
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
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let mut config = RedisConfig::parse(line)?;
        config.client = client;
        // What is judged here is what happens, not how soon on a busy machine.
        config.deadline = PATIENCE;
        config.connect_timeout = PATIENCE;
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let run = format!("t{}_{number}_{}", std::process::id(), since.subsec_nanos());
        Ok(Self { name, config, run, count: AtomicU64::new(0), times: Mutex::default() })
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
        // Entries outlive their case, so no other case may meet them.
        let number = self.count.fetch_add(1, Ordering::Relaxed);
        let prefix = format!("{}_{number}:", self.run);
        let time = Arc::new(Time {
            routes: Routes::new(&self.config.servers, &dialer),
            prefix,
            clock: Arc::clone(clock),
            seen: tokio::sync::Mutex::new(clock.monotonic()),
            notes: Mutex::default(),
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
        Ok((Arc::new(Timed { cache: Arc::new(cache), time: Arc::clone(&time) }), Box::new(time)))
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
        Box::pin(tokio::time::sleep(Duration::from_mins(5)))
    }
}

/// The entries of one case, and when they end by its clock.
#[derive(Debug)]
struct Time {
    routes: Routes,
    prefix: String,
    clock: Arc<TestClock>,
    /// The moment up to which the server's entries were aged.
    seen: tokio::sync::Mutex<Duration>,
    notes: Mutex<HashMap<Vec<u8>, Vec<Note>>>,
}

/// What somebody put, or tried to: when it should end.
#[derive(Clone, Copy, Debug)]
struct Note {
    /// By the clock of the case.
    deadline: Duration,
    /// By the server's clock in ms, at the earliest and, once the call is over, at the latest.
    earliest: i64,
    latest: Option<i64>,
}

impl Note {
    /// By how much later an entry ends than was asked for; negative if it ends too early.
    fn excess(&self, end: i64) -> i64 {
        let late = self.latest.map_or(0, |latest| (end - latest - ROUNDING).max(0));
        late - (self.earliest - end - ROUNDING).max(0)
    }

    /// When an entry that ends at `end` on the server ends by the clock of the case: what the adapter
    /// added to the TTL is added here, however long ago it was put.
    fn deadline_of(&self, end: i64) -> Duration {
        let excess = self.excess(end);
        let shift = Duration::from_millis(excess.unsigned_abs());
        if excess < 0 { self.deadline.saturating_sub(shift) } else { self.deadline + shift }
    }
}

impl Time {
    /// What a script about one key says.
    async fn ask(&self, key: &[u8], script: &[u8], args: &[&[u8]]) -> Result<i64> {
        let end = Instant::now() + PATIENCE;
        let args = [&[script, b"1", key], args].concat();
        let answer = self.routes.call(key, Command::new("EVAL", &args), end).await;
        match answer.map_err(|fault| fault.into_error("EVAL", Effect::Possible))? {
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
        let all: Vec<_> = self.notes.lock().drain().collect();
        for (key, notes) in all {
            if let Some(note) = self.age(&key, &notes, now).await? {
                // Others may have begun meanwhile, after it.
                self.notes.lock().entry(key).or_default().insert(0, note);
            }
        }
        *seen = now;
        Ok(())
    }

    /// Ages one entry to `now`; how it stands then, if it is still there.
    async fn age(&self, key: &[u8], notes: &[Note], now: Duration) -> Result<Option<Note>> {
        let end = self.ask(key, END, &[]).await?;
        // Gone already, or without any end: then the case shall see that it stays.
        if end < 0 {
            return Ok(None);
        }
        // It is of the last put that explains it best.
        let asked = notes.iter().rev().min_by_key(|note| note.excess(end).abs());
        let Some(deadline) = asked.map(|note| note.deadline_of(end)) else { return Ok(None) };
        let left = u64::try_from(deadline.saturating_sub(now).as_millis()).unwrap_or(u64::MAX);
        if left == 0 {
            self.ask(key, AGE, &[b"0"]).await?;
            return Ok(None);
        }
        let millis = left.saturating_add(SPARE).to_string();
        let end = self.ask(key, AGE, &[millis.as_bytes()]).await?;
        Ok(Some(Note { deadline, earliest: end, latest: Some(end) }))
    }

    /// Notes that an entry is about to be put. A call that is dropped may have put it.
    async fn begin(&self, key: &[u8], ttl: Ttl) -> Result<Pending<'_>> {
        let length = i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX);
        let deadline = self.clock.monotonic() + ttl.as_duration();
        let earliest = self.ask(key, TIME, &[]).await?.saturating_add(length);
        let note = Note { deadline, earliest, latest: None };
        self.notes.lock().entry(key.to_vec()).or_default().push(note);
        Ok(Pending { time: self, key: key.to_vec(), note, length })
    }
}

/// A call that may put an entry.
struct Pending<'a> {
    time: &'a Time,
    key: Vec<u8>,
    note: Note,
    length: i64,
}

impl Pending<'_> {
    /// The call is over, and the entry was put, or was not.
    async fn end(self, is_put: bool) -> Result<()> {
        let now = self.time.ask(&self.key, TIME, &[]).await?;
        let mut notes = self.time.notes.lock();
        let Some(notes) = notes.get_mut(&self.key) else { return Ok(()) };
        let is_own = |note: &Note| note.latest.is_none() && note.earliest == self.note.earliest;
        if let Some(at) = notes.iter().position(is_own) {
            if is_put {
                notes[at].latest = Some(now.saturating_add(self.length));
            } else {
                notes.remove(at);
            }
        }
        Ok(())
    }
}

/// A cache whose entries age by the clock of a case.
#[derive(Debug)]
struct Timed {
    cache: Arc<dyn SecondaryStore>,
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
        let pending = self.time.begin(&self.key(key), ttl).await?;
        let reservation = self.cache.reserve(key, ttl).await?;
        pending.end(matches!(reservation, Reservation::Granted(_))).await?;
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
        let pending = match (new, ttl) {
            (Some(_), SwapTtl::Set(ttl)) => Some(self.time.begin(&self.key(key), ttl).await?),
            _ => None,
        };
        let is_swapped = self.cache.swap(key, expected, new, ttl).await?;
        if let Some(pending) = pending {
            pending.end(is_swapped).await?;
        }
        Ok(is_swapped)
    }

    async fn remove(&self, keys: &[CacheKey]) -> Result<()> {
        self.time.catch_up().await?;
        self.cache.remove(keys).await
    }
}

#[cfg(test)]
#[cfg(feature = "redis")]
mod tests {
    use session_store_core::Timestamp;

    use super::*;

    /// A cache that adds to every TTL.
    #[derive(Debug)]
    struct Longer(Arc<dyn SecondaryStore>, Duration);

    impl Longer {
        fn longer(&self, ttl: Ttl) -> Ttl {
            Ttl::new(ttl.as_duration() + self.1).unwrap()
        }
    }

    #[async_trait]
    impl SecondaryStore for Longer {
        fn promise(&self) -> SecondaryPromise {
            self.0.promise()
        }
        fn epoch(&self) -> u64 {
            self.0.epoch()
        }
        async fn get(&self, key: &CacheKey) -> Result<Option<Record>> {
            self.0.get(key).await
        }
        async fn reserve(&self, key: &CacheKey, ttl: Ttl) -> Result<Reservation> {
            self.0.reserve(key, self.longer(ttl)).await
        }

        async fn swap(
            &self,
            key: &CacheKey,
            expected: &Record,
            new: Option<&Record>,
            ttl: SwapTtl,
        ) -> Result<bool> {
            let ttl =
                if let SwapTtl::Set(ttl) = ttl { SwapTtl::Set(self.longer(ttl)) } else { ttl };
            self.0.swap(key, expected, new, ttl).await
        }

        async fn remove(&self, keys: &[CacheKey]) -> Result<()> {
            self.0.remove(keys).await
        }
    }

    /// Whether entries of a minute are still there after it, on a machine that took its time.
    async fn outlives(by: Duration) -> [bool; 2] {
        let url = "SESSION_STORE_REDIS_URL";
        let harness = RedisHarness::from_env("redis", url, Client::Redis).unwrap();
        let clock = TestClock::at(Timestamp::EPOCH);
        let time = harness.time(&clock).unwrap();
        let mut config = harness.config.clone();
        config.key_prefix = time.prefix.clone();
        let cache = Arc::new(RedisCache::connect(&config).await.unwrap());
        let cache = Timed { cache: Arc::new(Longer(cache, by)), time };
        let (lease, entry) = (CacheKey::new("lease").unwrap(), CacheKey::new("entry").unwrap());
        let minute = Duration::from_mins(1);
        let ttl = Ttl::new(minute).unwrap();
        for key in [&lease, &entry] {
            let reserved = cache.reserve(key, ttl).await.unwrap();
            let Reservation::Granted(token) = reserved else { panic!("{reserved:?}") };
            if key == &entry {
                let record = Record::new(b"entry".to_vec());
                assert!(cache.swap(key, &token, Some(&record), SwapTtl::Set(ttl)).await.unwrap());
            }
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
        clock.advance(minute);
        [cache.get(&lease).await.unwrap().is_some(), cache.get(&entry).await.unwrap().is_some()]
    }

    #[tokio::test]
    async fn a_ttl_that_is_a_little_too_long_is_seen_on_a_slow_machine() {
        assert_eq!(outlives(Duration::ZERO).await, [false; 2]);
        assert_eq!(outlives(Duration::from_secs(5)).await, [true; 2]);
    }
}
