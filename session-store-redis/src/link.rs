//! The way to one server: opened when it is needed, shared, replaced when it is lost or silent.
//!
//! No command is sent over a connection before it is known who answers there.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use parking_lot::Mutex;
use tokio::time::{timeout, timeout_at};

use crate::driver::{Command, Connection, Driver, Reply, Target};
use crate::error::Fault;
use crate::identity::{Identity, Known, Watch};
use crate::line::Line;
use crate::sentinel::Sentinels;
use crate::url::{Credentials, Node};
use crate::wait::Rounds;

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
    /// Whether a server that has changed may hold what had been removed.
    pub(crate) may_roll_back: bool,
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

    async fn dial(self: &Arc<Self>, place: &Place, known: Known) -> Result<Line, Fault> {
        let began = Instant::now();
        let node = match place {
            Place::Alone(node) | Place::Part(node) => node.clone(),
            Place::MasterOf(sentinels) => sentinels.master(self).await?,
        };
        let connection = self.open(&node).await?;
        let identity = Identity::ask(&*connection, &node).await?;
        match place {
            Place::Part(_) => {}
            Place::Alone(_) | Place::MasterOf(_) => {
                identity.must_be_alone(&node)?;
                identity.must_lead(&node)?;
            }
        }
        if self.may_roll_back {
            identity.must_have_history(&node)?;
        }
        Ok(Line::new(connection, identity, known, node, began))
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

impl Place {
    /// Refuses a node that the sentinels have deposed: it may be reachable and know nothing of it.
    pub(crate) async fn must_still_be(
        &self,
        node: &Node,
        dialer: &Arc<Dialer>,
    ) -> Result<(), Fault> {
        let Self::MasterOf(sentinels) = self else { return Ok(()) };
        if sentinels.master(dialer).await? == *node {
            return Ok(());
        }
        Err(Fault::Lost(format!("{node}: the sentinels name another master")))
    }
}

/// The way to one server.
#[derive(Debug)]
pub(crate) struct Link {
    place: Place,
    dialer: Arc<Dialer>,
    state: Mutex<State>,
    known: Known,
    /// Removals that wait for the replicas of this server.
    pub(crate) rounds: Rounds,
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

impl Link {
    /// A way to `place`, where `known` answered last.
    pub(crate) fn new(place: Place, dialer: Arc<Dialer>, known: Known) -> Self {
        let state = Mutex::new(State::Idle);
        Self { place, dialer, state, known, rounds: Rounds::default() }
    }

    /// Another way to the same place, with connections of its own.
    pub(crate) fn beside(&self) -> Self {
        Self::new(self.place.clone(), Arc::clone(&self.dialer), self.known.clone())
    }

    /// Connects if need be, without asking anything.
    pub(crate) async fn ready(&self, end: tokio::time::Instant) -> Result<(), Fault> {
        self.line_until(end).await.map(drop)
    }

    /// When an operation that begins now has taken too long.
    pub(crate) fn end(&self) -> tokio::time::Instant {
        self.dialer.end()
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
        let late = |_| Err(Fault::Silent(format!("{}: no answer in time", line.node)));
        let answers = timeout_at(end, line.send(commands)).await.unwrap_or_else(late);
        let ends = |fault: &Fault| fault.ends_connection();
        let is_over = match &answers {
            Ok(answers) => answers.iter().any(|answer| answer.as_ref().err().is_some_and(ends)),
            Err(fault) => ends(fault),
        };
        if is_over || line.is_useless(self.dialer.silence) {
            self.give_up(&line);
        }
        answers
    }

    /// Lets the next caller open another connection.
    fn give_up(&self, line: &Arc<Line>) {
        let mut state = self.state.lock();
        if matches!(&*state, State::Open(current) if Arc::ptr_eq(current, line)) {
            *state = State::Idle;
        }
    }

    async fn line_until(&self, end: tokio::time::Instant) -> Result<Arc<Line>, Fault> {
        let late = |_| Err(Fault::Pending(format!("{}: no connection in time", self.place)));
        timeout_at(end, self.line()).await.unwrap_or_else(late)
    }

    async fn line(&self) -> Result<Arc<Line>, Fault> {
        loop {
            let line = self.opened().await?;
            let is_confirmed = line.confirm(&self.dialer, &self.place).await.is_ok();
            // Whom another way has left already may be deposed: no removal must end there.
            if is_confirmed && line.is_current() {
                return Ok(line);
            }
            // Nothing was sent yet, so the way to whoever is in charge now may be tried at once.
            self.give_up(&line);
        }
    }

    async fn opened(&self) -> Result<Arc<Line>, Fault> {
        let asked = Instant::now();
        let is_good = |line: &Line| !line.is_useless(self.dialer.silence);
        loop {
            let opening = {
                let mut state = self.state.lock();
                match &*state {
                    State::Open(line) if is_good(line) => return Ok(Arc::clone(line)),
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
                Ok(line) if line.opened < asked && !is_good(&line) => {}
                Err(failed) if failed.until < asked => {}
                Ok(line) => return Ok(line),
                Err(failed) => return Err(failed.fault),
            }
        }
    }

    /// One attempt that all callers share and any of them may leave.
    fn opening(&self) -> Opening {
        let (place, dialer) = (self.place.clone(), Arc::clone(&self.dialer));
        let (known, missed) = (self.known.clone(), self.known.clone());
        let (began, pause) = (Instant::now(), dialer.pause);
        let attempt = async move {
            let patience = dialer.template.connect_timeout;
            let line =
                timeout(patience, dialer.dial(&place, known)).await.unwrap_or_else(|_| {
                    let hint = dialer.template.tls_hint();
                    Err(Fault::Unreachable(format!("{place}: no connection in {patience:?}{hint}")))
                })?;
            // Known before anybody can use the connection.
            line.introduce(&dialer);
            Ok(Arc::new(line))
        };
        let attempt = attempt.map(move |done| {
            done.map_err(|fault: Fault| {
                if fault.is_outage() {
                    missed.missed();
                }
                Failed { fault, until: Instant::now() + pause }
            })
        });
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
