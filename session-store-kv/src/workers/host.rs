//! The host part of a Worker: its clock, and its way to go on after the answer was sent.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use session_store_core::{BoxFuture, Clock, Host, Runtime, Timestamp};
use worker::send::{SendFuture, SendWrapper};
use worker::wasm_bindgen::{JsCast, JsValue};
use worker::{Context, Date, Delay, ScheduleContext};

/// The latest time that anybody in this isolate has seen, in milliseconds.
static LATEST: AtomicU64 = AtomicU64::new(0);

/// Until when the wall clock of this isolate is not believed: the stores of a request, which found it
/// wrong, are gone by the next one.
static DISTRUSTED: AtomicU64 = AtomicU64::new(0);

/// What this isolate has written to Workers KV.
pub(crate) static PACE: Pace = Pace(Mutex::new(BTreeMap::new()));

/// Which keys were put or removed a moment ago: KV takes one write per second and key, and requests that miss at
/// the same time bring the same. Namespaces are not told apart: what is not put is read again.
#[derive(Debug)]
pub(crate) struct Pace(Mutex<BTreeMap<String, Timestamp>>);

impl Pace {
    /// Takes note that `key` is removed at `now`: what is put right after would be refused.
    pub(crate) fn removes(&self, key: &str, now: Timestamp) {
        self.0.lock().insert(key.to_owned(), now);
    }

    /// Whether `key` may be put at `now`, which is then taken for done.
    pub(crate) fn admits(&self, key: &str, now: Timestamp) -> bool {
        let mut put = self.0.lock();
        put.retain(|_, at| now.distance(*at) < Duration::from_secs(1));
        let is_admitted = !put.contains_key(key);
        if is_admitted {
            put.insert(key.to_owned(), now);
        }
        is_admitted
    }
}

/// The clock of a Worker. In production it stands still while the Worker computes and moves with
/// each I/O. Its monotonic time is the wall's, held where that goes back.
#[derive(Clone, Copy, Debug, Default)]
pub struct WorkerClock;

impl Clock for WorkerClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_epoch(Duration::from_millis(Date::now().as_millis()))
    }

    fn monotonic(&self) -> Duration {
        let now = Date::now().as_millis();
        Duration::from_millis(LATEST.fetch_max(now, Ordering::Relaxed).max(now))
    }

    fn distrust(&self, until: Duration) {
        let until = u64::try_from(until.as_millis()).unwrap_or(u64::MAX);
        DISTRUSTED.fetch_max(until, Ordering::Relaxed);
    }

    fn distrusted_until(&self) -> Duration {
        Duration::from_millis(DISTRUSTED.load(Ordering::Relaxed))
    }
}

/// Runs what follows an answer with `waitUntil` of one invocation.
///
/// A Worker may go on for 30 s after its answer; what takes longer is dropped, and a layered store
/// notices. It belongs to its invocation and must not be kept for the next.
#[derive(Debug)]
pub struct WorkerRuntime {
    invocation: Invocation,
}

#[derive(Debug)]
enum Invocation {
    Fetch(Context),
    Scheduled(SendWrapper<ScheduleContext>),
}

impl WorkerRuntime {
    /// The runtime of a request.
    pub fn of(context: &Context) -> Self {
        // The type can't be cloned, what it holds can.
        let held: &JsValue = context.as_ref().as_ref();
        Self { invocation: Invocation::Fetch(Context::new(held.clone().unchecked_into())) }
    }

    /// The runtime of a scheduled event.
    pub fn of_scheduled(context: &ScheduleContext) -> Self {
        let context = SendWrapper::new(context.clone());
        Self { invocation: Invocation::Scheduled(context) }
    }
}

impl Runtime for WorkerRuntime {
    fn spawn(&self, task: BoxFuture<'static, ()>) {
        match &self.invocation {
            Invocation::Fetch(context) => context.wait_until(task),
            Invocation::Scheduled(context) => context.wait_until(task),
        }
    }

    fn sleep(&self, length: Duration) -> BoxFuture<'static, ()> {
        // The timer of JavaScript counts milliseconds in 31 bits.
        let longest = Duration::from_millis(i32::MAX.unsigned_abs().into());
        Box::pin(SendFuture::new(Delay::from(length.min(longest))))
    }
}

/// Clock and runtime of one request; to be made anew for each.
pub fn worker_host(context: &Context) -> Host {
    Host::new(Arc::new(WorkerClock), Arc::new(WorkerRuntime::of(context)))
}

/// Clock and runtime of one scheduled event.
pub fn scheduled_host(context: &ScheduleContext) -> Host {
    Host::new(Arc::new(WorkerClock), Arc::new(WorkerRuntime::of_scheduled(context)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_put_once_a_second() {
        let pace = Pace(Mutex::default());
        let at = Timestamp::from_millis;
        assert!(pace.admits("a", at(5_000)) && pace.admits("b", at(5_000)));
        assert!(!pace.admits("a", at(5_000)) && !pace.admits("a", at(5_999)));
        // What was refused counts for nothing, and nothing is kept for longer.
        assert!(pace.admits("a", at(6_000)));
        assert_eq!(pace.0.lock().len(), 1);
        // A clock that was set back stops nothing.
        assert!(pace.admits("a", at(1_000)));
        pace.removes("c", at(1_000));
        assert!(!pace.admits("c", at(1_999)) && pace.admits("c", at(2_000)));
    }
}
