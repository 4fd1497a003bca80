//! Sentinels: they say where the master is, and only a majority of all that are configured is
//! believed.
//!
//! Who can't ask a majority has no master, and so no cache. That is the side to err on: a master that
//! was deposed behind a partition goes on answering, and a removal which it acknowledges is lost,
//! while without a cache everybody is served from the truth.

use std::fmt;
use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use parking_lot::Mutex;
use tokio::time::timeout;

use crate::driver::{Command, Connection, Reply, Target};
use crate::error::Fault;
use crate::link::Dialer;
use crate::url::Node;

/// What to do about a refused login.
const LOGIN: &str = "a sentinel refuses the user name or the password; check \
                     RedisConfig::sentinel_credentials";

/// Sentinels, and what they call the master.
#[derive(Clone, Debug)]
pub(crate) struct Sentinels {
    all: Arc<[Sentinel]>,
    master: Arc<str>,
}

/// One of them, and the connection to it that is kept for the next question.
#[derive(Debug)]
struct Sentinel {
    node: Node,
    kept: Mutex<Option<Box<dyn Connection>>>,
}

impl Sentinels {
    /// Each of `nodes` has one vote, however often it is named.
    pub(crate) fn new(nodes: impl IntoIterator<Item = Node>, master: &str) -> Self {
        let mut all: Vec<Sentinel> = Vec::new();
        for node in nodes {
            if all.iter().all(|one| one.node != node) {
                all.push(Sentinel { node, kept: Mutex::new(None) });
            }
        }
        Self { all: all.into(), master: master.into() }
    }

    /// Where the master is, as a majority says.
    pub(crate) async fn master(&self, dialer: &Arc<Dialer>) -> Result<Node, Fault> {
        // Tasks of their own: those whose answer is not needed any more keep their connections.
        let asked = (0..self.all.len()).map(|at| {
            let (all, dialer) = (self.clone(), Arc::clone(dialer));
            tokio::spawn(async move { all.ask(&dialer, &all.all[at]).await })
        });
        let mut answers: FuturesUnordered<_> = asked.collect();
        let mut ballot = Ballot::of(self.all.len());
        let lost = |_| Err(Fault::Unreachable("a question to a sentinel was lost".to_owned()));
        while ballot.is_open()
            && let Some(answer) = answers.next().await
        {
            ballot.count(answer.unwrap_or_else(lost));
        }
        ballot.result().unwrap_or_else(|| {
            let what = "no majority of them names the same master";
            Err(Fault::Unreachable(format!("{self}: {what}")))
        })
    }

    async fn ask(&self, dialer: &Dialer, sentinel: &Sentinel) -> Result<Node, Fault> {
        let node = &sentinel.node;
        // Half of the time is for the master itself.
        let patience = dialer.template.connect_timeout / 2;
        let question = [b"GET-MASTER-ADDR-BY-NAME".as_slice(), self.master.as_bytes()];
        let question = Command::new("SENTINEL", &question);
        let asked = async {
            // Taken: two questions at a time need two connections.
            let kept = sentinel.kept.lock().take();
            if let Some(connection) = kept
                && let Ok(Ok(reply)) = timeout(patience / 2, connection.one(question)).await
            {
                return Ok((connection, reply));
            }
            let target = Target {
                node: node.clone(),
                credentials: dialer.sentinel_credentials.clone(),
                database: 0,
                ..dialer.template.clone()
            };
            let connection = dialer.driver.open(&target).await?;
            let reply = connection.one(question).await?;
            Ok((connection, reply))
        };
        let late = |_| Err(Fault::Unreachable(format!("{node}: no answer from this sentinel")));
        let asked = timeout(patience, asked).await.unwrap_or_else(late);
        let (connection, reply) = asked.map_err(|fault| of_a_sentinel(fault, node))?;
        *sentinel.kept.lock() = Some(connection);
        if reply == Reply::Nil {
            let what = format!("a sentinel knows no master {:?}", self.master);
            return Err(Fault::misconfigured(what, node));
        }
        read(&reply).ok_or_else(|| no_sentinel(node))
    }
}

/// What a trouble with a sentinel means: credentials and rights are those of the sentinel.
fn of_a_sentinel(fault: Fault, node: &Node) -> Fault {
    let is_login = fault.is("NOAUTH") || fault.is("WRONGPASS") || fault.refuses_login();
    if is_login {
        return Fault::misconfigured(LOGIN, node);
    }
    if fault.is("NOPERM") {
        let what = "the user of sentinel_credentials may not ask where the master is; grant \
                    +sentinel|get-master-addr-by-name";
        return Fault::misconfigured(what, node);
    }
    // Any other Redis does not know the command. What else a sentinel refuses passes.
    if fault.is_unknown_command() { no_sentinel(node) } else { fault }
}

fn no_sentinel(node: &Node) -> Fault {
    Fault::misconfigured("what answers at the address of a sentinel is no sentinel", node)
}

fn read(reply: &Reply) -> Option<Node> {
    let Reply::List(parts) = reply else { return None };
    let [host, port] = parts.as_slice() else { return None };
    Some(Node { host: host.text()?.to_owned(), port: port.text()?.parse().ok()? })
}

/// The votes so far.
#[derive(Debug)]
struct Ballot {
    needed: usize,
    /// How many have not voted yet.
    missing: usize,
    votes: Vec<(Node, usize)>,
    trouble: Option<Fault>,
}

impl Ballot {
    fn of(voters: usize) -> Self {
        Self { needed: voters / 2 + 1, missing: voters, votes: Vec::new(), trouble: None }
    }

    fn most(&self) -> usize {
        self.votes.iter().map(|(_, count)| *count).max().unwrap_or(0)
    }

    /// Whether another vote could still matter.
    fn is_open(&self) -> bool {
        self.most() < self.needed && self.most() + self.missing >= self.needed
    }

    fn count(&mut self, answer: Result<Node, Fault>) {
        self.missing = self.missing.saturating_sub(1);
        match answer {
            Ok(node) => match self.votes.iter_mut().find(|(voted, _)| *voted == node) {
                Some((_, count)) => *count += 1,
                None => self.votes.push((node, 1)),
            },
            // What can be mended is worth more than what may pass.
            Err(fault) => {
                if !matches!(self.trouble, Some(Fault::Misconfigured { .. })) {
                    self.trouble = Some(fault);
                }
            }
        }
    }

    /// Who has the majority, or why nobody has; `None` when they all answered and don't agree.
    fn result(self) -> Option<Result<Node, Fault>> {
        let needed = self.needed;
        let elected = self.votes.into_iter().find(|(_, count)| *count >= needed);
        elected.map(|(node, _)| Ok(node)).or(self.trouble.map(Err))
    }
}

impl fmt::Display for Sentinels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "master {:?} of {} sentinels", self.master, self.all.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(port: u16) -> Node {
        Node { host: "a".into(), port }
    }

    fn counted(answers: &[Result<u16, &str>]) -> Ballot {
        let mut ballot = Ballot::of(3);
        for answer in answers {
            assert!(ballot.is_open(), "{ballot:?}");
            let trouble = |text: &str| Fault::Unreachable(text.to_owned());
            ballot.count(answer.map(node).map_err(trouble));
        }
        ballot
    }

    #[test]
    fn only_a_majority_of_all_sentinels_elects() {
        let open = counted(&[Ok(1)]);
        assert!(open.is_open());
        let two = counted(&[Ok(1), Ok(1)]);
        assert!(!two.is_open());
        assert_eq!(two.result(), Some(Ok(node(1))));
        let late = counted(&[Ok(2), Ok(1), Ok(1)]);
        assert_eq!(late.result(), Some(Ok(node(1))));
        let alone = counted(&[Ok(1), Err("down"), Err("down")]);
        assert_eq!(alone.result(), Some(Err(Fault::Unreachable("down".into()))));
        let hopeless = counted(&[Err("down"), Err("down")]);
        assert!(!hopeless.is_open());
        assert_eq!(counted(&[Ok(1), Ok(2), Ok(3)]).result(), None);
    }

    #[test]
    fn only_an_unknown_command_tells_that_it_is_no_sentinel() {
        let of = |text: &str| of_a_sentinel(Fault::answered(text), &node(1));
        let says = |fault: Fault, text: &str| matches!(&fault, Fault::Misconfigured { what, .. } if what.contains(text));
        let unknown = "ERR unknown command 'SENTINEL', with args beginning with: 'GET-MASTER'";
        assert!(says(of(unknown), "no sentinel"));
        assert!(says(of("NOAUTH Authentication required."), "sentinel_credentials"));
        assert!(says(of("NOPERM this user has no permissions"), "+sentinel"));
        for passing in ["ERR max number of clients reached", "LOADING it"] {
            assert_eq!(of(passing), Fault::answered(passing));
        }
    }
}
