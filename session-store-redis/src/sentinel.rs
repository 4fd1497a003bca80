//! Sentinels: they say where the master is, and a majority of them says it right.

use std::fmt;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::time::timeout;

use crate::driver::{Command, Reply, Target};
use crate::error::Fault;
use crate::link::Dialer;
use crate::url::Node;

/// Sentinels, and what they call the master.
#[derive(Clone, Debug)]
pub(crate) struct Sentinels {
    pub(crate) nodes: Arc<[Node]>,
    pub(crate) master: Arc<str>,
}

impl Sentinels {
    /// Where the master is, as most of those say that answer.
    pub(crate) async fn master(&self, dialer: &Dialer) -> Result<Node, Fault> {
        // Half of the time is for the master itself.
        let patience = dialer.template.connect_timeout / 2;
        let answers: FuturesUnordered<_> =
            self.nodes.iter().map(|node| self.ask(dialer, node, patience)).collect();
        let mut answers = pin!(answers);
        let mut votes: Vec<(Node, usize)> = Vec::new();
        let mut trouble = None;
        while let Some(answer) = answers.next().await {
            let node = match answer {
                Ok(node) => node,
                Err(fault) => {
                    trouble = Some(fault);
                    continue;
                }
            };
            let at = votes.iter().position(|(voted, _)| *voted == node).unwrap_or_else(|| {
                votes.push((node, 0));
                votes.len() - 1
            });
            votes[at].1 += 1;
            if votes[at].1 * 2 > self.nodes.len() {
                break;
            }
        }
        match votes.as_slice() {
            [] => Err(trouble
                .unwrap_or_else(|| Fault::Unreachable(format!("{self}: no sentinel answers")))),
            votes => elected(votes)
                .ok_or_else(|| Fault::Unreachable(format!("{self}: they name different masters"))),
        }
    }

    async fn ask(&self, dialer: &Dialer, node: &Node, patience: Duration) -> Result<Node, Fault> {
        let target = Target {
            node: node.clone(),
            credentials: dialer.sentinel_credentials.clone(),
            database: 0,
            ..dialer.template.clone()
        };
        let question = [b"GET-MASTER-ADDR-BY-NAME".as_slice(), self.master.as_bytes()];
        let asked = async {
            let connection = dialer.driver.open(&target).await?;
            connection.one(Command::new("SENTINEL", &question)).await
        };
        let late = |_| Err(Fault::Unreachable(format!("{node}: no answer from this sentinel")));
        let reply = timeout(patience, asked).await.unwrap_or_else(late);
        let no_sentinel =
            || Fault::Misconfigured(format!("{node}: what answers there is no sentinel"));
        match reply {
            // Any other Redis does not know the command.
            Err(fault) if fault.is("ERR") => Err(no_sentinel()),
            Err(fault) => Err(fault),
            Ok(Reply::Nil) => {
                let name = &self.master;
                Err(Fault::Misconfigured(format!("{node}: the sentinel knows no master {name:?}")))
            }
            Ok(reply) => read(&reply).ok_or_else(no_sentinel),
        }
    }
}

/// The node with the most votes. As many for another one are no vote at all: one of the two has been
/// deposed.
fn elected(votes: &[(Node, usize)]) -> Option<Node> {
    let (best, most) = votes.iter().max_by_key(|(_, count)| *count)?;
    let is_tied = votes.iter().any(|(node, count)| node != best && count == most);
    (!is_tied).then(|| best.clone())
}

fn read(reply: &Reply) -> Option<Node> {
    let Reply::List(parts) = reply else { return None };
    let [host, port] = parts.as_slice() else { return None };
    Some(Node { host: host.text()?.to_owned(), port: port.text()?.parse().ok()? })
}

impl fmt::Display for Sentinels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "master {:?} of {} sentinels", self.master, self.nodes.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_votes_for_another_elect_nobody() {
        let node = |port| Node { host: "a".into(), port };
        assert_eq!(elected(&[]), None);
        assert_eq!(elected(&[(node(1), 1)]), Some(node(1)));
        assert_eq!(elected(&[(node(1), 1), (node(2), 2)]), Some(node(2)));
        assert_eq!(elected(&[(node(1), 1), (node(2), 1)]), None);
    }
}
