//! What is to be carried where. Pure but for the choice among equals.

use std::collections::{BTreeMap, HashMap, HashSet};

use rand::seq::IteratorRandom as _;
use tokio::time::Instant;

use super::Cluster;
use super::member::{Place, Purpose};
use crate::hub::{Feeds, Source};
use crate::upstream::redis::slots::{self, Node};

/// What is carried where.
pub(super) type Places = HashMap<Place, Feeds>;

impl Cluster<'_> {
    /// What is to be carried where, and why some of it cannot be carried at all. Connections to a node that is left
    /// alone for a while are not made; `self.next_place` is when they are.
    pub(super) fn places(&mut self) -> (Places, Option<String>) {
        let (mut places, mut homeless) = (Places::new(), None);
        let mut streams = HashMap::<Node, BTreeMap<u16, Feeds>>::new();
        let wanted = self.link.wanted().snapshot();
        if wanted.keys().any(|source| slot(source).is_none()) {
            self.choose_broadcaster();
        }
        for (source, feeds) in wanted {
            let slot = slot(&source);
            let node = match slot {
                None => self.broadcaster.clone(),
                Some(slot) => self.map.lock().owner(slot).cloned(),
            };
            match (node, slot) {
                (None, None) => {}
                (None, Some(slot)) => {
                    let name = source.name();
                    homeless = Some(format!("no node of the cluster owns slot {slot}, that of {name}"));
                }
                (Some(node), Some(slot)) if matches!(source, Source::Stream(_)) => {
                    let of_node = streams.entry(node).or_default();
                    of_node.entry(slot).or_default().insert(source, feeds);
                }
                (Some(node), _) => {
                    places.entry(Place::messages(node)).or_default().insert(source, feeds);
                }
            }
        }
        for (node, slots) in streams {
            let own = self.own(&node, slots.keys().copied());
            for (slot, feeds) in slots {
                let purpose = if own.contains(&slot) { Purpose::Slot(slot) } else { Purpose::Slots };
                places.entry(Place { node: node.clone(), purpose }).or_default().extend(feeds);
            }
        }
        self.leave_alone(&mut places);
        (places, homeless)
    }

    /// Which of a node's slots have a connection of their own: those that have one, and others up to so many.
    fn own(&self, node: &Node, slots: impl Iterator<Item = u16> + Clone) -> HashSet<u16> {
        let has = |slot: &u16| {
            self.members.contains_key(&Place { node: node.clone(), purpose: Purpose::Slot(*slot) })
        };
        // What is read in turns is not to wait for a connection that cannot be made now.
        let most = if self.rest(node).is_some() { 0 } else { WAITS };
        choose(slots, has, most)
    }

    fn leave_alone(&mut self, places: &mut Places) {
        let resting: Vec<_> =
            places.keys().filter_map(|place| Some((place.clone(), self.rest(&place.node)?))).collect();
        for (place, until) in resting {
            if !self.members.contains_key(&place) {
                places.remove(&place);
                self.next_place = Some(self.next_place.map_or(until, |first| first.min(until)));
            }
        }
    }

    /// Until when a node is to be left alone.
    fn rest(&self, node: &Node) -> Option<Instant> {
        self.patience.get(node).map(|(_, until)| *until).filter(|until| *until > Instant::now())
    }

    /// The one that there is, as long as it belongs to the cluster; else one with a connection already, else a master.
    fn choose_broadcaster(&mut self) {
        let map = self.map.lock();
        let carries = |node: &Node| self.members.contains_key(&Place::messages(node.clone()));
        let fits = |node: &&Node| map.nodes.contains(*node) && (carries(node) || self.rest(node).is_none());
        if self.broadcaster.as_ref().filter(fits).is_some() {
            return;
        }
        let connected = map.nodes.iter().filter(fits).filter(|node| carries(node)).choose(&mut rand::rng());
        // A master may come to carry shard channels on the same connection.
        let master = || map.masters.iter().filter(fits).choose(&mut rand::rng());
        let other = || map.nodes.iter().filter(fits).choose(&mut rand::rng());
        if let Some(node) = connected.or_else(master).or_else(other) {
            self.broadcaster = Some(node.clone());
        }
    }
}

/// The slot of a source that belongs to one.
fn slot(source: &Source) -> Option<u16> {
    match source {
        Source::ShardChannel(name) | Source::Stream(name) => Some(slots::slot(name)),
        _ => None,
    }
}

/// Those that are chosen already, and others until there are `most`.
fn choose(
    slots: impl Iterator<Item = u16> + Clone,
    is_chosen: impl Fn(&u16) -> bool,
    most: usize,
) -> HashSet<u16> {
    let mut chosen: HashSet<u16> = slots.clone().filter(&is_chosen).collect();
    let others = slots.filter(|slot| !is_chosen(slot)).take(most.saturating_sub(chosen.len()));
    chosen.extend(others.collect::<Vec<_>>());
    chosen
}

/// The most connections to a node that wait for the streams of one slot each; those of all others share one more.
const WAITS: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_a_connection_keeps_it_and_others_have_what_is_left() {
        let sorted = |chosen: HashSet<u16>| Vec::from_iter(std::collections::BTreeSet::from_iter(chosen));
        assert_eq!(sorted(choose(1..10, |slot| [7, 30].contains(slot), 3)), [1, 2, 7]);
        assert_eq!(sorted(choose(1..10, |slot| *slot > 4, 3)), [5, 6, 7, 8, 9], "none is taken away");
        assert_eq!(sorted(choose(1..3, |_| false, 3)), [1, 2]);
        assert_eq!(sorted(choose(1..3, |_| false, 0)), [0_u16; 0]);
    }
}
