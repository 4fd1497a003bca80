//! Which node owns which slot, as nodes say it.

use std::collections::HashMap;

use crate::error::Fault;
use crate::key::SLOTS;
use crate::url::Node;

/// Where else to ask.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Redirection {
    Moved(Node),
    Ask(Node),
}

impl Redirection {
    /// Reads `MOVED 3999 127.0.0.1:6381`, as `from` said it.
    pub(crate) fn of(fault: &Fault, from: &Node) -> Option<Self> {
        let Fault::Answered { code, text } = fault else { return None };
        let node = Node::parse(text.split(' ').nth(2)?, &from.host)?;
        match code.as_str() {
            "MOVED" => Some(Self::Moved(node)),
            "ASK" => Some(Self::Ask(node)),
            _ => None,
        }
    }
}

/// How nodes are called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Names {
    /// By their addresses.
    Addresses,
    /// By the names that they announce, if they do: certificates may have no addresses.
    Announced,
}

/// Who said it: the id of a node, which has one however it is called.
pub(crate) fn witness(text: &str) -> Option<&str> {
    let is_myself = |line: &&str| {
        let flags = line.split_ascii_whitespace().nth(2).unwrap_or_default();
        flags.split(',').any(|flag| flag == "myself")
    };
    text.lines().find(is_myself)?.split_ascii_whitespace().next()
}

/// A node that says it owns slots, or of which others say so.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Claim {
    node: Node,
    /// The name that it announces.
    name: Option<String>,
    epoch: u64,
    slots: Vec<(u16, u16)>,
}

impl Claim {
    /// Reads one line of `CLUSTER NODES`: id, address, flags, master, ping, pong, epoch, link, slots.
    pub(crate) fn read(line: &str, host: &str) -> Option<Self> {
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
        // `ip:port@bus,name,what=else`
        let name = address.split(',').nth(1).filter(|name| !name.is_empty() && !name.contains('='));
        let name = name.map(str::to_owned);
        (!slots.is_empty()).then_some(Self { node, name, epoch: epoch.parse().ok()?, slots })
    }
}

/// Who claims what, by the word of several nodes.
#[derive(Debug, Default)]
pub(crate) struct Claims {
    best: HashMap<u16, (u64, Node)>,
    names: HashMap<Node, Node>,
}

impl Claims {
    pub(crate) fn add(&mut self, said: Vec<Claim>, names: Names) {
        for Claim { node, name, epoch, slots } in said {
            // Some may not have heard the name yet, so that of any counts for all.
            if let (Names::Announced, Some(host)) = (names, name) {
                self.names.insert(node.clone(), Node { host, port: node.port });
            }
            for slot in slots.into_iter().flat_map(|(first, last)| first..=last.min(SLOTS - 1)) {
                let best = self.best.entry(slot).or_insert_with(|| (epoch, node.clone()));
                if epoch > best.0 {
                    *best = (epoch, node.clone());
                }
            }
        }
    }

    pub(crate) fn into_map(self) -> Map {
        let Self { best, names } = self;
        let named = |node: &Node| names.get(node).unwrap_or(node).clone();
        let best: HashMap<u16, Node> =
            best.iter().map(|(slot, (_, node))| (*slot, named(node))).collect();
        let mut nodes: Vec<Node> = best.values().cloned().collect();
        nodes.sort_by(|one, other| (&one.host, one.port).cmp(&(&other.host, other.port)));
        nodes.dedup();
        let owner = |slot| {
            let owner = best.get(&slot)?;
            nodes.iter().position(|node| node == owner).and_then(|at| u16::try_from(at).ok())
        };
        let owners = (0..SLOTS).map(owner).collect();
        Map { nodes, owners, names }
    }
}

/// Which node owns which slot.
#[derive(Debug)]
pub(crate) struct Map {
    pub(crate) nodes: Vec<Node>,
    /// By slot, the number of its node.
    owners: Box<[Option<u16>]>,
    /// By address, how nodes are called here.
    names: HashMap<Node, Node>,
}

impl PartialEq for Map {
    /// Names say nothing of who owns what.
    fn eq(&self, other: &Self) -> bool {
        (&self.nodes, &self.owners) == (&other.nodes, &other.owners)
    }
}

impl Map {
    /// How the node is called that another one sends to.
    pub(crate) fn named(&self, node: Node) -> Node {
        self.names.get(&node).cloned().unwrap_or(node)
    }

    pub(crate) fn owner(&self, slot: u16) -> Option<&Node> {
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
        let said = lines.iter().filter_map(|line| Claim::read(line, "seed")).collect();
        claims.add(said, Names::Addresses);
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
        // One that was added and owns nothing yet holds nothing that could come back.
        let added = "dd 10.0.0.4:7003@17003 master - 0 0 9 connected";
        assert_eq!(map, claims(&[ONE, OTHER, added]).into_map());
    }

    #[test]
    fn announced_names_are_used_where_they_are_asked_for() {
        let lines = [ONE, "bb 10.0.0.2:7001@17001,,shard-id=x master - 0 0 7 connected 200"];
        let read = |line: &&str| Claim::read(line, "seed");
        // Another one has not heard the name yet.
        let unheard = ONE.replace(",name", "");
        for (names, first) in [(Names::Addresses, "10.0.0.1"), (Names::Announced, "name")] {
            let mut claims = Claims::default();
            claims.add(vec![Claim::read(&unheard, "seed").unwrap()], names);
            claims.add(lines.iter().filter_map(read).collect(), names);
            let map = claims.into_map();
            assert_eq!(map.owner(0).unwrap().to_string(), format!("{first}:7000"));
            assert_eq!(map.owner(200).unwrap().to_string(), "10.0.0.2:7001");
            let sent = map.named(Node { host: "10.0.0.1".into(), port: 7000 });
            assert_eq!(Some(&sent), map.owner(0), "a redirection by address names the same node");
        }
    }

    #[test]
    fn a_witness_is_known_by_its_id() {
        assert_eq!(witness(&[ONE, OTHER, REPLICA].join("\n")), Some("bb"));
        assert_eq!(witness(ONE), None);
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
