//! Setattr: chmod, chown, utimens, truncate.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use fuser::{Errno, FileAttr, FileHandle, INodeNo, ReplyAttr, TimeOrNow};
use millpond_client::AttributeChange;
use tracing::Instrument;

use super::{read_only, writing};
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
        match change(&task, ino, fh, asked).await {
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

/// - What is open and written goes with what is sent of it, or, if it was removed, stays here.
/// - All else is changed in the store.
async fn change(
    shared: &Arc<Shared>,
    ino: INodeNo,
    fh: Option<FileHandle>,
    asked: Asked,
) -> Result<(FileAttr, Duration), Errno> {
    let failed = |error| errno_logged("setattr", &error);
    let draft = match asked.size {
        Some(size) => Some(writing::truncate(shared, ino, fh, size).await?),
        None => shared.inodes.lock().draft(ino.0),
    };
    let own = draft.filter(|draft| draft.is_changed() || draft.path().is_none());
    if let Some(draft) = own
        && draft.attributes_changed(&asked.attributes)
    {
        let attr = shared.style.file_attr(ino.0, &draft.attr());
        return Ok((attr, Duration::ZERO));
    }
    let path = shared.inodes.lock().live_path(ino.0);
    let path = path.ok_or(Errno::ESTALE)?;
    if !asked.attributes.is_empty() {
        let set = shared.fs.set_attributes(&path, &asked.attributes).await;
        let attr = set.map_err(failed)?;
        let fresh = shared.style.file_attr(ino.0, &attr);
        shared.inodes.lock().changed(ino.0, &fresh);
    }
    shared.forget_names(ino.0);
    let found = shared.fs.look_up(&path).await.map_err(failed)?;
    let attr = found.attr.ok_or(Errno::ENOENT)?;
    Ok((shared.attributes(ino.0, &attr)?, found.valid))
}
