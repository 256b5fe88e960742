//! What is asked and answered about paths: the bodies of [`Op::Stat`](super::frame::Op::Stat),
//! [`Op::List`](super::frame::Op::List), [`Op::Forget`](super::frame::Op::Forget) and
//! [`Op::Watch`](super::frame::Op::Watch).
//!
//! All bodies are postcard. Times travel as ages: clocks of two hosts need not agree.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::frame::FrameError;
use crate::change::Change;
use crate::id::{BlockId, FileId, MountId};
use crate::version::FileVersion;

/// The longest answer to a question about a path, in bytes.
pub const MAX_ANSWER_LEN: u32 = 4 << 20;

/// The most entries in one page of a listing.
pub const MAX_PAGE: usize = 4000;

/// A question about a path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum PathQuery {
    /// What is at a path. Answered with a [`StatAnswer`].
    Stat {
        /// Where.
        at: PathAt,
        /// The oldest answer that will do.
        oldest: Oldest,
    },
    /// A page of a directory. Answered with a [`ListAnswer`]; `Stale` if the listing is not
    /// held any more, after which the caller lists for itself.
    List {
        /// The directory.
        at: PathAt,
        /// The oldest answer that will do.
        oldest: Oldest,
        /// The listing that earlier pages were of; none with the first page.
        listing: Option<u64>,
        /// Which page, from 0.
        page: u32,
    },
    /// Forget what is known of a path, and tell all who watch. Answered with nothing.
    Forget {
        /// What changed.
        change: Change,
        /// Who says so: told by no news of its own.
        origin: u64,
        /// Whether to tell it, too.
        publish: bool,
    },
    /// Changes after the given ones, as soon as there are any; after a while without any an
    /// answer that has none. Answered with [`News`].
    Watch {
        /// Up to where the caller knows; none if it knows nothing yet, which is answered at
        /// once.
        seen: Option<Seen>,
        /// Whose own changes are left out.
        origin: u64,
    },
}

/// A path in the store behind a mount.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PathAt {
    /// The mount.
    pub mount: MountId,
    /// The path below the mount; empty for its root.
    pub below: String,
}

/// How old an answer may be, counted from when the store was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Oldest {
    /// If something is there, in milliseconds.
    pub presence_ms: u64,
    /// If nothing is there, in milliseconds.
    pub absence_ms: u64,
}

/// A place in the news of one node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// The node's log; another one after each start.
    pub log: u64,
    /// The last change of it.
    pub seq: u64,
}

/// What a store says of a path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathAttr {
    /// What it is.
    pub kind: PathKind,
    /// Length in bytes.
    pub size: u64,
    /// Which bytes are meant.
    pub version: Option<FileVersion>,
    /// When it changed last: seconds since 1970 and nanoseconds after them.
    pub mtime: Option<(i64, u32)>,
    /// Permission bits.
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Number of hard links.
    pub nlink: Option<u32>,
}

/// What a path names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum PathKind {
    /// A file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
}

/// The answer to [`PathQuery::Stat`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatAnswer {
    /// Milliseconds since the store was asked.
    pub age_ms: u64,
    /// What is there, if anything.
    pub found: Option<PathAttr>,
}

/// The answer to [`PathQuery::List`]; in its encoding the entries come last, so that a page
/// can be kept encoded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListAnswer {
    /// The listing that the page is of.
    pub listing: u64,
    /// Milliseconds since the store was asked for the first page.
    pub age_ms: u64,
    /// Whether the listing ends with this page, which has no entries if it ended before. Not
    /// known of every last page.
    pub end: bool,
    /// Names and what they name, in the order of the listing.
    pub entries: Vec<(String, PathAttr)>,
}

/// The answer to [`PathQuery::Watch`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct News {
    /// Up to where these news go.
    pub seen: Seen,
    /// The changes; none if some are forgotten, so that everything is in doubt.
    pub changes: Option<Vec<Change>>,
}

impl PathAt {
    /// The place on the ring that decides which node is asked about the path. `ufs` is the
    /// mount's UFS URI.
    pub fn place(&self, ufs: &str) -> BlockId {
        let uri = format!("{ufs}\n{}", self.below);
        let file = FileId::derive(&uri, &FileVersion::Modified(0), 0);
        BlockId::new(file, 0)
    }
}

impl Oldest {
    /// Whether an answer of this age will do.
    pub const fn allows(&self, present: bool, age: Duration) -> bool {
        let most = if present {
            self.presence_ms
        } else {
            self.absence_ms
        };
        age.as_millis() < most as u128
    }
}

impl PathAttr {
    /// A time as it travels.
    pub fn pack_time(time: SystemTime) -> (i64, u32) {
        match time.duration_since(UNIX_EPOCH) {
            Ok(after) => (
                i64::try_from(after.as_secs()).unwrap_or(i64::MAX),
                after.subsec_nanos(),
            ),
            Err(error) => {
                let before = error.duration();
                let seconds = i64::try_from(before.as_secs()).unwrap_or(i64::MAX);
                match before.subsec_nanos() {
                    0 => (-seconds, 0),
                    nanos => (-seconds - 1, 1_000_000_000 - nanos),
                }
            }
        }
    }

    /// The time that travelled as `packed`; none if no time of this host is as far away.
    pub fn unpack_time(packed: (i64, u32)) -> Option<SystemTime> {
        let (seconds, nanos) = packed;
        let whole = Duration::from_secs(seconds.unsigned_abs());
        let base = if seconds < 0 {
            UNIX_EPOCH.checked_sub(whole)?
        } else {
            UNIX_EPOCH.checked_add(whole)?
        };
        base.checked_add(Duration::from_nanos(u64::from(nanos)))
    }
}

/// Encodes a query or an answer.
///
/// # Errors
/// [`FrameError::Field`]; not for any value of this module.
pub fn encode<T: Serialize>(body: &T) -> Result<Vec<u8>, FrameError> {
    postcard::to_stdvec(body).map_err(|_| FrameError::Field("body"))
}

/// Decodes a query or an answer.
///
/// # Errors
/// [`FrameError::Field`] for bytes that are none.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, FrameError> {
    postcard::from_bytes(bytes).map_err(|_| FrameError::Field("body"))
}

/// The encoding of a [`ListAnswer`] around entries that are encoded already, as a whole
/// `Vec`.
///
/// # Errors
/// As [`encode`].
pub fn encode_page(
    listing: u64,
    age: Duration,
    end: bool,
    entries: &[u8],
) -> Result<Vec<u8>, FrameError> {
    // A struct is its fields one after the other, without a frame of its own.
    let age_ms = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
    let mut out = encode(&(listing, age_ms, end))?;
    out.extend_from_slice(entries);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn attrs() -> impl Strategy<Value = PathAttr> {
        let optional = proptest::option::of(any::<u32>());
        let time = proptest::option::of((any::<i64>(), 0..1_000_000_000_u32));
        (any::<u64>(), optional, time, ".{0,20}").prop_map(|(size, number, mtime, tag)| PathAttr {
            kind: PathKind::File,
            size,
            version: Some(FileVersion::ETag(tag.into())),
            mtime,
            mode: number,
            uid: None,
            gid: number,
            nlink: Some(1),
        })
    }

    proptest! {
        #[test]
        fn pages_survive_the_wire(
            entries in proptest::collection::vec((".{1,20}", attrs()), 0..10),
            listing in any::<u64>(),
            age_ms in 0..u64::MAX / 2,
            end in any::<bool>(),
        ) {
            let encoded = encode(&entries).unwrap();
            let age = Duration::from_millis(age_ms);
            let bytes = encode_page(listing, age, end, &encoded).unwrap();
            let answer = ListAnswer { listing, age_ms, end, entries };
            prop_assert_eq!(&bytes, &encode(&answer).unwrap());
            prop_assert_eq!(decode::<ListAnswer>(&bytes), Ok(answer));
        }

        #[test]
        fn times_survive_the_wire(seconds in -4_000_000_000_i64..4_000_000_000, nanos in 0..1_000_000_000_u32) {
            let time = PathAttr::unpack_time((seconds, nanos)).unwrap();
            prop_assert_eq!(PathAttr::pack_time(time), (seconds, nanos));
        }

        #[test]
        fn decoders_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode::<PathQuery>(&bytes);
            let _ = decode::<StatAnswer>(&bytes);
            let _ = decode::<ListAnswer>(&bytes);
            let _ = decode::<News>(&bytes);
        }
    }

    #[test]
    fn a_path_has_one_place_per_store() {
        let at = |below: &str| PathAt {
            mount: MountId(1),
            below: below.to_owned(),
        };
        assert_eq!(at("a/b").place("s3://x"), at("a/b").place("s3://x"));
        assert_ne!(at("a/b").place("s3://x"), at("a/c").place("s3://x"));
        assert_ne!(at("a/b").place("s3://x"), at("a/b").place("s3://y"));
    }

    #[test]
    fn age_is_bounded_for_presence_and_absence_apart() {
        let oldest = Oldest {
            presence_ms: 1000,
            absence_ms: 500,
        };
        let ms = Duration::from_millis;
        assert!(oldest.allows(true, ms(999)) && !oldest.allows(true, ms(1000)));
        assert!(oldest.allows(false, ms(499)) && !oldest.allows(false, ms(500)));
    }
}
