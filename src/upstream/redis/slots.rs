//! Hash slots: which one a shard channel or a key is of, and who owns it. Pure.
//!
//! <https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/>

use std::collections::HashSet;
use std::sync::Arc;

use crate::config::Endpoint;

/// How many there are.
pub(super) const SLOTS: u16 = 16384;

/// The slot of a shard channel or a key: of what stands between its first braces, if anything does.
pub(super) fn slot(name: &str) -> u16 {
    let tag = name.split_once('{').and_then(|(_, rest)| rest.split_once('}')).map(|(tag, _)| tag);
    crc16(tag.filter(|tag| !tag.is_empty()).unwrap_or(name).as_bytes()) % SLOTS
}

/// CRC-16/XMODEM.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| {
        (0..8).fold(crc ^ (u16::from(*byte) << 8), |crc, _| {
            if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 }
        })
    })
}

/// A node of the cluster, by where it listens.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Node {
    pub host: Arc<str>,
    pub port: u16,
}

impl Node {
    /// Where an endpoint is.
    pub fn of(endpoint: &Endpoint) -> Self {
        Self { host: endpoint.host.as_str().into(), port: endpoint.port }
    }
}

/// `SLOT HOST:PORT`, as MOVED and ASK say it. One that gives no host means its own, `own`.
pub(super) fn redirected(details: &str, own: &str) -> Option<(u16, Node)> {
    let (slot, address) = details.split_once(' ')?;
    let (host, port) = address.rsplit_once(':')?;
    let host = if host.is_empty() { own } else { host };
    Some((slot.parse().ok()?, Node { host: host.into(), port: port.parse().ok()? }))
}

/// The cluster as one of its nodes sees it.
#[derive(Debug, Default)]
pub(super) struct View {
    /// Those that can be reached, replicas among them.
    pub nodes: HashSet<Node>,
    claims: Vec<Claim>,
}

/// That a master owns some slots, first and last, since an election of this number.
#[derive(Debug)]
struct Claim {
    node: Node,
    epoch: u64,
    slots: Vec<(u16, u16)>,
}

impl View {
    /// Reads what CLUSTER NODES says. A node that does not know its own address is where it was asked, at `host`;
    /// `by_name` prefers names to addresses, since certificates are for names.
    pub fn parse(text: &str, host: &str, by_name: bool) -> Self {
        let mut view = Self::default();
        for line in text.lines() {
            // A line that is no node is passed over.
            let _ = view.read(line, host, by_name);
        }
        view
    }

    /// `id ip:port@bus[,name] flags master ping pong epoch link slot slot…`
    fn read(&mut self, line: &str, host: &str, by_name: bool) -> Option<()> {
        let mut words = line.split(' ');
        let (address, flags) = (words.nth(1)?, words.next()?);
        let epoch = words.nth(3)?.parse().ok()?;
        let (address, name) = address.split_once(',').unwrap_or((address, ""));
        let name = name.split(',').next().filter(|name| !name.is_empty());
        let (ip, port) = address.split('@').next()?.rsplit_once(':')?;
        let flags: Vec<&str> = flags.split(',').collect();
        if ["handshake", "noaddr"].iter().any(|flag| flags.contains(flag)) {
            return None;
        }
        let known = Some(ip).filter(|ip| !ip.is_empty());
        let shown = if by_name { name.or(known) } else { known.or(name) };
        let node = Node { host: shown.unwrap_or(host).into(), port: port.parse().ok()? };
        if !flags.contains(&"fail") {
            self.nodes.insert(node.clone());
        }
        if flags.contains(&"master") {
            // After the state of the link. `[93-<-…]` is a slot on its way, which its old owner serves still.
            let slots: Vec<_> = words.skip(1).filter_map(range).collect();
            if !slots.is_empty() {
                self.claims.push(Claim { node, epoch, slots });
            }
        }
        Some(())
    }

    /// The masters that own slots and can be reached.
    fn masters(&self) -> HashSet<Node> {
        let owners = self.claims.iter().map(|claim| claim.node.clone());
        owners.filter(|node| self.nodes.contains(node)).collect()
    }
}

fn range(word: &str) -> Option<(u16, u16)> {
    let (first, last) = word.split_once('-').unwrap_or((word, word));
    let (first, last) = (first.parse().ok()?, last.parse().ok()?);
    (first <= last && last < SLOTS).then_some((first, last))
}

/// Who owns which slot, of all that was heard.
pub(super) struct Map {
    owners: Vec<Option<Owner>>,
    /// The nodes of the latest view.
    pub nodes: HashSet<Node>,
    /// Those among them that own slots.
    pub masters: HashSet<Node>,
}

#[derive(Clone)]
struct Owner {
    node: Node,
    /// Of the election since which it owns the slot.
    epoch: u64,
    /// Whether that was told by the owner before, and by no view so far.
    told: bool,
}

impl Map {
    pub fn new() -> Self {
        Self { owners: vec![None; usize::from(SLOTS)], nodes: HashSet::new(), masters: HashSet::new() }
    }

    /// Who owns a slot.
    pub fn owner(&self, slot: u16) -> Option<&Node> {
        self.owners[usize::from(slot)].as_ref().map(|owner| &owner.node)
    }

    /// Takes a view in. Of two claims that of the later election holds, as it does among the nodes themselves: so a
    /// node that was cut off cannot take a slot back.
    pub fn merge(&mut self, view: View) {
        // One that knows of no owner does not belong to the cluster, or not yet.
        if !view.claims.is_empty() {
            self.masters = view.masters();
            self.nodes = view.nodes;
        }
        for Claim { node, epoch, slots } in view.claims {
            for slot in slots.into_iter().flat_map(|(first, last)| first..=last) {
                let owner = &mut self.owners[usize::from(slot)];
                if owner.as_ref().is_none_or(|known| known.epoch <= epoch) {
                    *owner = Some(Owner { node: node.clone(), epoch, told: false });
                }
            }
        }
    }

    /// A node said that another one owns a slot now. That came by an election after the one we knew of; by one alone,
    /// however often nodes that do not agree yet point at each other, so that no view is overruled for long.
    pub fn moved(&mut self, slot: u16, to: Node) {
        let Some(owner) = self.owners.get_mut(usize::from(slot)) else { return };
        let epoch = match owner {
            Some(known) if known.node == to => return,
            Some(known) => known.epoch + u64::from(!known.told),
            None => 0,
        };
        *owner = Some(Owner { node: to, epoch, told: true });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_of_channels() {
        assert_eq!(crc16(b"123456789"), 0x31c3);
        // As CLUSTER KEYSLOT says.
        for (channel, expected) in [
            ("foo", 12182),
            ("bar", 5061),
            ("", 0),
            ("{foo}.bar", 12182),
            ("a{foo}{bar}", 12182),
            ("foo{}{bar}", 8363),
            ("{user1000}.following", 3443),
        ] {
            assert_eq!(slot(channel), expected, "{channel}");
        }
        assert_eq!(slot("x{foo"), crc16(b"x{foo") % SLOTS, "a brace that is not closed");
        assert_eq!(slot("foo{{bar}}zap"), crc16(b"{bar") % SLOTS);
    }

    fn node(host: &str, port: u16) -> Node {
        Node { host: host.into(), port }
    }

    #[test]
    fn where_a_slot_went() {
        let read = |details| redirected(details, "own");
        assert_eq!(read("866 10.0.0.1:7000"), Some((866, node("10.0.0.1", 7000))));
        assert_eq!(read("866 ::1:7000"), Some((866, node("::1", 7000))));
        assert_eq!(read("866 :7000"), Some((866, node("own", 7000))));
        assert_eq!(read("866"), None);
    }

    const TEXT: &str = "\
07c3 127.0.0.1:30004@31004,hostname4 slave e7d1 0 1426238317239 4 connected
67ed 127.0.0.1:30002@31002,hostname2 master - 0 1426238316232 2 connected 5461-10922
292f 127.0.0.1:30003@31003,,shard-id=69bc master,fail - 0 1426238318243 3 connected 10923-16383
e7d1 :30001@31001 myself,master - 0 0 1 connected 0-5458 5460 [5459->-67ed]
0000 :0@0 master,noaddr - 0 0 9 disconnected
";

    #[test]
    fn a_view() {
        let view = View::parse(TEXT, "10.9.9.9", false);
        let expected = [node("127.0.0.1", 30004), node("127.0.0.1", 30002), node("10.9.9.9", 30001)];
        assert_eq!(view.nodes, HashSet::from(expected));
        let mut map = Map::new();
        map.merge(view);
        assert_eq!(map.masters, HashSet::from([node("127.0.0.1", 30002), node("10.9.9.9", 30001)]));
        assert_eq!(map.owner(0), Some(&node("10.9.9.9", 30001)));
        assert_eq!(map.owner(5460), Some(&node("10.9.9.9", 30001)));
        assert_eq!(map.owner(5459), None);
        assert_eq!(map.owner(10922), Some(&node("127.0.0.1", 30002)));
        assert_eq!(map.owner(16383), Some(&node("127.0.0.1", 30003)), "it has failed, and owns it still");
        let by_name = View::parse(TEXT, "h", true).nodes;
        assert_eq!(
            by_name,
            HashSet::from([node("hostname4", 30004), node("hostname2", 30002), node("h", 30001)])
        );
        assert!(View::parse("nonsense\n\nid a:b@c x\n", "h", false).nodes.is_empty());
    }

    fn claim(port: u16, epoch: u64) -> View {
        View::parse(&format!("id h:{port}@1 master - 0 0 {epoch} connected 7"), "h", false)
    }

    #[test]
    fn the_later_election_holds() {
        let mut map = Map::new();
        map.merge(claim(1, 5));
        map.merge(claim(2, 4));
        assert_eq!(map.owner(7), Some(&node("h", 1)), "of one that was cut off");
        map.merge(View::parse("id h:9@1 myself,master - 0 0 0 connected", "h", false));
        assert_eq!(map.nodes, HashSet::from([node("h", 2)]), "not those of one that was reset");
        map.merge(claim(3, 6));
        assert_eq!(map.owner(7), Some(&node("h", 3)));
        map.moved(7, node("h", 4));
        map.merge(claim(3, 6));
        assert_eq!(map.owner(7), Some(&node("h", 4)), "what a node said at first hand");
        (0..10).for_each(|turn| map.moved(7, node("h", 4 + turn % 2)));
        assert_eq!(map.owner(7), Some(&node("h", 5)), "the last one to say so, while they do not agree");
        map.merge(claim(4, 7));
        map.merge(claim(5, 8));
        assert_eq!(map.owner(7), Some(&node("h", 5)));
        map.moved(SLOTS, node("h", 1));
    }
}
