//! Finding files that were left unfinished.

use std::sync::Arc;

use futures::StreamExt;
use rustix::fs::{AtFlags, Dir, FileType, OFlags};
use rustix::io::Errno;

use crate::error::{Op, UfsError};
use crate::local::failure::failure;
use crate::local::root::Root;
use crate::local::{blocking, inode, unfinished};
use crate::write::{Unfinished, UnfinishedStream};

/// Those in the directory `dir` and all below, a page for each directory. A file that is being
/// written right now is among them; its time is that of the last write to it.
pub(super) fn list(root: Arc<Root>, dir: String) -> UnfinishedStream {
    let state = (root, vec![dir]);
    futures::stream::try_unfold(state, |(root, mut dirs)| async move {
        let Some(dir) = dirs.pop() else {
            return Ok(None);
        };
        let (whole, uri) = (Arc::clone(&root), root.uri_of(&dir));
        let (page, below) = blocking(Op::List, &uri, move || look(&whole, &dir)).await?;
        dirs.extend(below);
        Ok(Some((page, (root, dirs))))
    })
    .boxed()
}

/// The unfinished files in `dir`, and the directories in it.
fn look(root: &Root, dir: &str) -> Result<(Vec<Unfinished>, Vec<String>), UfsError> {
    let fail = |errno| failure(errno, Op::List, root.uri_of(dir));
    let join = |name: &str| match dir {
        "" => name.to_owned(),
        dir => format!("{dir}/{name}"),
    };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
    let fd = root.open_below(Op::List, dir, flags)?;
    let (mut page, mut below) = (Vec::new(), Vec::new());
    for entry in Dir::read_from(&fd).map_err(fail)? {
        let entry = entry.map_err(fail)?;
        let Ok(name) = entry.file_name().to_str() else {
            continue;
        };
        if let Some((id, kept)) = unfinished::parse(name) {
            let stat = match rustix::fs::statat(&fd, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => stat,
                Err(Errno::NOENT) => continue,
                Err(errno) => return Err(fail(errno)),
            };
            page.push(Unfinished {
                path: join(kept),
                id: id.to_owned(),
                started: inode::metadata(&stat).and_then(|metadata| metadata.mtime),
            });
            continue;
        }
        let is_directory = match entry.file_type() {
            FileType::Directory => name != "." && name != "..",
            FileType::Unknown => rustix::fs::statat(&fd, name, AtFlags::SYMLINK_NOFOLLOW)
                .is_ok_and(|stat| crate::local::place::is_directory(&stat)),
            _ => false,
        };
        if is_directory && name != "." && name != ".." {
            below.push(join(name));
        }
    }
    Ok((page, below))
}
