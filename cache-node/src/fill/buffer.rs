//! The memory of a block while it arrives: one allocation, written once from front to back,
//! whose written part is handed out as [`Bytes`] without a copy.
//!
//! `BytesMut` can do one or the other: hand out its front, or become one contiguous block at
//! the end. A fill needs both, or each block would be copied once more.
#![allow(
    unsafe_code,
    reason = "readers share the written front of an allocation whose back is still written"
)]

use std::ops::Range;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;

use millpond_proto::checksum::{PAGE_SIZE, crc32c, page_count};
use millpond_store::{Block, Policy};

/// A block of which the first [`published`](Self::published) bytes are there for good.
///
/// - Bytes below `published` never change again; bytes above are touched by the one
///   [`BlockWriter`] alone.
/// - Every page that ends at or below `published` has its checksum.
pub(crate) struct BlockBuffer {
    memory: NonNull<u8>,
    len: u32,
    published: AtomicU32,
    checksums: Box<[AtomicU32]>,
}

// SAFETY: the allocation is owned; concurrent access follows the rule above: the single
// writer writes at or above `published`, everyone else reads below it, and the release store
// of `published` orders a write before every read of the same byte.
unsafe impl Send for BlockBuffer {}
// SAFETY: as for `Send`.
unsafe impl Sync for BlockBuffer {}

impl BlockBuffer {
    /// How many bytes from the front can be read.
    pub(crate) fn published(&self) -> u32 {
        self.published.load(Ordering::Acquire)
    }

    /// The bytes of `range`, sharing this buffer's memory; none if not all of them are
    /// published.
    pub(crate) fn slice(self: &Arc<Self>, range: Range<u32>) -> Option<Bytes> {
        (range.start <= range.end && range.end <= self.published()).then(|| {
            Bytes::from_owner(Part {
                buffer: Arc::clone(self),
                range,
            })
        })
    }

    /// The checksum of page number `page`; none if the page is not published whole.
    pub(crate) fn page_checksum(&self, page: u32) -> Option<u32> {
        let end = u64::from(page + 1) * u64::from(PAGE_SIZE);
        let end = end.min(u64::from(self.len)) as u32;
        // The load of `published` comes first: it makes the writer's checksum visible.
        (end <= self.published())
            .then(|| self.checksums.get(page as usize))
            .flatten()
            .map(|sum| sum.load(Ordering::Relaxed))
    }

    /// The published bytes of `range`.
    fn bytes(&self, range: &Range<u32>) -> &[u8] {
        debug_assert!(range.start <= range.end && range.end <= self.len);
        // SAFETY: callers ask for ranges within the allocation that are published (or, for
        // the writer, were written by itself): initialised, and never written again.
        unsafe {
            std::slice::from_raw_parts(
                self.memory.as_ptr().add(range.start as usize),
                (range.end - range.start) as usize,
            )
        }
    }
}

impl Drop for BlockBuffer {
    fn drop(&mut self) {
        let slice = std::ptr::slice_from_raw_parts_mut(self.memory.as_ptr(), self.len as usize);
        // SAFETY: `memory` and `len` are those of the box that `BlockWriter::new` leaked, and
        // no slice of it outlives the buffer, because each holds an `Arc` of it.
        drop(unsafe { Box::from_raw(slice) });
    }
}

impl std::fmt::Debug for BlockBuffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BlockBuffer")
            .field("len", &self.len)
            .field("published", &self.published())
            .finish_non_exhaustive()
    }
}

/// A published range as the owner of a [`Bytes`].
struct Part {
    buffer: Arc<BlockBuffer>,
    range: Range<u32>,
}

impl AsRef<[u8]> for Part {
    fn as_ref(&self) -> &[u8] {
        self.buffer.bytes(&self.range)
    }
}

/// The only one who writes a [`BlockBuffer`]; not `Clone`, so there is never a second.
#[derive(Debug)]
pub(crate) struct BlockWriter {
    buffer: Arc<BlockBuffer>,
    written: u32,
}

impl BlockWriter {
    /// A buffer for a block of `len` bytes. Pages of memory are taken as they are written.
    pub(crate) fn new(len: u32) -> Self {
        let memory = Box::into_raw(vec![0u8; len as usize].into_boxed_slice());
        let memory = NonNull::new(memory.cast::<u8>()).expect("a box is never null");
        let checksums = (0..page_count(len)).map(|_| AtomicU32::new(0)).collect();
        Self {
            buffer: Arc::new(BlockBuffer {
                memory,
                len,
                published: AtomicU32::new(0),
                checksums,
            }),
            written: 0,
        }
    }

    /// What readers hold.
    pub(crate) fn buffer(&self) -> Arc<BlockBuffer> {
        Arc::clone(&self.buffer)
    }

    /// Bytes of the whole block.
    pub(crate) fn len(&self) -> u32 {
        self.buffer.len
    }

    /// Bytes that are still missing.
    pub(crate) fn missing(&self) -> u32 {
        self.buffer.len - self.written
    }

    /// Copies `chunk` behind what is there and publishes it, page by page.
    ///
    /// # Panics
    /// If `chunk` is longer than [`missing`](Self::missing).
    pub(crate) fn append(&mut self, mut chunk: &[u8]) {
        assert!(
            chunk.len() <= self.missing() as usize,
            "a chunk of {} bytes for {} missing ones",
            chunk.len(),
            self.missing()
        );
        while !chunk.is_empty() {
            let page = self.written / PAGE_SIZE;
            let page_start = page * PAGE_SIZE;
            let page_end = self.buffer.len.min(page_start.saturating_add(PAGE_SIZE));
            let (now, later) = chunk.split_at(chunk.len().min((page_end - self.written) as usize));
            // SAFETY: the target lies within the allocation (asserted above) at or above
            // `published`, where nobody reads and only `self`, which is borrowed mutably,
            // writes; `chunk` cannot overlap it, because no slice of it was handed out.
            unsafe {
                let target = self.buffer.memory.as_ptr().add(self.written as usize);
                std::ptr::copy_nonoverlapping(now.as_ptr(), target, now.len());
            }
            self.written += now.len() as u32;
            if self.written == page_end {
                let sum = crc32c(self.buffer.bytes(&(page_start..page_end)));
                self.buffer.checksums[page as usize].store(sum, Ordering::Relaxed);
            }
            self.buffer.published.store(self.written, Ordering::Release);
            chunk = later;
        }
    }

    /// The whole block with its checksums; none while bytes are missing.
    pub(crate) fn finish(self) -> Option<Block> {
        let data = self.buffer.slice(0..self.buffer.len)?;
        let checksums = self.buffer.checksums.iter();
        Some(Block {
            policy: Policy::default(),
            data,
            checksums: checksums.map(|sum| sum.load(Ordering::Relaxed)).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use millpond_proto::checksum::page_checksums;

    use super::*;

    #[test]
    fn unpublished_bytes_are_not_handed_out() {
        let mut writer = BlockWriter::new(10);
        let buffer = writer.buffer();
        writer.append(b"0123");
        assert_eq!(buffer.slice(1..4).as_deref(), Some(&b"123"[..]));
        assert_eq!(buffer.slice(1..5), None);
        assert_eq!(buffer.page_checksum(0), None);
        writer.append(b"456789");
        assert_eq!(buffer.slice(0..10).as_deref(), Some(&b"0123456789"[..]));
        assert_eq!(buffer.page_checksum(0), Some(crc32c(b"0123456789")));
        assert_eq!(buffer.page_checksum(1), None);
    }

    #[test]
    fn a_block_with_missing_bytes_cannot_be_finished() {
        let mut writer = BlockWriter::new(3);
        writer.append(b"ab");
        assert!(writer.finish().is_none());
    }

    #[test]
    fn slices_outlive_writer_and_buffer() {
        let mut writer = BlockWriter::new(4);
        writer.append(b"abcd");
        let block = writer.finish().unwrap();
        let slice = block.data.slice(1..3);
        drop(block);
        assert_eq!(&slice[..], b"bc");
    }

    #[test]
    fn readers_on_other_threads_see_only_what_was_written() {
        let len = 8 * PAGE_SIZE;
        let mut writer = BlockWriter::new(len);
        let buffer = writer.buffer();
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    let mut seen = 0;
                    while seen < len {
                        seen = buffer.published();
                        let bytes = buffer.slice(0..seen).unwrap();
                        let wrong = (0u32..)
                            .zip(&bytes[..])
                            .find(|(i, b)| **b != (i % 251) as u8);
                        assert_eq!(wrong, None);
                    }
                });
            }
            let all: Vec<u8> = (0..len).map(|i| (i % 251) as u8).collect();
            all.chunks(7001).for_each(|chunk| writer.append(chunk));
        });
    }

    proptest! {
        /// However the bytes are cut, the block and its checksums are the same.
        #[test]
        fn chunking_does_not_matter(
            len in 0u32..300_000,
            cuts in proptest::collection::vec(1usize..100_000, 1..8),
        ) {
            let data: Vec<u8> = (0..len).map(|i| (i * 31 / 7) as u8).collect();
            let mut writer = BlockWriter::new(len);
            let mut rest = &data[..];
            for cut in cuts.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (now, later) = rest.split_at(rest.len().min(*cut));
                writer.append(now);
                rest = later;
            }
            let block = writer.finish().unwrap();
            prop_assert_eq!(&block.data[..], &data[..]);
            prop_assert_eq!(&block.checksums[..], &page_checksums(&data)[..]);
        }
    }
}
