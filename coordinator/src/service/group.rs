//! The group of coordinators: who is in it, who leads.

use millpond_proto::wire::pb;

use super::Shared;
use super::failure::Failure;
use crate::raft::{Consensus, GroupError};

/// The group as `consensus` knows it.
pub(super) fn members(consensus: &Consensus) -> pb::CoordinatorsResponse {
    let coordinators = consensus.group().into_iter().map(|member| pb::Coordinator {
        id: member.id,
        addr: member.addr,
        leads: member.leads,
        votes: member.votes,
        behind: member.behind,
    });
    pb::CoordinatorsResponse {
        coordinators: coordinators.collect(),
    }
}

/// Takes the coordinator `id` out of the group.
pub(super) async fn remove(shared: &Shared, id: u64) -> Result<pb::CoordinatorsResponse, Failure> {
    shared.consensus.remove(id).await?;
    tracing::info!(coordinator = id, "taken out of the group");
    Ok(members(&shared.consensus))
}

/// Has the coordinator `id` lead.
pub(super) async fn transfer(
    shared: &Shared,
    id: u64,
) -> Result<pb::CoordinatorsResponse, Failure> {
    let consensus = &shared.consensus;
    let group = consensus.group();
    let target = group.into_iter().find(|member| member.id == id);
    let Some(target) = target.filter(|member| member.votes) else {
        return Err(GroupError::Unknown(id).into());
    };
    if id != consensus.id() {
        let led = consensus.step_aside(shared.peers.lead(&target.addr));
        led.await?;
        tracing::info!(coordinator = id, "leads now");
    }
    let mut answer = members(consensus);
    for coordinator in &mut answer.coordinators {
        // The news may still be on its way to this one.
        coordinator.leads = coordinator.id == id;
    }
    Ok(answer)
}
