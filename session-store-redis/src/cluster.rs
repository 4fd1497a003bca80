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
use crate::url::Node;

/// So many nodes are asked for the map; of each slot the claim of the highest epoch counts.
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
                    self.dialer.watch.changed(&node);
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
        let late = || Fault::Unreachable("Cluster: no map of the slots in time".to_owned());
        let _turn = timeout_at(end, self.turn.lock()).await.map_err(|_| late())?;
        // Somebody else may have looked meanwhile.
        if let Some(found) = self.current() {
            return found;
        }
        let found = timeout_at(end, self.look()).await.unwrap_or_else(|_| Err(late()));
        let mut known = self.known.lock();
        let pause = Some(Instant::now() + self.dialer.pause);
        match found {
            Ok(map) => {
                let map = Arc::new(map);
                if known.map.as_ref().is_some_and(|before| *before != map) {
                    // Counted before anybody can go by the new map: a node that was promoted may
                    // lack a removal.
                    self.dialer.watch.changed(&"Cluster");
                }
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

    async fn look(&self) -> Result<Map, Fault> {
        let mut nodes =
            self.known.lock().map.as_ref().map_or_else(Vec::new, |map| map.nodes.clone());
        nodes.extend(self.seeds.iter().cloned());
        let mut seen = std::collections::HashSet::new();
        nodes.retain(|node| seen.insert(node.clone()));
        let asked = nodes.iter().map(|node| self.ask(node));
        let mut answers: FuturesUnordered<_> = asked.collect();
        let (mut claims, mut count, mut trouble) = (Claims::default(), 0, None);
        while count < WITNESSES
            && let Some(answer) = answers.next().await
        {
            match answer {
                Ok(said) => {
                    claims.add(said);
                    count += 1;
                }
                Err(fault) => trouble = Some(fault),
            }
        }
        match trouble {
            Some(fault) if count == 0 => Err(fault),
            _ => Ok(claims.into_map()),
        }
    }

    async fn ask(&self, node: &Node) -> Result<Vec<Claim>, Fault> {
        let end = self.dialer.end();
        let answer = self.link(node).call(Command::new("CLUSTER", &[b"NODES"]), end).await?;
        let text = answer.text().unwrap_or_default();
        Ok(text.lines().filter_map(|line| Claim::read(line, &node.host)).collect())
    }
}

fn unowned(slot: u16) -> Fault {
    Fault::answered(&format!("CLUSTERDOWN no node owns slot {slot}"))
}

fn restless(slot: u16) -> Fault {
    Fault::answered(&format!("TRYAGAIN slot {slot} is on its way from node to node"))
}

/// Where else to ask.
#[derive(Debug, PartialEq, Eq)]
enum Redirection {
    Moved(Node),
    Ask(Node),
}

impl Redirection {
    /// Reads `MOVED 3999 127.0.0.1:6381`, as `from` said it.
    fn of(fault: &Fault, from: &Node) -> Option<Self> {
        let Fault::Answered { code, text } = fault else { return None };
        let node = Node::parse(text.split(' ').nth(2)?, &from.host)?;
        match code.as_str() {
            "MOVED" => Some(Self::Moved(node)),
            "ASK" => Some(Self::Ask(node)),
            _ => None,
        }
    }
}

/// A node that says it owns slots, or of which others say so.
#[derive(Debug, PartialEq, Eq)]
struct Claim {
    node: Node,
    epoch: u64,
    slots: Vec<(u16, u16)>,
}

impl Claim {
    /// Reads one line of `CLUSTER NODES`: id, address, flags, master, ping, pong, epoch, link, slots.
    fn read(line: &str, host: &str) -> Option<Self> {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let [_, address, flags, _, _, _, epoch, _, slots @ ..] = fields.as_slice() else {
            return None;
        };
        if !flags.split(',').any(|flag| flag == "master") {
            return None;
        }
        let range = |text: &&str| {
            let (first, last) = text.split_once('-').unwrap_or((text, text));
            // `[77->-id]` is a slot on its way; its owner still lists it.
            Some((first.parse().ok()?, last.parse().ok()?))
        };
        let slots: Vec<_> = slots.iter().filter_map(range).collect();
        let node = Node::parse(address, host)?;
        (!slots.is_empty()).then_some(Self { node, epoch: epoch.parse().ok()?, slots })
    }
}

/// Who claims what, by the word of several nodes.
#[derive(Debug, Default)]
struct Claims(HashMap<u16, (u64, Node)>);

impl Claims {
    fn add(&mut self, said: Vec<Claim>) {
        for Claim { node, epoch, slots } in said {
            for slot in slots.into_iter().flat_map(|(first, last)| first..=last.min(SLOTS - 1)) {
                let best = self.0.entry(slot).or_insert_with(|| (epoch, node.clone()));
                if epoch > best.0 {
                    *best = (epoch, node.clone());
                }
            }
        }
    }

    fn into_map(self) -> Map {
        let mut nodes: Vec<Node> = self.0.values().map(|(_, node)| node.clone()).collect();
        nodes.sort_by(|one, other| (&one.host, one.port).cmp(&(&other.host, other.port)));
        nodes.dedup();
        let owner = |slot| {
            let (_, owner) = self.0.get(&slot)?;
            nodes.iter().position(|node| node == owner).and_then(|at| u16::try_from(at).ok())
        };
        let owners = (0..SLOTS).map(owner).collect();
        Map { nodes, owners }
    }
}

/// Which node owns which slot.
#[derive(Debug, PartialEq, Eq)]
struct Map {
    nodes: Vec<Node>,
    /// By slot, the number of its node.
    owners: Box<[Option<u16>]>,
}

impl Map {
    fn owner(&self, slot: u16) -> Option<&Node> {
        let owner = (*self.owners.get(usize::from(slot))?)?;
        self.nodes.get(usize::from(owner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "aa 10.0.0.1:7000@17000,name master - 0 0 5 connected 0-99 [77->-bb]";
    const OTHER: &str = "bb :7001@17001 myself,master - 0 0 7 connected 50-100 200";
    const REPLICA: &str = "cc 10.0.0.3:7002@17002 slave bb 0 0 7 connected";

    fn claims(lines: &[&str]) -> Claims {
        let mut claims = Claims::default();
        claims.add(lines.iter().filter_map(|line| Claim::read(line, "seed")).collect());
        claims
    }

    #[test]
    fn the_younger_claim_to_a_slot_counts() {
        for lines in [[ONE, OTHER, REPLICA], [REPLICA, OTHER, ONE]] {
            let map = claims(&lines).into_map();
            let owner = |slot| map.owner(slot).map(ToString::to_string);
            assert_eq!(owner(0).as_deref(), Some("10.0.0.1:7000"));
            assert_eq!(owner(77).as_deref(), Some("seed:7001"));
            assert_eq!(owner(100).as_deref(), Some("seed:7001"));
            assert_eq!(owner(200).as_deref(), Some("seed:7001"));
            assert_eq!(owner(199), None);
            assert_eq!(owner(SLOTS), None);
        }
    }

    #[test]
    fn maps_are_equal_when_the_owners_are() {
        let map = claims(&[ONE, OTHER]).into_map();
        assert_eq!(map, claims(&[OTHER, ONE]).into_map());
        assert_ne!(map, claims(&[ONE]).into_map());
        assert_eq!(claims(&["nonsense", REPLICA, ""]).into_map().nodes, []);
    }

    #[test]
    fn redirections_are_read() {
        let from = Node { host: "own".into(), port: 1 };
        let of = |text| Redirection::of(&Fault::answered(text), &from);
        let node = |host: &str, port| Node { host: host.into(), port };
        assert_eq!(
            of("MOVED 3999 10.0.0.9:6381"),
            Some(Redirection::Moved(node("10.0.0.9", 6381)))
        );
        assert_eq!(of("ASK 3999 :6381"), Some(Redirection::Ask(node("own", 6381))));
        assert_eq!(of("MOVED 3999"), None);
        assert_eq!(of("CLUSTERDOWN The cluster is down"), None);
    }
}
