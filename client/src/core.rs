//! What all parts of one client share.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use arc_swap::ArcSwap;
use millpond_net::control::Routing;
use millpond_proto::Trust;
use millpond_ufs::UfsContext;
use parking_lot::Mutex;

use crate::budget::Budget;
use crate::config::ClientConfig;
use crate::disk::LocalDisk;
use crate::error::ClientError;
use crate::fetch::flying::Flying;
use crate::flights::Flights;
use crate::listing::Listings;
use crate::lookup::{Looked, Lookup};
use crate::memory::LocalMemory;
use crate::metadata::MetadataCache;
use crate::metrics::ClientMetrics;
use crate::names::journal::Journal;
use crate::names::marked::Marked;
use crate::news::Teller;
use crate::pace::Pace;
use crate::peers::Peers;
use crate::pieces::Layout;
use crate::prefetch::Prefetch;
use crate::snapshot::Snapshot;
use crate::tasks::Tasks;
use crate::write::{Drafts, Staging};

/// One client: its state and its resources. The logic is in the modules that use it.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) config: ClientConfig,
    pub(crate) layout: Layout,
    pub(crate) budget: Budget,
    pub(crate) memory: Arc<LocalMemory>,
    pub(crate) disk: Option<LocalDisk>,
    pub(crate) metadata: MetadataCache,
    pub(crate) metrics: ClientMetrics,
    pub(crate) ufs_context: UfsContext,
    /// None for a client without a cluster.
    pub(crate) peers: Option<Peers>,
    pub(crate) tasks: Tasks,
    /// Ranges of pieces on their way.
    pub(crate) flying: Arc<Flying>,
    /// Attributes on their way.
    pub(crate) lookups: Arc<Flights<Lookup, Looked>>,
    /// Tells who follows what changed.
    pub(crate) teller: Teller,
    /// By what nodes know this client's own changes.
    pub(crate) origin: u64,
    /// Directories on their way.
    pub(crate) listings: Arc<Listings>,
    /// The serial number of the next handle.
    pub(crate) handles: AtomicU64,
    /// How fast the cache nodes answer.
    pub(crate) peer_pace: Mutex<Pace>,
    /// Requests for data that the UFS answered, and those that were sent a second time.
    pub(crate) ufs_requests: AtomicU64,
    pub(crate) ufs_repeats: AtomicU64,
    /// What is fetched ahead of opens.
    pub(crate) prefetch: Prefetch,
    /// What is being written.
    pub(crate) drafts: Drafts,
    /// Room for that.
    pub(crate) staging: Arc<Staging>,
    /// Directories that stay when they are emptied.
    pub(crate) marked: Marked,
    /// Notes of directory renames.
    pub(crate) journal: Journal,
    snapshot: ArcSwap<Snapshot>,
}

/// What a [`Core`] is made of besides its settings.
pub(crate) struct Parts {
    pub(crate) snapshot: Snapshot,
    pub(crate) metrics: ClientMetrics,
    pub(crate) ufs_context: UfsContext,
    pub(crate) peers: Option<Peers>,
    pub(crate) tasks: Tasks,
}

impl Core {
    /// Puts a client together; opens the local disk tier if there is to be one.
    pub(crate) async fn new(config: ClientConfig, parts: Parts) -> Result<Arc<Self>, ClientError> {
        let block_size = parts.snapshot.view().block_size;
        let budget = Budget::divide(config.memory, config.disk.is_some()).map_err(|least| {
            ClientError::Config {
                setting: "memory",
                why: format!("at least {least} bytes are needed"),
            }
        })?;
        let disk = match &config.disk {
            Some((dir, capacity)) => {
                let cluster = parts.peers.is_some().then(|| parts.snapshot.view().cluster);
                let metrics = parts.metrics.disk.clone();
                let tasks = parts.tasks.clone();
                Some(LocalDisk::open(dir, *capacity, cluster, metrics, tasks).await?)
            }
            None => None,
        };
        Ok(Arc::new(Self {
            layout: Layout::new(block_size),
            memory: LocalMemory::new(budget.tier),
            metadata: MetadataCache::new(
                config.metadata_memory,
                Trust {
                    mode: config.metadata_mode,
                    ttl: config.metadata_ttl,
                },
            ),
            flying: Arc::default(),
            lookups: Flights::new(),
            listings: Listings::new(),
            teller: Teller::new(),
            origin: rand::random(),
            handles: AtomicU64::new(0),
            peer_pace: Mutex::new(Pace::new()),
            ufs_requests: AtomicU64::new(0),
            ufs_repeats: AtomicU64::new(0),
            prefetch: Prefetch::default(),
            drafts: Drafts::default(),
            staging: Staging::new(config.staging_dir.clone(), config.staging_size),
            marked: Marked::default(),
            journal: Journal::new(config.rename_journal.clone()),
            snapshot: ArcSwap::from_pointee(parts.snapshot),
            metrics: parts.metrics,
            ufs_context: parts.ufs_context,
            peers: parts.peers,
            tasks: parts.tasks,
            budget,
            disk,
            config,
        }))
    }

    /// The present view, ring and stores.
    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// Goes over to a later view.
    pub(crate) fn advance(&self, routing: Arc<Routing>) {
        let before = self.snapshot();
        if let Some(peers) = &self.peers {
            peers.retain(&routing.view);
        }
        self.snapshot.store(Arc::new(before.next(routing)));
        if let Some(peers) = &self.peers {
            let around = peers.gone_round().len() as i64;
            self.metrics.nodes_gone_round.set(around);
        }
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        self.tasks.cancel();
    }
}
