//! A Cluster: which node owns which slot, learned from the nodes themselves.
//!
//! Nothing is sent again unless the answer says that it was not run (`MOVED`, `ASK`).

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use parking_lot::Mutex;
use tokio::time::{Instant, timeout_at};

use crate::driver::{Command, Reply};
use crate::error::Fault;
use crate::key::{SLOTS, slot};
use crate::link::{Dialer, Link, Place};
use crate::slots::{Claim, Claims, Map, Redirection};
use crate::url::Node;

/// So many nodes say what the map is, or the majority of all where that is less; of each slot the claim
/// of the highest epoch counts.
const WITNESSES: usize = 3;

/// The nodes of a Cluster.
#[derive(Debug)]
pub(crate) struct Cluster {
    dialer: Arc<Dialer>,
    seeds: Vec<Node>,
    links: Mutex<HashMap<Node, Arc<Link>>>,
    known: Mutex<Known>,
    /// One look at a time.
    turn: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct Known {
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
        Self {
            dialer,
            seeds,
            links: Mutex::default(),
            known: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
        }
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
                if again == owner {
                    // The nodes disagree. The one that was asked knows best whether it owns a slot.
                    self.dialer.watch.changed();
                    self.link(&node).call(command, end).await
                } else {
                    link.call(command, end).await
                }
            }
            Redirection::Ask(node) => {
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
            let mut known = self.known.lock();
            known.is_stale = true;
            if is_moved {
                known.pause = None;
            }
        }
    }

    async fn owner(&self, slot: u16, end: Instant) -> Result<(Arc<Link>, Node), Fault> {
        let map = self.map(end).await?;
        let node = self.owner_in(&map, slot)?;
        Ok((self.link(node), node.clone()))
    }

    /// The owner of `slot`; without one, the map is looked at again the next time.
    fn owner_in<'a>(&self, map: &'a Map, slot: u16) -> Result<&'a Node, Fault> {
        map.owner(slot).ok_or_else(|| {
            self.known.lock().is_stale = true;
            unowned(slot)
        })
    }

    fn link(&self, node: &Node) -> Arc<Link> {
        let mut links = self.links.lock();
        let link = links.entry(node.clone()).or_insert_with(|| {
            Arc::new(Link::new(Place::Part(node.clone()), Arc::clone(&self.dialer)))
        });
        Arc::clone(link)
    }

    async fn map(&self, end: Instant) -> Result<Arc<Map>, Fault> {
        if let Some(found) = self.current() {
            return found;
        }
        let _turn = timeout_at(end, self.turn.lock()).await.map_err(|_| late())?;
        // Somebody else may have looked meanwhile.
        if let Some(found) = self.current() {
            return found;
        }
        let found = self.look(end).await;
        let mut known = self.known.lock();
        let pause = Some(Instant::now() + self.dialer.pause);
        match found {
            Ok(map) => {
                let map = Arc::new(map);
                if known.map.as_ref().is_some_and(|before| *before != map) {
                    // Counted before anybody can go by the new map: a node that was promoted may
                    // lack a removal.
                    self.dialer.watch.changed();
                }
                self.release(&map);
                let map_now = Some(Arc::clone(&map));
                *known = Known { map: map_now, is_stale: false, pause, trouble: None };
                Ok(map)
            }
            Err(fault) => {
                (known.pause, known.trouble) = (pause, Some(fault.clone()));
                known.map.clone().ok_or(fault)
            }
        }
    }

    /// The map if it need not, or can't, be looked at again now.
    fn current(&self) -> Option<Result<Arc<Map>, Fault>> {
        let known = self.known.lock();
        let is_pausing = known.pause.is_some_and(|until| Instant::now() < until);
        match (&known.map, &known.trouble) {
            (Some(map), _) if !known.is_stale || is_pausing => Some(Ok(Arc::clone(map))),
            (None, Some(fault)) if is_pausing => Some(Err(fault.clone())),
            _ => None,
        }
    }

    /// Closes the connections to nodes that own nothing any more.
    fn release(&self, map: &Map) {
        let links = self.links.lock();
        let departed = links
            .iter()
            .filter(|(node, _)| !map.nodes.contains(node) && !self.seeds.contains(node));
        for (_, link) in departed {
            link.rest();
        }
    }

    /// Asks all nodes, and takes what enough of them say. When some don't answer, half of the time
    /// until `end` is left for whatever the map is needed for.
    async fn look(&self, end: Instant) -> Result<Map, Fault> {
        let mut nodes =
            self.known.lock().map.as_ref().map_or_else(Vec::new, |map| map.nodes.clone());
        nodes.extend(self.seeds.iter().cloned());
        let mut seen = std::collections::HashSet::new();
        nodes.retain(|node| seen.insert(node.clone()));
        let needed = WITNESSES.min(nodes.len() / 2 + 1);
        let asked = nodes.iter().map(|node| self.ask(node, end));
        let mut answers: FuturesUnordered<_> = asked.collect();
        let now = Instant::now();
        let soon = now + end.saturating_duration_since(now) / 2;
        let (mut claims, mut count, mut trouble) = (Claims::default(), 0, None);
        while count < needed {
            let patience = if count == 0 { end } else { soon };
            match timeout_at(patience, answers.next()).await {
                Ok(Some(Ok(said))) => {
                    claims.add(said);
                    count += 1;
                }
                Ok(Some(Err(fault))) => trouble = Some(fault),
                Ok(None) | Err(_) => break,
            }
        }
        if count == 0 {
            return Err(trouble.unwrap_or_else(late));
        }
        Ok(claims.into_map())
    }

    async fn ask(&self, node: &Node, end: Instant) -> Result<Vec<Claim>, Fault> {
        let answer = self.link(node).call(Command::new("CLUSTER", &[b"NODES"]), end).await?;
        let text = answer.text().unwrap_or_default();
        Ok(text.lines().filter_map(|line| Claim::read(line, &node.host)).collect())
    }
}

fn late() -> Fault {
    Fault::Unreachable("Cluster: no map of the slots in time".to_owned())
}

fn unowned(slot: u16) -> Fault {
    Fault::answered(&format!("CLUSTERDOWN no node owns slot {slot}"))
}

fn restless(slot: u16) -> Fault {
    Fault::answered(&format!("TRYAGAIN slot {slot} is on its way from node to node"))
}
