//! Cases that wait by asking again, in a runtime that serves I/O only between its tasks.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use futures_util::task::AtomicWaker;
use worker::Delay;

/// Whether the work wants to be asked again.
#[derive(Debug, Default)]
struct Nudge {
    is_due: AtomicBool,
    waiting: AtomicWaker,
}

impl Wake for Nudge {
    fn wake(self: Arc<Self>) {
        self.is_due.store(true, Ordering::SeqCst);
        self.waiting.wake();
    }
}

impl Nudge {
    async fn due(&self) {
        std::future::poll_fn(|context| {
            self.waiting.register(context.waker());
            if self.is_due.swap(false, Ordering::SeqCst) { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}

/// Runs `work`. When it asks at once to be asked again, the runtime has its turn in between: a promise
/// would come first, and no answer of a binding would ever arrive.
pub(crate) async fn in_turns<T>(work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    let nudge = Arc::new(Nudge::default());
    let waker = Waker::from(Arc::clone(&nudge));
    loop {
        if let Poll::Ready(value) = work.as_mut().poll(&mut Context::from_waker(&waker)) {
            return value;
        }
        if nudge.is_due.load(Ordering::SeqCst) {
            Delay::from(Duration::ZERO).await;
        }
        nudge.due().await;
    }
}
