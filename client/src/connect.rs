//! How a client becomes part of a cluster: its certificate, and the view it follows.

use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use millpond_net::block_client::{BlockClient, BlockClientConfig};
use millpond_net::control::{
    Access, ControlClient, ControlConfig, JoinToken, Routing, ViewWatch, WatchConfig,
};
use millpond_net::metrics::{ClientMetrics as PeerMetrics, Component};
use millpond_net::quic;
use millpond_net::tls::{Identity, KeyRequest};
use millpond_proto::MetadataOptions;
use millpond_ufs::{UfsContext, UfsMetrics};
use parking_lot::Mutex;
use prometheus_client::registry::Registry;
use tokio::sync::watch;

use crate::config::ClientConfig;
use crate::core::{Core, Parts};
use crate::error::ClientError;
use crate::metrics::ClientMetrics;
use crate::news;
use crate::peers::Peers;
use crate::snapshot::Snapshot;
use crate::tasks::Tasks;

/// The file in the state directory that holds the last view.
const VIEW_FILE: &str = "view.json";

/// How long to wait for a coordinator before starting from the last view.
const PATIENCE: Duration = Duration::from_secs(3);

/// How long a node that owes an answer may send nothing, not even an acknowledgement.
const SILENCE: Duration = Duration::from_millis(500);

/// A certificate that ends sooner than this is renewed at start.
const RENEW_BEFORE: Duration = Duration::from_secs(24 * 3600);

/// Joins the cluster of `config.coordinators`.
pub(crate) async fn connect(
    config: ClientConfig,
    registry: &Mutex<Registry>,
) -> Result<Arc<Core>, ClientError> {
    config.validate()?;
    if config.coordinators.is_empty() {
        return Err(ClientError::Config {
            setting: "coordinator",
            why: "at least one HOST:PORT is needed".to_owned(),
        });
    }
    make_private_dir(&config.state_dir)?;
    let token = config.token_file.as_deref().map(JoinToken::read);
    let access = Access {
        token: token.transpose()?,
        identity: kept(&config.state_dir).filter(is_good),
    };
    let coordinators = config.coordinators.clone();
    let control = ControlClient::with_access(coordinators, ControlConfig::default(), access)?;
    let view_file = config.state_dir.join(VIEW_FILE);
    let (identity, watch) = tokio::join!(
        identity(&control, &config.state_dir),
        follow(control.clone(), view_file),
    );
    // Both fail when no coordinator answers; this one says which were tried.
    let (identity, watch) = (identity?, watch?);
    join(config, &identity, watch, registry).await
}

/// A client that goes by the views of `watch`, which has one.
pub(crate) async fn join(
    config: ClientConfig,
    identity: &Identity,
    watch: ViewWatch,
    registry: &Mutex<Registry>,
) -> Result<Arc<Core>, ClientError> {
    let first = watch.first(Duration::ZERO).await?;
    let (metrics, peer_metrics, ufs_metrics) = {
        let mut registry = registry.lock();
        (
            ClientMetrics::new(&mut registry),
            PeerMetrics::new(&mut registry, Component::Client),
            UfsMetrics::new(&mut registry),
        )
    };
    let settings = BlockClientConfig {
        silence_timeout: SILENCE,
        local: config.local_socket,
        ..BlockClientConfig::default()
    };
    let endpoint = quic::client_endpoint(identity)?;
    let client = BlockClient::new(endpoint, settings, Arc::new(peer_metrics));
    let views = watch.subscribe();
    let tasks = Tasks::new();
    let core = Core::new(
        config,
        Parts {
            snapshot: Snapshot::first(first),
            metrics,
            ufs_context: UfsContext::new(Arc::new(ufs_metrics)),
            peers: Some(Peers::new(client, watch)),
            tasks: tasks.clone(),
        },
    )
    .await?;
    tasks.start(take_views(Arc::downgrade(&core), views));
    tasks.start(news::follow(Arc::downgrade(&core)));
    Ok(core)
}

/// Follows the coordinators; ready with the first view, theirs or the one on disk.
async fn follow(
    control: ControlClient,
    file: std::path::PathBuf,
) -> Result<ViewWatch, ClientError> {
    let config = WatchConfig {
        file: Some(file),
        ..WatchConfig::default()
    };
    let watch = ViewWatch::start(control, config).await?;
    watch.first(PATIENCE).await?;
    Ok(watch)
}

/// The client's certificate: the one in the state directory while it is good for a while,
/// else a new one. An old one is better than none.
async fn identity(control: &ControlClient, dir: &Path) -> Result<Identity, ClientError> {
    let fresh = certify(control).await;
    match (fresh, kept(dir)) {
        (Ok(identity), _) => {
            identity.save(dir)?;
            control.adopt(&identity)?;
            Ok(identity)
        }
        (Err(error), Some(kept)) => {
            let ends = kept.expires_at()?;
            if ends < SystemTime::now() + RENEW_BEFORE {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "the certificate ends soon and cannot be renewed"
                );
            }
            Ok(kept)
        }
        (Err(error), None) => Err(error),
    }
}

/// The certificate of an earlier start, if there is one.
fn kept(dir: &Path) -> Option<Identity> {
    Identity::load(dir).unwrap_or_else(|error| {
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            "certificate ignored"
        );
        None
    })
}

/// Whether it has not ended.
fn is_good(identity: &Identity) -> bool {
    identity
        .expires_at()
        .is_ok_and(|ends| ends > SystemTime::now())
}

async fn certify(control: &ControlClient) -> Result<Identity, ClientError> {
    let request = KeyRequest::generate()?;
    let certified = control.certify(&request.csr_pem).await?;
    Ok(request.certified(certified.ca_pem, certified.cert_pem))
}

/// Hands every later view to the client, for as long as there is one.
async fn take_views(core: Weak<Core>, mut views: watch::Receiver<Option<Arc<Routing>>>) {
    views.mark_changed();
    while views.changed().await.is_ok() {
        let latest = views.borrow_and_update().as_ref().map(Arc::clone);
        let Some(core) = core.upgrade() else {
            return;
        };
        let Some(routing) = latest else { continue };
        let present = core.snapshot();
        if routing.view.block_size != present.view().block_size
            || routing.view.cluster != present.view().cluster
        {
            // Handles and caches are laid out in the old blocks.
            tracing::error!(
                cluster = %routing.view.cluster,
                "the coordinator serves another cluster now: restart this client"
            );
            continue;
        }
        core.advance(routing);
    }
}

/// A client of one UFS.
pub(crate) async fn standalone(
    uri: &str,
    options: std::collections::BTreeMap<String, String>,
    config: ClientConfig,
    registry: &Mutex<Registry>,
) -> Result<Arc<Core>, ClientError> {
    config.validate()?;
    let (metrics, ufs_metrics) = {
        let mut registry = registry.lock();
        (
            ClientMetrics::new(&mut registry),
            UfsMetrics::new(&mut registry),
        )
    };
    MetadataOptions::of(&options).map_err(|error| ClientError::Config {
        setting: "option",
        why: error.to_string(),
    })?;
    let snapshot = Snapshot::standalone(uri, options, config.block_size);
    let ufs_context = UfsContext::new(Arc::new(ufs_metrics));
    let root = millpond_proto::MountId(0);
    if let Some(store) = snapshot.store(root) {
        let ufs = store.open(&ufs_context).await?;
        millpond_ufs::probe(&*ufs).await?;
    }
    Core::new(
        config,
        Parts {
            snapshot,
            metrics,
            ufs_context,
            peers: None,
            tasks: Tasks::new(),
        },
    )
    .await
}

/// Makes `dir` for this user alone: a private key goes there.
fn make_private_dir(dir: &Path) -> Result<(), ClientError> {
    use std::os::unix::fs::DirBuilderExt as _;

    let made = std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir);
    made.map_err(|source| ClientError::State {
        action: "make the state directory",
        path: dir.display().to_string(),
        source: Arc::new(source),
    })
}
