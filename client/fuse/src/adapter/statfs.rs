//! How much room there is.

use std::sync::Arc;

use fuser::{INodeNo, ReplyStatfs};
use millpond_client::Space;

use crate::control;
use crate::metrics::{Op, Outcome};
use crate::shared::Shared;

/// The unit in which sizes are told.
const BLOCK: u64 = 4096;

/// What a store can hold that has no bound, or tells none: no program is to hold back.
const UNBOUNDED: Space = Space {
    bytes: 1 << 50,
    free: 1 << 50,
    files: 1 << 40,
    files_free: 1 << 40,
};

/// - On a mount that is read-only nothing is free: nothing can be written. How much the stores
///   hold is not known; the size is what the tier can hold.
/// - Else it is what the store of the directory says.
pub(super) fn statfs(shared: &Arc<Shared>, ino: INodeNo, reply: ReplyStatfs) {
    let timer = shared.metrics.start(Op::Statfs);
    if shared.read_only || control::is_control(ino) {
        let capacity = shared.fs.statfs().capacity;
        timer.finish(Outcome::Hit);
        let size = Space {
            bytes: capacity,
            ..Space::default()
        };
        return answer(size, reply);
    }
    let task = Arc::clone(shared);
    shared.run(async move {
        let space = match task.path(ino) {
            Ok(path) => task.fs.space(&path).await.ok().flatten(),
            Err(_) => None,
        };
        timer.finish(Outcome::Miss);
        answer(space.unwrap_or(UNBOUNDED), reply);
    });
}

fn answer(space: Space, reply: ReplyStatfs) {
    let (block, name_max) = (BLOCK as u32, 255);
    let (blocks, free) = (space.bytes / BLOCK, space.free / BLOCK);
    let (files, files_free) = (space.files, space.files_free);
    reply.statfs(
        blocks, free, free, files, files_free, block, name_max, block,
    );
}
