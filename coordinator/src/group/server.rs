//! Calls from other coordinators.

use std::sync::Arc;

use millpond_proto::ErrorKind;
use millpond_proto::wire::pb;
use millpond_proto::wire::pb::group_server::{Group, GroupServer};
use millpond_proto::wire::status::grpc_status;
use tonic::{Request, Response, Status};

use super::listener::Caller;
use super::peers::MAX_MESSAGE;
use crate::service::Shared;

/// The service that coordinators use among themselves.
#[derive(Debug)]
pub struct GroupService {
    shared: Arc<Shared>,
}

impl GroupService {
    /// The service as tonic serves it.
    pub fn server(shared: Arc<Shared>) -> GroupServer<Self> {
        GroupServer::new(Self { shared })
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE)
    }
}

/// Only who holds the group's secret has a connection that says so.
fn check<T>(request: &Request<T>) -> Result<(), Status> {
    let caller = request.extensions().get::<Caller>();
    if caller.is_some_and(Caller::is_coordinator) {
        return Ok(());
    }
    let message = "only coordinators of this group may ask that: they share its --secret-file";
    Err(grpc_status(ErrorKind::Denied, message))
}

#[tonic::async_trait]
impl Group for GroupService {
    async fn consensus(
        &self,
        request: Request<pb::ConsensusRequest>,
    ) -> Result<Response<pb::ConsensusResponse>, Status> {
        check(&request)?;
        let request = request.into_inner();
        let consensus = &self.shared.consensus;
        if request.target != consensus.id() {
            let message = format!(
                "this is coordinator {}, not {}: another one has its address now",
                consensus.id(),
                request.target
            );
            return Err(grpc_status(ErrorKind::Unavailable, message));
        }
        let body = consensus.receive(request.kind(), &request.body).await;
        match body {
            Ok(body) => Ok(Response::new(pb::ConsensusResponse { body })),
            Err(error) => Err(grpc_status(ErrorKind::Invalid, error.to_string())),
        }
    }

    async fn enter(
        &self,
        request: Request<pb::EnterRequest>,
    ) -> Result<Response<pb::EnterResponse>, Status> {
        check(&request)?;
        let request = request.into_inner();
        let consensus = &self.shared.consensus;
        if consensus.is_leader() {
            let entered = consensus.enter(request.id, &request.addr).await;
            entered.map_err(|e| grpc_status(e.kind(), e.to_string()))?;
            tracing::info!(
                coordinator = request.id,
                addr = request.addr,
                "in the group"
            );
            return Ok(Response::new(pb::EnterResponse {}));
        }
        // The one that asks does not know who leads. Once is enough: a group that has no
        // leader for longer is asked again.
        match consensus.leader() {
            Some((leader, addr)) if leader != consensus.id() && leader != request.id => {
                let entered = self.shared.peers.enter(&addr, request.id, &request.addr);
                entered
                    .await
                    .map_err(|e| grpc_status(e.kind(), e.to_string()))?;
                Ok(Response::new(pb::EnterResponse {}))
            }
            _ => Err(grpc_status(
                ErrorKind::Unavailable,
                "no coordinator leads at the moment",
            )),
        }
    }

    async fn lead(
        &self,
        request: Request<pb::LeadRequest>,
    ) -> Result<Response<pb::LeadResponse>, Status> {
        check(&request)?;
        let led = self.shared.consensus.stand().await;
        led.map_err(|e| grpc_status(e.kind(), e.to_string()))?;
        Ok(Response::new(pb::LeadResponse {}))
    }
}
