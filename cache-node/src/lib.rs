//! A cache node: holds blocks in memory and on disk, fills what it lacks from the under-store
//! exactly once, and serves clients and other nodes over QUIC.
//!
//! | module | holds |
//! |---|---|
//! | [`config`] | flags, file, environment; checked |
//! | [`node`] | the parts wired into a running node, and their orderly end |
//! | [`agent`] | joins, heartbeats, leaves |
//! | [`server`] | answers block requests |
//! | [`fill`] | brings a block here, once, however many ask |
//! | [`metadata`] | asks stores about paths, once for all; tells who watches what changed |
//! | [`peers`] | asks other nodes for blocks that they hold |
//! | [`view`] | who owns a block, and who owned it before |
//! | [`ufs_table`] | the under-stores of the mount table |
//! | [`data_dir`] | who the node is, across restarts |
//! | [`memory`] | how `--memory` is shared out |
//! | [`metrics`] | the node's counters |

pub mod agent;
pub mod config;
pub mod data_dir;
mod error;
pub mod fill;
pub mod memory;
pub mod metadata;
pub mod metrics;
pub mod node;
pub mod peers;
pub mod server;
pub mod ufs_table;
pub mod view;

pub use config::{NodeArgs, NodeConfig, Settings};
pub use error::NodeError;

use std::io::Write;

/// What the `cache-node` command does: settings in, a node until SIGINT or SIGTERM.
///
/// # Errors
/// Usage errors for settings without sense (exit code 2), others when the node cannot start.
pub async fn run_with_args(args: NodeArgs) -> anyhow::Result<()> {
    memory::tune_allocator();
    let settings = Settings::load(&args)?;
    if args.print_config {
        let toml = millpond_process::config::to_toml(&settings)?;
        std::io::stdout().write_all(toml.as_bytes())?;
        return Ok(());
    }
    millpond_process::logging::init(&settings.log)?;
    let config = settings.validate()?;
    node::run(config, millpond_process::shutdown::token(), announce).await
}

fn announce(ready: node::Ready) {
    let admin = ready
        .admin
        .map_or_else(|| "none".to_owned(), |addr| addr.to_string());
    millpond_process::announce_ready(&[
        ("listen", ready.listen.to_string()),
        ("admin", admin),
        ("node", ready.node.to_string()),
    ]);
}
