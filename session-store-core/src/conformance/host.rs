//! A host whose time stands still until a case moves it, and whose tasks run where the case runs.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use futures_channel::{mpsc, oneshot};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use parking_lot::Mutex;

use super::wire::is_busy;
use crate::host::{BoxFuture, Clock, Runtime};
use crate::time::Timestamp;

/// A clock that a case moves by hand.
#[derive(Debug)]
pub struct TestClock {
    wall: AtomicI64,
    monotonic: AtomicU64,
    distrusted: AtomicU64,
}

impl TestClock {
    /// A clock that shows `now`.
    pub fn at(now: Timestamp) -> Arc<Self> {
        let wall = AtomicI64::new(now.as_millis());
        Arc::new(Self { wall, monotonic: AtomicU64::new(1_000), distrusted: AtomicU64::default() })
    }

    /// Lets `length` pass on both clocks.
    pub fn advance(&self, length: Duration) {
        self.jump(i64::try_from(length.as_millis()).unwrap_or(i64::MAX));
        let millis = u64::try_from(length.as_millis()).unwrap_or(u64::MAX);
        self.monotonic.fetch_add(millis, Ordering::SeqCst);
    }

    /// Sets the wall clock forward or back, as a correction of the time does.
    pub fn jump(&self, millis: i64) {
        self.wall.fetch_add(millis, Ordering::SeqCst);
    }
}

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.wall.load(Ordering::SeqCst))
    }

    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.monotonic.load(Ordering::SeqCst))
    }

    fn distrust(&self, until: Duration) {
        let until = u64::try_from(until.as_millis()).unwrap_or(u64::MAX);
        self.distrusted.fetch_max(until, Ordering::SeqCst);
    }

    fn distrusted_until(&self) -> Duration {
        Duration::from_millis(self.distrusted.load(Ordering::SeqCst))
    }
}

/// How many rounds without work make rest.
const QUIET: u32 = 50;

type Task = BoxFuture<'static, ()>;

/// Runs spawned tasks beside the case that [`TestRuntime::drive`] drives.
#[derive(Debug)]
pub struct TestRuntime {
    clock: Arc<TestClock>,
    spawned: mpsc::UnboundedSender<Task>,
    queue: Mutex<Option<mpsc::UnboundedReceiver<Task>>>,
    alive: Arc<AtomicUsize>,
    sleepers: Mutex<Vec<(Duration, oneshot::Sender<()>)>>,
}

impl TestRuntime {
    /// A runtime whose sleeps end by `clock`.
    pub fn new(clock: Arc<TestClock>) -> Arc<Self> {
        let (spawned, queue) = mpsc::unbounded();
        Arc::new(Self {
            clock,
            spawned,
            queue: Mutex::new(Some(queue)),
            alive: Arc::default(),
            sleepers: Mutex::default(),
        })
    }

    /// Runs `main` and whatever is spawned meanwhile, until `main` is done.
    pub async fn drive<T>(&self, main: impl Future<Output = T>) -> T {
        let queue = self.queue.lock().take();
        let mut queue = queue.unwrap_or_else(|| mpsc::unbounded().1);
        let mut tasks = FuturesUnordered::new();
        let mut main = pin!(main);
        poll_fn(|cx| {
            loop {
                if let Poll::Ready(value) = main.as_mut().poll(cx) {
                    return Poll::Ready(value);
                }
                let mut progress = false;
                while let Poll::Ready(Some(task)) = queue.poll_next_unpin(cx) {
                    tasks.push(task);
                    progress = true;
                }
                while let Poll::Ready(Some(())) = tasks.poll_next_unpin(cx) {
                    self.alive.fetch_sub(1, Ordering::SeqCst);
                    progress = true;
                }
                if !progress {
                    return Poll::Pending;
                }
            }
        })
        .await
    }

    /// Waits until every spawned task is done or asleep.
    pub async fn settle(&self) {
        self.settle_but(0).await;
    }

    /// The same, when `held` tasks wait for the case itself.
    pub async fn settle_but(&self, held: usize) {
        let mut quiet = 0;
        poll_fn(|cx| {
            let asleep = {
                let mut sleepers = self.sleepers.lock();
                sleepers.retain(|(_, wake)| !wake.is_canceled());
                sleepers.len()
            };
            let alive = self.alive.load(Ordering::SeqCst);
            // A task that waits under a deadline sleeps too, so being outnumbered by sleepers is a
            // sign of rest only if it lasts.
            // And a call that a server works on is waited for, deadline or not.
            quiet = if alive <= asleep + held && !is_busy() { quiet + 1 } else { 0 };
            if alive == 0 || quiet > QUIET {
                return Poll::Ready(());
            }
            cx.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
    }

    /// Lets `length` pass, and wakes whoever slept for it.
    pub fn advance(&self, length: Duration) {
        self.clock.advance(length);
        let now = self.clock.monotonic();
        let due: Vec<_> = self.sleepers.lock().extract_if(.., |(until, _)| *until <= now).collect();
        for (_, wake) in due {
            // The sleeper may have been dropped.
            let _ = wake.send(());
        }
    }
}

impl Runtime for TestRuntime {
    fn spawn(&self, task: Task) {
        self.alive.fetch_add(1, Ordering::SeqCst);
        // After the end of a case nobody listens, and the task is lost as in a shutdown.
        let _ = self.spawned.unbounded_send(task);
    }

    fn sleep(&self, length: Duration) -> Task {
        let (wake, woken) = oneshot::channel();
        self.sleepers.lock().push((self.clock.monotonic() + length, wake));
        Box::pin(async move {
            let _ = woken.await;
        })
    }
}
