//! What a process hands in when it opens an under-store.

use std::sync::Arc;

use prometheus_client::registry::Registry;

use crate::environment::Environment;
use crate::metrics::UfsMetrics;

/// What a process hands in when it opens an under-store: shared metrics, its environment,
/// and limits.
#[derive(Debug, Clone)]
pub struct UfsContext {
    /// Where requests are counted; one per process.
    pub metrics: Arc<UfsMetrics>,
    /// The environment variables and home directory from which credentials may come.
    pub environment: Arc<Environment>,
    /// How many calls one mount has in flight at the store at once, unless the mount's
    /// `concurrency` option says otherwise. The rest wait, up to their deadline.
    pub concurrency: usize,
}

impl UfsContext {
    /// The context of a real process: its own environment, the default limits.
    pub fn new(metrics: Arc<UfsMetrics>) -> Self {
        Self {
            metrics,
            environment: Arc::new(Environment::of_process()),
            concurrency: DEFAULT_CONCURRENCY,
        }
    }

    /// A context that shares nothing: metrics that nobody reads, an empty environment. For
    /// tests and one-shot tools.
    pub fn detached() -> Self {
        Self {
            metrics: Arc::new(UfsMetrics::new(&mut Registry::default())),
            environment: Arc::new(Environment::default()),
            concurrency: DEFAULT_CONCURRENCY,
        }
    }
}

/// Enough for 64 readers of 4 MiB blocks and the metadata calls beside them.
const DEFAULT_CONCURRENCY: usize = 128;
