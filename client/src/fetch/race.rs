//! One race of the sources of a range: owner, next replica, UFS; the first success wins.
//!
//! A stream's range is **read**: the owner fills the block that it lies in. A lone one is only
//! **peeked** at: a node that does not hold the block is not made to read all of it for a few
//! bytes, and the UFS is asked for them. The owner takes note, and when it is asked for the same
//! block again and again, by whatever clients, fills it after all.
//!
//! A source that fails is followed by the next at once. One that is late is first asked
//! whether it lives ([`Op::Probe`] costs nothing and must at least be acknowledged): a node
//! that fills a block from a slow UFS does so for all clients, and asking the UFS again for
//! the same bytes would only make it slower. One that does not live is given up; one that
//! lives and is very late is joined by the UFS itself.
//!
//! An owner that is slower than the UFS, request for request, comes after it: see
//! [`Detours`](crate::detour::Detours).

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use millpond_net::NetError;
use millpond_net::block_client::Peer;
use millpond_proto::wire::frame::{BlockSource, Op, Request, Tier};
use millpond_proto::{Epoch, ErrorKind, NodeId};
use tokio::time::{Instant, sleep_until};

use super::way::Way;
use super::{How, OpenFile, Part, ufs};
use crate::budget::Permit;
use crate::core::Core;
use crate::detour::Choice;
use crate::error::ClientError;
use crate::metrics::Fallback;
use crate::peers::Peers;
use crate::snapshot::Snapshot;
use crate::sources::Origin;

/// How long a late node may take to show that it lives.
const SIGN_OF_LIFE: Duration = Duration::from_millis(300);

/// How long a node that was silent a moment ago may take before the UFS is asked too.
const PROBATION: Duration = Duration::from_millis(50);

/// An alarm that rings so much too late says that this process gets no CPU. A node that answered
/// in time would not have been heard either, so it is not judged yet.
const STARVED: Duration = Duration::from_millis(100);

/// How often one node is given more time for that reason.
const POSTPONED: u32 = 3;

/// Races the sources of `part` once.
///
/// # Errors
/// The UFS's error if it was asked, for it alone knows; else the last node's.
pub(super) async fn run(
    core: &Arc<Core>,
    file: &Arc<OpenFile>,
    part: &Part,
    how: How,
    deadline: Instant,
) -> Result<(Bytes, Origin), ClientError> {
    let snapshot = core.snapshot();
    let mut sources = VecDeque::new();
    let mut way = None;
    if let Some(peers) = &core.peers {
        if snapshot.has_no_nodes() {
            core.metrics.count_fallback(Fallback::NoNodes);
        }
        let owners = snapshot.owners(&part.block());
        let choose = |owner: &Peer| Way::choose(core, peers, file, part, owner.id);
        way = owners.first().map(choose);
        sources.extend(owners.into_iter().map(|peer| Source::Node(peers, peer)));
    }
    let nodes_first = match way.as_ref().map_or(Choice::Node, Way::choice) {
        Choice::Node => sources.len(),
        Choice::Trial { .. } => 1,
        Choice::Around { .. } | Choice::Sample { .. } => 0,
    };
    sources.insert(nodes_first, Source::Ufs);
    let race = Race {
        core,
        file,
        part,
        how,
        deadline,
        snapshot,
        sources,
        way,
        running: FuturesUnordered::new(),
        asked: 0,
        owner: Owner::Idle,
        ufs_runs: false,
        transfers: 0,
        alarm: None,
        postponed: 0,
        verdict: None,
        permits: Vec::new(),
    };
    race.run().await
}

enum Source<'a> {
    Node(&'a Peers, Peer),
    Ufs,
}

/// What one of the futures of a race has to say.
enum Event<'a> {
    Node(NodeEnd<'a>),
    Ufs(Result<Bytes, ClientError>),
    /// Whether the node of the transfer under way lives.
    Lives(&'a Peers, Peer, Sign),
}

/// What a node says when it is asked whether it lives.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sign {
    /// It holds the block.
    Holds,
    Lives,
    None,
}

/// What the owner, which is the first node, is doing.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Owner {
    /// It was not asked, or its answer came.
    Idle,
    Asked,
    /// It is asked for what it holds.
    Holds,
}

struct NodeEnd<'a> {
    peers: &'a Peers,
    node: NodeId,
    /// Only asked for what it held.
    peeked: bool,
    /// Until the head of the answer.
    first: Duration,
    took: Duration,
    /// Requests that were under way to it, this one included.
    load: u32,
    result: Result<(Bytes, Tier, Epoch), NetError>,
}

/// What to do about a node that is late, and when.
enum Alarm<'a> {
    /// Ask whether it lives.
    Ask(Instant, &'a Peers, Peer),
    /// It did not say so.
    GiveUp(Instant, &'a Peers, NodeId),
    /// It lives and is still late.
    Join(Instant, Fallback),
    /// The UFS, which was asked in place of a node, is late.
    Turn(Instant, Duration),
}

impl Alarm<'_> {
    const fn at(&self) -> Instant {
        match self {
            Self::Ask(at, ..) | Self::GiveUp(at, ..) | Self::Join(at, _) | Self::Turn(at, _) => *at,
        }
    }

    /// The same at another time.
    fn moved(self, to: Instant) -> Self {
        match self {
            Self::Ask(_, peers, peer) => Self::Ask(to, peers, peer),
            Self::GiveUp(_, peers, node) => Self::GiveUp(to, peers, node),
            Self::Join(_, reason) => Self::Join(to, reason),
            Self::Turn(_, patience) => Self::Turn(to, patience),
        }
    }
}

struct Race<'a> {
    core: &'a Arc<Core>,
    file: &'a Arc<OpenFile>,
    part: &'a Part,
    how: How,
    deadline: Instant,
    snapshot: Arc<Snapshot>,
    /// Those not asked yet.
    sources: VecDeque<Source<'a>>,
    /// None if there is no owner.
    way: Option<Way<'a>>,
    running: FuturesUnordered<BoxFuture<'a, Event<'a>>>,
    /// Nodes that were asked.
    asked: u32,
    owner: Owner,
    ufs_runs: bool,
    /// How many of `running` may bring the range.
    transfers: usize,
    alarm: Option<Alarm<'a>>,
    /// How often an alarm was put off because it rang late.
    postponed: u32,
    verdict: Option<ClientError>,
    /// Memory for transfers beside the first.
    permits: Vec<Permit>,
}

impl<'a> Race<'a> {
    async fn run(mut self) -> Result<(Bytes, Origin), ClientError> {
        self.start_next();
        loop {
            if self.transfers == 0 {
                let untold = || self.core.too_late("reading", &self.file.path);
                return Err(self.verdict.take().unwrap_or_else(untold));
            }
            let alarm = self.alarm.as_ref().map(Alarm::at);
            tokio::select! {
                Some(event) = self.running.next() => match event {
                    Event::Node(end) => {
                        if let Some(fetched) = self.node_ended(end) {
                            return Ok(fetched);
                        }
                    }
                    Event::Ufs(Ok(data)) => {
                        if let Some(way) = &self.way && self.owner != Owner::Idle {
                            way.node_overtaken(self.owner == Owner::Holds);
                        }
                        return Ok((data, Origin::Ufs));
                    }
                    Event::Ufs(Err(error)) => self.ufs_failed(error),
                    Event::Lives(peers, peer, sign) => self.answered(peers, &peer, sign),
                },
                () = sleep_until(alarm.unwrap_or(self.deadline)), if alarm.is_some() => {
                    self.ring_alarm();
                }
                () = sleep_until(self.deadline) => {
                    let late = self.core.too_late("reading", &self.file.path);
                    return Err(self.verdict.take().unwrap_or(late));
                }
            }
        }
    }

    fn start_next(&mut self) {
        match self.sources.pop_front() {
            Some(Source::Node(peers, peer)) => {
                let now = Instant::now();
                self.alarm = Some(match self.choice() {
                    Choice::Trial { patience } if self.asked == 0 => {
                        Alarm::Join(now + patience, Fallback::Slower)
                    }
                    _ if peers.is_suspect(peer.id) => Alarm::Join(now + PROBATION, Fallback::Slow),
                    _ => Alarm::Ask(now + peers.patience(&peer), peers, peer.clone()),
                });
                self.transfers += 1;
                self.running
                    .push(Box::pin(self.read_from_node(peers, peer)));
                if self.asked == 0 {
                    self.owner = Owner::Asked;
                }
                self.asked += 1;
            }
            Some(Source::Ufs) => {
                self.alarm = match self.choice() {
                    Choice::Around { patience } | Choice::Sample { patience } => {
                        Some(Alarm::Turn(Instant::now() + patience, patience))
                    }
                    Choice::Node | Choice::Trial { .. } => None,
                };
                self.transfers += 1;
                self.ufs_runs = true;
                self.running.push(Box::pin(self.read_from_ufs()));
            }
            None => self.alarm = None,
        }
    }

    fn choice(&self) -> Choice {
        self.way.as_ref().map_or(Choice::Node, Way::choice)
    }

    fn read_from_node(
        &self,
        peers: &'a Peers,
        peer: Peer,
    ) -> impl Future<Output = Event<'a>> + Send + 'a {
        let is_trial = self.asked == 0 && matches!(self.choice(), Choice::Trial { .. });
        let op = if self.how.lone || is_trial {
            Op::Peek
        } else {
            Op::Read
        };
        // With a source the node may fill the block. Of a lone range only the owner may:
        // filled by two it would be in the tier twice. A trial measures the node alone.
        let may_fill = op == Op::Read || (self.asked == 0 && !is_trial);
        let source = may_fill.then(|| BlockSource {
            mount: self.file.mount,
            path: self.file.below.clone(),
            version: self.file.version.clone(),
        });
        let request = Request {
            source,
            ..self.request(op)
        };
        let deadline = self.deadline;
        let under_way = peers.begin(peer.id);
        async move {
            let started = Instant::now();
            let mut first = Duration::ZERO;
            let result = async {
                let response = peers.client.request(&peer, &request, deadline).await?;
                first = started.elapsed();
                let (tier, epoch) = (response.head.tier, response.head.epoch);
                let data = response.read_data().await?;
                Ok((data.bytes, tier, epoch))
            };
            Event::Node(NodeEnd {
                peers,
                node: peer.id,
                peeked: op == Op::Peek,
                result: result.await,
                load: under_way.load(),
                first,
                took: started.elapsed(),
            })
        }
    }

    fn read_from_ufs(&self) -> impl Future<Output = Event<'a>> + Send + 'a {
        let (core, file, range) = (self.core, self.file, self.part.in_file());
        async move { Event::Ufs(ufs::read(core, file, range).await) }
    }

    fn request(&self, op: Op) -> Request {
        Request {
            op,
            epoch: self.snapshot.view().epoch,
            block: self.part.block(),
            offset: self.part.in_block(),
            len: self.part.len(),
            file_size: self.file.size,
            // The block client fills in the time that is left.
            deadline_ms: 0,
            source: None,
            query: None,
        }
    }

    /// Takes a node's answer: the range, or the next source.
    fn node_ended(&mut self, end: NodeEnd<'a>) -> Option<(Bytes, Origin)> {
        self.transfers -= 1;
        self.owner = Owner::Idle;
        match end.result {
            Ok((data, tier, epoch)) => {
                end.peers.answered(end.node, end.took);
                if let Some(way) = &self.way {
                    way.node_answered(end.node, end.took, end.load, Some(tier != Tier::Ufs));
                    if self.ufs_runs && self.ufs_was_first() {
                        way.ufs_overtaken();
                    }
                }
                measured(self.core, end.first, end.took, data.len() as u64);
                end.peers.hint(epoch);
                self.core.metrics.peer_read_bytes.inc_by(data.len() as u64);
                let origin = match tier {
                    Tier::Ufs => Origin::Ufs,
                    Tier::Memory | Tier::Disk | Tier::Peer | Tier::None => Origin::Peer,
                };
                Some((data, origin))
            }
            Err(error) => {
                if let Some(epoch) = error.epoch() {
                    end.peers.hint(epoch);
                }
                if end.peeked && error.kind() == ErrorKind::NotFound {
                    // Not held there, which is no failure.
                    end.peers.answered(end.node, end.took);
                    if let Some(way) = &self.way {
                        way.node_answered(end.node, end.took, end.load, None);
                    }
                    self.start_next();
                    return None;
                }
                self.node_failed(end.node, error);
                None
            }
        }
    }

    fn node_failed(&mut self, node: NodeId, error: NetError) {
        let reason = reason(&error);
        tracing::debug!(%node, block = %self.part.block(), %error, "next source");
        self.core.metrics.count_fallback(reason);
        if reason == Fallback::Hung
            && let Some(peers) = &self.core.peers
        {
            peers.suspect(node);
        }
        if reason == Fallback::Refused {
            // Only the UFS can say whether that is so.
            self.sources.retain(|s| matches!(s, Source::Ufs));
        }
        let ufs_spoke = matches!(
            self.verdict,
            Some(ClientError::Ufs(_) | ClientError::Stale { .. })
        );
        if !ufs_spoke {
            self.verdict = Some(error.into());
        }
        self.start_next();
    }

    fn ufs_failed(&mut self, error: ClientError) {
        self.transfers -= 1;
        self.ufs_runs = false;
        let again = error.kind().try_next_source();
        self.verdict = Some(error);
        if again && let Some(way) = &self.way {
            way.ufs_failed();
        }
        // A node may still have the version that the UFS has no more; so a transfer under
        // way is waited for, and the nodes are asked if they were not. No other is begun for
        // a lost cause.
        let unasked = self.asked == 0;
        if (again || unasked) && self.transfers == 0 {
            self.start_next();
        }
    }

    fn ufs_was_first(&self) -> bool {
        matches!(self.choice(), Choice::Around { .. } | Choice::Sample { .. })
    }

    fn answered(&mut self, peers: &'a Peers, peer: &Peer, sign: Sign) {
        if sign == Sign::Holds && self.owner == Owner::Asked && self.asked == 1 {
            self.owner = Owner::Holds;
        }
        // The transfer that was asked about may have ended meanwhile.
        if !matches!(self.alarm, Some(Alarm::GiveUp(..))) {
            return;
        }
        if sign != Sign::None {
            let at = Instant::now() + peers.slow_after(peer);
            self.alarm = Some(Alarm::Join(at, Fallback::Slow));
        } else {
            peers.suspect(peer.id);
            self.hedge(Fallback::Hung);
        }
    }

    fn ring_alarm(&mut self) {
        let late = self.alarm.as_ref().map(|alarm| alarm.at().elapsed());
        if let Some(late) = late.filter(|late| *late > STARVED && self.postponed < POSTPONED) {
            self.postponed += 1;
            let to = Instant::now() + late.min(SIGN_OF_LIFE);
            self.alarm = self.alarm.take().map(|alarm| alarm.moved(to));
            return;
        }
        match self.alarm.take() {
            Some(Alarm::Ask(_, peers, peer)) => {
                let until = Instant::now() + SIGN_OF_LIFE;
                let request = self.request(Op::Probe);
                self.alarm = Some(Alarm::GiveUp(until, peers, peer.id));
                self.running.push(Box::pin(async move {
                    let sign = match peers.client.request(&peer, &request, until).await {
                        Ok(response) if response.head.tier != Tier::None => Sign::Holds,
                        Ok(_) => Sign::Lives,
                        // An answer is a sign of life, whatever it says.
                        Err(NetError::Refused { .. } | NetError::Reset { .. }) => Sign::Lives,
                        Err(_) => Sign::None,
                    };
                    Event::Lives(peers, peer, sign)
                }));
            }
            Some(Alarm::GiveUp(_, peers, node)) => {
                peers.suspect(node);
                self.hedge(Fallback::Hung);
            }
            Some(Alarm::Join(_, reason)) => {
                self.sources.retain(|s| matches!(s, Source::Ufs));
                self.hedge(reason);
            }
            Some(Alarm::Turn(..)) if self.sources.is_empty() => {}
            Some(Alarm::Turn(_, patience)) => match self.core.budget.try_hedge(self.part.len()) {
                Some(permit) => {
                    self.permits.push(permit);
                    self.core.metrics.hedges.inc();
                    self.start_next();
                }
                None => self.alarm = Some(Alarm::Turn(Instant::now() + patience, patience)),
            },
            None => {}
        }
    }

    /// Begins the next transfer beside the one under way; instead of it if there is no
    /// memory for both.
    fn hedge(&mut self, reason: Fallback) {
        self.alarm = None;
        if self.sources.is_empty() {
            return;
        }
        match self.core.budget.try_hedge(self.part.len()) {
            Some(permit) => self.permits.push(permit),
            // The UFS is waited for: it says itself when it fails.
            None if self.ufs_runs => return,
            None => {
                self.running.clear();
                self.transfers = 0;
                self.owner = Owner::Idle;
            }
        }
        self.core.metrics.count_fallback(reason);
        self.core.metrics.hedges.inc();
        self.start_next();
    }
}

/// A node sent `bytes`: the head of its answer after `first`, the last byte after `took`.
fn measured(core: &Core, first: Duration, took: Duration, bytes: u64) {
    let mut pace = core.peer_pace.lock();
    pace.answered(first);
    pace.ended(bytes, took.saturating_sub(first));
    pace.came(bytes, std::time::Instant::now());
}

fn reason(error: &NetError) -> Fallback {
    match error {
        NetError::Down { .. } => Fallback::BreakerOpen,
        NetError::Silent { .. } => Fallback::Hung,
        _ => match error.kind() {
            ErrorKind::Unavailable => Fallback::Unreachable,
            ErrorKind::Timeout => Fallback::Timeout,
            ErrorKind::Busy => Fallback::Busy,
            ErrorKind::Corrupt => Fallback::Corrupt,
            ErrorKind::Internal => Fallback::Failed,
            ErrorKind::NotFound
            | ErrorKind::Invalid
            | ErrorKind::Unsupported
            | ErrorKind::Denied
            | ErrorKind::Stale => Fallback::Refused,
        },
    }
}
