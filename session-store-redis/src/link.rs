//! The way to one server: opened when it is needed, shared, replaced when it is lost or silent.
//!
//! No command is sent over a connection before it is known who answers there.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use parking_lot::Mutex;
use tokio::time::{timeout, timeout_at};

use crate::driver::{Command, Connection, Driver, Reply, Target};
use crate::error::Fault;
use crate::identity::{Identity, QUESTIONS, Watch};
use crate::sentinel::Sentinels;
use crate::url::{Credentials, Node};

/// After so many questions without an answer a connection may be suspected.
const SUSPICIOUS: u32 = 3;

/// How connections are made, the same for every server.
#[derive(Debug)]
pub(crate) struct Dialer {
    pub(crate) driver: Box<dyn Driver>,
    /// What every target has in common; its node is replaced.
    pub(crate) template: Target,
    pub(crate) sentinel_credentials: Option<Credentials>,
    pub(crate) deadline: Duration,
    pub(crate) silence: Duration,
    pub(crate) pause: Duration,
    pub(crate) identity_interval: Duration,
    pub(crate) watch: Watch,
}

impl Dialer {
    /// Connects to `node`.
    pub(crate) async fn open(&self, node: &Node) -> Result<Box<dyn Connection>, Fault> {
        let target = Target { node: node.clone(), ..self.template.clone() };
        self.driver.open(&target).await
    }

    /// When an operation that begins now has taken too long.
    pub(crate) fn end(&self) -> tokio::time::Instant {
        tokio::time::Instant::now() + self.deadline
    }

    async fn dial(&self, place: &Place) -> Result<(Box<dyn Connection>, Identity, Node), Fault> {
        let (node, connection) = match place {
            Place::Alone(node) | Place::Part(node) => (node.clone(), self.open(node).await?),
            Place::MasterOf(sentinels) => {
                let node = sentinels.master(self).await?;
                let connection = self.open(&node).await?;
                (node, connection)
            }
        };
        let identity = Identity::ask(&*connection, &node).await?;
        match place {
            Place::Part(_) => {}
            Place::Alone(_) => {
                identity.must_be_alone(&node)?;
                identity.must_lead(&node)?;
            }
            Place::MasterOf(_) => identity.must_lead(&node)?,
        }
        Ok((connection, identity, node))
    }
}

/// Where a server is.
#[derive(Clone, Debug)]
pub(crate) enum Place {
    /// At an address, with all keys.
    Alone(Node),
    /// At an address, with some of the keys or none.
    Part(Node),
    /// Where the sentinels say.
    MasterOf(Sentinels),
}

/// The way to one server.
#[derive(Debug)]
pub(crate) struct Link {
    place: Place,
    dialer: Arc<Dialer>,
    state: Mutex<State>,
    /// Who answered last.
    known: Arc<Mutex<Option<Identity>>>,
}

type Opening = Shared<BoxFuture<'static, Result<Arc<Line>, Failed>>>;

#[derive(Debug)]
enum State {
    Idle,
    Opening(Opening),
    Open(Arc<Line>),
    Failed(Failed),
}

/// Why an attempt failed, and the moment before which nobody tries again.
#[derive(Clone, Debug)]
struct Failed {
    fault: Fault,
    until: Instant,
}

/// An open connection, and how well it answers.
#[derive(Debug)]
pub(crate) struct Line {
    connection: Box<dyn Connection>,
    identity: Identity,
    node: Node,
    opened: Instant,
    /// Questions since the last answer.
    asked: AtomicU32,
    /// When the first of them was asked, in milliseconds since `opened`.
    silent_since: AtomicU64,
    /// When it was last asked who it is, likewise.
    checked: AtomicU64,
}

impl Line {
    fn age(&self) -> u64 {
        u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn is_silent_for(&self, length: Duration) -> bool {
        let silent = self.age().saturating_sub(self.silent_since.load(Ordering::Relaxed));
        self.asked.load(Ordering::Relaxed) >= SUSPICIOUS && u128::from(silent) >= length.as_millis()
    }

    fn asks(&self) {
        if self.asked.fetch_add(1, Ordering::Relaxed) == 0 {
            self.silent_since.store(self.age(), Ordering::Relaxed);
        }
    }

    fn heard<T>(&self, answer: Result<T, Fault>) -> Result<T, Fault> {
        if matches!(answer, Ok(_) | Err(Fault::Answered { .. })) {
            self.asked.store(0, Ordering::Relaxed);
        }
        answer
    }

    /// Whether it is time to ask again who answers; only one caller is told so.
    fn is_check_due(&self, interval: Duration) -> bool {
        let (now, last) = (self.age(), self.checked.load(Ordering::Relaxed));
        u128::from(now.saturating_sub(last)) >= interval.as_millis()
            && self
                .checked
                .compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
    }
}

impl Link {
    pub(crate) fn new(place: Place, dialer: Arc<Dialer>) -> Self {
        Self { place, dialer, state: Mutex::new(State::Idle), known: Arc::default() }
    }

    /// Connects if need be, without asking anything.
    pub(crate) async fn ready(&self, end: tokio::time::Instant) -> Result<(), Fault> {
        self.line_until(end).await.map(drop)
    }

    /// The answer to one command, before `end`.
    pub(crate) async fn call(
        &self,
        command: Command<'_>,
        end: tokio::time::Instant,
    ) -> Result<Reply, Fault> {
        let mut answers = self.all(&[command], end).await?;
        answers.pop().unwrap_or_else(|| Err(Fault::Lost("no answer".to_owned())))
    }

    /// The answers to several commands that are sent with nothing in between.
    pub(crate) async fn all(
        &self,
        commands: &[Command<'_>],
        end: tokio::time::Instant,
    ) -> Result<Vec<Result<Reply, Fault>>, Fault> {
        let line = self.line_until(end).await?;
        line.asks();
        let answers = match timeout_at(end, self.send(&line, commands)).await {
            Ok(answers) => line.heard(answers),
            Err(_) => Err(Fault::Silent(format!("{}: no answer in time", line.node))),
        };
        let ends = |fault: &Fault| fault.ends_connection();
        let is_over = match &answers {
            Ok(answers) => answers.iter().any(|answer| answer.as_ref().err().is_some_and(ends)),
            Err(fault) => ends(fault),
        };
        if is_over || line.connection.is_closed() {
            self.give_up(&line);
        }
        answers
    }

    async fn send(
        &self,
        line: &Line,
        commands: &[Command<'_>],
    ) -> Result<Vec<Result<Reply, Fault>>, Fault> {
        if line.is_check_due(self.dialer.identity_interval) {
            let both: Vec<_> = QUESTIONS.iter().chain(commands).copied().collect();
            let mut answers = line.connection.many(&both).await?;
            let rest = answers.split_off(QUESTIONS.len());
            if Identity::of(answers)? != line.identity {
                // What came with the question was run all the same. Opening another connection finds
                // out what the server is now.
                return Err(Fault::Lost(format!("{}: it has changed", line.node)));
            }
            return Ok(rest);
        }
        if let [command] = commands {
            return Ok(vec![line.connection.one(*command).await]);
        }
        line.connection.many(commands).await
    }

    /// Lets the next caller open another connection.
    fn give_up(&self, line: &Arc<Line>) {
        let mut state = self.state.lock();
        if matches!(&*state, State::Open(current) if Arc::ptr_eq(current, line)) {
            *state = State::Idle;
        }
    }

    async fn line_until(&self, end: tokio::time::Instant) -> Result<Arc<Line>, Fault> {
        let late = |_| Err(Fault::Unreachable(format!("{}: no connection in time", self.place)));
        timeout_at(end, self.line()).await.unwrap_or_else(late)
    }

    async fn line(&self) -> Result<Arc<Line>, Fault> {
        let asked = Instant::now();
        loop {
            let opening = {
                let mut state = self.state.lock();
                match &*state {
                    State::Open(line) if self.is_good(line) => return Ok(Arc::clone(line)),
                    State::Failed(failed) if Instant::now() < failed.until => {
                        return Err(failed.fault.clone());
                    }
                    State::Opening(opening) => opening.clone(),
                    _ => {
                        let opening = self.opening();
                        *state = State::Opening(opening.clone());
                        opening
                    }
                }
            };
            let result = opening.clone().await;
            let mut state = self.state.lock();
            if matches!(&*state, State::Opening(current) if current.ptr_eq(&opening)) {
                *state = match &result {
                    Ok(line) => State::Open(Arc::clone(line)),
                    Err(failed) => State::Failed(failed.clone()),
                };
            }
            match result {
                // Everybody had left before it ended, so this is news of long ago.
                Ok(line) if line.opened < asked && !self.is_good(&line) => {}
                Err(failed) if failed.until < asked => {}
                Ok(line) => return Ok(line),
                Err(failed) => return Err(failed.fault),
            }
        }
    }

    fn is_good(&self, line: &Line) -> bool {
        !line.is_silent_for(self.dialer.silence) && !line.connection.is_closed()
    }

    /// One attempt that all callers share and any of them may leave.
    fn opening(&self) -> Opening {
        let (place, dialer) = (self.place.clone(), Arc::clone(&self.dialer));
        let known = Arc::clone(&self.known);
        let (began, pause) = (Instant::now(), dialer.pause);
        let attempt = async move {
            let patience = dialer.template.connect_timeout;
            let outcome = timeout(patience, dialer.dial(&place)).await.unwrap_or_else(|_| {
                let hint = dialer.template.tls_hint();
                Err(Fault::Unreachable(format!("{place}: no connection in {patience:?}{hint}")))
            });
            let (connection, identity, node) = outcome.inspect_err(|fault| {
                tracing::debug!(store = crate::error::NAME, %place, ?fault, "can't connect");
            })?;
            // Known before anybody can use the connection.
            if known.lock().replace(identity.clone()).is_some_and(|before| before != identity) {
                dialer.watch.changed(&node);
            }
            Ok(Arc::new(Line {
                connection,
                identity,
                node,
                opened: Instant::now(),
                asked: AtomicU32::new(0),
                silent_since: AtomicU64::new(0),
                checked: AtomicU64::new(0),
            }))
        };
        let attempt = attempt
            .map(move |done| done.map_err(|fault| Failed { fault, until: Instant::now() + pause }));
        // A task of its own: the attempt goes on when whoever began it has lost patience.
        let task = tokio::spawn(attempt);
        // Lost with its runtime; on another one it may be tried at once.
        let lost = move |_| {
            let fault = Fault::Unreachable("the attempt to connect was lost".to_owned());
            Err(Failed { fault, until: began })
        };
        task.map(move |ended| ended.unwrap_or_else(lost)).boxed().shared()
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Alone(node) | Self::Part(node) => node.fmt(f),
            Self::MasterOf(sentinels) => sentinels.fmt(f),
        }
    }
}

impl std::fmt::Display for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.place.fmt(f)
    }
}
