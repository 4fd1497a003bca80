//! What core asks of its host: the time, and a way to run and delay futures.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use crate::time::{Timestamp, Ttl};

/// A boxed future that may move between threads.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The time, from wherever the host gets it; `std::time` panics on wasm.
pub trait Clock: fmt::Debug + Send + Sync {
    /// Wall-clock time; may jump either way.
    fn now(&self) -> Timestamp;

    /// Time since some fixed point; never goes back, may stand still while the machine sleeps.
    fn monotonic(&self) -> Duration;

    /// The wall clock was found wrong: no store that shares it may go by entries of class Eventual
    /// before the monotonic moment `until`. For hosts whose stores live for one request only; others
    /// need not remember it.
    fn distrust(&self, until: Duration) {
        let _ = until;
    }

    /// Until when the wall clock is not believed; zero where that is not remembered.
    fn distrusted_until(&self) -> Duration {
        Duration::ZERO
    }
}

/// A moment on both clocks of a host. What may live until such a moment is dead as soon as either clock
/// says so: the monotonic one stands still while the machine sleeps, and the wall clock can be set back
/// \[K6-L02 X8-L-39\].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// By the wall clock.
    pub wall: Timestamp,
    /// By the monotonic one.
    pub monotonic: Duration,
}

impl Moment {
    /// The present one.
    pub fn now(clock: &dyn Clock) -> Self {
        Self { wall: clock.now(), monotonic: clock.monotonic() }
    }

    /// The moment `ttl` later.
    #[must_use]
    pub fn plus(self, ttl: Ttl) -> Self {
        Self {
            wall: self.wall.plus(ttl.as_duration()),
            monotonic: self.monotonic.saturating_add(ttl.as_duration()),
        }
    }

    /// Whether either clock has come to `deadline`.
    pub fn has_reached(self, deadline: Self) -> bool {
        self.wall >= deadline.wall || self.monotonic >= deadline.monotonic
    }
}

/// How to run a future beside the caller, and how to wait.
pub trait Runtime: fmt::Debug + Send + Sync {
    /// Runs `task` to its end, independently of the caller.
    ///
    /// A host that shuts down may drop the task; `Layered` notices and reports it.
    fn spawn(&self, task: BoxFuture<'static, ()>);

    /// Completes after `length`.
    fn sleep(&self, length: Duration) -> BoxFuture<'static, ()>;
}

/// The clock and the runtime that everything in one process shares.
#[derive(Clone, Debug)]
pub struct Host {
    /// Where the time comes from.
    pub clock: Arc<dyn Clock>,
    /// Where spawned futures run.
    pub runtime: Arc<dyn Runtime>,
}

impl Host {
    /// A host made of `clock` and `runtime`.
    pub fn new(clock: Arc<dyn Clock>, runtime: Arc<dyn Runtime>) -> Self {
        Self { clock, runtime }
    }

    /// Wall-clock time.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }
}
