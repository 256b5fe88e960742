//! Renames. Where the store moves in one step this is one call; in an object store a file is
//! copied and then removed, and a directory is [moved](super::tree) member by member.

use std::sync::Arc;

use millpond_proto::{Change, ErrorKind, Refusal, change};
use millpond_ufs::{Condition, FileKind, Metadata, RenameMode, UfsError};

use super::check::check_name;
use super::refused;
use super::remove::is_unsure;
use crate::core::Core;
use crate::error::ClientError;
use crate::filesystem::FileSystem;
use crate::namespace;
use crate::target::Target;

const ACTION: &str = "rename";

impl FileSystem {
    /// Gives what is at `from` the path `to`, replacing what POSIX lets it replace.
    ///
    /// In an object store others may see a file at both paths for a moment, and a directory in
    /// two parts for as long as it takes.
    ///
    /// # Errors
    /// `NotFound`; refused as `Exists`, `NotEmpty`, `IsADirectory`, `NotADirectory`,
    /// `NameTooLong`, `ReadOnly`, as `InUse` for a mount, as `OtherMount` between mounts and
    /// for directories of more than [`ClientConfig::rename_limit`](crate::ClientConfig)
    /// members; `Invalid` if a directory would come to lie below itself, and for an exchange
    /// where the store cannot; the UFS's kind.
    pub async fn rename(&self, from: &str, to: &str, mode: RenameMode) -> Result<(), ClientError> {
        let (from, to) = (namespace::normal(from)?, namespace::normal(to)?);
        let core = self.core();
        let source = core.old_target(ACTION, from).await?;
        let target = core.old_target(ACTION, to).await?;
        if source.mount != target.mount {
            return Err(refused(ACTION, to, Refusal::OtherMount));
        }
        check_name(&target)?;
        if change::is_below(to, from) {
            return Err(ClientError::BelowItself {
                path: from.to_owned(),
            });
        }
        core.parent_of(to).await?;
        if mode == RenameMode::Exchange && !source.abilities.exchange {
            return Err(ClientError::NoExchange {
                path: from.to_owned(),
            });
        }
        if from == to {
            core.look_up(from).await?;
            return match mode {
                RenameMode::NoReplace => Err(refused(ACTION, &target.path, Refusal::Exists)),
                RenameMode::Replace | RenameMode::Exchange => Ok(()),
            };
        }
        let held = core.hold_for_rename(from, to, mode).await?;
        match source.abilities.atomic_rename {
            true => core.rename_at_once(&source, &target, mode).await,
            false => core.rename_by_copy(&source, &target, mode).await,
        }?;
        core.drafts_renamed(from, to, mode, held).await;
        Ok(())
    }
}

impl Core {
    async fn rename_at_once(
        self: &Arc<Self>,
        source: &Target,
        target: &Target,
        mode: RenameMode,
    ) -> Result<(), ClientError> {
        let is_dir = self.look_up(&source.path).await?.is_dir();
        let recursive = is_dir || mode == RenameMode::Exchange;
        let ufs = &source.ufs;
        let call = async {
            let before = ufs.stat(&source.below).await?;
            let result = ufs.rename(&source.below, &target.below, mode).await;
            match result {
                Err(error) if is_unsure(&error) && mode != RenameMode::Exchange => {
                    let gone = is_gone(ufs.stat(&source.below).await);
                    let there = ufs.stat(&target.below).await;
                    match gone && there.is_ok_and(|there| there.kind == before.kind) {
                        true => Ok(()),
                        false => Err(error),
                    }
                }
                result => result,
            }
        };
        let changes = rename_changes(source, target, recursive);
        self.change("renaming", source, &changes, call).await
    }

    async fn rename_by_copy(
        self: &Arc<Self>,
        source: &Target,
        target: &Target,
        mode: RenameMode,
    ) -> Result<(), ClientError> {
        let ufs = &source.ufs;
        let there = match ufs.stat(&target.below).await {
            Ok(there) => Some(there),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(error.into()),
        };
        let before = ufs.stat(&source.below).await.map_err(|error| {
            match error.kind() == ErrorKind::NotFound {
                true => ClientError::NotFound {
                    path: source.path.clone(),
                },
                false => error.into(),
            }
        })?;
        let is_dir = before.kind == FileKind::Directory;
        if let Some(why) = there.and_then(|there| in_the_way(is_dir, &there, mode)) {
            return Err(refused(ACTION, &target.path, why));
        }
        let changes = rename_changes(source, target, is_dir);
        if is_dir {
            let result = self.move_tree(source, target).await;
            self.marked.remove(&source.path);
            self.changed(&changes, None).await;
            result?;
        } else {
            let condition = match mode {
                RenameMode::NoReplace => Condition::Absent,
                RenameMode::Replace | RenameMode::Exchange => Condition::Any,
            };
            let call = move_file(source, target, &before, &condition);
            self.change("renaming", source, &changes, call).await?;
        }
        self.keep_emptied(source).await;
        Ok(())
    }
}

/// Copies the file and removes it where it was.
async fn move_file(
    source: &Target,
    target: &Target,
    before: &Metadata,
    condition: &Condition,
) -> Result<(), UfsError> {
    let ufs = &source.ufs;
    let copied = ufs.copy(&source.below, &target.below, condition).await;
    match copied {
        // A second copy of the same version has the same outcome; not where there was to be
        // nothing, which the first may have changed.
        Err(error) if is_unsure(&error) && *condition == Condition::Any => {
            let now = ufs.stat(&source.below).await?;
            if now.version != before.version {
                return Err(error);
            }
            ufs.copy(&source.below, &target.below, condition).await?;
        }
        result => {
            result?;
        }
    }
    let Err(error) = ufs.remove(&source.below).await else {
        return Ok(());
    };
    match ufs.stat(&source.below).await {
        now if is_gone_ref(&now) => Ok(()),
        Ok(now) if now.version == before.version && is_unsure(&error) => {
            ufs.remove(&source.below).await
        }
        // Written by somebody else meanwhile: that is a new file.
        Ok(now) if now.version != before.version => Ok(()),
        Ok(_) | Err(_) => Err(error),
    }
}

/// Why what is at the new path cannot be replaced. That a directory is empty is seen later.
fn in_the_way(is_dir: bool, there: &Metadata, mode: RenameMode) -> Option<Refusal> {
    if mode == RenameMode::NoReplace {
        return Some(Refusal::Exists);
    }
    match (is_dir, there.kind == FileKind::Directory) {
        (false, true) => Some(Refusal::IsADirectory),
        (true, false) => Some(Refusal::NotADirectory),
        (false, false) | (true, true) => None,
    }
}

fn is_gone(stat: Result<Metadata, UfsError>) -> bool {
    is_gone_ref(&stat)
}

fn is_gone_ref(stat: &Result<Metadata, UfsError>) -> bool {
    matches!(stat, Err(error) if error.kind() == ErrorKind::NotFound)
}

/// What others are told of a rename.
fn rename_changes(source: &Target, target: &Target, recursive: bool) -> Vec<Change> {
    let mut changes: Vec<Change> = [source, target]
        .map(|at| Change {
            path: at.path.clone(),
            recursive,
        })
        .into();
    if source.abilities.attributes {
        for at in [source, target] {
            let parent = change::parent(&at.path).unwrap_or("/");
            if changes.iter().all(|change| change.path != parent) {
                changes.push(Change {
                    path: parent.to_owned(),
                    recursive: false,
                });
            }
        }
    }
    changes
}
