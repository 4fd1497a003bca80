//! The host of a native program: the system's clocks, and tokio.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use session_store_core::{BoxFuture, Clock, Host, Runtime, Timestamp};
use tokio::runtime::Handle;

/// The clocks of the operating system.
#[derive(Clone, Copy, Debug)]
pub struct SystemClock {
    started: Instant,
}

impl SystemClock {
    /// Clocks whose monotonic time starts now.
    pub fn new() -> Self {
        Self { started: Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        // A clock before 1970 is as good as none: everything is then in the future.
        Timestamp::from_epoch(since_epoch.unwrap_or_default())
    }

    fn monotonic(&self) -> Duration {
        self.started.elapsed()
    }
}

/// Runs and delays futures on a tokio runtime.
#[derive(Clone, Debug)]
pub struct TokioRuntime {
    handle: Handle,
}

impl TokioRuntime {
    /// The runtime behind `handle`; its time driver must be enabled.
    pub fn new(handle: Handle) -> Self {
        Self { handle }
    }
}

impl Runtime for TokioRuntime {
    fn spawn(&self, task: BoxFuture<'static, ()>) {
        drop(self.handle.spawn(task));
    }

    fn sleep(&self, length: Duration) -> BoxFuture<'static, ()> {
        let _guard = self.handle.enter();
        Box::pin(tokio::time::sleep(length))
    }
}

/// The system's clocks and the tokio runtime that this is called on.
///
/// # Panics
///
/// Outside of a tokio runtime.
pub fn tokio_host() -> Host {
    Host::new(Arc::new(SystemClock::new()), Arc::new(TokioRuntime::new(Handle::current())))
}
