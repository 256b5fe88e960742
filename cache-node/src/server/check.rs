//! What a request must satisfy before it is served. Pure.

use std::ops::Range;

use millpond_proto::wire::frame::Request;
use millpond_proto::{BlockSize, ErrorKind};

use crate::fill::{FillError, error_chain};

/// A request that is not served: what the caller should do, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) kind: ErrorKind,
    pub(crate) message: String,
}

impl Refusal {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
        }
    }
}

impl Refusal {
    /// There is no memory for the answer, and there was none for a while.
    pub(crate) fn too_much() -> Self {
        Self::new(ErrorKind::Busy, "too many bytes in flight")
    }
}

impl From<FillError> for Refusal {
    fn from(error: FillError) -> Self {
        Self::new(error.kind(), error_chain(&error))
    }
}

/// The range that a request asks for: not empty, within its block, its block within the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BlockRange {
    file: Range<u64>,
    start: u32,
    end: u32,
}

impl BlockRange {
    /// Checks the range of `request` in a cluster with blocks of `block_size`.
    pub(crate) fn of(request: &Request, block_size: BlockSize) -> Result<Self, Refusal> {
        let index = request.block.index;
        let file = block_size.range(index, request.file_size);
        let block_len = (file.end - file.start) as u32;
        let end = request.offset.checked_add(request.len);
        match end {
            Some(end) if request.len > 0 && end <= block_len => Ok(Self {
                file,
                start: request.offset,
                end,
            }),
            _ => Err(Refusal::new(
                ErrorKind::Invalid,
                format!(
                    "range {}+{} is not within block {index} of a file of {} bytes in blocks of \
                     {block_size}",
                    request.offset, request.len, request.file_size
                ),
            )),
        }
    }

    /// Where the range starts in the block.
    pub(crate) const fn start(&self) -> u32 {
        self.start
    }

    /// Where the range ends in the block; above `start`.
    pub(crate) const fn end(&self) -> u32 {
        self.end
    }

    /// The bytes of the file that the whole block holds.
    pub(crate) fn of_file(&self) -> Range<u64> {
        self.file.clone()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use millpond_proto::wire::frame::Op;
    use millpond_proto::{BlockId, Epoch, FileId};

    use super::*;

    fn request(index: u64, offset: u32, len: u32, file_size: u64) -> Request {
        Request {
            op: Op::Read,
            epoch: Epoch(1),
            block: BlockId::new(FileId([0; 16]), index),
            offset,
            len,
            file_size,
            deadline_ms: 0,
            source: None,
            query: None,
        }
    }

    const SIZE: BlockSize = BlockSize::MIN;
    const B: u32 = 64 << 10;

    #[test]
    fn ranges_outside_the_block_are_invalid() {
        let file_size = u64::from(B) + 10;
        for (index, offset, len) in [
            (0, 0, 0),
            (0, 0, B + 1),
            (0, B, 1),
            (0, u32::MAX, 2),
            (1, 0, 11),
            (2, 0, 1),
            (u64::MAX, 0, 1),
        ] {
            let refused = BlockRange::of(&request(index, offset, len, file_size), SIZE);
            let kind = refused.map(|_| ()).unwrap_err().kind;
            assert_eq!(kind, ErrorKind::Invalid, "{index} {offset} {len}");
        }
        let last = BlockRange::of(&request(1, 3, 7, file_size), SIZE).unwrap();
        assert_eq!((last.start(), last.end()), (3, 10));
        assert_eq!(last.of_file(), u64::from(B)..file_size);
    }

    proptest! {
        #[test]
        fn accepted_ranges_lie_in_block_and_file(
            index in any::<u64>(),
            offset in any::<u32>(),
            len in any::<u32>(),
            file_size in any::<u64>(),
            bits in 16u32..=26,
        ) {
            let size = BlockSize::new(1 << bits).unwrap();
            if let Ok(range) = BlockRange::of(&request(index, offset, len, file_size), size) {
                let file = range.of_file();
                prop_assert!(range.start() < range.end());
                prop_assert!(file.end <= file_size);
                prop_assert!(u64::from(range.end()) <= file.end - file.start);
            }
        }
    }
}
