//! The rename of a directory in a store that cannot move one in one step: its members are
//! copied, and removed where they were once all copies are there.
//!
//! What is under way is written down on local disk before the first copy, where there is a
//! directory for that, so that the next mount can finish what a crash interrupted. Until the
//! last copy is made the old directory is whole; from then on the new one is.
//!
//! - A failure before the first removal takes the copies away again: nothing has changed.
//! - A failure after it leaves the rest of the old directory, and the note, for the next mount.
//! - What others write into the old directory meanwhile moves too, as far as it is there when
//!   the copies are complete.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::{StreamExt as _, TryStreamExt as _, stream};
use millpond_proto::{ErrorKind, Refusal};
use millpond_ufs::{Attributes, Condition, Metadata, Ufs, UfsError};

use super::refused;
use crate::core::Core;
use crate::error::ClientError;
use crate::target::Target;

/// Requests that one rename has under way.
const PARALLEL: usize = 32;

/// Listings of the old directory before it is given up: each finds what came since the last.
const ROUNDS: usize = 4;

/// What lies below a directory, by path relative to it; directories included.
type Members = BTreeMap<String, Metadata>;

impl Core {
    /// Moves the directory `source` to `target`, where there is nothing or an empty directory.
    pub(super) async fn move_tree(
        self: &Arc<Self>,
        source: &Target,
        target: &Target,
    ) -> Result<(), ClientError> {
        let limit = self.config.rename_limit;
        let members = members_of(&*source.ufs, &source.below, limit).await?;
        let Some(members) = members else {
            tracing::warn!(
                from = source.path,
                to = target.path,
                limit,
                "not renaming a directory of more members than --rename-limit: its store has to \
                 copy each"
            );
            return Err(ClientError::TooManyToRename {
                path: source.path.clone(),
                limit,
            });
        };
        let top_is_new = match members_of(&*target.ufs, &target.below, 0).await {
            Ok(Some(there)) if there.is_empty() => false,
            Ok(_) => return Err(refused("rename", &target.path, Refusal::NotEmpty)),
            Err(error) if error.kind() == ErrorKind::NotFound => true,
            Err(error) => return Err(error.into()),
        };
        let note = self.journal.begin(source, target).await?;
        let moving = Moving::new(source, target);
        let mut copied = Members::new();
        if let Err(error) = moving.copy(&members, &mut copied, false).await {
            // Not the note, if that fails as well: the next mount then goes on.
            if moving.take_back(&copied, top_is_new).await {
                note.end().await;
            }
            return Err(error.into());
        }
        moving.finish(copied).await?;
        note.end().await;
        Ok(())
    }
}

/// Finishes a rename of which nobody knows how far it came. Nothing that is at the new path is
/// replaced: it is a copy, or newer.
pub(super) async fn resume(source: &Target, target: &Target) -> Result<(), ClientError> {
    let members = match members_of(&*source.ufs, &source.below, u64::MAX).await {
        Ok(members) => members.unwrap_or_default(),
        // All of it has moved.
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let moving = Moving::new(source, target);
    let mut copied = Members::new();
    moving.copy(&members, &mut copied, true).await?;
    moving.finish(copied).await
}

/// All that lies below `dir`; none if that is more than `limit`.
async fn members_of(ufs: &dyn Ufs, dir: &str, limit: u64) -> Result<Option<Members>, UfsError> {
    let mut members = Members::new();
    let mut dirs = vec![String::new()];
    while let Some(below) = dirs.pop() {
        let at = join(dir, &below);
        let mut pages = ufs.list(&at);
        loop {
            let page = match pages.next().await {
                Some(Ok(page)) => page,
                // It went while its parent was being listed.
                Some(Err(error)) if error.kind() == ErrorKind::NotFound && !below.is_empty() => {
                    break;
                }
                Some(Err(error)) => return Err(error),
                None => break,
            };
            for entry in page {
                let path = join(&below, &entry.name);
                if entry.metadata.is_directory() {
                    dirs.push(path.clone());
                }
                members.insert(path, entry.metadata);
                if members.len() as u64 > limit {
                    return Ok(None);
                }
            }
        }
    }
    Ok(Some(members))
}

/// A directory on its way.
struct Moving {
    ufs: Arc<dyn Ufs>,
    from: String,
    to: String,
    keeps_attributes: bool,
}

impl Moving {
    fn new(source: &Target, target: &Target) -> Self {
        Self {
            ufs: Arc::clone(&source.ufs),
            from: source.below.clone(),
            to: target.below.clone(),
            keeps_attributes: source.abilities.attributes,
        }
    }

    /// Copies `members`; `copied` are those of which a copy is there, also after a failure.
    async fn copy(
        &self,
        members: &Members,
        copied: &mut Members,
        may_be_there: bool,
    ) -> Result<(), UfsError> {
        self.make_dir("").await?;
        let (dirs, files) = split(members);
        // In the order of their paths: parents first.
        for (path, metadata) in dirs {
            let below = format!("{path}/");
            let next = members.range(below.clone()..).next();
            let is_empty = next.is_none_or(|(next, _)| !next.starts_with(&below));
            if is_empty || self.keeps_attributes {
                self.make_dir(&path).await?;
            }
            copied.insert(path, metadata);
        }
        let mut copies = stream::iter(files)
            .map(|(path, metadata)| async move {
                let result = self.copy_one(&path, &metadata, may_be_there).await;
                (path, metadata, result)
            })
            .buffer_unordered(PARALLEL);
        let mut failed = None;
        while let Some((path, metadata, result)) = copies.next().await {
            match result {
                Ok(()) => {
                    copied.insert(path, metadata);
                }
                // The others are waited for: their copies are to be known.
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        match failed {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    /// Copies one file or link. The new directory was empty, so whatever is at the new path is
    /// the copy, if it is as large.
    async fn copy_one(
        &self,
        path: &str,
        metadata: &Metadata,
        may_be_there: bool,
    ) -> Result<(), UfsError> {
        let (from, to) = (join(&self.from, path), join(&self.to, path));
        let mut tries = 0;
        loop {
            tries += 1;
            let Err(error) = self.ufs.copy(&from, &to, &Condition::Absent).await else {
                return Ok(());
            };
            let exists = error.refusal() == Some(Refusal::Exists);
            let unsure = super::remove::is_unsure(&error);
            if exists && (may_be_there || tries > 1) {
                let there = self.ufs.stat(&to).await?;
                return match there.kind == metadata.kind && there.size == metadata.size {
                    true => Ok(()),
                    false => Err(error),
                };
            }
            if !unsure || tries == TRIES {
                return Err(error);
            }
        }
    }

    async fn make_dir(&self, path: &str) -> Result<(), UfsError> {
        let attributes = match self.keeps_attributes {
            true => self.ufs.attributes(&join(&self.from, path)).await?,
            false => Attributes::default(),
        };
        match self
            .ufs
            .create_dir(&join(&self.to, path), &attributes)
            .await
        {
            Err(error) if error.refusal() == Some(Refusal::Exists) => Ok(()),
            Err(error) if super::remove::is_unsure(&error) => {
                self.ufs.stat(&join(&self.to, path)).await.map(drop)
            }
            result => result,
        }
    }

    /// Removes copies that were made, and the new directory if it is new; whether all are gone.
    async fn take_back(&self, copied: &Members, top_is_new: bool) -> bool {
        if self.remove_all(&self.to, copied).await.is_err() {
            return false;
        }
        if !top_is_new {
            return true;
        }
        match self.ufs.remove_dir(&self.to).await {
            Ok(()) => true,
            Err(error) => error.kind() == ErrorKind::NotFound,
        }
    }

    /// Removes the old directory, of which `copied` has been copied; what came to it meanwhile
    /// is copied first.
    async fn finish(&self, mut copied: Members) -> Result<(), ClientError> {
        for _ in 0..ROUNDS {
            let now = match members_of(&*self.ufs, &self.from, u64::MAX).await {
                Ok(now) => now.unwrap_or_default(),
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            let is_new = |path: &str, metadata: &Metadata| match copied.get(path) {
                Some(known) => {
                    known.kind != metadata.kind
                        || known.size != metadata.size
                        || known.version != metadata.version
                }
                None => true,
            };
            let fresh: Members = now
                .iter()
                .filter(|(path, metadata)| is_new(path, metadata))
                .map(|(path, metadata)| (path.clone(), metadata.clone()))
                .collect();
            if fresh.is_empty() {
                self.remove_all(&self.from, &now).await?;
                // Nothing was left in it but its marker, if it has one.
                return match self.ufs.remove_dir(&self.from).await {
                    Err(error) if error.refusal() == Some(Refusal::NotEmpty) => continue,
                    Err(error) if error.kind() != ErrorKind::NotFound => Err(error.into()),
                    Ok(()) | Err(_) => Ok(()),
                };
            }
            for (path, metadata) in &fresh {
                if metadata.is_directory() {
                    self.make_dir(path).await?;
                } else {
                    let (from, to) = (join(&self.from, path), join(&self.to, path));
                    self.ufs.copy(&from, &to, &Condition::Any).await?;
                }
            }
            copied.extend(fresh);
        }
        Err(refused("rename", &self.from, Refusal::InUse))
    }

    /// Removes `members` below `dir`, files before directories, the deepest directories first.
    async fn remove_all(&self, dir: &str, members: &Members) -> Result<(), UfsError> {
        let (dirs, files) = split(members);
        stream::iter(files)
            .map(|(path, _)| async move {
                let at = join(dir, &path);
                match self.ufs.remove(&at).await {
                    // A second removal has the same outcome.
                    Err(error) if super::remove::is_unsure(&error) => {
                        gone(self.ufs.remove(&at).await)
                    }
                    result => gone(result),
                }
            })
            .buffer_unordered(PARALLEL)
            .try_collect::<Vec<()>>()
            .await?;
        for (path, _) in dirs.into_iter().rev() {
            gone(self.ufs.remove_dir(&join(dir, &path)).await)?;
        }
        Ok(())
    }
}

fn gone(removed: Result<(), UfsError>) -> Result<(), UfsError> {
    match removed {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// Members in order.
type List = Vec<(String, Metadata)>;

/// The directories among `members`, and the rest, in the order of their paths.
fn split(members: &Members) -> (List, List) {
    let owned = members.iter().map(|(path, m)| (path.clone(), m.clone()));
    owned.partition(|(_, metadata)| metadata.is_directory())
}

/// How many times a copy is tried whose outcome is not known.
const TRIES: usize = 3;

fn join(dir: &str, name: &str) -> String {
    match (dir, name) {
        ("", name) => name.to_owned(),
        (dir, "") => dir.to_owned(),
        (dir, name) => format!("{dir}/{name}"),
    }
}
