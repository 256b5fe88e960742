//! One file that is being written in this client.

use std::fmt;
use std::io;
use std::ops::Range;
use std::sync::{Arc, OnceLock, Weak};
use std::time::SystemTime;

use bytes::{Bytes, BytesMut};
use millpond_proto::{FileId, Refusal};
use millpond_ufs::{AttributeChange, Attributes, PartRules};
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;

use crate::attr::{Attr, FileKind};
use crate::core::Core;
use crate::error::ClientError;
use crate::file::FileHandle;
use crate::target::Target;

use super::content::{Content, Where};
use super::sending::Sending;
use super::staged::{IN_MEMORY, Staged, StagedFile};
use super::staging::Held;

/// A file of no more bytes is read from the store as a whole before it is changed: whatever
/// becomes of it there meanwhile, what is flushed is complete.
const COPIED_UP: u64 = 8 << 20;

/// The longest file: offsets are signed in the system's calls.
const LONGEST: u64 = i64::MAX as u64;

/// Bytes of one read of the version below.
const STEP: u32 = 1 << 20;

/// A file that is being written in this client: what was written, over the version that the
/// store has.
///
/// - All handles of a client on one path share one draft: what is written through one is read
///   through all, at once.
/// - Changes take turns, and so does making the file a version of the store: that version is
///   the file as it was between two changes.
/// - A draft without a name (it was removed, or replaced by another) goes on for those who have
///   it open, and is never sent.
pub struct Draft {
    pub(super) core: Arc<Core>,
    /// Held by who changes or commits the file.
    turn: Arc<tokio::sync::Mutex<()>>,
    state: Mutex<State>,
    /// Told whenever a part that was on its way is not any more.
    pub(super) ended: Notify,
    me: OnceLock<Weak<Self>>,
}

#[derive(Debug)]
pub(super) struct State {
    /// In the namespace, normalized; none if it has no name any more.
    pub(super) path: Option<Box<str>>,
    pub(super) content: Content,
    pub(super) staged: Staged,
    /// The version below; none if no store has one yet.
    pub(super) base: Option<Arc<FileHandle>>,
    /// What a new file is made with.
    pub(super) attributes: Attributes,
    /// What was changed of the attributes since the version below.
    pub(super) change: AttributeChange,
    /// When it was changed last.
    pub(super) modified: SystemTime,
    /// The file must be new in the store when it gets there.
    pub(super) exclusive: bool,
    /// Whether the store keeps attributes.
    keeps_attributes: bool,
    /// What was sent of a new file already.
    pub(super) sending: Option<Sending>,
    /// It is only sent when it is closed: sending it earlier did not work.
    pub(super) ahead_failed: bool,
    /// How the store has uploads cut.
    pub(super) rules: PartRules,
    /// Handles that may write.
    pub(super) writers: usize,
    /// As of when it was opened.
    shown: Attr,
}

impl Draft {
    /// A new file at the path of `target`, which no store has yet.
    pub(super) fn new_file(
        core: &Arc<Core>,
        target: &Target,
        attributes: Attributes,
        exclusive: bool,
    ) -> Self {
        let shown = Attr {
            kind: FileKind::File,
            ..Attr::mount_root(target.mount, &target.ufs.object_uri(&target.below))
        };
        let content = Content::new_file();
        let mut draft = Self::new(core, target, content, shown);
        let state = draft.state.get_mut();
        if state.keeps_attributes {
            state.attributes = attributes;
        }
        state.exclusive = exclusive;
        draft
    }

    /// The file at the path of `target`, as it is in `base`.
    pub(super) fn over(core: &Arc<Core>, target: &Target, base: FileHandle) -> Self {
        let shown = base.attr().clone();
        let content = Content::of_base(shown.size);
        let mut draft = Self::new(core, target, content, shown);
        draft.state.get_mut().base = Some(Arc::new(base));
        draft
    }

    fn new(core: &Arc<Core>, target: &Target, content: Content, shown: Attr) -> Self {
        Self {
            core: Arc::clone(core),
            turn: Arc::default(),
            ended: Notify::new(),
            me: OnceLock::new(),
            state: Mutex::new(State {
                path: Some(target.path.as_str().into()),
                content,
                staged: Staged::new(),
                base: None,
                attributes: Attributes::default(),
                change: AttributeChange::default(),
                modified: SystemTime::now(),
                exclusive: false,
                keeps_attributes: target.abilities.attributes,
                sending: None,
                ahead_failed: false,
                rules: target.abilities.parts,
                writers: 0,
                shown,
            }),
        }
    }

    /// Shares it. Once.
    pub(super) fn shared(self) -> Arc<Self> {
        let draft = Arc::new(self);
        let _ = draft.me.set(Arc::downgrade(&draft));
        draft
    }

    /// Itself, to be kept.
    pub(super) fn me(&self) -> Option<Arc<Self>> {
        self.me.get()?.upgrade()
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Waits for the turn to change or commit the file, and has it until the guard is dropped.
    pub(crate) async fn turn(&self) -> tokio::sync::OwnedMutexGuard<()> {
        Arc::clone(&self.turn).lock_owned().await
    }

    /// Whether it has something that the store has not.
    pub fn is_changed(&self) -> bool {
        let state = self.state.lock();
        state.content.is_changed() || !state.change.is_empty()
    }

    /// The version of the store that it is, while it is one.
    pub fn version(&self) -> Option<FileId> {
        let state = self.state.lock();
        match state.content.is_changed() {
            true => None,
            false => state.base.as_ref().map(|base| base.file_id()),
        }
    }

    /// The version of the store that it is, or is written over; none if there is none yet.
    pub fn below(&self) -> Option<FileId> {
        let state = self.state.lock();
        state.base.as_ref().map(|base| base.file_id())
    }

    /// Its length in bytes now.
    pub fn size(&self) -> u64 {
        self.state.lock().content.size()
    }

    /// The path that it has in the namespace; none if it was removed or replaced.
    pub fn path(&self) -> Option<String> {
        self.state.lock().path.as_deref().map(str::to_owned)
    }

    /// Its attributes as they are now. They tell a version only while it is one of the store.
    pub fn attr(&self) -> Attr {
        let state = self.state.lock();
        let mut attr = state.shown.clone();
        attr.size = state.content.size();
        let (made, change) = (&state.attributes, &state.change);
        attr.mode = change.mode.or(made.mode).or(attr.mode);
        attr.uid = change.uid.or(made.uid).or(attr.uid);
        attr.gid = change.gid.or(made.gid).or(attr.gid);
        if state.path.is_none() {
            attr.nlink = Some(0);
        }
        if state.content.is_changed() {
            attr.version = None;
            attr.file_id = None;
            attr.mtime = Some(state.modified);
            attr.ctime = Some(state.modified);
        }
        attr.mtime = change.mtime.or(attr.mtime);
        attr.atime = change.atime.or(attr.atime);
        attr
    }

    /// Takes over a change of attributes, if there is something that is to be sent: the two go
    /// in one step. Otherwise the change is the caller's to make in the store, and this says
    /// false.
    pub fn attributes_changed(&self, change: &AttributeChange) -> bool {
        let mut state = self.state.lock();
        if !state.content.is_changed() {
            return false;
        }
        if state.keeps_attributes {
            let merged = &mut state.change;
            merged.mode = change.mode.or(merged.mode);
            merged.uid = change.uid.or(merged.uid);
            merged.gid = change.gid.or(merged.gid);
            merged.mtime = change.mtime.or(merged.mtime);
            merged.atime = change.atime.or(merged.atime);
            merged.xattrs.extend(change.xattrs.clone());
        }
        true
    }

    /// The store has the same bytes in another version now, `attr`: its attributes were changed,
    /// or its path.
    pub(crate) fn same_bytes(&self, base: FileHandle) {
        let mut state = self.state.lock();
        if state.base.is_some() && base.attr().size == state.shown.size {
            state.shown = base.attr().clone();
            state.base = Some(Arc::new(base));
        }
    }

    /// What is below is now `base`, which has this very content.
    pub(super) fn committed(&self, base: FileHandle) {
        let mut state = self.state.lock();
        state.shown = base.attr().clone();
        state.base = Some(Arc::new(base));
        state.content.committed();
        state.attributes = Attributes::default();
        state.change = AttributeChange::default();
        state.exclusive = false;
        state.sending = None;
        state.ahead_failed = false;
    }

    /// Gives it another path, or none.
    pub(super) fn rename(&self, path: Option<String>) {
        let mut state = self.state.lock();
        state.path = path.map(String::into_boxed_str);
        if state.path.is_none() && !state.content.has_given_up() {
            state.abandon();
        }
    }

    /// Up to `len` bytes at `offset` if they are at hand; short at the end of the file. Never
    /// waits.
    pub fn try_read(&self, offset: u64, len: u32) -> Option<Bytes> {
        let state = self.state.lock();
        let plan = state.content.plan(range(offset, u64::from(len)));
        match plan.as_slice() {
            [] => Some(Bytes::new()),
            [one] => match one.from {
                Where::Staged => state.staged.in_memory(&one.range),
                Where::Base => {
                    let base = Arc::clone(state.base.as_ref()?);
                    let (from, len) = (one.range.start, one.range.end - one.range.start);
                    drop(state);
                    base.try_read(from, u32::try_from(len).ok()?)
                }
                Where::Zeros => {
                    let len = one.range.end - one.range.start;
                    Some(Bytes::from(vec![0; usize_of(len)]))
                }
                Where::GivenUp => None,
            },
            _ => None,
        }
    }

    /// Up to `len` bytes at `offset`; short only at the end of the file.
    ///
    /// # Errors
    /// `Stale` if the store's file was replaced and bytes that were not written here are not to
    /// be had any more; the kinds of the store and of the staging directory.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn read(&self, offset: u64, len: u32) -> Result<Bytes, ClientError> {
        self.read_range(range(offset, u64::from(len))).await
    }

    /// The bytes `range`, cut at the end of the file.
    pub(super) async fn read_range(&self, range: Range<u64>) -> Result<Bytes, ClientError> {
        let plan = self.state.lock().content.plan(range);
        if let [one] = plan.as_slice() {
            return self.read_stretch(one.range.clone(), one.from).await;
        }
        let len: u64 = plan.iter().map(|it| it.range.end - it.range.start).sum();
        let mut whole = BytesMut::with_capacity(usize_of(len));
        for stretch in plan {
            let part = self.read_stretch(stretch.range, stretch.from).await?;
            whole.extend_from_slice(&part);
        }
        Ok(whole.freeze())
    }

    async fn read_stretch(&self, range: Range<u64>, from: Where) -> Result<Bytes, ClientError> {
        let len = range.end - range.start;
        match from {
            Where::Zeros => Ok(Bytes::from(vec![0; usize_of(len)])),
            Where::Base => self.read_base(range).await,
            Where::GivenUp => Err(ClientError::Sent {
                path: self.path().unwrap_or_default(),
            }),
            Where::Staged => {
                let file = {
                    let state = self.state.lock();
                    match &state.staged {
                        Staged::Memory { .. } => {
                            let data = state.staged.in_memory(&range).unwrap_or_default();
                            return Ok(padded(data, len));
                        }
                        Staged::File(file) => Arc::clone(file),
                    }
                };
                let wanted = range.clone();
                let data = self.blocking("read", move || file.read(wanted)).await?;
                if self.state.lock().content.is_staged(&range) {
                    return Ok(data.into());
                }
                // It was given up or cut off meanwhile: what was read may be zeros.
                Box::pin(self.read_again(range)).await
            }
        }
    }

    /// Exactly the bytes `range`; zeros where the file ended meanwhile.
    async fn read_again(&self, range: Range<u64>) -> Result<Bytes, ClientError> {
        let len = range.end - range.start;
        Ok(padded(self.read_range(range).await?, len))
    }

    /// The bytes `range` of the version below.
    async fn read_base(&self, range: Range<u64>) -> Result<Bytes, ClientError> {
        let Some(base) = self.state.lock().base.as_ref().map(Arc::clone) else {
            return Err(self.stale());
        };
        let len = range.end - range.start;
        if len <= u64::from(STEP) {
            return exact(base.read(range.start, len as u32).await?, len, || {
                self.stale()
            });
        }
        let mut whole = BytesMut::with_capacity(usize_of(len));
        let mut at = range.start;
        while at < range.end {
            let step = (range.end - at).min(u64::from(STEP));
            let part = exact(base.read(at, step as u32).await?, step, || self.stale())?;
            whole.extend_from_slice(&part);
            at += step;
        }
        Ok(whole.freeze())
    }

    fn stale(&self) -> ClientError {
        ClientError::Stale {
            path: self.path().unwrap_or_default(),
        }
    }

    /// Writes `data` at `offset`, if that needs nothing but memory. Never waits.
    pub fn try_write(&self, offset: u64, data: &[u8]) -> Option<()> {
        let _turn = self.turn.try_lock().ok()?;
        let range = range(offset, data.len() as u64);
        let is_in_file = matches!(self.state.lock().staged, Staged::File(_));
        if range.end > IN_MEMORY || is_in_file || self.copies_up(&range, u64::MAX) {
            return None;
        }
        self.write_in_memory(&range, data).then_some(())
    }

    /// Writes `data` at `offset`.
    ///
    /// # Errors
    /// Refused: `TooLarge`; `NoSpace` if the staging directory is full. `Stale` if the rest of
    /// the file would have to be read from the store first, and was replaced there; the kinds
    /// of reading from the store and of the staging directory. Nothing is written then.
    pub async fn write(&self, offset: u64, data: Bytes) -> Result<(), ClientError> {
        let _turn = self.turn().await;
        self.write_in_turn(offset, data).await
    }

    /// Writes `data` at the end of the file, and says where that was.
    ///
    /// # Errors
    /// Those of [`write`](Self::write).
    pub async fn append(&self, data: Bytes) -> Result<u64, ClientError> {
        let _turn = self.turn().await;
        let offset = self.state.lock().content.size();
        self.write_in_turn(offset, data).await?;
        Ok(offset)
    }

    async fn write_in_turn(&self, offset: u64, data: Bytes) -> Result<(), ClientError> {
        let end = offset.checked_add(data.len() as u64);
        let range = offset..self.checked_end("write", end)?;
        if range.is_empty() {
            return Ok(());
        }
        self.copy_up(&range, u64::MAX).await?;
        if self.write_in_memory(&range, &data) {
            return Ok(());
        }
        self.unsend(&range).await?;
        let file = self.staged_file().await?;
        self.put_in_file(&file, &range, data).await?;
        {
            let mut state = self.state.lock();
            state.content.write(range);
            state.touch();
        }
        self.send_ahead().await;
        Ok(())
    }

    fn checked_end(&self, action: &'static str, end: Option<u64>) -> Result<u64, ClientError> {
        let longest = self.state.lock().rules.object.min(LONGEST);
        end.filter(|end| *end <= longest)
            .ok_or_else(|| self.refused(action, Refusal::TooLarge))
    }

    /// Writes to memory, if that is where the draft is and there is room.
    fn write_in_memory(&self, range: &Range<u64>, data: &[u8]) -> bool {
        let mut state = self.state.lock();
        if !state.stage_in_memory(&self.core, range, data) {
            return false;
        }
        state.content.write(range.clone());
        state.touch();
        true
    }

    async fn put_in_file(
        &self,
        file: &Arc<StagedFile>,
        range: &Range<u64>,
        data: Bytes,
    ) -> Result<(), ClientError> {
        loop {
            let after = self.state.lock().content.staged_len_with(range);
            if file.held.set(after) {
                break;
            }
            if !self.make_room().await? {
                tracing::warn!(
                    path = self.path(),
                    limit = self.core.staging.limit(),
                    "no room for what is written: all that is staged is at --staging-size"
                );
                return Err(self.refused("write", Refusal::NoSpace));
            }
        }
        let (offset, in_file) = (range.start, Arc::clone(file));
        let written = self
            .blocking("write", move || in_file.write(offset, &data))
            .await;
        if written.is_err() {
            file.held.set(self.state.lock().content.staged_len());
        }
        written
    }

    /// Cuts the file, or makes it longer with zeros.
    ///
    /// # Errors
    /// Those of [`write`](Self::write).
    pub async fn truncate(&self, size: u64) -> Result<(), ClientError> {
        let _turn = self.turn().await;
        self.truncate_in_turn(size).await
    }

    async fn truncate_in_turn(&self, size: u64) -> Result<(), ClientError> {
        self.checked_end("truncate", Some(size))?;
        self.unsend_from(size).await?;
        self.copy_up(&(size..size), size).await?;
        let (old, file) = {
            let mut state = self.state.lock();
            let old = state.content.size();
            if old == size {
                return Ok(());
            }
            state.content.truncate(size);
            state.touch();
            (old, state.cut(size))
        };
        match file {
            Some(file) if size < old => self.clear(file, size..old).await,
            _ => Ok(()),
        }
    }

    /// Makes the file at least `end` bytes long, with zeros.
    ///
    /// # Errors
    /// Those of [`write`](Self::write).
    pub async fn extend(&self, end: u64) -> Result<(), ClientError> {
        let _turn = self.turn().await;
        let size = self.state.lock().content.size();
        self.truncate_in_turn(size.max(end)).await
    }

    /// Makes `range` zeros, as far as it lies in the file.
    ///
    /// # Errors
    /// Those of [`write`](Self::write).
    pub async fn punch(&self, range: Range<u64>) -> Result<(), ClientError> {
        let _turn = self.turn().await;
        let range = {
            let state = self.state.lock();
            range.start..range.end.min(state.content.size())
        };
        if range.is_empty() {
            return Ok(());
        }
        self.copy_up(&range, u64::MAX).await?;
        if self.punch_in_memory(&range) {
            return Ok(());
        }
        self.unsend(&range).await?;
        let file = self.staged_file().await?;
        // What the file has where nothing is staged is not looked at: it may as well go.
        self.clear(Arc::clone(&file), range.clone()).await?;
        let mut state = self.state.lock();
        state.content.punch(range);
        state.touch();
        file.held.set(state.content.staged_len());
        Ok(())
    }

    fn punch_in_memory(&self, range: &Range<u64>) -> bool {
        let mut state = self.state.lock();
        let end = range.end.min(state.content.base());
        // What shows through has to be covered with zeros.
        let covered = range.start..end;
        if !covered.is_empty() {
            let zeros = vec![0; usize_of((end - range.start).min(IN_MEMORY))];
            if !state.stage_in_memory(&self.core, &covered, &zeros) {
                return false;
            }
        }
        let Staged::Memory { bytes, .. } = &mut state.staged else {
            return false;
        };
        let end = usize_of(range.end).min(bytes.len());
        bytes[usize_of(range.start).min(end)..end].fill(0);
        state.content.punch(range.clone());
        state.touch();
        true
    }

    pub(super) async fn clear(
        &self,
        file: Arc<StagedFile>,
        range: Range<u64>,
    ) -> Result<(), ClientError> {
        self.blocking("clear", move || file.clear(range)).await
    }

    /// The next data at or after `offset`, if there is any.
    pub fn seek_data(&self, offset: u64) -> Option<u64> {
        self.state.lock().content.data_at_or_after(offset)
    }

    /// The next hole at or after `offset`; none beyond the end of the file.
    pub fn seek_hole(&self, offset: u64) -> Option<u64> {
        let state = self.state.lock();
        let within = offset < state.content.size();
        within.then(|| state.content.hole_at_or_after(offset))
    }

    /// Whether the rest of the file is to be staged before `range` is written and all from
    /// `size` on is cut off.
    fn copies_up(&self, range: &Range<u64>, size: u64) -> bool {
        let state = self.state.lock();
        let kept = state.content.base().min(size);
        let covers = range.start == 0 && range.end >= kept;
        let little = state
            .base
            .as_ref()
            .is_some_and(|base| base.attr().size <= COPIED_UP);
        little && kept > 0 && !covers && state.content.needs_base()
    }

    async fn copy_up(&self, range: &Range<u64>, size: u64) -> Result<(), ClientError> {
        if !self.copies_up(range, size) {
            return Ok(());
        }
        let plan = {
            let state = self.state.lock();
            state.content.plan(0..state.content.base().min(size))
        };
        for stretch in plan
            .into_iter()
            .filter(|stretch| stretch.from == Where::Base)
        {
            let data = self.read_base(stretch.range.clone()).await?;
            let in_memory = {
                let mut state = self.state.lock();
                let staged = state.stage_in_memory(&self.core, &stretch.range, &data);
                if staged {
                    state.content.copied_up(stretch.range.clone());
                }
                staged
            };
            if !in_memory {
                let file = self.staged_file().await?;
                self.put_in_file(&file, &stretch.range, data).await?;
                self.state.lock().content.copied_up(stretch.range);
            }
        }
        Ok(())
    }

    /// The staging file; what was in memory is in it from now on.
    async fn staged_file(&self) -> Result<Arc<StagedFile>, ClientError> {
        let bytes = match &self.state.lock().staged {
            Staged::File(file) => return Ok(Arc::clone(file)),
            Staged::Memory { bytes, .. } => bytes.clone(),
        };
        let (staging, held) = (
            Arc::clone(&self.core.staging),
            self.state.lock().content.staged_len(),
        );
        let making = self.blocking("make a file in", move || {
            let file = StagedFile::create(&staging)?;
            if !file.held.set(held) {
                return Err(io::ErrorKind::StorageFull.into());
            }
            file.write(0, &bytes)?;
            Ok(file)
        });
        let file = Arc::new(making.await?);
        // Whoever has the turn is the only one who changes what is staged.
        self.state.lock().staged = Staged::File(Arc::clone(&file));
        Ok(file)
    }

    pub(super) async fn blocking<T: Send + 'static>(
        &self,
        action: &'static str,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> Result<T, ClientError> {
        let Ok(done) = tokio::task::spawn_blocking(work).await else {
            // The runtime ends.
            return Err(ClientError::ShutDown);
        };
        done.map_err(|error| match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                tracing::warn!(path = self.path(), %error, "the staging directory is full");
                self.refused(action, Refusal::NoSpace)
            }
            _ => ClientError::State {
                action,
                path: format!("the staging file of {}", self.path().unwrap_or_default()),
                source: Arc::new(error),
            },
        })
    }

    pub(super) fn refused(&self, action: &'static str, refusal: Refusal) -> ClientError {
        ClientError::Refused {
            action,
            path: self.path().unwrap_or_default(),
            refusal,
        }
    }

    /// Forgets what is staged if the store has all of it.
    pub(super) fn let_go(&self) {
        let mut state = self.state.lock();
        if !state.content.is_changed() {
            state.content.drop_clean();
            state.staged = Staged::new();
        }
    }
}

impl State {
    /// Puts `data` at `range` in memory, if the draft is there and there is room.
    fn stage_in_memory(&mut self, core: &Core, range: &Range<u64>, data: &[u8]) -> bool {
        let Staged::Memory { bytes, held } = &mut self.staged else {
            return false;
        };
        if range.end > IN_MEMORY {
            return false;
        }
        let end = usize_of(range.end);
        if end > bytes.len() {
            let held = held.get_or_insert_with(|| Held::in_memory(&core.staging));
            if !held.set(range.end) {
                return false;
            }
            bytes.resize(end, 0);
        }
        bytes[usize_of(range.start)..end].copy_from_slice(data);
        true
    }

    /// Cuts what is staged to `size`; in a file only the account of it, which the caller has to
    /// clear.
    fn cut(&mut self, size: u64) -> Option<Arc<StagedFile>> {
        match &mut self.staged {
            Staged::Memory { bytes, held } => {
                bytes.truncate(usize_of(size.min(bytes.len() as u64)));
                if let Some(held) = held {
                    held.set(bytes.len() as u64);
                }
                None
            }
            Staged::File(file) => {
                file.held.set(self.content.staged_len());
                Some(Arc::clone(file))
            }
        }
    }

    /// Whether parts may be sent while the file is written.
    pub(super) fn may_send_ahead(&self) -> bool {
        self.path.is_some() && self.content.base() == 0 && !self.ahead_failed
    }

    /// Forgets what was sent of a file that is not whole: it is sent anew.
    pub(super) fn abandon(&mut self) {
        self.sending = None;
    }

    fn touch(&mut self) {
        self.modified = SystemTime::now();
        // A time that was set holds until the file is written again.
        self.change.mtime = None;
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if let Some(path) = self.path() {
            self.core.drafts.forget(&path, self);
        }
    }
}

impl fmt::Debug for Draft {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state.lock();
        f.debug_struct("Draft")
            .field("path", &state.path)
            .field("size", &state.content.size())
            .field("changed", &state.content.is_changed())
            .finish_non_exhaustive()
    }
}

fn range(offset: u64, len: u64) -> Range<u64> {
    offset..offset.saturating_add(len)
}

/// What is held in memory is below what memory can hold.
fn usize_of(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

fn padded(data: Bytes, len: u64) -> Bytes {
    if data.len() as u64 == len {
        return data;
    }
    let mut whole = BytesMut::from(&data[..]);
    whole.resize(usize_of(len), 0);
    whole.freeze()
}

fn exact(data: Bytes, len: u64, stale: impl Fn() -> ClientError) -> Result<Bytes, ClientError> {
    if data.len() as u64 == len {
        Ok(data)
    } else {
        Err(stale())
    }
}
