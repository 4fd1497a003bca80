//! Removals that count when replicas have them.
//!
//! `WAIT` speaks of the writes of its own connection, and a server answers nothing behind it there
//! until it is over. So such removals have connections of their own, on which one round follows
//! another: who comes while replicas are waited for is in the next round, together with all others who
//! came meanwhile.

use std::sync::Arc;

use parking_lot::Mutex;
use session_store_core::Record;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use crate::config::Wait;
use crate::driver::{Command, Reply};
use crate::error::Fault;
use crate::link::Link;

/// Who waits for the replicas of one server.
#[derive(Debug, Default)]
pub(crate) struct Rounds(Mutex<Queue>);

#[derive(Debug, Default)]
struct Queue {
    waiting: Vec<Member>,
    is_running: bool,
}

/// One removal.
#[derive(Debug)]
struct Member {
    keys: Vec<Vec<u8>>,
    /// How many keys one command names.
    at_once: usize,
    told: oneshot::Sender<Answers>,
}

/// One answer per command, or why there is none.
type Answers = Result<Vec<Result<Reply, Fault>>, Fault>;

/// The answers to the removal of `keys`, when the replicas of `link` have it.
pub(crate) async fn removed(
    link: &Arc<Link>,
    keys: &[Vec<u8>],
    at_once: usize,
    wait: Wait,
    end: Instant,
) -> Answers {
    let (told, answers) = oneshot::channel();
    let is_first = {
        let mut queue = link.rounds.0.lock();
        queue.waiting.push(Member { keys: keys.to_vec(), at_once, told });
        !std::mem::replace(&mut queue.is_running, true)
    };
    if is_first {
        // A task of its own: the others' rounds go on when whoever began the first one leaves.
        let running = Running { link: Arc::clone(link), is_over: false };
        tokio::spawn(run(running, wait));
    }
    match timeout_at(end, answers).await {
        Ok(Ok(answers)) => answers,
        Ok(Err(_)) => Err(Fault::Lost(format!("{link}: the removal was lost"))),
        Err(_) => Err(Fault::Silent(format!("{link}: replicas did not acknowledge in time"))),
    }
}

/// Whoever runs the rounds of a link. With its runtime all that wait are lost, and the next one begins
/// anew.
struct Running {
    link: Arc<Link>,
    is_over: bool,
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.is_over {
            *self.link.rounds.0.lock() = Queue::default();
        }
    }
}

async fn run(mut running: Running, wait: Wait) {
    while !running.is_over {
        let members = {
            let mut queue = running.link.rounds.0.lock();
            running.is_over = queue.waiting.is_empty();
            queue.is_running = !running.is_over;
            std::mem::take(&mut queue.waiting)
        };
        round(&running.link, members, wait).await;
    }
}

/// Removes the keys of all `members`, and tells them.
async fn round(link: &Link, members: Vec<Member>, wait: Wait) {
    let keys: Vec<Vec<&[u8]>> =
        members.iter().map(|member| member.keys.iter().map(Vec::as_slice).collect()).collect();
    let mut commands = Vec::new();
    let mut ends = Vec::new();
    for (member, keys) in members.iter().zip(&keys) {
        commands.extend(keys.chunks(member.at_once).map(|some| Command::new("UNLINK", some)));
        ends.push(commands.len());
    }
    let Some(last) = keys.iter().rev().find_map(|keys| keys.last()) else { return };
    let mut outcome = acknowledged(link, &commands, last, wait).await;
    let mut begin = 0;
    for (member, end) in members.into_iter().zip(ends) {
        let own = match &mut outcome {
            Ok(answers) => Ok(answers[begin..end].to_vec()),
            Err(fault) => Err(fault.clone()),
        };
        begin = end;
        // Who has gone does not ask.
        let _ = member.told.send(own);
    }
}

/// The answers to `removals`, when replicas have what they did.
///
/// A removal that finds nothing writes nothing, although what somebody else removed a moment ago may
/// still be on its way to the replicas. So one of the keys gets a lease **after** all removals: there
/// is something to wait for then that comes behind them, and nobody believes a lease.
async fn acknowledged(link: &Link, removals: &[Command<'_>], mark: &[u8], wait: Wait) -> Answers {
    let end = link.end() + wait.timeout;
    let mut lease = [Record::LEASE; 17];
    let no_nonce = |_| Fault::Unreachable("no random numbers".to_owned());
    getrandom::fill(&mut lease[1..]).map_err(no_nonce)?;
    let set: [&[u8]; 4] = [mark, &lease, b"PX", b"1000"];
    let (replicas, millis) = (wait.replicas.to_string(), wait.timeout.as_millis().to_string());
    let words = [replicas.as_bytes(), millis.as_bytes()];
    let gone = [mark];
    let mut commands = removals.to_vec();
    commands.push(Command::new("SET", &set));
    commands.push(Command::new("UNLINK", &gone));
    commands.push(Command::new("WAIT", &words));
    let mut answers = link.all(&commands, end).await?;
    let rest = answers.split_off(removals.len());
    let short = |what: String| Err(Fault::Silent(format!("{link}: {what}")));
    let [marked, _, count] = rest.as_slice() else {
        return Err(Fault::Lost(format!("{link}: answers are missing")));
    };
    // A full server refuses the lease, and a node of a Cluster may have lost the slot. Removals that
    // found all their keys have written themselves.
    let is_whole = |(removal, answer): (&Command<'_>, &Result<Reply, Fault>)| matches!(answer, Ok(Reply::Number(count)) if usize::try_from(*count) == Ok(removal.args.len()));
    let has_written = marked.is_ok() || removals.iter().zip(&answers).all(is_whole);
    match count.clone()? {
        _ if !has_written => short("no write that replicas could acknowledge".to_owned()),
        Reply::Number(count) if count >= i64::from(wait.replicas) => Ok(answers),
        count => short(format!("of {} replicas, this many have it: {count:?}", wait.replicas)),
    }
}

/// Asks whether `link` may wait, without waiting.
pub(crate) async fn allowed(link: &Link, end: Instant) -> Result<(), Fault> {
    link.call(Command::new("WAIT", &[b"0", b"1"]), end).await.map(drop)
}
