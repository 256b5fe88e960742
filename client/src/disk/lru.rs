//! A map that knows which of its entries was used longest ago. Pure.

use std::collections::HashMap;
use std::hash::Hash;

/// Keys with values, in the order of their last use.
///
/// Invariant: the list from `oldest` by `newer` visits each key of `slots` exactly once.
#[derive(Debug)]
pub(super) struct Lru<K, V> {
    slots: HashMap<K, u32>,
    nodes: Vec<Node<K, V>>,
    free: Vec<u32>,
    oldest: u32,
    newest: u32,
}

#[derive(Debug)]
struct Node<K, V> {
    key: K,
    /// None while the node is free.
    value: Option<V>,
    older: u32,
    newer: u32,
}

/// No node.
const NONE: u32 = u32::MAX;

impl<K: Copy + Eq + Hash, V> Lru<K, V> {
    pub(super) fn new() -> Self {
        Self {
            slots: HashMap::new(),
            nodes: Vec::new(),
            free: Vec::new(),
            oldest: NONE,
            newest: NONE,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    pub(super) fn contains(&self, key: &K) -> bool {
        self.slots.contains_key(key)
    }

    /// The value, without counting as a use.
    pub(super) fn peek(&self, key: &K) -> Option<&V> {
        let at = *self.slots.get(key)?;
        self.nodes[at as usize].value.as_ref()
    }

    /// The value, to be changed, without counting as a use.
    pub(super) fn peek_mut(&mut self, key: &K) -> Option<&mut V> {
        let at = *self.slots.get(key)?;
        self.nodes[at as usize].value.as_mut()
    }

    /// The value; it is then the one used last.
    pub(super) fn get(&mut self, key: &K) -> Option<&V> {
        let at = *self.slots.get(key)?;
        if self.newest != at {
            self.unlink(at);
            self.link_newest(at);
        }
        self.nodes[at as usize].value.as_ref()
    }

    /// Puts a value in as the one used last; returns what it replaces.
    pub(super) fn insert(&mut self, key: K, value: V) -> Option<V> {
        let before = self.remove(&key);
        let node = Node {
            key,
            value: Some(value),
            older: NONE,
            newer: NONE,
        };
        let at = match self.free.pop() {
            Some(at) => {
                self.nodes[at as usize] = node;
                at
            }
            None => {
                self.nodes.push(node);
                (self.nodes.len() - 1) as u32
            }
        };
        self.slots.insert(key, at);
        self.link_newest(at);
        before
    }

    pub(super) fn remove(&mut self, key: &K) -> Option<V> {
        let at = self.slots.remove(key)?;
        self.unlink(at);
        self.free.push(at);
        self.nodes[at as usize].value.take()
    }

    /// All entries, the one used longest ago first.
    pub(super) fn oldest_first(&self) -> impl Iterator<Item = (&K, &V)> {
        let mut at = self.oldest;
        std::iter::from_fn(move || {
            let node = self.nodes.get(at as usize)?;
            at = node.newer;
            Some((&node.key, node.value.as_ref()?))
        })
    }

    fn unlink(&mut self, at: u32) {
        let (older, newer) = {
            let node = &self.nodes[at as usize];
            (node.older, node.newer)
        };
        match self.nodes.get_mut(older as usize) {
            Some(node) => node.newer = newer,
            None => self.oldest = newer,
        }
        match self.nodes.get_mut(newer as usize) {
            Some(node) => node.older = older,
            None => self.newest = older,
        }
    }

    fn link_newest(&mut self, at: u32) {
        let before = self.newest;
        let node = &mut self.nodes[at as usize];
        (node.older, node.newer) = (before, NONE);
        match self.nodes.get_mut(before as usize) {
            Some(node) => node.newer = at,
            None => self.oldest = at,
        }
        self.newest = at;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Behaves like a list in which each use moves an entry to the end.
        #[test]
        fn order_is_that_of_the_last_use(
            ops in proptest::collection::vec((0u8..4, 0u8..12), 0..200),
        ) {
            let mut lru = Lru::new();
            let mut model: Vec<(u8, usize)> = Vec::new();
            for (step, (op, key)) in ops.into_iter().enumerate() {
                let found = model.iter().position(|(k, _)| *k == key);
                match op {
                    0 => {
                        let before = found.map(|at| model.remove(at).1);
                        prop_assert_eq!(lru.insert(key, step), before);
                        model.push((key, step));
                    }
                    1 => {
                        let value = found.map(|at| {
                            let entry = model.remove(at);
                            model.push(entry);
                            entry.1
                        });
                        prop_assert_eq!(lru.get(&key).copied(), value);
                    }
                    2 => {
                        let value = found.map(|at| model.remove(at).1);
                        prop_assert_eq!(lru.remove(&key), value);
                    }
                    _ => {
                        let value = found.map(|at| model[at].1);
                        prop_assert_eq!(lru.peek(&key).copied(), value);
                        prop_assert_eq!(lru.contains(&key), value.is_some());
                    }
                }
                let order: Vec<_> = lru.oldest_first().map(|(k, v)| (*k, *v)).collect();
                prop_assert_eq!(&order, &model);
                prop_assert_eq!(lru.len(), model.len());
            }
        }
    }
}
