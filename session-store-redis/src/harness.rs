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
/// How far off the deadlines are that a server and this process compute from whole milliseconds.
const ROUNDING: Duration = Duration::from_millis(3);
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
    /// By the server's clock, at the earliest and, once the call is over, at the latest.
    earliest: Instant,
    latest: Option<Instant>,
}

impl Note {
    fn explains(&self, end: Instant) -> bool {
        let is_too_late = self.latest.is_some_and(|latest| end > latest + ROUNDING);
        end + ROUNDING >= self.earliest && !is_too_late
    }
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
        let all: Vec<_> = self.notes.lock().drain().collect();
        for (key, notes) in all {
            if let Some(note) = self.age(&key, &notes, *seen, now).await? {
                self.notes.lock().insert(key, vec![note]);
            }
        }
        *seen = now;
        Ok(())
    }

    /// Ages one entry from `seen` to `now`; how it stands now, if it is still there.
    async fn age(
        &self,
        key: &[u8],
        notes: &[Note],
        seen: Duration,
        now: Duration,
    ) -> Result<Option<Note>> {
        // Gone already, or without any end: then the case shall see that it stays.
        let Ok(left) = u64::try_from(self.ask(key, "PTTL", &[key]).await?) else {
            return Ok(None);
        };
        let left = Duration::from_millis(left);
        let end = Instant::now() + left;
        // What nobody asked for is what the adapter made of it.
        let asked = notes.iter().rev().find(|note| note.explains(end));
        let deadline = asked.map_or(seen + left, |note| note.deadline);
        let left = u64::try_from(deadline.saturating_sub(now).as_millis()).unwrap_or(u64::MAX);
        if left == 0 {
            self.ask(key, "PEXPIRE", &[key, b"0"]).await?;
            return Ok(None);
        }
        let millis = left.saturating_add(SPARE);
        let earliest = Instant::now() + Duration::from_millis(millis);
        self.ask(key, "PEXPIRE", &[key, millis.to_string().as_bytes()]).await?;
        let latest = Some(Instant::now() + Duration::from_millis(millis));
        Ok(Some(Note { deadline, earliest, latest }))
    }

    /// Notes that an entry is about to be put. A call that is dropped may have put it.
    fn begin(&self, key: &[u8], ttl: Ttl) -> Pending<'_> {
        let length = ttl.as_duration();
        let deadline = self.clock.monotonic() + length;
        let note = Note { deadline, earliest: Instant::now() + length, latest: None };
        self.notes.lock().entry(key.to_vec()).or_default().push(note);
        Pending { time: self, key: key.to_vec(), note, length }
    }
}

/// A call that may put an entry.
struct Pending<'a> {
    time: &'a Time,
    key: Vec<u8>,
    note: Note,
    length: Duration,
}

impl Pending<'_> {
    /// The call is over, and the entry was put, or was not.
    fn end(self, is_put: bool) {
        let mut notes = self.time.notes.lock();
        let Some(notes) = notes.get_mut(&self.key) else { return };
        let Some(at) = notes
            .iter()
            .position(|note| note.latest.is_none() && note.earliest == self.note.earliest)
        else {
            return;
        };
        if is_put {
            notes[at].latest = Some(Instant::now() + self.length);
        } else {
            notes.remove(at);
        }
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
        let pending = self.time.begin(&self.key(key), ttl);
        let reservation = self.cache.reserve(key, ttl).await?;
        pending.end(matches!(reservation, Reservation::Granted(_)));
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
            (Some(_), SwapTtl::Set(ttl)) => Some(self.time.begin(&self.key(key), ttl)),
            _ => None,
        };
        let is_swapped = self.cache.swap(key, expected, new, ttl).await?;
        if let Some(pending) = pending {
            pending.end(is_swapped);
        }
        Ok(is_swapped)
    }

    async fn remove(&self, keys: &[CacheKey]) -> Result<()> {
        self.time.catch_up().await?;
        self.cache.remove(keys).await
    }
}
