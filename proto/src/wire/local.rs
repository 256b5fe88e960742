//! What is said over the Unix socket of a node on the same host, and how a client learns of it.
//!
//! The client asks with [`Op::Local`](super::frame::Op::Local) over QUIC, where both ends have
//! shown their certificates, and is given a [`LocalOffer`]: the socket's name and a secret of
//! its own. Over the socket both prove that they know the secret, and from then on the client
//! asks for blocks, one at a time. All integers are little-endian.
//!
//! ```text
//! hello      0  magic "ML"        challenge  0  magic "ML"       proof  0  proof, 32 bytes
//!            2  version u8                   2  version u8
//!            3  reserved, 5 bytes            3  reserved, 5 bytes
//!            8  client, 16 bytes             8  proof, 32 bytes
//!           24  nonce, 32 bytes             40  nonce, 32 bytes
//!
//! ask        0  magic "ML"        answer     0  magic "ML"
//!            2  version u8                   2  version u8
//!            3  flags u8                     3  kind u8 (0 elsewhere, 1 file, 2 bytes)
//!            4  reserved u32                 4  tier u8
//!            8  file id, 16 bytes            5  reserved, 3 bytes
//!           24  block index u64              8  epoch u64
//!           32  offset u32                  16  start u64
//!           36  length u32                  24  length u32
//!                                           28  checksums u32
//!                                           32  checksums, then data
//! ```
//!
//! With an answer of kind *file* comes the descriptor of a file that holds the whole block from
//! `start` on, `length` bytes of it, and the CRC32C of each of its pages. With one of kind
//! *bytes* comes the range that was asked for, after the checksums of its page pieces. One of
//! kind *elsewhere* has nothing more: the block is to be asked for over the network.

use serde::{Deserialize, Serialize};

use super::frame::{FrameError, Tier};
use crate::block::BlockSize;
use crate::checksum::{page_count, piece_count};
use crate::id::{BlockId, Epoch, FileId};

/// The version of all messages over the socket.
pub const VERSION: u8 = 1;

/// Length of a [`Hello`] in bytes.
pub const HELLO_LEN: usize = 56;
/// Length of a [`Challenge`] in bytes.
pub const CHALLENGE_LEN: usize = 72;
/// Length of an [`Ask`] in bytes.
pub const ASK_LEN: usize = 40;
/// Length of an [`Answer`] in bytes, without what follows it.
pub const ANSWER_LEN: usize = 32;
/// The longest [`LocalOffer`], encoded.
pub const MAX_OFFER_LEN: u32 = 256;

const MAGIC: [u8; 2] = *b"ML";
const FLAG_BYTES: u8 = 1;

/// Where a node's socket is, and what proves that one was told.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalOffer {
    /// Name in the host's abstract socket namespace.
    pub name: String,
    /// Whom the secret is for.
    pub client: [u8; 16],
    /// What both ends prove to know.
    pub secret: [u8; 32],
}

impl std::fmt::Debug for LocalOffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LocalOffer")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// What a client says first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hello {
    /// From its offer.
    pub client: [u8; 16],
    /// Drawn for this connection.
    pub nonce: [u8; 32],
}

/// What the node answers to a [`Hello`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Challenge {
    /// That the node knows the secret.
    pub proof: [u8; 32],
    /// Drawn for this connection.
    pub nonce: [u8; 32],
}

/// Asks for a range of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ask {
    /// The block.
    pub block: BlockId,
    /// Where the range starts in the block, in bytes.
    pub offset: u32,
    /// Length of the range in bytes, at least 1; it lies within the largest possible block.
    pub len: u32,
    /// The block's file has a page of this range that does not match its checksum: the node
    /// is to see for itself and to answer with bytes.
    pub damaged: bool,
}

/// How an [`Ask`] is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    /// Where the bytes are.
    pub tier: Tier,
    /// The node's epoch.
    pub epoch: Epoch,
    /// What comes with it.
    pub what: Shared,
}

/// What comes with an [`Answer`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shared {
    /// Nothing.
    Elsewhere,
    /// A descriptor, and one checksum per page of the block.
    File {
        /// Where the block starts in the file.
        start: u64,
        /// Length of the whole block in bytes.
        len: u32,
    },
    /// The range, after one checksum per page piece of it.
    Bytes {
        /// Length of the range in bytes.
        len: u32,
        /// The number of its page pieces.
        pieces: u32,
    },
}

impl Hello {
    /// Encodes it.
    pub fn encode(&self) -> [u8; HELLO_LEN] {
        let mut out = begin(0);
        out[8..24].copy_from_slice(&self.client);
        out[24..].copy_from_slice(&self.nonce);
        out
    }

    /// Decodes it.
    ///
    /// # Errors
    /// [`FrameError`] for bytes that are no hello of this version.
    pub fn decode(bytes: &[u8; HELLO_LEN]) -> Result<Self, FrameError> {
        check(bytes)?;
        Ok(Self {
            client: array(bytes, 8),
            nonce: array(bytes, 24),
        })
    }
}

impl Challenge {
    /// Encodes it.
    pub fn encode(&self) -> [u8; CHALLENGE_LEN] {
        let mut out = begin(0);
        out[8..40].copy_from_slice(&self.proof);
        out[40..].copy_from_slice(&self.nonce);
        out
    }

    /// Decodes it.
    ///
    /// # Errors
    /// [`FrameError`] for bytes that are no challenge of this version.
    pub fn decode(bytes: &[u8; CHALLENGE_LEN]) -> Result<Self, FrameError> {
        check(bytes)?;
        Ok(Self {
            proof: array(bytes, 8),
            nonce: array(bytes, 40),
        })
    }
}

impl Ask {
    /// Encodes it.
    pub fn encode(&self) -> [u8; ASK_LEN] {
        let mut out = begin(if self.damaged { FLAG_BYTES } else { 0 });
        out[8..24].copy_from_slice(&self.block.file.0);
        out[24..32].copy_from_slice(&self.block.index.to_le_bytes());
        out[32..36].copy_from_slice(&self.offset.to_le_bytes());
        out[36..].copy_from_slice(&self.len.to_le_bytes());
        out
    }

    /// Decodes it. The range lies within the largest possible block.
    ///
    /// # Errors
    /// [`FrameError`] for bytes that are no request of this version.
    pub fn decode(bytes: &[u8; ASK_LEN]) -> Result<Self, FrameError> {
        check(bytes)?;
        if bytes[3] & !FLAG_BYTES != 0 {
            return Err(FrameError::Field("flags"));
        }
        let ask = Self {
            block: BlockId::new(
                FileId(array(bytes, 8)),
                u64::from_le_bytes(array(bytes, 24)),
            ),
            offset: u32::from_le_bytes(array(bytes, 32)),
            len: u32::from_le_bytes(array(bytes, 36)),
            damaged: bytes[3] & FLAG_BYTES != 0,
        };
        let end = u64::from(ask.offset) + u64::from(ask.len);
        if ask.len == 0 || end > BlockSize::MAX.bytes() {
            return Err(FrameError::Field("range"));
        }
        Ok(ask)
    }
}

impl Answer {
    /// Encodes it.
    pub fn encode(&self) -> [u8; ANSWER_LEN] {
        let (kind, start, len, checksums) = match self.what {
            Shared::Elsewhere => (0, 0, 0, 0),
            Shared::File { start, len } => (1, start, len, page_count(len)),
            Shared::Bytes { len, pieces } => (2, 0, len, pieces),
        };
        let mut out = begin(kind);
        out[4] = self.tier.code();
        out[8..16].copy_from_slice(&self.epoch.0.to_le_bytes());
        out[16..24].copy_from_slice(&start.to_le_bytes());
        out[24..28].copy_from_slice(&len.to_le_bytes());
        out[28..].copy_from_slice(&checksums.to_le_bytes());
        out
    }

    /// Decodes the answer to `ask`: a file is of a possible block that has the range, bytes are
    /// exactly as many as were asked for, and the checksums as many as belong to them.
    ///
    /// # Errors
    /// [`FrameError`] for bytes that are no answer of this version to that.
    pub fn decode(bytes: &[u8; ANSWER_LEN], ask: &Ask) -> Result<Self, FrameError> {
        check(bytes)?;
        let start = u64::from_le_bytes(array(bytes, 16));
        let len = u32::from_le_bytes(array(bytes, 24));
        let checksums = u32::from_le_bytes(array(bytes, 28));
        let (what, expected) = match bytes[3] {
            0 if start == 0 && len == 0 => (Shared::Elsewhere, 0),
            1 => {
                let possible = u64::from(len) <= BlockSize::MAX.bytes();
                let holds = u64::from(ask.offset) + u64::from(ask.len) <= u64::from(len);
                if !possible || !holds || start.checked_add(u64::from(len)).is_none() {
                    return Err(FrameError::Field("block length"));
                }
                (Shared::File { start, len }, page_count(len))
            }
            2 if start == 0 && len == ask.len => {
                let pieces = piece_count(ask.offset, ask.len);
                (Shared::Bytes { len, pieces }, pieces)
            }
            _ => return Err(FrameError::Field("kind")),
        };
        if checksums != expected {
            return Err(FrameError::Field("checksums"));
        }
        Ok(Self {
            tier: Tier::from_code(bytes[4])?,
            epoch: Epoch(u64::from_le_bytes(array(bytes, 8))),
            what,
        })
    }

    /// Bytes of checksums that follow.
    pub const fn checksums_len(&self) -> usize {
        let count = match self.what {
            Shared::Elsewhere => 0,
            Shared::File { len, .. } => page_count(len),
            Shared::Bytes { pieces, .. } => pieces,
        };
        count as usize * 4
    }
}

fn begin<const N: usize>(third: u8) -> [u8; N] {
    let mut out = [0; N];
    out[..2].copy_from_slice(&MAGIC);
    out[2] = VERSION;
    out[3] = third;
    out
}

fn check(bytes: &[u8]) -> Result<(), FrameError> {
    if bytes[..2] != MAGIC {
        return Err(FrameError::Magic);
    }
    if bytes[2] != VERSION {
        return Err(FrameError::Version(bytes[2]));
    }
    Ok(())
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[at..at + N]);
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn asks() -> impl Strategy<Value = Ask> {
        let max = BlockSize::MAX.bytes() as u32;
        (any::<([u8; 16], u64, bool)>(), 0..max)
            .prop_flat_map(move |(rest, offset)| (Just(rest), Just(offset), 1..=max - offset))
            .prop_map(|((file, index, damaged), offset, len)| Ask {
                block: BlockId::new(FileId(file), index),
                offset,
                len,
                damaged,
            })
    }

    fn answers() -> impl Strategy<Value = (Ask, Answer)> {
        let tier = prop_oneof![Just(Tier::Memory), Just(Tier::Disk), Just(Tier::None)];
        (
            asks(),
            tier,
            any::<u64>(),
            0..3,
            any::<u32>(),
            0u32..5 << 20,
        )
            .prop_map(|(ask, tier, epoch, kind, start, more)| {
                let what = match kind {
                    0 => Shared::Elsewhere,
                    1 => Shared::File {
                        start: u64::from(start),
                        len: (ask.offset + ask.len + more).min(BlockSize::MAX.bytes() as u32),
                    },
                    _ => Shared::Bytes {
                        len: ask.len,
                        pieces: piece_count(ask.offset, ask.len),
                    },
                };
                let epoch = Epoch(epoch);
                (ask, Answer { tier, epoch, what })
            })
    }

    proptest! {
        #[test]
        fn asks_and_answers_survive_the_socket((ask, answer) in answers()) {
            prop_assert_eq!(Ask::decode(&ask.encode()), Ok(ask));
            prop_assert_eq!(Answer::decode(&answer.encode(), &ask), Ok(answer));
        }

        #[test]
        fn greetings_survive_the_socket(a in any::<[u8; 16]>(), b in any::<[u8; 32]>(), c in any::<[u8; 32]>()) {
            let hello = Hello { client: a, nonce: b };
            prop_assert_eq!(Hello::decode(&hello.encode()), Ok(hello));
            let challenge = Challenge { proof: b, nonce: c };
            prop_assert_eq!(Challenge::decode(&challenge.encode()), Ok(challenge));
        }

        /// Whatever a node sends, no client reserves more than a block's checksums and the
        /// bytes that it asked for.
        #[test]
        fn an_answer_claims_no_more_than_was_asked_for(
            ask in asks(),
            mut bytes in any::<[u8; ANSWER_LEN]>(),
            framed in any::<bool>(),
        ) {
            if framed {
                bytes[..3].copy_from_slice(b"ML\x01");
                bytes[3] %= 3;
                bytes[4] %= 5;
            }
            if let Ok(answer) = Answer::decode(&bytes, &ask) {
                prop_assert!(answer.checksums_len() <= 4 * 1025);
                match answer.what {
                    Shared::Elsewhere => {}
                    Shared::File { len, .. } => prop_assert!(ask.offset + ask.len <= len),
                    Shared::Bytes { len, .. } => prop_assert_eq!(len, ask.len),
                }
            }
        }

        #[test]
        fn an_ask_stays_within_a_block(mut bytes in any::<[u8; ASK_LEN]>(), framed in any::<bool>()) {
            if framed {
                bytes[..3].copy_from_slice(b"ML\x01");
                bytes[3] &= 1;
            }
            if let Ok(ask) = Ask::decode(&bytes) {
                prop_assert!(ask.len > 0);
                prop_assert!(u64::from(ask.offset) + u64::from(ask.len) <= BlockSize::MAX.bytes());
            }
        }
    }
}
