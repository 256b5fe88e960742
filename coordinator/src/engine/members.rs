//! The rules of joins, leaves and deaths.
//!
//! ```text
//!            Join                 Activate (first heartbeat)
//!   (none) ───────► Joining ──────────────────────────────► Active
//!                    ▲   │ silent                 silent │   │ Leave
//!                    │   └─────────────► Dead ◄──────────┘   ▼
//!                    └── Join ─────────── ┴ ─────────────── Left
//! ```
//! A member that restarts before anyone noticed stays `Active`: a quick restart moves no block.

use millpond_proto::{Member, MemberState, NodeId};

use super::command::Join;
use super::outcome::{Effect, Outcome, Refused};
use super::state::{Record, State};

/// The most members, gone ones included. When it is reached, the one that has been gone the
/// longest is forgotten; it may still come back under its id.
pub const MAX_MEMBERS: usize = 4096;

impl State {
    pub(super) fn join(
        &mut self,
        join: &Join,
        effects: &mut Vec<Effect>,
    ) -> Result<Outcome, Refused> {
        let node = self.node_of(join)?;
        let Some(known) = self.members.get_mut(&node) else {
            self.admit(node, join, effects)?;
            return Ok(Outcome::Joined(node));
        };

        let before = known.member.clone();
        if join.incarnation < before.incarnation {
            return Err(Refused::Superseded {
                node,
                incarnation: join.incarnation,
                current: before.incarnation,
            });
        }
        let was_live = is_live(before.state);
        let state = if was_live {
            before.state
        } else {
            MemberState::Joining
        };
        known.member = member(node, state, join);
        known.gone_at = None;
        if known.data_dir.is_empty() {
            known.data_dir.clone_from(&join.data_dir);
        }
        if known.member != before {
            if was_live && join.incarnation > before.incarnation {
                effects.push(Effect::Fenced {
                    node,
                    incarnation: before.incarnation,
                });
            }
            effects.push(Effect::Member {
                node,
                from: Some(before.state),
                to: state,
                incarnation: join.incarnation,
            });
        }
        Ok(Outcome::Joined(node))
    }

    /// The id that the joining node has or is to have.
    fn node_of(&self, join: &Join) -> Result<NodeId, Refused> {
        let ours = self.constants()?.id;
        let same_dir = self
            .members
            .values()
            .find(|r| !r.data_dir.is_empty() && r.data_dir == join.data_dir)
            .map(|r| r.member.id);
        let Some(identity) = join.identity else {
            // A first join whose answer was lost comes again: it gets the same id.
            return Ok(same_dir.unwrap_or(NodeId(self.next_node)));
        };
        let node = identity.node;
        if identity.cluster != ours {
            return Err(Refused::WrongCluster {
                theirs: identity.cluster,
                ours,
            });
        }
        if node.0 == 0 || node.0 >= self.next_node {
            return Err(Refused::NeverGiven {
                node,
                cluster: ours,
            });
        }
        let known_dir = self.members.get(&node).map(|r| r.data_dir.as_str());
        let other_dir = known_dir
            .is_some_and(|d| !d.is_empty() && !join.data_dir.is_empty() && d != join.data_dir);
        if other_dir || same_dir.is_some_and(|other| other != node) {
            return Err(Refused::OtherDataDir { node });
        }
        Ok(node)
    }

    fn admit(
        &mut self,
        node: NodeId,
        join: &Join,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Refused> {
        if self.members.len() >= MAX_MEMBERS {
            let gone = self.members.values().filter(|r| r.gone_at.is_some());
            let oldest = gone.min_by_key(|r| r.gone_at).map(|r| r.member.id);
            let Some(oldest) = oldest else {
                return Err(Refused::Full { limit: MAX_MEMBERS });
            };
            self.members.remove(&oldest);
            effects.push(Effect::Forgotten { node: oldest });
        }
        let record = Record {
            member: member(node, MemberState::Joining, join),
            data_dir: join.data_dir.clone(),
            gone_at: None,
        };
        self.members.insert(node, record);
        self.next_node = self.next_node.max(node.0 + 1);
        effects.push(Effect::Member {
            node,
            from: None,
            to: MemberState::Joining,
            incarnation: join.incarnation,
        });
        Ok(())
    }

    pub(super) fn activate(
        &mut self,
        node: NodeId,
        incarnation: u64,
        effects: &mut Vec<Effect>,
    ) -> Result<Outcome, Refused> {
        let record = self.speaks_for(node, incarnation)?;
        match record.member.state {
            MemberState::Joining => record.set(MemberState::Active, effects),
            MemberState::Active | MemberState::Draining => {}
            MemberState::Left | MemberState::Dead => return Err(not_live(&record.member)),
        }
        Ok(Outcome::Done)
    }

    pub(super) fn leave(
        &mut self,
        node: NodeId,
        incarnation: u64,
        effects: &mut Vec<Effect>,
    ) -> Result<Outcome, Refused> {
        let left_at = self.version + 1;
        let record = self.speaks_for(node, incarnation)?;
        if record.member.state != MemberState::Left {
            record.set(MemberState::Left, effects);
            record.gone_at = Some(left_at);
        }
        Ok(Outcome::Done)
    }

    /// Applies to the process that fell silent only: if a later one has joined meanwhile, or
    /// the member is gone already, nothing happens.
    pub(super) fn mark_dead(&mut self, node: NodeId, incarnation: u64, effects: &mut Vec<Effect>) {
        let died_at = self.version + 1;
        let Ok(record) = self.speaks_for(node, incarnation) else {
            return;
        };
        if is_live(record.member.state) {
            record.set(MemberState::Dead, effects);
            record.gone_at = Some(died_at);
        }
    }

    /// The record of `node`, if the process `incarnation` may speak for it.
    fn speaks_for(&mut self, node: NodeId, incarnation: u64) -> Result<&mut Record, Refused> {
        let record = self.members.get_mut(&node);
        let record = record.ok_or(Refused::NotMember { node })?;
        check_incarnation(&record.member, incarnation)?;
        Ok(record)
    }
}

impl Record {
    fn set(&mut self, state: MemberState, effects: &mut Vec<Effect>) {
        effects.push(Effect::Member {
            node: self.member.id,
            from: Some(self.member.state),
            to: state,
            incarnation: self.member.incarnation,
        });
        self.member.state = state;
    }
}

/// Whether a member in this state is expected to send heartbeats.
pub const fn is_live(state: MemberState) -> bool {
    match state {
        MemberState::Joining | MemberState::Active | MemberState::Draining => true,
        MemberState::Left | MemberState::Dead => false,
    }
}

/// Whether the process `incarnation` may speak for `member`, live or not.
///
/// # Errors
/// [`Refused::Superseded`] when a later process has joined, [`Refused::NotJoined`] when this
/// one has not.
pub const fn check_incarnation(member: &Member, incarnation: u64) -> Result<(), Refused> {
    let node = member.id;
    if incarnation < member.incarnation {
        return Err(Refused::Superseded {
            node,
            incarnation,
            current: member.incarnation,
        });
    }
    if incarnation > member.incarnation {
        return Err(Refused::NotJoined { node, incarnation });
    }
    Ok(())
}

/// The refusal of what only a live member may do.
pub fn not_live(member: &Member) -> Refused {
    let state = match member.state {
        MemberState::Left => "left",
        MemberState::Dead => "dead",
        MemberState::Joining => "joining",
        MemberState::Active => "active",
        MemberState::Draining => "draining",
    };
    Refused::NotLive {
        node: member.id,
        state: state.to_owned(),
    }
}

fn member(id: NodeId, state: MemberState, join: &Join) -> Member {
    Member {
        id,
        addr: join.addr.clone(),
        admin: join.admin.clone(),
        zone: join.zone.clone(),
        weight: join.weight,
        capacity: join.capacity,
        state,
        incarnation: join.incarnation,
    }
}
