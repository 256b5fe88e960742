//! Changes: those that this client makes known, and those that others do.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use millpond_net::block_client::Peer;
use millpond_proto::Change;
use millpond_proto::wire::frame::Op;
use millpond_proto::wire::query::{News, PathQuery, Seen};
use rand::Rng as _;
use rand::seq::IndexedRandom as _;
use tokio::sync::broadcast;
use tokio::time::sleep;

use crate::core::Core;
use crate::error::ClientError;

/// Changes that one who follows may be behind before everything counts as changed.
const BEHIND: usize = 1024;

/// How long a node may keep a question for news; it answers sooner.
const NEWS_WITHIN: Duration = Duration::from_secs(40);

/// The first pause after a node gave no news, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// The changes of a client from now on, whoever made them known. What they concern is
/// forgotten before they come out here.
#[derive(Debug)]
pub struct Changes(broadcast::Receiver<Change>);

impl Changes {
    /// The next change; none when the client is gone. One who is too far behind gets
    /// [`Change::everything`].
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn next(&mut self) -> Option<Change> {
        match self.0.recv().await {
            Ok(change) => Some(change),
            Err(broadcast::error::RecvError::Lagged(_)) => Some(Change::everything()),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }
}

/// Tells those who follow this client's changes.
#[derive(Debug)]
pub(crate) struct Teller {
    changes: broadcast::Sender<Change>,
    /// Whether a node tells this client of changes.
    following: AtomicBool,
}

impl Teller {
    pub(crate) fn new() -> Self {
        Self {
            changes: broadcast::Sender::new(BEHIND),
            following: AtomicBool::new(false),
        }
    }

    pub(crate) fn follow(&self) -> Changes {
        Changes(self.changes.subscribe())
    }

    /// Whether a node tells this client of changes.
    pub(crate) fn is_following(&self) -> bool {
        self.following.load(Ordering::Acquire)
    }
}

impl Core {
    /// Forgets what `change` concerns, and tells all who follow.
    pub(crate) fn take_note(&self, change: Change) {
        self.metadata.forget(change.clone());
        // Nobody need follow.
        let _ = self.teller.changes.send(change);
    }
}

/// Follows the news of one node, and of another when that fails. Ends with the client.
pub(crate) async fn follow(core: Weak<Core>) {
    let mut state = Following::default();
    loop {
        let Some(core) = core.upgrade() else {
            return;
        };
        let pause = match state.step(&core).await {
            Ok(()) => continue,
            Err(pause) => pause,
        };
        drop(core);
        sleep(pause).await;
    }
}

#[derive(Default)]
struct Following {
    node: Option<Peer>,
    seen: Option<Seen>,
    failures: u32,
}

impl Following {
    /// Waits for the next news; how long to pause if there is nobody to ask.
    async fn step(&mut self, core: &Arc<Core>) -> Result<(), Duration> {
        let Some(node) = self.choose(core) else {
            return Err(PAUSES.1);
        };
        let query = PathQuery::Watch {
            seen: self.seen,
            origin: core.origin,
        };
        let deadline = Instant::now() + NEWS_WITHIN;
        let answer = core.put::<News>(&node, Op::Watch, query, deadline).await;
        match answer {
            Ok(news) => {
                self.failures = 0;
                self.take(core, news);
                core.teller.following.store(true, Ordering::Release);
                Ok(())
            }
            Err(error) => {
                core.teller.following.store(false, Ordering::Release);
                Err(self.failed(&node, &error))
            }
        }
    }

    /// The node to ask: the same as before while it serves.
    fn choose(&mut self, core: &Core) -> Option<Peer> {
        let snapshot = core.snapshot();
        let serving: Vec<Peer> = snapshot
            .view()
            .serving()
            .filter_map(|member| snapshot.peer(member.id))
            .collect();
        let stays = self
            .node
            .as_ref()
            .is_some_and(|node| serving.contains(node));
        if !stays {
            self.node = serving.choose(&mut rand::rng()).cloned();
        }
        self.node.clone()
    }

    fn take(&mut self, core: &Core, news: News) {
        // News of another node, or of another start of it: what happened in between is not
        // known. Nothing was believed before the first.
        let gap = self.seen.is_some_and(|seen| seen.log != news.seen.log);
        self.seen = Some(news.seen);
        match news.changes {
            Some(changes) if !gap => changes.into_iter().for_each(|c| core.take_note(c)),
            Some(_) | None => core.take_note(Change::everything()),
        }
    }

    fn failed(&mut self, node: &Peer, error: &ClientError) -> Duration {
        tracing::debug!(
            node = %node.id,
            error = error as &dyn std::error::Error,
            "no news of changes from this node"
        );
        self.failures = self.failures.saturating_add(1);
        // Another one knows as well.
        self.node = None;
        let pause = PAUSES.0 * 2_u32.saturating_pow(self.failures.min(6));
        pause
            .min(PAUSES.1)
            .mul_f64(rand::rng().random_range(0.5..1.0))
    }
}
