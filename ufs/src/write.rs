//! What writing to a store needs beside [`Ufs`](crate::Ufs): conditions, attributes, uploads in
//! parts, and what a store is able to do.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::ops::Range;
use std::time::SystemTime;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use millpond_proto::FileVersion;

use crate::error::UfsError;
use crate::metadata::Metadata;

/// What a store is able to do, as it was opened: a mount that is read-only is able to nothing.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Abilities {
    /// Whether anything can be written at all. Without it all else is false.
    pub write: bool,
    /// Whether modes, owners, times and extended attributes are kept where they are set.
    pub attributes: bool,
    /// Whether there are symbolic links.
    pub symlinks: bool,
    /// Whether there are hard links.
    pub hard_links: bool,
    /// Whether [`Ufs::rename`](crate::Ufs::rename) moves files and directories in one step.
    /// Without it a file is copied and then removed, and directories are the caller's work.
    pub atomic_rename: bool,
    /// Whether two paths can be exchanged in one step.
    pub exchange: bool,
    /// Whether [`Condition::Absent`] is checked by the store itself, in the same step as the
    /// write. Without it the store is asked first, and two writers at once may both succeed.
    pub if_absent: bool,
    /// The same for [`Condition::Version`].
    pub if_version: bool,
    /// Whether [`Upload::copy_part`] works.
    pub copy_parts: bool,
    /// How uploads are cut.
    pub parts: PartRules,
}

/// How uploads are cut into parts. All parts but the last are within the bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartRules {
    /// The least bytes of a part that is not the last.
    pub min: u64,
    /// The most bytes of any part, and of one [`Ufs::put`](crate::Ufs::put).
    pub max: u64,
    /// The most parts.
    pub count: u32,
    /// The most bytes of a whole object.
    pub object: u64,
}

impl Default for PartRules {
    /// Those of S3: 5 MiB to 5 GiB, 10,000 parts, 5 TiB
    /// (<https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html>).
    fn default() -> Self {
        Self {
            min: 5 << 20,
            max: 5 << 30,
            count: 10_000,
            object: 5 << 40,
        }
    }
}

/// The room of a store that has so much and no more.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// Bytes that it can hold.
    pub bytes: u64,
    /// Bytes that can still be written.
    pub free: u64,
    /// Files that it can hold.
    pub files: u64,
    /// Files that can still be made.
    pub files_free: u64,
}

/// What must hold at a path for a write to take place.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub enum Condition {
    /// Nothing: the last writer wins.
    #[default]
    Any,
    /// There is nothing at the path; otherwise the write is refused with
    /// [`Refusal::Exists`](millpond_proto::Refusal::Exists).
    Absent,
    /// The file is still in this version; otherwise the write fails with `Stale`.
    Version(FileVersion),
}

/// The POSIX attributes that a new file, directory or link is made with; what is `None` is left
/// to the store. A store without [`Abilities::attributes`] takes no notice of any.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Attributes {
    /// Permission bits (the low 12).
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Last modification.
    pub mtime: Option<SystemTime>,
    /// Last access.
    pub atime: Option<SystemTime>,
    /// Extended attributes by their full names (`user.comment`).
    pub xattrs: BTreeMap<String, Bytes>,
}

/// A change of attributes; what is `None` stays as it is.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct AttributeChange {
    /// Permission bits (the low 12).
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Last modification.
    pub mtime: Option<SystemTime>,
    /// Last access.
    pub atime: Option<SystemTime>,
    /// Extended attributes to set, or to remove where the value is `None`.
    pub xattrs: BTreeMap<String, Option<Bytes>>,
}

impl AttributeChange {
    /// Whether nothing is to change.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl Attributes {
    /// These after `change`.
    pub fn apply(&mut self, change: &AttributeChange) {
        self.mode = change.mode.or(self.mode);
        self.uid = change.uid.or(self.uid);
        self.gid = change.gid.or(self.gid);
        self.mtime = change.mtime.or(self.mtime);
        self.atime = change.atime.or(self.atime);
        for (name, value) in &change.xattrs {
            match value {
                Some(value) => {
                    self.xattrs.insert(name.clone(), value.clone());
                }
                None => {
                    self.xattrs.remove(name);
                }
            }
        }
    }
}

/// What a rename does where there is something at the new path.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub enum RenameMode {
    /// It is replaced, as POSIX has it: a file by a file, an empty directory by a directory.
    #[default]
    Replace,
    /// The rename is refused with [`Refusal::Exists`](millpond_proto::Refusal::Exists).
    NoReplace,
    /// The two change places.
    Exchange,
}

/// One object that is being uploaded in parts. Nothing of it is visible before
/// [`complete`](Self::complete) succeeds. One that is dropped without either end stays in the
/// store unseen, until [`Ufs::abort_upload`](crate::Ufs::abort_upload) removes it.
#[async_trait]
pub trait Upload: Debug + Send + Sync + 'static {
    /// The name by which the store knows the upload.
    fn id(&self) -> &str;

    /// Sends the part `number` (from 0), which begins at `offset` of the object. Several may be
    /// under way at once; a part that is sent again replaces the one before.
    ///
    /// # Errors
    /// The kinds of [`Ufs::put`](crate::Ufs::put).
    async fn part(&self, number: u32, offset: u64, data: Bytes) -> Result<(), UfsError>;

    /// As [`part`](Self::part), with the bytes `range` of the file at `path` in `version`,
    /// which do not pass through this process.
    ///
    /// # Errors
    /// `Unsupported` without [`Abilities::copy_parts`]; `Stale` if the file is in another
    /// version; the kinds of [`Ufs::put`](crate::Ufs::put).
    async fn copy_part(
        &self,
        number: u32,
        offset: u64,
        path: &str,
        version: &FileVersion,
        range: Range<u64>,
    ) -> Result<(), UfsError>;

    /// Makes the object of `size` bytes visible: all parts were sent, numbered without a gap
    /// and in the order of their offsets. Answers what [`Ufs::stat`](crate::Ufs::stat) would.
    ///
    /// # Errors
    /// Those of [`Ufs::put`](crate::Ufs::put).
    async fn complete(&self, size: u64, condition: &Condition) -> Result<Metadata, UfsError>;

    /// Removes what was sent.
    ///
    /// # Errors
    /// The kinds of [`Ufs::put`](crate::Ufs::put).
    async fn abort(&self) -> Result<(), UfsError>;
}

/// An upload that was begun and neither completed nor aborted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unfinished {
    /// The path that it was meant for.
    pub path: String,
    /// The name by which the store knows it.
    pub id: String,
    /// When it was begun, where the store says.
    pub started: Option<SystemTime>,
}

/// Unfinished uploads, page by page. Ends after the first error.
pub type UnfinishedStream = BoxStream<'static, Result<Vec<Unfinished>, UfsError>>;
