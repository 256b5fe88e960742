//! Listing a directory page by page.

use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::SystemTime;

use futures::StreamExt;
use rustix::fs::{AtFlags, Dir, OFlags};
use rustix::io::Errno;

use crate::error::{Op, UfsError};
use crate::local::blocking;
use crate::local::failure::failure;
use crate::local::inode;
use crate::local::root::Root;
use crate::metadata::Entry;
use crate::name::UNFINISHED;
use crate::ufs::EntryStream;

/// The entries of the directory at `dir`, sorted by name.
pub(super) fn list(root: Arc<Root>, dir: String) -> EntryStream {
    let uri = root.uri_of(&dir);
    let state = (Step::Open { root, dir }, uri);
    futures::stream::try_unfold(state, |(step, uri)| async move {
        let names = match step {
            Step::Open { root, dir } => {
                blocking(Op::List, &uri, move || Names::read(&root, &dir)).await?
            }
            Step::Page(names) => names,
        };
        // The first page is given even when it is empty: the directory exists.
        if names.started && names.rest.is_empty() {
            return Ok(None);
        }
        let at = uri.clone();
        let (page, names) = blocking(Op::List, &uri, move || names.page(&at)).await?;
        Ok(Some((page, (Step::Page(names), uri))))
    })
    .boxed()
}

enum Step {
    Open { root: Arc<Root>, dir: String },
    Page(Names),
}

/// The names of a directory that are still to be described, the next one last.
struct Names {
    root: Arc<Root>,
    fd: OwnedFd,
    rest: Vec<CString>,
    started: bool,
}

impl Names {
    fn read(root: &Arc<Root>, dir: &str) -> Result<Self, UfsError> {
        let fail = |errno| failure(errno, Op::List, root.uri_of(dir));
        let fd = root.open_below(Op::List, dir, OFlags::RDONLY | OFlags::DIRECTORY)?;
        let mut rest = Vec::new();
        let mut hidden = 0;
        for entry in Dir::read_from(&fd).map_err(fail)? {
            let name = entry.map_err(fail)?.file_name().to_owned();
            match name.to_bytes() {
                b"." | b".." => {}
                bytes if bytes.starts_with(UNFINISHED.as_bytes()) => {}
                bytes if std::str::from_utf8(bytes).is_err() => hidden += 1,
                _ => rest.push(name),
            }
        }
        if hidden > 0 {
            root.warn_of_names(dir, hidden);
        }
        rest.sort_unstable_by(|a, b| b.cmp(a));
        Ok(Self {
            root: Arc::clone(root),
            fd,
            rest,
            started: false,
        })
    }

    fn page(mut self, uri: &str) -> Result<(Vec<Entry>, Self), UfsError> {
        self.started = true;
        let mut page = Vec::with_capacity(self.rest.len().min(PAGE));
        while page.len() < PAGE {
            let Some(name) = self.rest.pop() else { break };
            let stat = match rustix::fs::statat(&self.fd, &name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => stat,
                // Deleted since the names were read.
                Err(Errno::NOENT) => continue,
                Err(errno) => return Err(failure(errno, Op::List, uri.to_owned())),
            };
            let Some(mut metadata) = inode::metadata(&stat) else {
                continue;
            };
            let fresh = inode::is_fresh(&stat, SystemTime::now());
            if let Some(version) = metadata.version.take_if(|_| fresh)
                && self.root.is_own(&version)
            {
                metadata.version = Some(version);
            }
            if let Ok(name) = name.into_string() {
                page.push(Entry { name, metadata });
            }
        }
        Ok((page, self))
    }
}

const PAGE: usize = 1000;
