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

/// A node that says it owns slots, or of which others say so.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Claim {
    node: Node,
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
        (!slots.is_empty()).then_some(Self { node, epoch: epoch.parse().ok()?, slots })
    }
}

/// Who claims what, by the word of several nodes.
#[derive(Debug, Default)]
pub(crate) struct Claims(HashMap<u16, (u64, Node)>);

impl Claims {
    pub(crate) fn add(&mut self, said: Vec<Claim>) {
        for Claim { node, epoch, slots } in said {
            for slot in slots.into_iter().flat_map(|(first, last)| first..=last.min(SLOTS - 1)) {
                let best = self.0.entry(slot).or_insert_with(|| (epoch, node.clone()));
                if epoch > best.0 {
                    *best = (epoch, node.clone());
                }
            }
        }
    }

    pub(crate) fn into_map(self) -> Map {
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
pub(crate) struct Map {
    pub(crate) nodes: Vec<Node>,
    /// By slot, the number of its node.
    owners: Box<[Option<u16>]>,
}

impl Map {
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
        // One that was added and owns nothing yet holds nothing that could come back.
        let added = "dd 10.0.0.4:7003@17003 master - 0 0 9 connected";
        assert_eq!(map, claims(&[ONE, OTHER, added]).into_map());
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
