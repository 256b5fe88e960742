//! A view with the rings that follow from it.

use std::sync::Arc;

use millpond_proto::{ClusterView, NodeId, Ring};

use crate::block_client::Peer;

/// Everything that decides where a request goes, as one immutable value.
///
/// - `ring` is the ring of `view.epoch`.
/// - `previous` is the ring of the last other epoch this process saw: who may still hold
///   what the present owner lacks.
#[derive(Debug, Clone)]
pub struct Routing {
    /// The view.
    pub view: Arc<ClusterView>,
    /// Who owns what now.
    pub ring: Arc<Ring>,
    /// Who owned what before.
    pub previous: Option<Arc<Ring>>,
}

impl Routing {
    /// The routing of a first view.
    pub fn first(view: ClusterView) -> Self {
        let ring = Ring::new(view.epoch, &view.members);
        Self {
            view: Arc::new(view),
            ring: Arc::new(ring),
            previous: None,
        }
    }

    /// The routing after `self`: the ring is rebuilt only if the epoch moved.
    #[must_use]
    pub fn advance(&self, view: ClusterView) -> Self {
        if view.cluster != self.view.cluster {
            return Self::first(view);
        }
        let (ring, previous) = if view.epoch == self.view.epoch {
            (
                Arc::clone(&self.ring),
                self.previous.as_ref().map(Arc::clone),
            )
        } else {
            let ring = Ring::new(view.epoch, &view.members);
            (Arc::new(ring), Some(Arc::clone(&self.ring)))
        };
        Self {
            view: Arc::new(view),
            ring,
            previous,
        }
    }

    /// Where to reach `node`; none if the view does not know it.
    pub fn peer(&self, node: NodeId) -> Option<Peer> {
        let member = self.view.member(node)?;
        Some(Peer {
            id: node,
            addr: member.addr.clone(),
        })
    }
}
