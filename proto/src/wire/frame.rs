//! Data-plane frames: one bidirectional QUIC stream per request, ALPN [`ALPN`].
//!
//! All integers are little-endian.
//!
//! ```text
//! request   0  magic "MP"         response  0  magic "MP"
//!           2  version u8                   2  version u8
//!           3  op u8                        3  status u8 (0 = ok, else wire::status code)
//!           4  flags u16                    4  tier u8
//!           6  source length u16            5  reserved, 3 bytes
//!           8  epoch u64                    8  epoch u64
//!          16  file id, 16 bytes           16  data length u32
//!          32  block index u64             20  trailer length u32
//!          40  offset u32                  24  reserved u64
//!          44  length u32                  32  data, then trailer
//!          48  file size u64
//!          56  deadline in ms u32
//!          60  reserved u32
//!          64  source, or query (postcard)
//! ```
//!
//! Response data of a successful `Read` or `Peek` is raw block bytes, sent as they become
//! available; the trailer that follows holds one CRC32C (u32) per page piece of the range
//! (see [`checksum::pieces`](crate::checksum::pieces)). A failed response has no data, and
//! its trailer is a message in UTF-8. A failure after the data began resets the stream with
//! the kind's code.

use serde::{Deserialize, Serialize};

use crate::error::ErrorKind;
use crate::id::{BlockId, Epoch, FileId, MountId};
use crate::version::FileVersion;
use crate::wire::query::{self, PathQuery};
use crate::wire::status;

/// The application protocol that both ends must offer in the TLS handshake.
pub const ALPN: &[u8] = b"millpond/1";

/// The frame version this build speaks.
pub const VERSION: u8 = 1;

/// Length of a request header in bytes, without the source.
pub const REQUEST_HEADER_LEN: usize = 64;

/// Length of a response header in bytes.
pub const RESPONSE_HEADER_LEN: usize = 32;

/// The longest encoded [`BlockSource`]; an S3 key has at most 1 KiB, a path 4 KiB.
pub const MAX_SOURCE_LEN: usize = 8 * 1024;

/// The longest trailer: a checksum for each page of the largest block, or a message.
pub const MAX_TRAILER_LEN: u32 = 16 * 1024;

const MAGIC: [u8; 2] = *b"MP";

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// Bytes of a block, filled from the UFS if the node does not hold it.
    Read,
    /// Bytes of a block if the node holds it; never fills. `NotFound` otherwise.
    Peek,
    /// In which tier the node holds the block, without data. Tier `None` if nowhere.
    Probe,
    /// The node's counters, as data: a protobuf `NodeStats`.
    Stats,
    /// What is at a path; see [`query`](mod@super::query) for this and the following.
    Stat,
    /// A page of a directory.
    List,
    /// A path changed.
    Forget,
    /// Which paths changed.
    Watch,
    /// Where on this host the node's socket is, see [`local`](mod@super::local). The file id
    /// is the asker's host; `NotFound` on another one, `Unsupported` without a socket.
    Local,
}

/// Where the answering node had the bytes from.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tier {
    /// Nowhere, or does not apply.
    #[default]
    None,
    /// Its memory tier.
    Memory,
    /// Its disk tier.
    Disk,
    /// Another node.
    Peer,
    /// The UFS, for this request or one that it joined.
    Ufs,
}

/// A block request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// What is asked for.
    pub op: Op,
    /// The sender's epoch.
    pub epoch: Epoch,
    /// The block.
    pub block: BlockId,
    /// Where the range starts in the block, in bytes.
    pub offset: u32,
    /// Length of the range in bytes.
    pub len: u32,
    /// Size of the whole file in bytes.
    pub file_size: u64,
    /// Milliseconds that the sender will wait from now on.
    pub deadline_ms: u32,
    /// Where the bytes come from; needed by `Read` alone.
    pub source: Option<BlockSource>,
    /// The question, of those about paths.
    pub query: Option<PathQuery>,
}

/// Where a block's bytes come from. The node derives the [`FileId`] from it and refuses a
/// request whose id differs, so no peer can put wrong bytes under an id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockSource {
    /// The mount whose UFS holds the object.
    pub mount: MountId,
    /// The object's path below the mount's UFS URI.
    pub path: String,
    /// The version to read.
    pub version: FileVersion,
}

/// The head of a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResponseHead {
    /// How it went; `Err` has a message as trailer.
    pub outcome: Result<(), ErrorKind>,
    /// Where the bytes were.
    pub tier: Tier,
    /// The answering node's epoch.
    pub epoch: Epoch,
    /// Bytes of data that follow.
    pub data_len: u32,
    /// Bytes of trailer that follow the data; at most [`MAX_TRAILER_LEN`].
    pub trailer_len: u32,
}

/// A frame from a peer that does not make sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The first bytes are not ours.
    #[error("not a Millpond frame")]
    Magic,
    /// Another protocol version.
    #[error("frame version {0} is not spoken here (this build speaks {VERSION})")]
    Version(u8),
    /// A field has a value without meaning.
    #[error("frame field {0} has an impossible value")]
    Field(&'static str),
    /// Fewer bytes than the header needs.
    #[error("frame is cut short")]
    Short,
}

impl FrameError {
    /// What the caller should do.
    pub const fn kind(&self) -> ErrorKind {
        match self {
            Self::Version(_) => ErrorKind::Unsupported,
            Self::Magic | Self::Field(_) | Self::Short => ErrorKind::Invalid,
        }
    }
}

impl Request {
    /// Encodes header and source or query into one buffer.
    ///
    /// # Errors
    /// [`FrameError::Field`] if that is longer than [`MAX_SOURCE_LEN`], or there are both.
    pub fn encode(&self) -> Result<Vec<u8>, FrameError> {
        let source = match (&self.source, &self.query) {
            (Some(source), None) => query::encode(source)?,
            (None, Some(query)) => query::encode(query)?,
            (None, None) => Vec::new(),
            (Some(_), Some(_)) => return Err(FrameError::Field("body")),
        };
        if source.len() > MAX_SOURCE_LEN {
            return Err(FrameError::Field("source length"));
        }
        let mut out = Vec::with_capacity(REQUEST_HEADER_LEN + source.len());
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&[VERSION, self.op.code()]);
        out.extend_from_slice(&0u16.to_le_bytes());
        out.extend_from_slice(&(source.len() as u16).to_le_bytes());
        out.extend_from_slice(&self.epoch.0.to_le_bytes());
        out.extend_from_slice(&self.block.file.0);
        out.extend_from_slice(&self.block.index.to_le_bytes());
        out.extend_from_slice(&self.offset.to_le_bytes());
        out.extend_from_slice(&self.len.to_le_bytes());
        out.extend_from_slice(&self.file_size.to_le_bytes());
        out.extend_from_slice(&self.deadline_ms.to_le_bytes());
        out.extend_from_slice(&0u32.to_le_bytes());
        out.extend_from_slice(&source);
        Ok(out)
    }

    /// Decodes a header; returns the request without its source, and the source's length.
    ///
    /// # Errors
    /// [`FrameError`] for bytes that are no request of this version.
    pub fn decode_header(bytes: &[u8]) -> Result<(Self, usize), FrameError> {
        let fields = Fields::of(bytes, REQUEST_HEADER_LEN)?;
        let source_len = fields.u16(6) as usize;
        if source_len > MAX_SOURCE_LEN {
            return Err(FrameError::Field("source length"));
        }
        let request = Self {
            op: Op::from_code(bytes[3])?,
            epoch: Epoch(fields.u64(8)),
            block: BlockId::new(FileId(fields.array(16)), fields.u64(32)),
            offset: fields.u32(40),
            len: fields.u32(44),
            file_size: fields.u64(48),
            deadline_ms: fields.u32(56),
            source: None,
            query: None,
        };
        Ok((request, source_len))
    }

    /// Decodes what follows a header, of as many bytes as that said: a source or a query, by
    /// what is asked for; nothing if there are none.
    ///
    /// # Errors
    /// [`FrameError::Field`] for bytes that are neither.
    pub fn decode_body(&mut self, bytes: &[u8]) -> Result<(), FrameError> {
        if bytes.is_empty() {
            return Ok(());
        }
        if self.op.is_about_paths() {
            self.query = Some(query::decode(bytes)?);
        } else {
            self.source = Some(query::decode(bytes)?);
        }
        Ok(())
    }
}

impl ResponseHead {
    /// Encodes the head.
    pub fn encode(&self) -> [u8; RESPONSE_HEADER_LEN] {
        let mut out = [0; RESPONSE_HEADER_LEN];
        out[..2].copy_from_slice(&MAGIC);
        out[2] = VERSION;
        out[3] = match self.outcome {
            Ok(()) => 0,
            Err(kind) => status::to_code(kind),
        };
        out[4] = self.tier.code();
        out[8..16].copy_from_slice(&self.epoch.0.to_le_bytes());
        out[16..20].copy_from_slice(&self.data_len.to_le_bytes());
        out[20..24].copy_from_slice(&self.trailer_len.to_le_bytes());
        out
    }

    /// Decodes a head.
    ///
    /// # Errors
    /// [`FrameError`] for bytes that are no response of this version.
    pub fn decode(bytes: &[u8]) -> Result<Self, FrameError> {
        let fields = Fields::of(bytes, RESPONSE_HEADER_LEN)?;
        let trailer_len = fields.u32(20);
        if trailer_len > MAX_TRAILER_LEN {
            return Err(FrameError::Field("trailer length"));
        }
        Ok(Self {
            outcome: match bytes[3] {
                0 => Ok(()),
                code => Err(status::from_code(u64::from(code))),
            },
            tier: Tier::from_code(bytes[4])?,
            epoch: Epoch(fields.u64(8)),
            data_len: fields.u32(16),
            trailer_len,
        })
    }
}

impl Op {
    /// Whether the request carries a [`PathQuery`].
    pub const fn is_about_paths(self) -> bool {
        match self {
            Self::Stat | Self::List | Self::Forget | Self::Watch => true,
            Self::Read | Self::Peek | Self::Probe | Self::Stats | Self::Local => false,
        }
    }

    const fn code(self) -> u8 {
        match self {
            Self::Read => 1,
            Self::Peek => 2,
            Self::Probe => 3,
            Self::Stats => 4,
            Self::Stat => 5,
            Self::List => 6,
            Self::Forget => 7,
            Self::Watch => 8,
            Self::Local => 9,
        }
    }

    const fn from_code(code: u8) -> Result<Self, FrameError> {
        match code {
            1 => Ok(Self::Read),
            2 => Ok(Self::Peek),
            3 => Ok(Self::Probe),
            4 => Ok(Self::Stats),
            5 => Ok(Self::Stat),
            6 => Ok(Self::List),
            7 => Ok(Self::Forget),
            8 => Ok(Self::Watch),
            9 => Ok(Self::Local),
            _ => Err(FrameError::Field("op")),
        }
    }
}

impl Tier {
    pub(super) const fn code(self) -> u8 {
        match self {
            Self::None => 0,
            Self::Memory => 1,
            Self::Disk => 2,
            Self::Peer => 3,
            Self::Ufs => 4,
        }
    }

    pub(super) const fn from_code(code: u8) -> Result<Self, FrameError> {
        match code {
            0 => Ok(Self::None),
            1 => Ok(Self::Memory),
            2 => Ok(Self::Disk),
            3 => Ok(Self::Peer),
            4 => Ok(Self::Ufs),
            _ => Err(FrameError::Field("tier")),
        }
    }
}

/// Fixed-offset fields of a header whose length, magic and version were checked.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn of(bytes: &'a [u8], len: usize) -> Result<Self, FrameError> {
        if bytes.len() < len {
            return Err(FrameError::Short);
        }
        if bytes[..2] != MAGIC {
            return Err(FrameError::Magic);
        }
        if bytes[2] != VERSION {
            return Err(FrameError::Version(bytes[2]));
        }
        Ok(Self(bytes))
    }

    fn array<const N: usize>(&self, at: usize) -> [u8; N] {
        let mut out = [0; N];
        out.copy_from_slice(&self.0[at..at + N]);
        out
    }

    fn u16(&self, at: usize) -> u16 {
        u16::from_le_bytes(self.array(at))
    }

    fn u32(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.array(at))
    }

    fn u64(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.array(at))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn requests() -> impl Strategy<Value = Request> {
        let source =
            (any::<u64>(), ".{0,80}", any::<i64>()).prop_map(|(mount, path, mtime)| BlockSource {
                mount: MountId(mount),
                path,
                version: FileVersion::Modified(mtime),
            });
        let op = prop_oneof![
            Just(Op::Read),
            Just(Op::Peek),
            Just(Op::Probe),
            Just(Op::Stats)
        ];
        let numbers = any::<(u64, [u8; 16], u64, u32, u32, u64, u32)>();
        (op, numbers, proptest::option::of(source)).prop_map(|(op, n, source)| Request {
            op,
            epoch: Epoch(n.0),
            block: BlockId::new(FileId(n.1), n.2),
            offset: n.3,
            len: n.4,
            file_size: n.5,
            deadline_ms: n.6,
            source,
            query: None,
        })
    }

    proptest! {
        #[test]
        fn requests_survive_the_wire(request in requests()) {
            let bytes = request.encode().unwrap();
            let (mut back, source_len) = Request::decode_header(&bytes).unwrap();
            prop_assert_eq!(bytes.len(), REQUEST_HEADER_LEN + source_len);
            back.decode_body(&bytes[REQUEST_HEADER_LEN..]).unwrap();
            prop_assert_eq!(back, request);
        }

        #[test]
        fn decoders_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut framed = b"MP\x01".to_vec();
            framed.extend_from_slice(&bytes);
            for input in [&bytes, &framed] {
                if let Ok((mut request, _)) = Request::decode_header(input) {
                    let _ = request.decode_body(input);
                }
                let _ = ResponseHead::decode(input);
            }
        }
    }

    #[test]
    fn questions_about_paths_survive_the_wire() {
        let query = PathQuery::Forget {
            change: crate::Change::everything(),
            origin: 7,
            publish: true,
        };
        let request = Request {
            op: Op::Forget,
            epoch: Epoch(1),
            block: BlockId::new(FileId([0; 16]), 0),
            offset: 0,
            len: 0,
            file_size: 0,
            deadline_ms: 5,
            source: None,
            query: Some(query),
        };
        let bytes = request.encode().unwrap();
        let (mut back, len) = Request::decode_header(&bytes).unwrap();
        assert_eq!(bytes.len(), REQUEST_HEADER_LEN + len);
        back.decode_body(&bytes[REQUEST_HEADER_LEN..]).unwrap();
        assert_eq!(back, request);
    }

    #[test]
    fn response_heads_survive_the_wire() {
        let outcomes = ErrorKind::ALL.into_iter().map(Err).chain([Ok(())]);
        for outcome in outcomes {
            let head = ResponseHead {
                outcome,
                tier: Tier::Ufs,
                epoch: Epoch(u64::MAX),
                data_len: 1 << 26,
                trailer_len: MAX_TRAILER_LEN,
            };
            assert_eq!(ResponseHead::decode(&head.encode()), Ok(head));
        }
    }

    #[test]
    fn another_version_is_named() {
        let head = ResponseHead {
            outcome: Ok(()),
            tier: Tier::None,
            epoch: Epoch(0),
            data_len: 0,
            trailer_len: 0,
        };
        let mut bytes = head.encode();
        bytes[2] = 9;
        let error = ResponseHead::decode(&bytes).unwrap_err();
        assert_eq!(error, FrameError::Version(9));
        assert_eq!(error.kind(), ErrorKind::Unsupported);
    }
}
