//! Readers and a writer on some nodes, who know at every moment what must not happen.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};
use session_store::{Authentication, Reason, Source, Token};

use super::node::{CACHE_TTL, LEASE_TTL, Node, Outcome};
use super::{ensure, until};

/// For how long a session is still asked for when nobody may be let in by it any more: until no entry
/// of it can be left, wherever it may come back from.
const REMEMBERED: Duration =
    CACHE_TTL.saturating_add(LEASE_TTL).saturating_add(Duration::from_secs(1));
/// So many of the youngest are asked for as often as all the others.
const YOUNG: usize = 8;
/// How long something may take that has to happen under load.
const PATIENCE: Duration = Duration::from_mins(1);

/// A session, and what is known of its end.
#[derive(Debug)]
struct Entry {
    token: Token,
    /// Somebody has begun to end it.
    is_ending: AtomicBool,
    /// That end was there when the call returned.
    is_immediate: AtomicBool,
    /// From when on nobody may be let in.
    dead_from: OnceLock<Instant>,
}

impl Entry {
    fn new(token: Token) -> Self {
        let (is_ending, is_immediate) = (AtomicBool::new(false), AtomicBool::new(false));
        Self { token, is_ending, is_immediate, dead_from: OnceLock::new() }
    }
}

/// What was seen.
#[derive(Debug, Default)]
pub(super) struct Seen {
    validations: AtomicU64,
    hits: AtomicU64,
    unavailable: AtomicU64,
    write_errors: AtomicU64,
    revocations: AtomicU64,
    immediate: AtomicU64,
    accepted_dead: AtomicU64,
    /// How often somebody asked for a session whose bound was over, and how often that bound had not
    /// been zero.
    asked_dead: AtomicU64,
    asked_after_bound: AtomicU64,
    false_logouts: AtomicU64,
    /// Tasks that ended too soon.
    broken: AtomicU64,
    /// What the first call said that failed.
    first_failure: OnceLock<String>,
    first_hit: Mutex<Option<Instant>>,
    last_trouble: Mutex<Option<Instant>>,
}

fn of(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

fn add(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} lookups ({} hits, {} unavailable), {} logouts ({} immediate), {} failed writes, {} \
             lookups of dead sessions ({} after a bound)",
            of(&self.validations),
            of(&self.hits),
            of(&self.unavailable),
            of(&self.revocations),
            of(&self.immediate),
            of(&self.write_errors),
            of(&self.asked_dead),
            of(&self.asked_after_bound)
        )
    }
}

impl Seen {
    /// Nobody was let in who must not be, and nobody was sent away who must not be.
    pub(super) fn judge(&self) -> Outcome {
        let (accepted, logouts) = (of(&self.accepted_dead), of(&self.false_logouts));
        if accepted + logouts > 0 {
            return Err(format!(
                "{accepted} accepted after the bound, {logouts} false logouts; {self}"
            ));
        }
        if of(&self.broken) > 0 {
            return Err(format!("a reader or the writer broke; {self}"));
        }
        ensure(!self.is_idle(), &format!("hardly anything happened: {self}"))
    }

    /// Whether too little has happened to be judged. Bounds that nobody lived to see have not been.
    fn is_idle(&self) -> bool {
        of(&self.validations) < 100 || of(&self.revocations) < 3 || of(&self.asked_dead) < 100
    }

    /// The same, and no call failed: the database was there all the time.
    pub(super) fn judge_calls(&self) -> Outcome {
        self.judge()?;
        let failed = of(&self.unavailable) + of(&self.write_errors);
        match self.first_failure.get() {
            Some(first) => Err(format!("{failed} calls failed, the first by {first:?}; {self}")),
            None => Ok(()),
        }
    }

    /// The same after an outage of the cache: there were bounds, and somebody lived to see their end.
    pub(super) fn judge_without_cache(&self) -> Outcome {
        self.judge_calls()?;
        ensure(self.has_outlived_a_bound(), &format!("no bound was over: {self}"))
    }

    /// The same as [`Seen::judge`] after an outage of the database: somebody noticed it.
    pub(super) fn judge_without_truth(&self) -> Outcome {
        self.judge()?;
        ensure(of(&self.unavailable) > 0, &format!("nobody missed the database: {self}"))
    }

    /// Everybody is at work.
    pub(super) fn has_begun(&self) -> bool {
        of(&self.hits) > 100 && of(&self.immediate) > 3
    }

    /// A logout has returned a bound.
    pub(super) fn has_bound(&self) -> bool {
        of(&self.revocations) > of(&self.immediate)
    }

    /// Somebody asked for a session after such a bound was over.
    pub(super) fn has_outlived_a_bound(&self) -> bool {
        of(&self.asked_after_bound) > 0
    }

    /// A lookup could not be answered.
    pub(super) fn has_failed(&self) -> bool {
        of(&self.unavailable) > 0
    }

    fn failed(&self, error: &impl fmt::Display) {
        self.first_failure.get_or_init(|| error.to_string());
    }

    /// How long after `moment` the cache answered again.
    pub(super) fn first_hit_after(&self, moment: Instant) -> Option<Duration> {
        self.first_hit.lock().map(|hit| hit.saturating_duration_since(moment))
    }

    /// How long after `moment` the last lookup was unavailable.
    pub(super) fn last_trouble_after(&self, moment: Instant) -> Option<Duration> {
        self.last_trouble.lock().map(|last| last.saturating_duration_since(moment))
    }

    /// From now on the first hit is looked for.
    pub(super) fn await_hit(&self) {
        *self.first_hit.lock() = None;
    }
}

/// Readers and a writer, until they are stopped.
#[derive(Debug)]
pub(super) struct Load {
    pub(super) seen: Arc<Seen>,
    entries: Arc<RwLock<Vec<Arc<Entry>>>>,
    is_over: Arc<AtomicBool>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Load {
    /// Starts `readers` on each node, and one who logs in and out on the first.
    pub(super) fn start(nodes: &[Arc<Node>], readers: usize) -> Self {
        let (seen, is_over) = (Arc::new(Seen::default()), Arc::new(AtomicBool::new(false)));
        let entries = Arc::new(RwLock::new(Vec::new()));
        let mut load = Self { seen, entries, is_over, tasks: Vec::new() };
        for node in nodes {
            for number in 0..readers {
                let task = read(Arc::clone(node), load.shared(), number);
                load.tasks.push(tokio::spawn(task));
            }
        }
        if let Some(node) = nodes.first() {
            load.tasks.push(tokio::spawn(write(Arc::clone(node), load.shared())));
        }
        load
    }

    fn shared(&self) -> Shared {
        Shared {
            seen: Arc::clone(&self.seen),
            entries: Arc::clone(&self.entries),
            is_over: Arc::clone(&self.is_over),
        }
    }

    /// Waits until what was seen `holds`. A busy machine is slow: only what never comes is late.
    pub(super) async fn until(&self, what: &str, holds: impl Fn(&Seen) -> bool) -> Outcome {
        let waited = until(PATIENCE, what, async || holds(&self.seen)).await;
        waited.map(drop).map_err(|late| format!("{late}; {}", self.seen))
    }

    /// Has `token` asked for as well.
    pub(super) fn ask_for(&self, token: Token) {
        self.entries.write().push(Arc::new(Entry::new(token)));
    }

    /// Lets everybody finish what they are at, once there is something to judge.
    pub(super) async fn stop(mut self) -> Arc<Seen> {
        // What never comes is for the judge to say.
        let _ = self.until("something to judge", |seen| !seen.is_idle()).await;
        self.is_over.store(true, Ordering::Relaxed);
        for task in std::mem::take(&mut self.tasks) {
            if task.await.is_err() {
                add(&self.seen.broken);
            }
        }
        Arc::clone(&self.seen)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
    }
}

#[derive(Clone, Debug)]
struct Shared {
    seen: Arc<Seen>,
    entries: Arc<RwLock<Vec<Arc<Entry>>>>,
    is_over: Arc<AtomicBool>,
}

impl Shared {
    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }
}

async fn read(node: Arc<Node>, shared: Shared, mut number: usize) {
    while !shared.is_over() {
        // Any order that comes to every entry will do.
        number = number.wrapping_mul(31).wrapping_add(7);
        let entry = {
            let entries = shared.entries.read();
            let all = entries.len();
            let some = if number.is_multiple_of(2) { all } else { all.min(YOUNG) };
            entries.get(all - some + number / 2 % some.max(1)).cloned()
        };
        let Some(entry) = entry else {
            tokio::time::sleep(Duration::from_millis(1)).await;
            continue;
        };
        look(&node, &shared.seen, &entry).await;
    }
}

async fn look(node: &Node, seen: &Seen, entry: &Entry) {
    let began = Instant::now();
    let must_be_refused = entry.dead_from.get().is_some_and(|moment| began >= *moment);
    let answer = node.app.authenticate(&entry.token).await;
    add(&seen.validations);
    if must_be_refused {
        add(&seen.asked_dead);
        if !entry.is_immediate.load(Ordering::SeqCst) {
            add(&seen.asked_after_bound);
        }
    }
    match answer {
        Authentication::Live(live) => {
            if must_be_refused {
                add(&seen.accepted_dead);
            }
            if live.source == Source::Secondary {
                let now = Instant::now();
                add(&seen.hits);
                seen.first_hit.lock().get_or_insert(now);
            }
        }
        Authentication::Absent(_) => {
            // It may have been ended while the answer was on its way.
            if !entry.is_ending.load(Ordering::SeqCst) {
                add(&seen.false_logouts);
            }
        }
        Authentication::Unavailable(error) => {
            add(&seen.unavailable);
            seen.failed(&told(&error));
            *seen.last_trouble.lock() = Some(Instant::now());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

async fn write(node: Arc<Node>, shared: Shared) {
    while !shared.is_over() {
        match node.log_in().await {
            Ok(token) => {
                shared.entries.write().push(Arc::new(Entry::new(token)));
            }
            Err(error) => {
                add(&shared.seen.write_errors);
                shared.seen.failed(&error);
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
        let oldest = {
            let entries = shared.entries.read();
            let open = |entry: &&Arc<Entry>| entry.dead_from.get().is_none();
            let count = entries.iter().filter(open).count();
            if count > 5 { entries.iter().find(open).cloned() } else { None }
        };
        if let Some(entry) = oldest {
            end(&node, &shared.seen, &entry).await;
        }
        // Until its bound is over, what is asked of an ended session shows nothing.
        let is_old = |entry: &Arc<Entry>| {
            entry.dead_from.get().is_some_and(|moment| moment.elapsed() > REMEMBERED)
        };
        shared.entries.write().retain(|entry| !is_old(entry));
    }
}

async fn end(node: &Node, seen: &Seen, entry: &Entry) {
    entry.is_ending.store(true, Ordering::SeqCst);
    match node.app.admin_revoke(entry.token.id(), Reason::Logout).await {
        Ok(done) => {
            add(&seen.revocations);
            let bound = done.visibility.bound();
            if bound.is_zero() {
                add(&seen.immediate);
                entry.is_immediate.store(true, Ordering::SeqCst);
            }
            // The bound is counted from the return.
            let _ = entry.dead_from.set(Instant::now() + bound);
        }
        Err(error) => {
            add(&seen.write_errors);
            seen.failed(&told(&error));
        }
    }
}

/// An error and where it comes from.
fn told(error: &session_store::Error) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}
