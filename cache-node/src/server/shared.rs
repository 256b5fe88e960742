//! What clients on this host are given through the Unix socket.

use millpond_net::block_server::LocalHit;
use millpond_proto::wire::frame::Tier;
use millpond_proto::wire::local::Ask;
use millpond_store::Hit;

use super::NodeService;

impl NodeService {
    /// The block's file if it is on disk, also when it is in memory: a client reads its pages
    /// from the kernel for less than the bytes would cost, and needs not ask again. Else the
    /// range from memory. None for blocks that are not here, which are filled over QUIC.
    pub(super) async fn shared(&self, ask: &Ask) -> Option<LocalHit> {
        if ask.damaged {
            return self.checked(ask).await;
        }
        if let Some(shared) = self.store.share(&ask.block).await {
            self.metrics.read_served(Tier::Disk);
            return Some(LocalHit::File {
                file: shared.file,
                start: shared.start,
                len: shared.len,
                checksums: shared.checksums,
            });
        }
        let hit = self.store.read_memory(&ask.block, ask.offset, ask.len)?;
        Some(self.bytes(hit))
    }

    /// Sees for itself whether the file is damaged, as a client says, which drops it then.
    async fn checked(&self, ask: &Ask) -> Option<LocalHit> {
        let (block, offset, len) = (&ask.block, ask.offset, ask.len);
        let on_disk = self.store.read_disk(block, offset, len).await;
        let hit = on_disk.or_else(|| self.store.read_memory(block, offset, len))?;
        Some(self.bytes(hit))
    }

    fn bytes(&self, hit: Hit) -> LocalHit {
        self.metrics.read_served(hit.tier);
        self.metrics.served_bytes.inc_by(hit.data.len() as u64);
        LocalHit::Bytes {
            data: hit.data,
            checksums: hit.checksums,
            tier: hit.tier,
        }
    }
}
