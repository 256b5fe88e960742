//! All that lies below a path, depth first.

use futures::stream::{BoxStream, Stream, StreamExt, TryStreamExt, try_unfold};
use millpond_client::{Attr, ClientError, DirEntry, FileSystem};

/// A path and what it names.
pub(super) type Found = (String, Attr);

/// Everything below `dir`, each directory before what it holds; `dir` itself is not part of
/// it. Holds one page of each directory on the way down, however large the tree is.
pub(super) fn walk(fs: &FileSystem, dir: &str) -> impl Stream<Item = Result<Found, ClientError>> {
    let walker = Walker {
        fs: fs.clone(),
        open: vec![Level::new(fs, dir.to_owned())],
    };
    try_unfold(walker, |mut walker| async move {
        Ok(walker.next().await?.map(|found| (found, walker)))
    })
}

/// `dir` and `name` joined.
pub(super) fn join(dir: &str, name: &str) -> String {
    if dir == "/" {
        format!("/{name}")
    } else {
        format!("{dir}/{name}")
    }
}

struct Walker {
    fs: FileSystem,
    /// The directories on the way down, the deepest last.
    open: Vec<Level>,
}

struct Level {
    dir: String,
    pages: BoxStream<'static, Result<Vec<DirEntry>, ClientError>>,
    page: std::vec::IntoIter<DirEntry>,
}

impl Level {
    fn new(fs: &FileSystem, dir: String) -> Self {
        Self {
            pages: fs.list(&dir).boxed(),
            page: Vec::new().into_iter(),
            dir,
        }
    }

    async fn next(&mut self) -> Result<Option<DirEntry>, ClientError> {
        loop {
            if let Some(entry) = self.page.next() {
                return Ok(Some(entry));
            }
            match self.pages.try_next().await? {
                Some(page) => self.page = page.into_iter(),
                None => return Ok(None),
            }
        }
    }
}

impl Walker {
    async fn next(&mut self) -> Result<Option<Found>, ClientError> {
        while let Some(level) = self.open.last_mut() {
            let Some(entry) = level.next().await? else {
                self.open.pop();
                continue;
            };
            let path = join(&level.dir, &entry.name);
            if entry.attr.is_dir() {
                self.open.push(Level::new(&self.fs, path.clone()));
            }
            return Ok(Some((path, (*entry.attr).clone())));
        }
        Ok(None)
    }
}
