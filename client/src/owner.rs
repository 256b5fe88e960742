//! Questions about paths, put to the node that owns the path: it asks the store once for all.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use millpond_net::block_client::Peer;
use millpond_proto::wire::frame::{Op, Request};
use millpond_proto::wire::query::{
    self, ListAnswer, MAX_ANSWER_LEN, Oldest, PathAt, PathQuery, StatAnswer,
};
use millpond_proto::{BlockId, Change, ErrorKind, FileId, MetadataMode, MountId, NodeId, Trust};
use millpond_ufs::{Entry, Metadata};
use serde::de::DeserializeOwned;

use crate::core::Core;
use crate::error::ClientError;
use crate::metrics::Fallback;
use crate::snapshot::Snapshot;

/// How long a node that lives may take to answer before the store is asked as well.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long a node may take to take note of a change.
const NOTE_WITHIN: Duration = Duration::from_secs(5);

/// How long a reader that found its file changed waits for the nodes to take note.
const HINT_WITHIN: Duration = Duration::from_secs(1);

/// Who took note of a change, and who did not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Refreshed {
    /// Nodes that forgot it, and told the clients that watch them.
    pub told: Vec<NodeId>,
    /// Nodes that did not answer: they may go on to give old answers, as old as the metadata
    /// mode of the mount allows.
    pub silent: Vec<NodeId>,
}

/// A path of a mount, and how long answers about it are believed.
#[derive(Debug, Clone)]
pub(crate) struct Question {
    pub(crate) at: PathAt,
    pub(crate) oldest: Oldest,
    /// The nodes to ask, the best first.
    peers: Vec<Peer>,
}

/// A page of a listing, and when its store was asked.
pub(crate) type Aged = (Vec<Entry>, Instant);

impl Core {
    /// The question to put to an owner of `below` under `mount`; none if no node is to be
    /// asked.
    pub(crate) fn question_for(
        &self,
        snapshot: &Snapshot,
        mount: MountId,
        below: &str,
        trust: Trust,
    ) -> Option<Question> {
        let peers = self.peers.as_ref()?;
        if trust.mode == MetadataMode::Strict || snapshot.has_no_nodes() {
            return None;
        }
        let at = PathAt {
            mount,
            below: below.to_owned(),
        };
        let uri = &snapshot.view().mounts.by_id(mount)?.ufs;
        let mut owners = snapshot.owners(&at.place(uri));
        owners.retain(|peer| !peers.client.is_down(peer.id));
        if owners.is_empty() {
            self.metrics.count_fallback(Fallback::BreakerOpen);
            return None;
        }
        let ms = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        Some(Question {
            at,
            oldest: Oldest {
                presence_ms: ms(trust.presence()),
                absence_ms: ms(trust.absence()),
            },
            peers: owners,
        })
    }

    /// What the owner says is at the path, and when its store was asked; none if it cannot
    /// say.
    pub(crate) async fn stat_by_owner(
        &self,
        question: &Question,
    ) -> Option<(Option<Metadata>, Instant)> {
        let peer = question.peers.first()?;
        let query = PathQuery::Stat {
            at: question.at.clone(),
            oldest: question.oldest,
        };
        let deadline = Instant::now() + self.config.deadline;
        let received = self
            .put::<StatAnswer>(peer, Op::Stat, query, deadline)
            .await;
        let answer = received.ok()?;
        let at = before(answer.age_ms);
        Some((answer.found.map(Metadata::from), at))
    }

    /// What `direct` says, or an owner if that is sooner: the owner is asked first, and
    /// joined when it takes long.
    pub(crate) async fn hedged<T, E>(
        &self,
        owner: impl Future<Output = Option<T>>,
        direct: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let mut owner = std::pin::pin!(owner);
        match tokio::time::timeout(PATIENCE, &mut owner).await {
            Ok(Some(answer)) => return Ok(answer),
            Ok(None) => return direct.await,
            Err(_) => self.metrics.count_fallback(Fallback::Slow),
        }
        let mut direct = std::pin::pin!(direct);
        tokio::select! {
            answer = &mut direct => answer,
            answer = owner => match answer {
                Some(answer) => Ok(answer),
                None => direct.await,
            },
        }
    }

    /// The pages of a directory as its owner gives them; ends with the first error, after
    /// which the store itself is to be asked.
    pub(crate) fn pages_by_owner(
        self: &Arc<Self>,
        question: Question,
    ) -> BoxStream<'static, Result<Aged, ClientError>> {
        let state = Some((Arc::clone(self), question, None, 0));
        stream::unfold(state, |state| async {
            let (core, question, listing, page) = state?;
            let peer = question.peers.first()?;
            let query = PathQuery::List {
                at: question.at.clone(),
                oldest: question.oldest,
                listing,
                page,
            };
            let deadline = Instant::now() + core.config.deadline.min(2 * PATIENCE);
            match core
                .put::<ListAnswer>(peer, Op::List, query, deadline)
                .await
            {
                Ok(answer) if answer.end && answer.entries.is_empty() => None,
                Ok(answer) => {
                    let asked_at = before(answer.age_ms);
                    let entry = |(name, attr)| Entry {
                        name,
                        metadata: Metadata::from(attr),
                    };
                    let entries = answer.entries.into_iter().map(entry).collect();
                    let more = !answer.end;
                    let next = more.then_some((core, question, Some(answer.listing), page + 1));
                    Some((Ok((entries, asked_at)), next))
                }
                Err(error) => Some((Err(error), None)),
            }
        })
        .boxed()
    }

    /// Has all nodes forget what `change` concerns, and tell their clients.
    pub(crate) async fn tell_nodes(&self, change: &Change) -> Refreshed {
        let snapshot = self.snapshot();
        let nodes: Vec<Peer> = snapshot
            .view()
            .serving()
            .filter_map(|member| snapshot.peer(member.id))
            .collect();
        let mut refreshed = Refreshed::default();
        // First all forget, then all tell: a client that is told asks again at once, and may
        // ask any of them.
        for publish in [false, true] {
            refreshed = self.tell(&nodes, change, publish, NOTE_WITHIN).await;
        }
        refreshed
    }

    /// Has the owners of the file at `change` forget it, and tell their clients: a reader
    /// found it changed.
    pub(crate) async fn tell_owners(&self, change: &Change, mount: MountId, below: &str) {
        let snapshot = self.snapshot();
        let trust = snapshot.trust(mount, self.metadata.default_trust());
        if let Some(question) = self.question_for(&snapshot, mount, below, trust) {
            self.tell(&question.peers, change, true, HINT_WITHIN).await;
        }
    }

    async fn tell(
        &self,
        nodes: &[Peer],
        change: &Change,
        publish: bool,
        within: Duration,
    ) -> Refreshed {
        let deadline = Instant::now() + within;
        let tell = |peer: &Peer| {
            let peer = peer.clone();
            let query = PathQuery::Forget {
                change: change.clone(),
                origin: self.origin,
                publish,
            };
            async move {
                let told = self.put::<()>(&peer, Op::Forget, query, deadline).await;
                if let Err(error) = &told {
                    tracing::debug!(
                        node = %peer.id,
                        error = error as &dyn std::error::Error,
                        "a node did not take note of a change"
                    );
                }
                (peer.id, told.is_ok())
            }
        };
        let answers = futures::future::join_all(nodes.iter().map(tell)).await;
        let mut refreshed = Refreshed::default();
        for (node, told) in answers {
            match told {
                true => refreshed.told.push(node),
                false => refreshed.silent.push(node),
            }
        }
        refreshed
    }

    /// Puts `query` to `peer` and decodes its answer.
    pub(crate) async fn put<T: DeserializeOwned>(
        &self,
        peer: &Peer,
        op: Op,
        query: PathQuery,
        deadline: Instant,
    ) -> Result<T, ClientError> {
        let Some(peers) = &self.peers else {
            return Err(ClientError::NoSuchNode { node: peer.id });
        };
        let request = Request {
            op,
            epoch: self.snapshot().view().epoch,
            block: BlockId::new(FileId([0; 16]), 0),
            offset: 0,
            len: MAX_ANSWER_LEN,
            file_size: 0,
            deadline_ms: 0,
            source: None,
            query: Some(query),
        };
        let answer = async {
            let response = peers
                .client
                .request(peer, &request, deadline.into())
                .await?;
            peers.hint(response.head.epoch);
            response.read_data().await
        };
        let error = match answer.await {
            Ok(data) => match query::decode(&data.bytes) {
                Ok(answer) => return Ok(answer),
                Err(_) => ClientError::Answer { node: peer.id },
            },
            Err(error) => ClientError::from(error),
        };
        if op != Op::Watch {
            self.metrics.count_fallback(reason(error.kind()));
        }
        Err(error)
    }
}

/// Why the store itself is asked after a node failed with `kind`.
const fn reason(kind: ErrorKind) -> Fallback {
    match kind {
        ErrorKind::Busy => Fallback::Busy,
        ErrorKind::Unavailable => Fallback::Unreachable,
        ErrorKind::Timeout => Fallback::Timeout,
        ErrorKind::Corrupt => Fallback::Corrupt,
        ErrorKind::NotFound
        | ErrorKind::Invalid
        | ErrorKind::Unsupported
        | ErrorKind::Denied
        | ErrorKind::Stale => Fallback::Refused,
        ErrorKind::Internal => Fallback::Failed,
    }
}

/// So many milliseconds ago; as long ago as this clock knows if that is longer.
fn before(age_ms: u64) -> Instant {
    let now = Instant::now();
    let mut age = Duration::from_millis(age_ms);
    loop {
        match now.checked_sub(age) {
            Some(then) => return then,
            None => age /= 2,
        }
    }
}
