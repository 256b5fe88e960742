//! When to go round a cache node because the UFS itself is faster. Pure: time is an argument.
//!
//! A node that answers is asked first, whatever the UFS does: the UFS bills each request. But a
//! node may be so slow, for whatever reason, that reading what it holds takes longer than
//! reading the UFS would. How long a request of a given size takes at either is known from their
//! latest answers ([`Delivery`]): of a node only those with data that it **held** count, because
//! one that fills is as slow as the UFS is; of the UFS those to this client itself.
//!
//! Requests of this client queue behind one another at a node: ten at a time that take 50 ms each
//! are as good as one after the other of 5 ms. So an answer counts for as much less as there
//! were requests under way, when it is to be decided whether to leave the node.
//!
//! - Nothing that is answered within [`BEARABLE`] is gone round.
//! - When what a node holds takes longer, and the UFS was not measured lately, a few requests
//!   go to the UFS to measure it. Only if it takes less than half of the time is the node
//!   gone round.
//! - One request in [`TRIAL_EVERY`] still goes to it, as a peek, which makes no node read the UFS.
//!   When some in a row take about as long as the UFS, or less, it is asked again.
//! - It is asked again at once when the UFS fails, takes as long as the node did, or was not
//!   measured for a minute. Then, and when it is slow again soon after it was trusted, it
//!   takes more to go round it, or to trust it, the next time.
//!
//! Whichever is asked first, the other is asked as well when it is late: see [`Choice`].

mod delivery;

use std::collections::HashMap;
use std::time::{Duration, Instant};

use millpond_proto::{MountId, NodeId};

pub(crate) use delivery::{Delivery, Size};

/// What is answered within this time is answered fast enough.
const BEARABLE: Duration = Duration::from_millis(30);

/// A node is gone round when it takes this many times what the UFS does.
const CLEARLY: u32 = 2;

/// Whoever is asked first is given no longer than this before the other is asked too.
const MOST_PATIENCE: Duration = Duration::from_secs(3);

/// Answers of a node before it is called slow.
const ENOUGH_OF_NODE: usize = 8;

/// Answers of the UFS before it is called fast.
const ENOUGH_OF_UFS: usize = 4;

/// One request in so many measures a UFS that was not measured lately.
const SAMPLE_EVERY: u32 = 8;

/// So many of them per [`SAMPLES_PER`] at most.
const SAMPLES: u32 = 8;
const SAMPLES_PER: Duration = Duration::from_secs(60);

/// One request in so many tries a node that is gone round.
const TRIAL_EVERY: u32 = 16;

/// Trials that must go well, one after the other, before a node is trusted again.
const LEAST_TRIALS: u32 = 3;
const MOST_TRIALS: u32 = 24;

/// A node that is slow again within this time must go well for twice as long.
const SOON: Duration = Duration::from_secs(60);

/// How long a node is not gone round after the UFS turned out to be no faster.
const LEAST_REST: Duration = Duration::from_secs(30);
const MOST_REST: Duration = Duration::from_secs(600);

/// How long each node's answers took lately, and which of them are gone round.
#[derive(Debug, Default)]
pub(crate) struct Detours {
    nodes: HashMap<NodeId, Node>,
}

#[derive(Debug, Default)]
struct Node {
    /// As its readers saw it.
    held: Delivery,
    /// Divided by the requests that were under way.
    shared: Delivery,
    ways: HashMap<(MountId, Size), Way>,
}

/// How a node is used for requests of one size for files of one mount.
#[derive(Debug)]
struct Way {
    /// While the node is gone round.
    around: Option<Around>,
    /// Requests since the last one that measured the UFS.
    unmeasured: u32,
    /// How many measured it since when.
    samples: u32,
    since: Option<Instant>,
    /// Trials that must go well the next time.
    trials: u32,
    trusted: Option<Instant>,
    /// It is not gone round before.
    rests: Option<Instant>,
    rest: Duration,
}

#[derive(Debug)]
struct Around {
    /// What the node took when it was left.
    was: Duration,
    /// Requests since the last trial.
    untried: u32,
    /// Trials that went well, without one that did not since.
    well: u32,
}

/// Whom to ask first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Choice {
    /// The node, which is not known to be slow.
    Node,
    /// The node, which is gone round, to see whether it is faster now; the UFS as well if it
    /// has not answered after `patience`.
    Trial { patience: Duration },
    /// The UFS, as the node is slower; the node as well if the UFS takes longer than
    /// `patience`.
    Around { patience: Duration },
    /// The UFS, to see whether it is faster; the node as well if it takes longer than
    /// `patience`.
    Sample { patience: Duration },
}

/// A node that is gone round from now on, or no longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Turn {
    pub(crate) node: NodeId,
    pub(crate) mount: MountId,
    pub(crate) size: Size,
    /// Why it is trusted again; none if it is gone round.
    pub(crate) back: Option<Back>,
}

/// Why a node is not gone round any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Back {
    /// It answers about as fast as the UFS, or faster.
    Faster,
    /// The UFS is no faster.
    NoGain,
    /// The UFS failed, or was not measured lately.
    Unknown,
}

impl Back {
    /// The same for a log.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Faster => "it is fast again",
            Self::NoGain => "the UFS is no faster",
            Self::Unknown => "the UFS failed, or was not read lately",
        }
    }
}

impl Detours {
    /// Whom to ask for a range of a file of `mount` that `node` owns. `ufs` is what is known of
    /// the mount's UFS.
    pub(crate) fn choose(
        &mut self,
        node: NodeId,
        mount: MountId,
        size: Size,
        ufs: &Delivery,
        now: Instant,
    ) -> (Choice, Option<Turn>) {
        let Node { held, shared, ways } = self.nodes.entry(node).or_default();
        let around = ways.get_mut(&(mount, size)).filter(|w| w.around.is_some());
        let turn = |back| Turn {
            node,
            mount,
            size,
            back,
        };
        if let Some(way) = around {
            let ufs = ufs.usual(size, ENOUGH_OF_UFS, now);
            return match way.go_on(ufs, now) {
                Ok(choice) => (choice, None),
                Err(back) => {
                    held.forget_size(size);
                    shared.forget_size(size);
                    (Choice::Node, Some(turn(Some(back))))
                }
            };
        }
        let usual = |answers: &Delivery| answers.usual(size, ENOUGH_OF_NODE, now);
        let (Some(was), Some(usual)) = (usual(held), usual(shared)) else {
            return (Choice::Node, None);
        };
        if usual < BEARABLE {
            return (Choice::Node, None);
        }
        let way = ways.entry((mount, size)).or_insert_with(Way::new);
        let patience = was.min(MOST_PATIENCE);
        match ufs.usual(size, ENOUGH_OF_UFS, now) {
            None if way.may_sample(now) => (Choice::Sample { patience }, None),
            Some(ufs) if ufs.saturating_mul(CLEARLY) < usual && way.may_leave(now) => {
                way.leave(was, now);
                (Choice::Around { patience }, Some(turn(None)))
            }
            _ => (Choice::Node, None),
        }
    }

    /// `node` sent what it held, within `took` of being asked; or had not sent it by then, when
    /// another source had. `load` requests were under way to it, this one included.
    pub(crate) fn answered(
        &mut self,
        node: NodeId,
        size: Size,
        took: Duration,
        load: u32,
        now: Instant,
    ) {
        let node = self.nodes.entry(node).or_default();
        node.held.add(size, took, now);
        node.shared.add(size, took / load.max(1), now);
    }

    /// A trial of `node` had its answer after `took`, whatever it was; or was given up.
    pub(crate) fn tried(
        &mut self,
        node: NodeId,
        mount: MountId,
        size: Size,
        took: Option<Duration>,
        ufs: &Delivery,
        now: Instant,
    ) -> Option<Turn> {
        let Node { held, shared, ways } = self.nodes.get_mut(&node)?;
        let way = ways.get_mut(&(mount, size))?;
        let ufs = ufs.usual(size, ENOUGH_OF_UFS, now);
        let as_fast =
            |took| took < BEARABLE || ufs.is_none_or(|ufs| took <= ufs.saturating_add(ufs / 4));
        let around = way.around.as_mut()?;
        match took.is_some_and(as_fast) {
            true => around.well += 1,
            false => around.well = 0,
        }
        if around.well < way.trials {
            return None;
        }
        way.around = None;
        way.trusted = Some(now);
        held.forget_size(size);
        shared.forget_size(size);
        Some(Turn {
            node,
            mount,
            size,
            back: Some(Back::Faster),
        })
    }

    /// The nodes that are gone round for some size of some mount, in order.
    pub(crate) fn around(&self) -> Vec<NodeId> {
        let is_around = |node: &Node| node.ways.values().any(|way| way.around.is_some());
        let around = self.nodes.iter().filter(|(_, node)| is_around(node));
        let mut ids: Vec<NodeId> = around.map(|(id, _)| *id).collect();
        ids.sort_unstable();
        ids
    }

    /// Forgets nodes and mounts that there are no more.
    pub(crate) fn retain(
        &mut self,
        node: impl Fn(NodeId) -> bool,
        mount: impl Fn(MountId) -> bool,
    ) {
        self.nodes.retain(|id, _| node(*id));
        for node in self.nodes.values_mut() {
            node.ways.retain(|(id, _), _| mount(*id));
        }
    }
}

impl Way {
    const fn new() -> Self {
        Self {
            around: None,
            unmeasured: 0,
            samples: 0,
            since: None,
            trials: LEAST_TRIALS,
            trusted: None,
            rests: None,
            rest: LEAST_REST,
        }
    }

    /// Whether this request is to measure the UFS.
    fn may_sample(&mut self, now: Instant) -> bool {
        self.unmeasured += 1;
        if self.unmeasured < SAMPLE_EVERY {
            return false;
        }
        if self.since.is_none_or(|since| now >= since + SAMPLES_PER) {
            (self.since, self.samples) = (Some(now), 0);
        }
        if self.samples == SAMPLES {
            return false;
        }
        self.samples += 1;
        self.unmeasured = 0;
        true
    }

    fn may_leave(&self, now: Instant) -> bool {
        self.rests.is_none_or(|end| now >= end)
    }

    /// Begins to go round the node, which took `was`.
    fn leave(&mut self, was: Duration, now: Instant) {
        self.trials = match self.trusted {
            Some(at) if now < at + SOON => (self.trials * 2).min(MOST_TRIALS),
            _ => LEAST_TRIALS,
        };
        self.around = Some(Around {
            was,
            untried: 0,
            well: 0,
        });
    }

    /// Whom to ask while the node is gone round, or why it is no more. The UFS takes `ufs`.
    fn go_on(&mut self, ufs: Option<Duration>, now: Instant) -> Result<Choice, Back> {
        let Some(around) = &mut self.around else {
            return Ok(Choice::Node);
        };
        let was = around.was;
        match ufs {
            None => {
                self.around = None;
                Err(Back::Unknown)
            }
            Some(ufs) if ufs >= was => {
                self.around = None;
                self.rests = Some(now + self.rest);
                self.rest = (self.rest * 2).min(MOST_REST);
                Err(Back::NoGain)
            }
            Some(ufs) => {
                around.untried += 1;
                if around.untried < TRIAL_EVERY {
                    let patience = was.min(MOST_PATIENCE);
                    return Ok(Choice::Around { patience });
                }
                around.untried = 0;
                // Overtaken sooner it could not show that it is fast enough.
                let patience = ufs.clamp(BEARABLE, MOST_PATIENCE);
                Ok(Choice::Trial { patience })
            }
        }
    }
}

#[cfg(test)]
mod tests;
