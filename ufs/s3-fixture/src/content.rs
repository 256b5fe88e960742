//! What an object's bytes are, without always holding them.

use bytes::Bytes;

/// The bytes of an object.
#[derive(Debug, Clone)]
pub enum Content {
    /// Held in memory.
    Bytes(Bytes),
    /// Zeros but for the segments: `(offset, bytes)`, sorted, not overlapping, inside `size`.
    Sparse {
        /// Length in bytes.
        size: u64,
        /// The parts that are not zero.
        segments: Vec<(u64, Bytes)>,
    },
    /// [`pattern`] of the seed: no two blocks alike, computed when read.
    Generated {
        /// Length in bytes.
        size: u64,
        /// Chooses the bytes.
        seed: u64,
    },
    /// One after the other: what a multipart upload leaves.
    Parts(Vec<Self>),
    /// A slice of another content: what a copied part leaves.
    Slice {
        /// Where it is taken from.
        of: Box<Self>,
        /// The first byte.
        start: u64,
        /// Length in bytes; `start + size` is inside `of`.
        size: u64,
    },
}

impl Content {
    /// A sparse object.
    ///
    /// # Panics
    /// When the segments overlap or reach past `size`.
    pub fn sparse(size: u64, mut segments: Vec<(u64, Bytes)>) -> Self {
        segments.retain(|(_, bytes)| !bytes.is_empty());
        segments.sort_by_key(|(offset, _)| *offset);
        let mut end = 0;
        for (offset, bytes) in &segments {
            assert!(*offset >= end, "segments overlap at {offset}");
            end = offset + bytes.len() as u64;
        }
        assert!(end <= size, "a segment ends at {end}, past {size}");
        Self::Sparse { size, segments }
    }

    /// Length in bytes.
    pub fn len(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Sparse { size, .. } | Self::Generated { size, .. } | Self::Slice { size, .. } => {
                *size
            }
            Self::Parts(parts) => parts.iter().map(Self::len).sum(),
        }
    }

    /// Whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// At least 1 and at most `max` bytes from `offset` on; empty only at the end. Costs at
    /// most `max` bytes of memory, and none where the bytes are held or zero.
    pub fn chunk(&self, offset: u64, max: usize) -> Bytes {
        let left = self.len().saturating_sub(offset);
        let max = max.min(usize::try_from(left).unwrap_or(usize::MAX));
        if max == 0 {
            return Bytes::new();
        }
        match self {
            Self::Bytes(bytes) => {
                let start = offset as usize;
                bytes.slice(start..start + max)
            }
            Self::Sparse { segments, .. } => sparse_chunk(segments, offset, max),
            Self::Generated { seed, .. } => pattern(*seed, offset, max.min(ZEROS.len())),
            Self::Parts(parts) => {
                let mut start = 0;
                for part in parts {
                    if offset < start + part.len() {
                        return part.chunk(offset - start, max);
                    }
                    start += part.len();
                }
                Bytes::new()
            }
            Self::Slice { of, start, .. } => of.chunk(start + offset, max),
        }
    }

    /// All bytes of `[offset, offset + len)` that exist, in one piece: for comparisons.
    pub fn read(&self, offset: u64, len: usize) -> Bytes {
        let mut out = Vec::with_capacity(len.min(1 << 24));
        while out.len() < len {
            let piece = self.chunk(offset + out.len() as u64, len - out.len());
            if piece.is_empty() {
                break;
            }
            out.extend_from_slice(&piece);
        }
        out.into()
    }
}

impl<T: Into<Bytes>> From<T> for Content {
    fn from(bytes: T) -> Self {
        Self::Bytes(bytes.into())
    }
}

/// `len` bytes at `offset` of an endless sequence chosen by `seed`. Every 8-byte word
/// depends on its position, so a block in the wrong place is seen.
pub fn pattern(seed: u64, offset: u64, len: usize) -> Bytes {
    let first = offset / 8;
    let skip = (offset % 8) as usize;
    let words = (skip + len).div_ceil(8);
    let mut out = Vec::with_capacity(words * 8);
    for word in first..first + words as u64 {
        out.extend_from_slice(&mix(seed ^ word.wrapping_mul(0x9e37_79b9_7f4a_7c15)).to_le_bytes());
    }
    Bytes::from(out).slice(skip..skip + len)
}

/// The finaliser of SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number
/// generators, 2014).
fn mix(mut z: u64) -> u64 {
    z = z.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

static ZEROS: [u8; 1 << 20] = [0; 1 << 20];

fn sparse_chunk(segments: &[(u64, Bytes)], offset: u64, max: usize) -> Bytes {
    let next = segments.partition_point(|(start, bytes)| start + bytes.len() as u64 <= offset);
    let zeros = |len: usize| Bytes::from_static(&ZEROS).slice(..len.min(ZEROS.len()));
    match segments.get(next) {
        Some((start, bytes)) if *start <= offset => {
            let from = (offset - start) as usize;
            bytes.slice(from..bytes.len().min(from + max))
        }
        Some((start, _)) => zeros(max.min(usize::try_from(start - offset).unwrap_or(usize::MAX))),
        None => zeros(max),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expand(content: &Content) -> Vec<u8> {
        content.read(0, content.len() as usize).to_vec()
    }

    #[test]
    fn sparse_content_is_zero_but_for_its_segments() {
        let content = Content::sparse(
            10,
            vec![
                (7, Bytes::from_static(b"xyz")),
                (1, Bytes::from_static(b"ab")),
            ],
        );
        assert_eq!(expand(&content), b"\0ab\0\0\0\0xyz");
        for start in 0..=10u64 {
            for len in 0..=10usize {
                let end = (start as usize + len).min(10);
                assert_eq!(
                    content.read(start, len),
                    expand(&content)[(start as usize).min(end)..end],
                );
            }
        }
    }

    #[test]
    fn a_huge_sparse_object_answers_without_being_held() {
        let content = Content::sparse(1 << 50, vec![((1 << 50) - 1, Bytes::from_static(b"!"))]);
        assert_eq!(content.chunk(1 << 49, 1 << 30).len(), 1 << 20);
        assert_eq!(content.chunk((1 << 50) - 1, 100), Bytes::from_static(b"!"));
        assert!(content.chunk(1 << 50, 100).is_empty());
    }

    #[test]
    fn generated_content_is_the_same_from_any_offset() {
        let whole = pattern(7, 0, 4096);
        for (offset, len) in [(0, 1), (1, 7), (7, 9), (8, 8), (1001, 3000)] {
            assert_eq!(
                pattern(7, offset, len),
                whole[offset as usize..offset as usize + len]
            );
        }
        assert_ne!(pattern(8, 0, 64), whole[..64]);
        assert_ne!(whole[..64], whole[64..128]);
    }

    #[test]
    fn parts_and_slices_read_as_one_object() {
        let parts = Content::Parts(vec![
            Content::from("ab"),
            Content::from(""),
            Content::Slice {
                of: Box::new(Content::from("0123456789")),
                start: 3,
                size: 4,
            },
        ]);
        assert_eq!(parts.len(), 6);
        assert_eq!(expand(&parts), b"ab3456");
        assert_eq!(parts.read(1, 3), Bytes::from_static(b"b34"));
    }

    #[test]
    #[should_panic(expected = "overlap")]
    fn overlapping_segments_are_refused() {
        Content::sparse(
            10,
            vec![
                (0, Bytes::from_static(b"abc")),
                (2, Bytes::from_static(b"d")),
            ],
        );
    }
}
