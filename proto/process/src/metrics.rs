//! The registry that all parts of a process share.

use std::sync::Arc;

use parking_lot::Mutex;
use prometheus_client::registry::Registry;

/// A registry that components register with at start and `/metrics` encodes.
pub type SharedRegistry = Arc<Mutex<Registry>>;

/// A new, empty registry. Each component locks it once, to build its metrics.
pub fn shared_registry() -> SharedRegistry {
    Arc::new(Mutex::new(Registry::default()))
}
