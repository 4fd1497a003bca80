//! A clock that is moved by hand, and futures that never wait.

use std::future::Future;
use std::pin::pin;
use std::sync::Mutex;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use session_store_core::{Clock, Timestamp};

/// The output of a future of a memory back end, which is ready at once.
pub(crate) fn ready<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("a memory back end waited"),
    }
}

/// Two clocks, moved by hand.
#[derive(Debug, Default)]
pub(crate) struct Hands {
    wall: Mutex<Duration>,
    monotonic: Mutex<Duration>,
}

impl Hands {
    /// Lets time pass on both clocks.
    pub(crate) fn pass(&self, length: Duration) {
        *self.wall.lock().unwrap() += length;
        *self.monotonic.lock().unwrap() += length;
    }

    /// Sets the wall clock alone.
    pub(crate) fn set_wall(&self, now: Timestamp) {
        *self.wall.lock().unwrap() = now.since(Timestamp::EPOCH);
    }
}

impl Clock for Hands {
    fn now(&self) -> Timestamp {
        Timestamp::from_epoch(*self.wall.lock().unwrap())
    }

    fn monotonic(&self) -> Duration {
        *self.monotonic.lock().unwrap()
    }
}
