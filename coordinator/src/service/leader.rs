//! Calls that only the leader can answer: passed on by the others, once.

use std::future::Future;

use millpond_proto::ErrorKind;
use millpond_proto::wire::pb::control_client::ControlClient;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

use super::Service;
use super::failure::Failure;
use super::rights::bearer;
use crate::group::{Caller, PeerError, forward};

/// A client of another coordinator.
pub(super) type Client = ControlClient<Channel>;

/// Another coordinator, which leads.
pub(super) struct Leader {
    addr: String,
    client: Client,
}

impl Service {
    /// Who is to answer `request`: the leader, or this coordinator if it leads itself.
    ///
    /// # Errors
    /// `Unavailable` while nobody is known to lead, and for a call that another coordinator
    /// has passed on already: the caller tries again in a moment.
    pub(super) fn leader_for<T>(&self, request: &Request<T>) -> Result<Option<Leader>, Failure> {
        let consensus = &self.shared.consensus;
        if consensus.is_leader() {
            return Ok(None);
        }
        let unavailable = |why| Err(Failure::new(ErrorKind::Unavailable, why));
        let caller = request.extensions().get::<Caller>();
        if caller.is_some_and(Caller::is_coordinator) {
            return unavailable("the leader of the coordinators has changed; try again");
        }
        match consensus.leader() {
            Some((id, addr)) if id != consensus.id() => Ok(Some(Leader {
                client: self.shared.peers.control(&addr)?,
                addr,
            })),
            _ => unavailable("no coordinator leads at the moment; try again"),
        }
    }
}

impl Leader {
    /// What the leader answers to `request`.
    pub(super) async fn ask<Q, A, F>(
        self,
        request: Request<Q>,
        call: impl FnOnce(Client, Request<Q>) -> F,
    ) -> Result<A, Failure>
    where
        F: Future<Output = Result<Response<A>, Status>>,
    {
        let Self { addr, client } = self;
        // The token goes along: the leader is who lets it be used.
        let token = bearer(&request).and_then(|token| token.parse().ok());
        let mut passed_on = Request::new(request.into_inner());
        if let Some(token) = token {
            passed_on.metadata_mut().insert("authorization", token);
        }
        // Boxed: most calls are answered here.
        match Box::pin(forward(&addr, call(client, passed_on))).await {
            Ok(answer) => Ok(answer),
            // What the leader says is the answer, whoever passes it on.
            Err(PeerError::Failed { kind, why, .. }) => Err(Failure::new(kind, why)),
            Err(error) => Err(error.into()),
        }
    }
}
