//! Tests of the client as a whole: over the memory UFS, alone and with nodes in this process.

mod cluster;
mod connect;
mod disk;
mod failing;
mod listing;
mod load;
mod modes;
mod names;
mod namespace;
mod node;
mod owners;
mod prefetch;
mod recall;
mod slower;
mod standalone;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use millpond_proto::BlockSize;
use millpond_ufs::memory::MemoryStore;
use parking_lot::Mutex;
use prometheus_client::registry::Registry;

use crate::{ClientConfig, FileSystem};

const KIB: u64 = 1 << 10;
pub(crate) const MIB: u64 = 1 << 20;

/// A memory store of this test's own, and its URI.
pub(crate) fn fresh_store() -> (Arc<MemoryStore>, String) {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let name = format!("client-{}", NEXT.fetch_add(1, Ordering::Relaxed));
    (MemoryStore::named(&name), format!("memory:///{name}"))
}

/// `len` bytes that differ everywhere and between seeds.
pub(crate) fn pattern(seed: u64, len: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(len as usize + 8);
    while (bytes.len() as u64) < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len as usize);
    bytes
}

/// Small blocks, little memory: many blocks and evictions with little data.
pub(crate) fn small() -> ClientConfig {
    ClientConfig {
        memory: 8 * MIB,
        block_size: BlockSize::new(256 * KIB).unwrap(),
        deadline: Duration::from_secs(20),
        ..ClientConfig::default()
    }
}

pub(crate) async fn standalone(uri: &str, config: ClientConfig) -> FileSystem {
    let registry = Mutex::new(Registry::default());
    FileSystem::standalone(uri, BTreeMap::new(), config, &registry)
        .await
        .unwrap()
}

/// Waits for `condition`, checked often, for ten seconds at most.
async fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    for _ in 0..1000 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{what} did not come about");
}
