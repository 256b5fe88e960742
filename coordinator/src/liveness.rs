//! Who is alive: soft state at the leader, never in the log.
//!
//! Pure: the time is an argument. The shell in `coordinator.rs` asks in short intervals who is
//! overdue and proposes their deaths.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use millpond_proto::{ClusterView, NodeId, NodeStats};

use crate::engine::is_live;

/// The last heartbeat of every node, and since when silence counts.
///
/// - A node is overdue when it has been silent for the death timeout, and for the grace period
///   at least since this coordinator began to listen.
/// - A coordinator that was itself stopped or starved for longer than half the death timeout
///   begins to listen anew: it cannot tell whether the nodes or itself fell silent.
#[derive(Debug)]
pub struct Liveness {
    death_timeout: Duration,
    heard: HashMap<NodeId, Heard>,
    /// Since when this coordinator leads and listens; none while it does not lead.
    listening_since: Option<Instant>,
    last_sweep: Option<Instant>,
}

/// What a node said last.
#[derive(Debug, Clone, Copy)]
pub struct Heard {
    /// The process that said it.
    pub incarnation: u64,
    /// When.
    pub at: Instant,
    /// What it counted; none before the first heartbeat after a join.
    pub stats: Option<NodeStats>,
}

impl Liveness {
    /// Nobody has been heard yet.
    pub fn new(death_timeout: Duration) -> Self {
        Self {
            death_timeout,
            heard: HashMap::new(),
            listening_since: None,
            last_sweep: None,
        }
    }

    /// How long after the begin of listening nobody is declared dead: nodes that lost their
    /// connection to a restarted coordinator come back with a backoff.
    pub fn grace(&self) -> Duration {
        self.death_timeout * 2
    }

    /// The process `incarnation` of `node` gave a sign of life.
    pub fn hear(&mut self, node: NodeId, incarnation: u64, stats: Option<NodeStats>, now: Instant) {
        let before = self.heard.get(&node);
        if before.is_some_and(|h| h.incarnation > incarnation) {
            return;
        }
        let kept = before.filter(|h| h.incarnation == incarnation);
        let stats = stats.or_else(|| kept.and_then(|h| h.stats));
        let heard = Heard {
            incarnation,
            at: now,
            stats,
        };
        self.heard.insert(node, heard);
    }

    /// What `node` said last.
    pub fn heard(&self, node: NodeId) -> Option<&Heard> {
        self.heard.get(&node)
    }

    /// This coordinator does not lead: it has no say in who is alive.
    pub fn follow(&mut self) {
        self.listening_since = None;
        self.last_sweep = None;
        self.heard.clear();
    }

    /// Called in intervals well below half the death timeout while leading. Returns the live
    /// members of `view` that are overdue, with the process that fell silent, and forgets
    /// what was heard of nodes that are not in the view any more.
    pub fn sweep(&mut self, view: &ClusterView, now: Instant) -> Vec<(NodeId, u64)> {
        let late = |last: Instant| now.saturating_duration_since(last) > self.death_timeout / 2;
        if self.last_sweep.is_none_or(late) {
            self.listening_since = Some(now);
        }
        self.last_sweep = Some(now);
        let since = self.listening_since.unwrap_or(now);
        let grace_over = now.saturating_duration_since(since) >= self.grace();

        self.heard.retain(|node, _| view.member(*node).is_some());
        let live = view.members.iter().filter(|m| is_live(m.state));
        live.filter(|member| {
            let heard = self.heard.get(&member.id);
            let heard = heard.filter(|h| h.incarnation >= member.incarnation);
            // Who joined under an earlier leader is judged from when this one began to listen.
            let silent_since = heard.map_or(since, |h| h.at.max(since));
            let silence = now.saturating_duration_since(silent_since);
            grace_over && silence >= self.death_timeout
        })
        .map(|member| (member.id, member.incarnation))
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use millpond_proto::{BlockSize, ClusterId, Epoch, Member, MemberState, MountTable};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn view(members: &[(u64, MemberState, u64)]) -> ClusterView {
        let member = |&(id, state, incarnation): &(u64, MemberState, u64)| Member {
            id: NodeId(id),
            addr: "127.0.0.1:7100".into(),
            admin: String::new(),
            zone: String::new(),
            weight: 100,
            capacity: 0,
            state,
            incarnation,
        };
        ClusterView {
            cluster: ClusterId([1; 16]),
            version: 1,
            epoch: Epoch(1),
            block_size: BlockSize::DEFAULT,
            members: members.iter().map(member).collect(),
            mounts: MountTable::default(),
        }
    }

    /// Sweeps every second from `from` to `to`, with `beat` called before each sweep.
    fn run(
        liveness: &mut Liveness,
        view: &ClusterView,
        start: Instant,
        seconds: std::ops::Range<u32>,
        mut beat: impl FnMut(&mut Liveness, u32, Instant),
    ) -> Vec<(u32, NodeId)> {
        let mut dead = Vec::new();
        for second in seconds {
            let now = start + second * SECOND;
            beat(liveness, second, now);
            let overdue = liveness.sweep(view, now);
            dead.extend(overdue.into_iter().map(|(node, _)| (second, node)));
        }
        dead
    }

    #[test]
    fn a_silent_node_is_overdue_after_the_death_timeout_and_a_talking_one_is_not() {
        let mut liveness = Liveness::new(5 * SECOND);
        let view = view(&[(1, MemberState::Active, 1), (2, MemberState::Active, 1)]);
        let start = Instant::now();
        let dead = run(&mut liveness, &view, start, 0..30, |l, second, now| {
            l.hear(NodeId(1), 1, None, now);
            if second <= 20 {
                l.hear(NodeId(2), 1, None, now);
            }
        });
        assert_eq!(dead.first(), Some(&(25, NodeId(2))));
        assert!(dead.iter().all(|(_, node)| *node == NodeId(2)), "{dead:?}");
    }

    #[test]
    fn a_new_leader_waits_for_the_grace_period() {
        let mut liveness = Liveness::new(5 * SECOND);
        let view = view(&[(1, MemberState::Joining, 1)]);
        let dead = run(&mut liveness, &view, Instant::now(), 0..12, |_, _, _| {});
        assert_eq!(dead.first(), Some(&(10, NodeId(1))));
    }

    #[test]
    fn a_coordinator_that_slept_begins_to_listen_anew() {
        let mut liveness = Liveness::new(5 * SECOND);
        let view = view(&[(1, MemberState::Active, 1)]);
        let start = Instant::now();
        let beat = |l: &mut Liveness, _, now| l.hear(NodeId(1), 1, None, now);
        assert_eq!(run(&mut liveness, &view, start, 0..20, beat), []);
        // Stopped for a minute: nothing was heard, and that proves nothing.
        assert_eq!(run(&mut liveness, &view, start, 80..90, |_, _, _| {}), []);
        let later = run(&mut liveness, &view, start, 90..92, |_, _, _| {});
        assert_eq!(later.first(), Some(&(90, NodeId(1))));
    }

    #[test]
    fn those_who_are_gone_are_not_declared_dead_again() {
        let mut liveness = Liveness::new(SECOND * 2);
        let view = view(&[(1, MemberState::Dead, 1), (2, MemberState::Left, 1)]);
        let dead = run(&mut liveness, &view, Instant::now(), 0..20, |_, _, _| {});
        assert_eq!(dead, []);
    }

    #[test]
    fn an_earlier_process_does_not_keep_a_later_one_alive() {
        let mut liveness = Liveness::new(5 * SECOND);
        let view = view(&[(1, MemberState::Active, 2)]);
        let beat = |l: &mut Liveness, second: u32, now| {
            if second == 0 {
                l.hear(NodeId(1), 2, None, now);
            }
            l.hear(NodeId(1), 1, None, now);
        };
        let dead = run(&mut liveness, &view, Instant::now(), 0..12, beat);
        assert_eq!(dead.first(), Some(&(10, NodeId(1))));
        assert_eq!(liveness.heard(NodeId(1)).unwrap().incarnation, 2);
    }

    #[test]
    fn whoever_stops_leading_forgets_what_it_heard() {
        let mut liveness = Liveness::new(5 * SECOND);
        let now = Instant::now();
        liveness.hear(NodeId(1), 1, Some(NodeStats::default()), now);
        liveness.follow();
        assert!(liveness.heard(NodeId(1)).is_none());
    }
}
