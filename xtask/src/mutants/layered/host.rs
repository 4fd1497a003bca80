//! A runtime that does not wait.

use std::sync::Arc;
use std::time::Duration;

use session_store_core::{BoxFuture, Host, Runtime};

use super::super::stage::pause;

#[derive(Debug)]
struct Sleepless(Arc<dyn Runtime>);

impl Runtime for Sleepless {
    fn spawn(&self, task: BoxFuture<'static, ()>) {
        self.0.spawn(task);
    }

    fn sleep(&self, _length: Duration) -> BoxFuture<'static, ()> {
        Box::pin(pause())
    }
}

/// `host`, whose sleeps end at once.
pub(in super::super) fn sleepless(host: Host) -> Host {
    Host { runtime: Arc::new(Sleepless(host.runtime)), ..host }
}
