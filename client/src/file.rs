//! One open file.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::{Bytes, BytesMut};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use millpond_proto::FileId;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::attr::Attr;
use crate::core::Core;
use crate::disk::{Backing, Reader};
use crate::error::ClientError;
use crate::fetch::{How, OpenFile, Part};
use crate::memory::{Holder, Parts};
use crate::pieces::{PieceSpan, TRANSFER};
use crate::readahead::{Bounds, Streams};
use crate::sources::{Origin, SourceBytes};

/// Pieces that one read fetches at a time.
const AT_ONCE: usize = 8;

/// The longest read that is answered without waiting: more is too much copying for a thread
/// that serves others too.
const LONGEST_TRY: u32 = 2 * TRANSFER as u32;

/// Streams that one handle may have over its life.
const SERIALS: u64 = 1 << 24;

/// One version of one file, open for reading. Reads may run concurrently.
///
/// - All reads return bytes of the version that was opened, or fail; never a mix.
pub struct FileHandle {
    core: Arc<Core>,
    file: Arc<OpenFile>,
    attr: Arc<Attr>,
    streams: Mutex<Streams>,
    /// Keeps this version in the local disk tier although a later one is known.
    _reader: Option<Reader>,
}

impl FileHandle {
    pub(crate) fn new(core: Arc<Core>, file: OpenFile, attr: Arc<Attr>) -> Self {
        let file = Arc::new(file);
        let reader = core.disk.as_ref().map(|disk| disk.join(&core, &file));
        let serial = core.handles.fetch_add(SERIALS, Ordering::Relaxed);
        Self {
            core,
            file,
            attr,
            streams: Mutex::new(Streams::new(serial)),
            _reader: reader,
        }
    }

    /// The attributes as of `open`.
    pub fn attr(&self) -> &Attr {
        &self.attr
    }

    /// The identity of the content that this handle reads.
    pub fn file_id(&self) -> FileId {
        self.file.id
    }

    /// Where in its store the version is.
    pub(crate) fn source(&self) -> &OpenFile {
        &self.file
    }

    /// This version as a file on the local disk that the kernel can read itself, if the disk
    /// tier holds all of it, verified. Never waits.
    pub fn backing(&self) -> Option<Backing> {
        self.core.disk.as_ref()?.backing(self.file.id)
    }

    /// Up to `len` bytes at `offset` if all of them are in local memory, or in the kernel's
    /// for the local disk; cut at the end of the file, where it returns no bytes. Never
    /// waits; may be called on any thread.
    ///
    /// Bytes of one piece (an aligned MiB) are shared, not copied.
    pub fn try_read(&self, offset: u64, len: u32) -> Option<Bytes> {
        if len == 0 || offset >= self.file.size {
            return Some(Bytes::new());
        }
        if len > LONGEST_TRY {
            return None;
        }
        let mut counted = SourceBytes::default();
        let data = match self.try_memory(offset, len, &mut counted) {
            Some(data) => data,
            None => {
                let disk = self.core.disk.as_ref()?;
                let data = disk.try_read(self.file.id, &self.range(offset, len))?;
                counted.add(Origin::Disk, data.len() as u64);
                data
            }
        };
        self.core.metrics.count_read(counted);
        self.core.note_read(&self.file, offset);
        self.note(offset, len);
        Some(data)
    }

    fn try_memory(&self, offset: u64, len: u32, counted: &mut SourceBytes) -> Option<Bytes> {
        let mut spans = self.plan(offset, len);
        let first = self.here(spans.next()?)?;
        Some(match spans.next() {
            None => first.hand_out(counted),
            Some(second) => {
                let mut parts = vec![first];
                for span in std::iter::once(second).chain(spans) {
                    parts.push(self.here(span)?);
                }
                let mut whole = BytesMut::with_capacity(len as usize);
                for part in parts {
                    part.copy_out(&mut whole, counted);
                }
                whole.freeze()
            }
        })
    }

    /// Up to `len` bytes at `offset`, contiguous; short only at the end of the file.
    ///
    /// # Errors
    /// `Stale` if the object changed and the bytes are no longer to be had in the version
    /// that was opened; the UFS's kind if no source has them; `Timeout`; `Unavailable` after
    /// shutdown.
    ///
    /// # Cancel safety
    /// Safe; what is in flight still reaches the local memory tier.
    pub async fn read(&self, offset: u64, len: u32) -> Result<Bytes, ClientError> {
        if len == 0 || offset >= self.file.size {
            return Ok(Bytes::new());
        }
        let deadline = Instant::now() + self.core.config.deadline;
        self.core.note_read(&self.file, offset);
        let how = self.note(offset, len);
        let mut spans = self.plan(offset, len);
        let mut counted = SourceBytes::default();
        let first = spans.next();
        if let Some(span) = first
            && !self.core.memory.holds_any(&span.piece.id)
            && let Some(data) = self.read_disk(offset, len).await
        {
            counted.add(Origin::Disk, data.len() as u64);
            self.core.metrics.count_read(counted);
            return Ok(data);
        }
        let second = spans.next();
        let data = match (first, second) {
            (None, _) => Bytes::new(),
            (Some(span), None) => {
                let part = part(span);
                let parts = self.core.part(&self.file, part, how, deadline).await?;
                parts.hand_out(&mut counted)
            }
            (Some(first), Some(second)) => {
                let total = u64::from(len).min(self.file.size - offset) as usize;
                let spans = [first, second].into_iter().chain(spans);
                let gathered = self.gather(spans, total, how, deadline, &mut counted);
                gathered.await?
            }
        };
        self.core.metrics.count_read(counted);
        Ok(data)
    }

    /// Copies the spans one after the other into one buffer, fetching a few at a time, so
    /// that a read may be larger than the memory of the client.
    async fn gather(
        &self,
        spans: impl Iterator<Item = PieceSpan> + Send,
        total: usize,
        how: How,
        deadline: Instant,
        counted: &mut SourceBytes,
    ) -> Result<Bytes, ClientError> {
        let fetch = |span: PieceSpan| {
            let (core, file) = (Arc::clone(&self.core), Arc::clone(&self.file));
            async move { core.part(&file, part(span), how, deadline).await }
        };
        let fetched: Vec<_> = spans.map(fetch).collect();
        let mut parts = stream::iter(fetched).buffered(AT_ONCE);
        let mut whole = BytesMut::with_capacity(total);
        while let Some(part) = parts.try_next().await? {
            part.copy_out(&mut whole, counted);
        }
        Ok(whole.freeze())
    }

    /// All of what a read asks for, if the local disk has it. It does not go to local memory:
    /// the kernel has it there now.
    async fn read_disk(&self, offset: u64, len: u32) -> Option<Bytes> {
        let disk = self.core.disk.as_ref()?;
        disk.read(self.file.id, self.range(offset, len)).await
    }

    fn range(&self, offset: u64, len: u32) -> Range<u64> {
        offset..(offset + u64::from(len)).min(self.file.size)
    }

    /// The span, if all of it is in memory.
    fn here(&self, span: PieceSpan) -> Option<Parts> {
        let Part { piece, range } = part(span);
        self.core.memory.read(&piece.id, range)
    }

    fn plan(&self, offset: u64, len: u32) -> impl Iterator<Item = PieceSpan> + Send + use<> {
        let OpenFile { id, size, .. } = *self.file;
        self.core.layout.plan(id, size, offset, u64::from(len))
    }

    /// Takes note of a read; starts fetching what its reader wants next. Says how the read
    /// itself is to be fetched.
    fn note(&self, offset: u64, len: u32) -> How {
        let mut streams = self.streams.lock();
        let bounds = |stream| self.bounds(Holder(stream));
        let noted = streams.note(offset, u64::from(len), self.file.size, bounds);
        if let Some(ended) = noted.ended {
            self.core.memory.release(Holder(ended));
        }
        let Some(stream) = noted.stream else {
            return How {
                lone: true,
                holder: None,
            };
        };
        let how = How {
            lone: noted.sparse,
            holder: Some(Holder(stream)),
        };
        for range in noted.ahead {
            let end = range.end;
            let reached = self.core.fetch_ahead(&self.file, range, how);
            if reached < end {
                streams.decline(stream, reached);
                break;
            }
        }
        how
    }

    /// How far to read ahead: as far as the source is worth it, and memory goes round.
    fn bounds(&self, stream: Holder) -> Bounds {
        let (core, file) = (&*self.core, &*self.file);
        let most = core.config.readahead;
        let (window, grain) = if core.reads_directly() {
            let pace = file.pace.lock();
            let window = pace.window(most);
            (window, pace.grain(window))
        } else {
            (core.peer_pace.lock().window(most), core.layout.piece_len())
        };
        Bounds {
            grain,
            window: window.min(core.memory.join(stream)),
        }
    }
}

/// The part of a piece that a span is.
const fn part(span: PieceSpan) -> Part {
    Part {
        piece: span.piece,
        range: span.from..span.from + span.len,
    }
}

impl Drop for FileHandle {
    fn drop(&mut self) {
        let streams: Vec<Holder> = self.streams.get_mut().serials().map(Holder).collect();
        for stream in &streams {
            self.core.memory.release(*stream);
        }
        if !streams.is_empty() {
            self.core.recall(&streams);
        }
    }
}

impl fmt::Debug for FileHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileHandle")
            .field("path", &self.file.path)
            .field("file", &self.file.id)
            .field("size", &self.file.size)
            .finish_non_exhaustive()
    }
}
