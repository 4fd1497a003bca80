//! Tasks that a host drops, as the shutdown of a runtime does.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::super::checks;
use super::super::host::TestRuntime;
use super::super::report::{Violation, ensure};
use super::super::runner::Outcome;
use super::super::wire::Wire;
use super::{Node, PairBench};
use crate::host::{BoxFuture, Host, Runtime};
use crate::policy::Policy;
use crate::sessions::{Authentication, Sessions};
use crate::token::Token;

checks! { ($) layered_lost: PairBench;
    "X8-L-29" a_lost_task_is_no_absence
        "A read whose task is lost is read again, and is an error if every task is lost.",
}

/// Drops the first tasks.
#[derive(Debug)]
struct Losing {
    inner: Arc<TestRuntime>,
    left: AtomicUsize,
}

impl Runtime for Losing {
    fn spawn(&self, task: BoxFuture<'static, ()>) {
        let left = self.left.load(Ordering::SeqCst);
        if left == 0 {
            return self.inner.spawn(task);
        }
        self.left.store(left - 1, Ordering::SeqCst);
    }

    fn sleep(&self, length: Duration) -> BoxFuture<'static, ()> {
        self.inner.sleep(length)
    }
}

/// A node that loses its next tasks, `count` of them.
fn losing(on: &PairBench, count: usize) -> Result<Node, Violation> {
    let (db, cache) = (Wire::default(), Wire::default());
    let runtime = Losing { inner: Arc::clone(&on.runtime), left: AtomicUsize::new(count) };
    let host = Host::new(on.clock.clone(), Arc::new(runtime));
    let secondary = Arc::clone(&on.secondary);
    let store = on.layered_over(secondary, PairBench::config(), (&db, &cache), host)?;
    Ok(Node { app: Sessions::new(store, Policy::default())?, db, cache })
}

async fn a_lost_task_is_no_absence(on: &PairBench) -> Outcome {
    let token = on.log_in_warm(&on.node()?).await?;
    let thief = Token::for_session(token.id())?;
    // A miss, a "no" to be confirmed, and a read past a cache that is down.
    for (is_owner, is_cached, is_down) in
        [(true, false, false), (false, true, false), (true, true, true)]
    {
        for count in [1, usize::MAX] {
            if !is_cached {
                on.evict(token.id()).await?;
            }
            let node = losing(on, count)?;
            node.cache.set_down(is_down);
            let answer = node.app.authenticate(if is_owner { &token } else { &thief }).await;
            if count > 1 {
                let is_error = matches!(answer, Authentication::Unavailable(_));
                ensure(is_error, "a read that was lost every time has an answer")?;
            } else {
                ensure(answer.live().is_some() == is_owner, "a lost read is an answer")?;
                on.runtime.settle().await;
            }
        }
        let node = on.node()?;
        ensure(node.accepts(&token).await, "not accepted after a lost read")?;
        on.runtime.settle().await;
    }
    super::DONE
}
