//! The way of one race past a node that may be slower than the UFS: what
//! [`Detours`](crate::detour::Detours) decided, and what it is told of the outcome.

use std::time::Duration;

use millpond_proto::NodeId;
use tokio::time::Instant;

use super::{OpenFile, Part};
use crate::core::Core;
use crate::detour::{Choice, Size, Turn};
use crate::metrics::Fallback;
use crate::peers::Peers;

/// How a race goes about the owner of its range.
#[derive(Debug)]
pub(super) struct Way<'a> {
    core: &'a Core,
    peers: &'a Peers,
    file: &'a OpenFile,
    owner: NodeId,
    size: Size,
    choice: Choice,
    started: Instant,
}

impl<'a> Way<'a> {
    /// Decides whom to ask first for `part`, which `owner` owns.
    pub(super) fn choose(
        core: &'a Core,
        peers: &'a Peers,
        file: &'a OpenFile,
        part: &Part,
        owner: NodeId,
    ) -> Self {
        let size = Size::of(u64::from(part.len()));
        let started = Instant::now();
        let (choice, turn) = {
            let pace = file.pace.lock();
            let mut detours = peers.detours.lock();
            let now = started.into_std();
            detours.choose(owner, file.mount, size, &pace.delivery, now)
        };
        let way = Self {
            core,
            peers,
            file,
            owner,
            size,
            choice,
            started,
        };
        way.tell(turn);
        match choice {
            Choice::Around { .. } => core.metrics.count_fallback(Fallback::Slower),
            Choice::Sample { .. } => core.metrics.count_fallback(Fallback::Sampled),
            Choice::Node | Choice::Trial { .. } => {}
        }
        way
    }

    pub(super) const fn choice(&self) -> Choice {
        self.choice
    }

    /// `node` had an answer after `took`, with `load` requests under way to it. `held` says whether it was data that it had, and
    /// not had to fetch from the UFS first; none if it was none.
    pub(super) fn node_answered(
        &self,
        node: NodeId,
        took: Duration,
        load: u32,
        held: Option<bool>,
    ) {
        let now = Instant::now().into_std();
        if held == Some(true) {
            let mut detours = self.peers.detours.lock();
            detours.answered(node, self.size, took, load, now);
        }
        let is_trial = matches!(self.choice, Choice::Trial { .. }) && node == self.owner;
        if is_trial && held != Some(false) {
            self.tried(Some(took));
        }
    }

    /// The node that was asked first, if any, was overtaken by the UFS. `held` says whether it
    /// said meanwhile that it had the data.
    pub(super) fn node_overtaken(&self, held: bool) {
        if matches!(self.choice, Choice::Trial { .. }) {
            self.tried(None);
        } else if held {
            let (took, now) = (self.started.elapsed(), Instant::now().into_std());
            let load = self.peers.load(self.owner);
            let mut detours = self.peers.detours.lock();
            detours.answered(self.owner, self.size, took, load, now);
        }
    }

    /// The UFS was asked first and a node was faster.
    pub(super) fn ufs_overtaken(&self) {
        let now = Instant::now().into_std();
        self.file.pace.lock().delivery.overtaken(self.size, now);
    }

    /// The UFS failed: nothing is known of it any more.
    pub(super) fn ufs_failed(&self) {
        self.file.pace.lock().delivery.forget();
    }

    fn tried(&self, took: Option<Duration>) {
        let turn = {
            let pace = self.file.pace.lock();
            let mut detours = self.peers.detours.lock();
            let (owner, mount, now) = (self.owner, self.file.mount, Instant::now().into_std());
            detours.tried(owner, mount, self.size, took, &pace.delivery, now)
        };
        self.tell(turn);
    }

    fn tell(&self, turn: Option<Turn>) {
        let Some(Turn {
            node,
            mount,
            size,
            back,
        }) = turn
        else {
            return;
        };
        let around = self.peers.gone_round().len() as i64;
        self.core.metrics.nodes_gone_round.set(around);
        match back {
            None => tracing::info!(
                %node,
                %mount,
                bytes = size.most(),
                "going round a node: the UFS is faster"
            ),
            Some(back) => tracing::info!(
                %node,
                %mount,
                bytes = size.most(),
                because = back.word(),
                "a node is not gone round any more"
            ),
        }
    }
}
