//! A Cluster: which node owns which slot, learned from the nodes themselves.
//!
//! Nothing is sent again unless the answer says that it was not run (`MOVED`, `ASK`).

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use parking_lot::Mutex;
use tokio::time::{Instant, timeout_at};

use crate::driver::{Command, Reply};
use crate::error::Fault;
use crate::identity::Known;
use crate::key::{SLOTS, slot};
use crate::link::{Dialer, Link, Place};
use crate::slots::{Claim, Claims, Map, Names, Redirection, witness};
use crate::url::Node;

/// So many nodes say what the map is, or the majority of all where that is less, or whoever has
/// answered when half of the time is over; of each slot the claim of the highest epoch counts.
const WITNESSES: usize = 3;

/// The nodes of a Cluster, and one of two ways to them.
#[derive(Debug)]
pub(crate) struct Cluster {
    shared: Arc<Shared>,
    way: usize,
}

/// What both ways have in common: a change that both go by counts once.
#[derive(Debug)]
struct Shared {
    dialer: Arc<Dialer>,
    seeds: Vec<Node>,
    members: Mutex<Members>,
    state: Mutex<State>,
    /// One look at a time.
    turn: tokio::sync::Mutex<()>,
}

/// The nodes that were asked, and by which map they own something.
#[derive(Debug, Default)]
struct Members {
    all: HashMap<Node, Member>,
    map: Option<Arc<Map>>,
}

/// A node that was asked.
#[derive(Debug, Default)]
struct Member {
    known: Known,
    links: [Option<Arc<Link>>; 2],
}

#[derive(Debug, Default)]
struct State {
    map: Option<Arc<Map>>,
    is_stale: bool,
    /// Nobody looks again before this moment, unless a node says where else to look: a part of the
    /// Cluster that is down must not have the rest asked at every call.
    pause: Option<Instant>,
    /// Why the last look found nothing.
    trouble: Option<Fault>,
}

/// Keys of one node, and the way to it.
pub(crate) type Group = (Arc<Link>, Vec<Vec<u8>>);

impl Cluster {
    pub(crate) fn new(seeds: Vec<Node>, dialer: Arc<Dialer>) -> Self {
        let (members, state) = (Mutex::default(), Mutex::default());
        let turn = tokio::sync::Mutex::default();
        Self { shared: Arc::new(Shared { dialer, seeds, members, state, turn }), way: 0 }
    }

    /// The other way.
    pub(crate) fn beside(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), way: 1 - self.way }
    }

    /// Learns who owns what, if that is not known.
    pub(crate) async fn ready(&self, end: Instant) -> Result<(), Fault> {
        let map = self.map(end).await?;
        (0..SLOTS).try_for_each(|slot| self.owner_in(&map, slot).map(drop))
    }

    /// The answer to a command about `key`.
    pub(crate) async fn call(
        &self,
        key: &[u8],
        command: Command<'_>,
        end: Instant,
    ) -> Result<Reply, Fault> {
        let slot = slot(key);
        let (link, owner) = self.owner(slot, end).await?;
        let answer = link.call(command, end).await;
        let Err(fault) = answer else { return answer };
        self.notice(&fault);
        let Some(redirection) = Redirection::of(&fault, &owner) else { return Err(fault) };
        let answer = match redirection {
            Redirection::Moved(node) => {
                let (link, again) = self.owner(slot, end).await?;
                let node = self.named(node);
                if again == owner {
                    // The nodes disagree. The one that was asked knows best whether it owns a slot.
                    self.shared.dialer.watch.changed();
                    self.link(&node).call(command, end).await
                } else {
                    link.call(command, end).await
                }
            }
            Redirection::Ask(node) => {
                // A copy that arrived there after the key was removed here answers as if nothing had
                // been removed, and no map says so.
                self.shared.dialer.watch.changed();
                let node = self.named(node);
                let both = [Command::new("ASKING", &[]), command];
                let mut answers = self.link(&node).all(&both, end).await?;
                answers.pop().unwrap_or_else(|| Err(Fault::Lost("no answer".to_owned())))
            }
        };
        answer.map_err(|fault| {
            self.notice(&fault);
            // The nodes do not agree yet: that passes, and is nothing for the operator to mend.
            if fault.redirects() { restless(slot) } else { fault }
        })
    }

    /// Sorts `keys` by the nodes that own them; and why some of them have no owner.
    pub(crate) async fn owners(
        &self,
        keys: &[Vec<u8>],
        end: Instant,
    ) -> Result<(Vec<Group>, Result<(), Fault>), Fault> {
        let map = self.map(end).await?;
        let mut groups: HashMap<&Node, Vec<Vec<u8>>> = HashMap::new();
        let mut outcome = Ok(());
        for key in keys {
            match self.owner_in(&map, slot(key)) {
                Ok(owner) => groups.entry(owner).or_default().push(key.clone()),
                Err(fault) => outcome = Err(fault),
            }
        }
        Ok((groups.into_iter().map(|(node, keys)| (self.link(node), keys)).collect(), outcome))
    }

    /// The ways to all nodes that own something.
    pub(crate) async fn all(&self, end: Instant) -> Result<Vec<Arc<Link>>, Fault> {
        let map = self.map(end).await?;
        Ok(map.nodes.iter().map(|node| self.link(node)).collect())
    }

    /// Has the map looked at again after trouble that another map may cure.
    pub(crate) fn notice(&self, fault: &Fault) {
        let is_moved = fault.is("MOVED");
        let is_passing = matches!(fault, Fault::Unreachable(_) | Fault::Lost(_) | Fault::Silent(_));
        if is_moved || is_passing || fault.is("CLUSTERDOWN") || fault.ends_connection() {
            let mut state = self.shared.state.lock();
            state.is_stale = true;
            if is_moved {
                state.pause = None;
            }
        }
    }

    async fn owner(&self, slot: u16, end: Instant) -> Result<(Arc<Link>, Node), Fault> {
        let map = self.map(end).await?;
        let node = self.owner_in(&map, slot)?;
        Ok((self.link(node), node.clone()))
    }

    /// How the map calls a node that another one sends to.
    fn named(&self, node: Node) -> Node {
        let map = self.shared.state.lock().map.clone();
        map.map_or(node.clone(), |map| map.named(node))
    }

    /// The owner of `slot`; without one, the map is looked at again the next time.
    fn owner_in<'a>(&self, map: &'a Map, slot: u16) -> Result<&'a Node, Fault> {
        map.owner(slot).ok_or_else(|| {
            self.shared.state.lock().is_stale = true;
            unowned(slot)
        })
    }

    fn link(&self, node: &Node) -> Arc<Link> {
        self.link_by(self.way, node)
    }

    fn link_by(&self, way: usize, node: &Node) -> Arc<Link> {
        let mut members = self.shared.members.lock();
        let Members { all, map } = &mut *members;
        let Member { known, links } = all.entry(node.clone()).or_insert_with(|| {
            let member = Member::default();
            member.known.set_idle(map.as_ref().is_some_and(|map| !map.nodes.contains(node)));
            member
        });
        let link = links[way].get_or_insert_with(|| {
            let dialer = Arc::clone(&self.shared.dialer);
            Arc::new(Link::new(Place::Part(node.clone()), dialer, known.clone()))
        });
        Arc::clone(link)
    }

    async fn map(&self, end: Instant) -> Result<Arc<Map>, Fault> {
        if let Some(found) = self.current() {
            return found;
        }
        let _turn = timeout_at(end, self.shared.turn.lock()).await.map_err(|_| late())?;
        // Somebody else may have looked meanwhile.
        if let Some(found) = self.current() {
            return found;
        }
        // A removal may wait for replicas for long; the others wait for the map meanwhile.
        let most = if self.way == 0 { end } else { end.min(self.shared.dialer.end()) };
        let found = self.look(most).await;
        let mut state = self.shared.state.lock();
        let pause = Some(Instant::now() + self.shared.dialer.pause);
        match found {
            Ok(map) => {
                let map = Arc::new(map);
                let was_missed = state.trouble.as_ref().is_some_and(Fault::is_outage);
                if state.map.as_ref().map_or(was_missed, |before| *before != map) {
                    // Counted before anybody can go by the new map: a node that was promoted may
                    // lack a removal, and so may all that were away when the map was asked for first.
                    self.shared.dialer.watch.changed();
                }
                self.release(&map);
                let map_now = Some(Arc::clone(&map));
                *state = State { map: map_now, is_stale: false, pause, trouble: None };
                Ok(map)
            }
            Err(fault) => {
                (state.pause, state.trouble) = (pause, Some(fault.clone()));
                state.map.clone().ok_or(fault)
            }
        }
    }

    /// The map if it need not, or can't, be looked at again now.
    fn current(&self) -> Option<Result<Arc<Map>, Fault>> {
        let state = self.shared.state.lock();
        let is_pausing = state.pause.is_some_and(|until| Instant::now() < until);
        match (&state.map, &state.trouble) {
            (Some(map), _) if !state.is_stale || is_pausing => Some(Ok(Arc::clone(map))),
            (None, Some(fault)) if is_pausing => Some(Err(fault.clone())),
            _ => None,
        }
    }

    /// Forgets nodes that own nothing any more, and so closes the connections to them. Who they were
    /// need not be known, nor who the seeds are that own nothing: that they own something again is a new
    /// epoch.
    fn release(&self, map: &Arc<Map>) {
        let is_needed = |node: &Node| map.nodes.contains(node) || self.shared.seeds.contains(node);
        let mut members = self.shared.members.lock();
        members.all.retain(|node, _| is_needed(node));
        for (node, member) in &members.all {
            member.known.set_idle(!map.nodes.contains(node));
        }
        members.map = Some(Arc::clone(map));
    }

    /// Asks all nodes, and takes what enough of them say. When some don't answer, half of the time
    /// until `end` is left for whatever the map is needed for.
    async fn look(&self, end: Instant) -> Result<Map, Fault> {
        let mut nodes =
            self.shared.state.lock().map.as_ref().map_or_else(Vec::new, |map| map.nodes.clone());
        let known = nodes.len();
        nodes.extend(self.shared.seeds.iter().cloned());
        let mut seen = HashSet::new();
        nodes.retain(|node| seen.insert(node.clone()));
        // A seed may be named in another way than the map names it, and has one voice all the same.
        let servers = nodes.len().min(self.shared.seeds.len().max(known));
        let needed = WITNESSES.min(servers / 2 + 1);
        let asked = nodes.iter().map(|node| self.ask(node, end));
        let mut answers: FuturesUnordered<_> = asked.collect();
        let now = Instant::now();
        let soon = now + end.saturating_duration_since(now) / 2;
        let is_tls = self.shared.dialer.template.tls.is_some();
        let names = if is_tls { Names::Announced } else { Names::Addresses };
        let (mut claims, mut witnesses, mut trouble) = (Claims::default(), HashSet::new(), None);
        while witnesses.len() < needed {
            let patience = if witnesses.is_empty() { end } else { soon };
            match timeout_at(patience, answers.next()).await {
                Ok(Some(Ok((who, said)))) => {
                    claims.add(said, names);
                    witnesses.insert(who);
                }
                Ok(Some(Err(fault))) => trouble = Some(fault),
                Ok(None) | Err(_) => break,
            }
        }
        if witnesses.is_empty() {
            return Err(trouble.unwrap_or_else(late));
        }
        Ok(claims.into_map())
    }

    /// Who answers at `node`, and what it says.
    async fn ask(&self, node: &Node, end: Instant) -> Result<(String, Vec<Claim>), Fault> {
        // Whatever waits for replicas on the way of the removals must not hold up everybody's map.
        let link = self.link_by(0, node);
        let answer = link.call(Command::new("CLUSTER", &[b"NODES"]), end).await?;
        let text = answer.text().unwrap_or_default();
        let who = witness(text).map_or_else(|| node.to_string(), str::to_owned);
        Ok((who, text.lines().filter_map(|line| Claim::read(line, &node.host)).collect()))
    }
}

fn late() -> Fault {
    Fault::Pending("Cluster: no map of the slots in time".to_owned())
}

fn unowned(slot: u16) -> Fault {
    Fault::answered(&format!("CLUSTERDOWN no node owns slot {slot}"))
}

fn restless(slot: u16) -> Fault {
    Fault::answered(&format!("TRYAGAIN slot {slot} is on its way from node to node"))
}

#[cfg(all(test, any(feature = "redis", feature = "fred")))]
mod tests {
    use super::*;
    use crate::config::{Client, RedisConfig};

    #[test]
    fn nodes_that_left_are_forgotten() {
        let mut config = RedisConfig::parse("redis://seed").unwrap();
        config.client = if cfg!(feature = "redis") { Client::Redis } else { Client::Fred };
        let node = |host: String| Node { host, port: 6379 };
        let seed = node("seed".to_owned());
        let reads = Cluster::new(vec![seed.clone()], crate::route::dialer(&config).unwrap());
        let removals = reads.beside();
        for way in [&reads, &removals] {
            way.link(&seed);
            for number in 0..100 {
                way.link(&node(format!("n{number}")));
            }
        }
        let mut claims = Claims::default();
        let said = Claim::read("aa n7:6379@1 master - 0 0 5 connected 0-99", "");
        claims.add(said.into_iter().collect(), Names::Addresses);
        reads.release(&Arc::new(claims.into_map()));
        let members = removals.shared.members.lock();
        let mut left: Vec<&str> = members.all.keys().map(|node| node.host.as_str()).collect();
        left.sort_unstable();
        assert_eq!(left, ["n7", "seed"]);
    }
}
