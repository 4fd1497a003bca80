//! An open connection to one server: how well it answers, and whether it is still the server that
//! it was, and in charge.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared, try_join};
use parking_lot::Mutex;
use tokio::time::timeout;

use crate::driver::{Command, Connection, Reply};
use crate::error::Fault;
use crate::identity::{Identity, Known};
use crate::link::{Dialer, Place};
use crate::url::Node;

/// After so many questions without an answer a connection may be suspected.
const SUSPICIOUS: u32 = 3;

/// An open connection.
#[derive(Debug)]
pub(crate) struct Line {
    connection: Box<dyn Connection>,
    identity: Identity,
    /// Who was seen there last, over this connection or any other.
    known: Known,
    pub(crate) node: Node,
    /// When opening it began: what the sentinels said may be as old.
    pub(crate) opened: Instant,
    /// Questions since the last answer.
    asked: AtomicU32,
    /// When the first of them was asked, in milliseconds since `opened`.
    silent_since: AtomicU64,
    /// When the last successful check began, likewise.
    confirmed: AtomicU64,
    check: Mutex<Option<Check>>,
}

/// An attempt to find out whether all is as it was.
type Check = Shared<BoxFuture<'static, Result<(), Fault>>>;

impl Line {
    pub(crate) fn new(
        connection: Box<dyn Connection>,
        identity: Identity,
        known: Known,
        node: Node,
        opened: Instant,
    ) -> Self {
        Self {
            connection,
            identity,
            known,
            node,
            opened,
            asked: AtomicU32::new(0),
            silent_since: AtomicU64::new(0),
            confirmed: AtomicU64::new(0),
            check: Mutex::new(None),
        }
    }

    /// Notes who answered when it was opened.
    pub(crate) fn introduce(&self, dialer: &Dialer) {
        self.known.note(&self.identity, &dialer.watch);
    }

    /// Whether nobody else was seen there since, by whatever way.
    pub(crate) fn is_current(&self) -> bool {
        self.known.is(&self.identity)
    }

    /// The answers to commands that are sent with nothing in between.
    pub(crate) async fn send(
        &self,
        commands: &[Command<'_>],
    ) -> Result<Vec<Result<Reply, Fault>>, Fault> {
        if self.asked.fetch_add(1, Ordering::Relaxed) == 0 {
            self.silent_since.store(self.age(), Ordering::Relaxed);
        }
        let answers = match commands {
            [command] => match self.connection.one(*command).await {
                // An answer as any of several would be: where else to ask, it may be.
                refused @ Err(Fault::Answered { .. }) => Ok(vec![refused]),
                other => other.map(|reply| vec![Ok(reply)]),
            },
            _ => self.connection.many(commands).await,
        };
        if matches!(answers, Ok(_) | Err(Fault::Answered { .. })) {
            self.asked.store(0, Ordering::Relaxed);
        }
        answers
    }

    /// Whether it was lost, or has left several questions unanswered for `silence`.
    pub(crate) fn is_useless(&self, silence: Duration) -> bool {
        let silent = self.age().saturating_sub(self.silent_since.load(Ordering::Relaxed));
        let is_silent = self.asked.load(Ordering::Relaxed) >= SUSPICIOUS
            && u128::from(silent) >= silence.as_millis();
        is_silent || self.connection.is_closed()
    }

    /// Finds out, when it is time to, whether the same server answers and is still in charge.
    ///
    /// Nobody goes on before that is known. All callers share one check, and it goes on when they
    /// leave: a check that a caller could take away with it would be missing.
    pub(crate) async fn confirm(
        self: &Arc<Self>,
        dialer: &Arc<Dialer>,
        place: &Place,
    ) -> Result<(), Fault> {
        let now = self.age();
        while self.is_due(now, dialer.identity_interval) {
            self.check(dialer, place).await?;
        }
        Ok(())
    }

    fn is_due(&self, now: u64, interval: Duration) -> bool {
        let confirmed = self.confirmed.load(Ordering::Relaxed);
        confirmed < now && u128::from(now - confirmed) >= interval.as_millis()
    }

    fn check(self: &Arc<Self>, dialer: &Arc<Dialer>, place: &Place) -> Check {
        let mut check = self.check.lock();
        if let Some(running) = check.as_ref().filter(|check| check.peek() != Some(&Ok(()))) {
            return running.clone();
        }
        let (line, dialer, place) = (Arc::clone(self), Arc::clone(dialer), place.clone());
        let began = self.age();
        let task = tokio::spawn(async move {
            let late = |_| Err(Fault::Lost(format!("{}: it doesn't say who it is", line.node)));
            let asked = line.ask_again(&dialer, &place);
            timeout(dialer.template.connect_timeout, asked).await.unwrap_or_else(late)?;
            line.asked.store(0, Ordering::Relaxed);
            line.confirmed.fetch_max(began, Ordering::Relaxed);
            Ok(())
        });
        let lost = |_| Err(Fault::Lost("the check of a connection was lost".to_owned()));
        let result = task.map(move |ended| ended.unwrap_or_else(lost)).boxed().shared();
        *check = Some(result.clone());
        result
    }

    async fn ask_again(&self, dialer: &Arc<Dialer>, place: &Place) -> Result<(), Fault> {
        let is_same = async {
            let identity = Identity::ask(&*self.connection, &self.node).await?;
            if identity == self.identity {
                return Ok(());
            }
            // Here, and not by the next connection: there may be none for long.
            self.known.note(&identity, &dialer.watch);
            Err(Fault::Lost(format!("{}: it has changed", self.node)))
        };
        try_join(is_same, place.must_still_be(&self.node, dialer)).await.map(drop)
    }

    fn age(&self) -> u64 {
        u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}
