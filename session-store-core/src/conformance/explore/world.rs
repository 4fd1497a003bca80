//! One run of a scenario: the stores, the actors, and what must be true.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use super::super::sample;
use super::quirk::Quirk;
use super::scenario::Scenario;
use super::schedule::{Timers, run_now};
use super::stepped::{SteppedPrimary, SteppedSecondary};
use crate::codec::{self, Entry};
use crate::error::Result;
use crate::host::{BoxFuture, Clock, Runtime};
use crate::layered::Layered;
use crate::primary::PrimaryStore;
use crate::secondary::{CacheKey, Record, SecondaryStore, SwapTtl};
use crate::session::{NewSession, Session, State};
use crate::time::{Timestamp, Ttl};
use crate::token::SessionId;

/// The stores that a scenario runs on, empty and in memory.
#[derive(Clone, Debug)]
pub struct Pair {
    /// The truth.
    pub primary: Arc<dyn PrimaryStore>,
    /// The cache; linearizable.
    pub secondary: Arc<dyn SecondaryStore>,
}

/// Makes the stores of one run; they answer every operation at once.
pub type MakePair<'a> = &'a (dyn Fn(Arc<dyn Clock>) -> Pair + Sync);

pub(super) type Node = Layered<Arc<SteppedPrimary>, Arc<SteppedSecondary>>;

pub(super) const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);
pub(super) const ID: SessionId = SessionId::from_bytes([1; 16]);
pub(super) const OTHER: SessionId = SessionId::from_bytes([2; 16]);

#[derive(Debug)]
pub(super) struct Still;

impl Clock for Still {
    fn now(&self) -> Timestamp {
        NOW
    }

    fn monotonic(&self) -> Duration {
        Duration::from_secs(1)
    }
}

/// Key, expected record, new record and TTL.
type LastSwap = (CacheKey, Record, Option<Record>, SwapTtl);

/// Everything that one run shares.
#[derive(Debug)]
pub(super) struct World {
    pub(super) pair: Pair,
    pub(super) quirk: Quirk,
    hides_an_entry: bool,
    max_reads: Option<u64>,
    pub(super) timers: Arc<Timers>,
    spawned: Mutex<Tasks>,
    pub(super) failing_removals: AtomicU32,
    lost_replies: AtomicU32,
    reads: AtomicU64,
    pub(super) last_swap: Mutex<Option<LastSwap>>,
    /// A revocation has been asked for.
    pub(super) revoking: AtomicBool,
    /// One has returned `Immediate`.
    pub(super) revoked: AtomicBool,
    /// The newest version that an update has acknowledged.
    pub(super) acknowledged: AtomicU64,
    /// The session has been created.
    pub(super) created: AtomicBool,
    /// A removal has failed: entries may be left until the log is drained.
    is_leaky: AtomicBool,
    pub(super) drained: AtomicBool,
    broken: Mutex<Option<String>>,
    actor: AtomicUsize,
    log: Mutex<Vec<String>>,
}

/// Futures have no `Debug` of their own.
#[derive(Default)]
struct Tasks(Vec<BoxFuture<'static, ()>>);

impl std::fmt::Debug for Tasks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} tasks", self.0.len())
    }
}

/// The runtime of a run: spawned tasks become choices, timers fire when the scheduler says so.
#[derive(Debug)]
pub(super) struct Stepper(pub(super) Arc<World>);

impl Runtime for Stepper {
    fn spawn(&self, task: BoxFuture<'static, ()>) {
        self.0.spawn(task);
    }

    fn sleep(&self, _length: Duration) -> BoxFuture<'static, ()> {
        Box::pin(self.0.timers.start())
    }
}

impl World {
    pub(super) fn new(scenario: &Scenario, make: MakePair<'_>) -> Arc<Self> {
        let world = Arc::new(Self {
            pair: make(Arc::new(Still)),
            quirk: scenario.quirk,
            hides_an_entry: scenario.hides_an_entry,
            max_reads: scenario.max_reads,
            timers: Arc::default(),
            spawned: Mutex::default(),
            failing_removals: AtomicU32::new(scenario.failing_removals),
            lost_replies: AtomicU32::new(scenario.lost_replies),
            reads: AtomicU64::new(0),
            last_swap: Mutex::default(),
            revoking: AtomicBool::new(false),
            revoked: AtomicBool::new(false),
            acknowledged: AtomicU64::new(0),
            created: AtomicBool::new(!scenario.actors.contains('n')),
            is_leaky: AtomicBool::new(false),
            drained: AtomicBool::new(false),
            broken: Mutex::default(),
            actor: AtomicUsize::new(0),
            log: Mutex::default(),
        });
        let is_ready = run_now(world.prepare(scenario));
        if !matches!(is_ready, Some(Ok(()))) {
            world.breaks("the stores do not answer at once");
        }
        world
    }

    async fn prepare(&self, scenario: &Scenario) -> Result<()> {
        if self.created.load(Ordering::Relaxed) {
            self.pair.primary.insert(&new_session(ID), NOW).await?;
        }
        if scenario.actors.contains(['f', 'd']) {
            self.pair.primary.insert(&new_session(OTHER), NOW).await?;
        }
        if scenario.is_warm {
            self.plant(ID).await?;
            self.plant(OTHER).await?;
        }
        Ok(())
    }

    /// Caches the session as stored.
    async fn plant(&self, id: SessionId) -> Result<()> {
        let Some(snapshot) = self.pair.primary.find(&id).await?.snapshot else { return Ok(()) };
        let record = codec::encode(&snapshot, None)?;
        let ttl = Ttl::from_secs_const(60);
        if let crate::secondary::Reservation::Granted(lease) =
            self.pair.secondary.reserve(&key(id), ttl).await?
        {
            let set = SwapTtl::Set(ttl);
            self.pair.secondary.swap(&key(id), &lease, Some(&record), set).await?;
        }
        Ok(())
    }

    pub(super) fn quirk(&self) -> Quirk {
        self.quirk
    }

    pub(super) fn ties_children(&self) -> bool {
        self.quirk == Quirk::RevokeNotSpawned
    }

    pub(super) fn hides_an_entry(&self) -> bool {
        self.hides_an_entry
    }

    pub(super) fn spawn(&self, task: BoxFuture<'static, ()>) {
        self.spawned.lock().0.push(task);
    }

    pub(super) fn take_spawned(&self) -> Vec<BoxFuture<'static, ()>> {
        std::mem::take(&mut self.spawned.lock().0)
    }

    pub(super) fn set_actor(&self, actor: usize) {
        self.actor.store(actor, Ordering::Relaxed);
    }

    pub(super) fn count_read(&self) {
        self.reads.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn log(&self, line: &str) {
        let actor = self.actor.load(Ordering::Relaxed);
        self.log.lock().push(format!("  task {actor}: {line}"));
    }

    pub(super) fn trace(&self) -> String {
        self.log.lock().join("\n")
    }

    /// Whether the removal that is asked for fails.
    pub(super) fn fails_removal(&self) -> bool {
        take_one(&self.failing_removals)
    }

    /// A failed removal was reported: an entry may be left until the log is drained.
    pub(super) fn owns_up(&self) {
        self.is_leaky.store(true, Ordering::Relaxed);
    }

    pub(super) fn loses_reply(&self) -> bool {
        take_one(&self.lost_replies)
    }

    pub(super) fn remember_swap(
        &self,
        key: &CacheKey,
        expected: &Record,
        new: Option<&Record>,
        ttl: SwapTtl,
    ) {
        *self.last_swap.lock() = Some((key.clone(), expected.clone(), new.cloned(), ttl));
    }

    pub(super) async fn forget_everything(&self) {
        // In memory this can't fail.
        let _ = self.pair.secondary.remove(&[key(ID), key(OTHER)]).await;
    }

    pub(super) fn breaks(&self, what: &str) {
        self.log(what);
        self.broken.lock().get_or_insert_with(|| what.to_owned());
    }

    /// What was broken in this run, if anything.
    pub(super) fn verdict(&self, is_stuck: bool) -> Option<String> {
        if let Some(broken) = self.broken.lock().take() {
            return Some(broken);
        }
        if is_stuck {
            return Some("a task waits for ever".to_owned());
        }
        if self.max_reads.is_some_and(|most| self.reads.load(Ordering::Relaxed) > most) {
            return Some("more reads of the primary than allowed".to_owned());
        }
        let is_leaky = self.is_leaky.load(Ordering::Relaxed);
        let was_drained = self.drained.load(Ordering::Relaxed);
        if is_leaky && !was_drained {
            return None;
        }
        let stale = run_now(self.is_stale())?;
        stale.then(|| "a revoked session is still cached when everything is over".to_owned())
    }

    async fn is_stale(&self) -> bool {
        for id in [ID, OTHER] {
            let cached = self.pair.secondary.get(&key(id)).await.ok().flatten();
            let stored = self.pair.primary.find(&id).await.ok().and_then(|found| found.snapshot);
            let is_value =
                cached.is_some_and(|record| matches!(codec::decode(&record), Entry::Value(..)));
            let is_live = stored.is_some_and(|found| found.session.state(NOW) == State::Active);
            if is_value && !is_live {
                return true;
            }
        }
        false
    }
}

fn take_one(left: &AtomicU32) -> bool {
    left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
}

pub(super) fn key(id: SessionId) -> CacheKey {
    CacheKey::trusted(format!("ss:{}:{id}", codec::VERSION))
}

pub(super) fn new_session(id: SessionId) -> NewSession {
    sample::new(Session { id, ..sample::guest(1) })
}
