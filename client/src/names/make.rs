//! Directories and links.

use std::sync::Arc;

use millpond_proto::{Change, Refusal};
use millpond_ufs::{Attributes, Condition, RenameMode};

use super::check::{check_name, inherit};
use super::{entry_changes, refused};
use crate::attr::Attr;
use crate::core::Core;
use crate::error::ClientError;
use crate::filesystem::FileSystem;
use crate::namespace;
use crate::target::Target;

impl FileSystem {
    /// Makes the directory `path`.
    ///
    /// # Errors
    /// Refused as `Exists`, `NotADirectory`, `NameTooLong`, `ReadOnly`, `NoSpace` or `Quota`;
    /// `NotFound` if its parent does not exist; `Invalid` for a name that the store cannot
    /// hold; the UFS's kind.
    pub async fn mkdir(&self, path: &str, attributes: &Attributes) -> Result<Attr, ClientError> {
        let path = namespace::normal(path)?;
        let core = self.core();
        let (target, parent) = core.new_target("make the directory", path).await?;
        core.check_no_draft("make the directory", path)?;
        let attributes = inherit(&parent, attributes, true);
        let call = target.ufs.create_dir(&target.below, &attributes);
        let changes = entry_changes(&target);
        core.change("making the directory", &target, &changes, call)
            .await?;
        core.marked.insert(path);
        core.made(&target).await
    }

    /// Makes an empty file at `path`, where there must be nothing.
    ///
    /// # Errors
    /// As [`mkdir`](Self::mkdir).
    pub async fn make_file(
        &self,
        path: &str,
        attributes: &Attributes,
    ) -> Result<Attr, ClientError> {
        let path = namespace::normal(path)?;
        let core = self.core();
        let (target, parent) = core.new_target("make", path).await?;
        core.check_no_draft("make", path)?;
        let attributes = inherit(&parent, attributes, false);
        let none = bytes::Bytes::new();
        let call = target
            .ufs
            .put(&target.below, none, &attributes, &Condition::Absent);
        let metadata = core
            .change("making", &target, &entry_changes(&target), call)
            .await?;
        let attr = Attr::of(metadata, target.mount, &*target.ufs, &target.below);
        core.believe(path, Arc::new(attr.clone()));
        Ok(attr)
    }

    /// Makes a symbolic link at `path` that points to `link`, whatever that is.
    ///
    /// # Errors
    /// As [`mkdir`](Self::mkdir); refused as `NotPermitted` where the store has no links.
    pub async fn symlink(
        &self,
        path: &str,
        link: &str,
        attributes: &Attributes,
    ) -> Result<Attr, ClientError> {
        let path = namespace::normal(path)?;
        let core = self.core();
        let (target, parent) = core.new_target("make the link", path).await?;
        if !target.abilities.symlinks {
            return Err(refused("make the link", path, Refusal::NotPermitted));
        }
        core.check_no_draft("make the link", path)?;
        let attributes = inherit(&parent, attributes, false);
        let call = target.ufs.symlink(&target.below, link, &attributes);
        core.change("making the link", &target, &entry_changes(&target), call)
            .await?;
        core.made(&target).await
    }

    /// Makes `to` another name of the file `from`; the attributes that both have then.
    ///
    /// # Errors
    /// As [`mkdir`](Self::mkdir); refused as `OtherMount` between mounts, as `NotPermitted`
    /// for directories and where the store has no hard links.
    pub async fn hard_link(&self, from: &str, to: &str) -> Result<Attr, ClientError> {
        let (from, to) = (namespace::normal(from)?, namespace::normal(to)?);
        let core = self.core();
        let source = core.target("link", from).await?;
        let (target, _) = core.new_target("link", to).await?;
        if source.mount != target.mount {
            return Err(refused("link", to, Refusal::OtherMount));
        }
        if source.is_fixed || !source.abilities.hard_links {
            return Err(refused("link", from, Refusal::NotPermitted));
        }
        check_name(&target)?;
        core.check_no_draft("link", to)?;
        let held = core.hold_drafts(from).await?;
        let mut changes = entry_changes(&target);
        changes.push(Change {
            path: from.to_owned(),
            recursive: false,
        });
        let call = target.ufs.hard_link(&source.below, &target.below);
        core.change("linking", &target, &changes, call).await?;
        held.moved(core).await;
        core.made(&target).await
    }
}

impl FileSystem {
    /// Makes `to`, which was another name of the file `from` before that was written, one again:
    /// a file that is written is another one in its store, of one name.
    ///
    /// # Errors
    /// Those of [`hard_link`](Self::hard_link) and [`rename`](Self::rename); `to` is then
    /// another file than `from`.
    pub async fn link_again(&self, from: &str, to: &str) -> Result<(), ClientError> {
        let dir = to.rsplit_once('/').map_or("", |(dir, _)| dir);
        let between = format!("{dir}/.millpond-link-{:016x}", rand::random::<u64>());
        self.hard_link(from, &between).await?;
        let core = self.core();
        let held = core.hold_drafts(namespace::normal(from)?).await?;
        let renamed = self.rename(&between, to, RenameMode::Replace).await;
        if renamed.is_err() {
            // Nobody knows of it.
            let _ = self.unlink(&between).await;
        }
        // Both have changed the inode, which is that of the file.
        self.forget(&[from.to_owned()]);
        held.moved(core).await;
        renamed
    }
}

impl Core {
    /// What the store says of what was just made.
    pub(super) async fn made(self: &Arc<Self>, target: &Target) -> Result<Attr, ClientError> {
        Ok((*self.look_up(&target.path).await?).clone())
    }
}
