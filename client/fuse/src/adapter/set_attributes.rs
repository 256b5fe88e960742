//! Setattr: chmod, chown, utimens, truncate.

use std::sync::Arc;
use std::time::SystemTime;

use fuser::{Errno, FileAttr, FileHandle, INodeNo, ReplyAttr, TimeOrNow};
use millpond_client::AttributeChange;
use tracing::Instrument;

use super::read_only;
use crate::control;
use crate::metrics::{Op, Outcome};
use crate::shared::{Shared, errno_logged, kernel_ttl};

/// What the kernel asks for.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) size: Option<u64>,
    pub(super) attributes: AttributeChange,
}

/// The time that the kernel means.
pub(super) fn time(time: TimeOrNow) -> SystemTime {
    match time {
        TimeOrNow::SpecificTime(time) => time,
        TimeOrNow::Now => SystemTime::now(),
    }
}

pub(super) fn set(
    shared: &Arc<Shared>,
    ino: INodeNo,
    fh: Option<FileHandle>,
    asked: Asked,
    reply: ReplyAttr,
) {
    if control::is_control(ino) {
        return reply.error(Errno::EPERM);
    }
    if shared.read_only {
        return read_only::refuse(shared, |errno| reply.error(errno));
    }
    let timer = shared.metrics.start(Op::Write);
    let task = Arc::clone(shared);
    let request = async move {
        match change(&task, ino.0, fh, asked).await {
            Ok((attr, valid)) => {
                timer.finish(Outcome::Miss);
                reply.attr(&kernel_ttl(valid), &attr);
            }
            Err(errno) => {
                timer.finish(Outcome::Error);
                reply.error(errno);
            }
        }
    };
    shared.run(request.instrument(tracing::debug_span!("setattr", ino = ino.0)));
}

async fn change(
    shared: &Shared,
    ino: u64,
    _fh: Option<FileHandle>,
    asked: Asked,
) -> Result<(FileAttr, std::time::Duration), Errno> {
    let failed = |error| errno_logged("setattr", &error);
    let path = shared.inodes.lock().live_path(ino).ok_or(Errno::ESTALE)?;
    if let Some(size) = asked.size {
        shared.fs.truncate(&path, size).await.map_err(failed)?;
    }
    if !asked.attributes.is_empty() {
        let set = shared.fs.set_attributes(&path, &asked.attributes).await;
        set.map_err(failed)?;
    }
    shared.forget_names(ino);
    let found = shared.fs.look_up(&path).await.map_err(failed)?;
    let attr = found.attr.ok_or(Errno::ENOENT)?;
    Ok((shared.attributes(ino, &attr)?, found.valid))
}
