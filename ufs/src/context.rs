//! What a process hands in when it opens an under-store.

use std::sync::Arc;

use prometheus_client::registry::Registry;

use crate::environment::Environment;
use crate::layer::Gate;
use crate::metrics::UfsMetrics;

/// What a process hands in when it opens an under-store: shared metrics, its environment,
/// and limits.
#[derive(Debug, Clone)]
pub struct UfsContext {
    /// Where requests are counted; one per process.
    pub metrics: Arc<UfsMetrics>,
    /// The environment variables and home directory from which credentials may come.
    pub environment: Arc<Environment>,
    /// How many calls one mount has in flight at the store at once at the most, unless the
    /// mount's `concurrency` option says otherwise. The rest wait, up to their deadline.
    pub concurrency: usize,
    /// The calls of all mounts together.
    pub in_flight: InFlight,
}

/// A bound on the calls that a process has in flight at all its stores together. Clones are
/// the same bound.
#[derive(Debug, Clone)]
pub struct InFlight(Arc<Gate>);

impl InFlight {
    /// At most `calls` at once, at least 1.
    pub fn at_most(calls: u32) -> Self {
        Self(Gate::new(calls))
    }

    pub(crate) fn gate(&self) -> Arc<Gate> {
        Arc::clone(&self.0)
    }
}

impl Default for InFlight {
    fn default() -> Self {
        Self::at_most(DEFAULT_IN_FLIGHT)
    }
}

impl UfsContext {
    /// The context of a real process: its own environment, the default limits.
    pub fn new(metrics: Arc<UfsMetrics>) -> Self {
        Self {
            metrics,
            environment: Arc::new(Environment::of_process()),
            concurrency: DEFAULT_CONCURRENCY,
            in_flight: InFlight::default(),
        }
    }

    /// A context that shares nothing: metrics that nobody reads, an empty environment. For
    /// tests and one-shot tools.
    pub fn detached() -> Self {
        Self {
            metrics: Arc::new(UfsMetrics::new(&mut Registry::default())),
            environment: Arc::new(Environment::default()),
            concurrency: DEFAULT_CONCURRENCY,
            in_flight: InFlight::default(),
        }
    }
}

/// Enough for 64 readers of 4 MiB blocks and the metadata calls beside them.
const DEFAULT_CONCURRENCY: usize = 128;

/// Four mounts at their default: beyond it one process is not helped by more, and its sockets
/// and file descriptors run out.
const DEFAULT_IN_FLIGHT: u32 = 512;
