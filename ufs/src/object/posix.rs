//! POSIX attributes of objects, in the convention of s3fs.
//!
//! | user metadata | holds |
//! |---|---|
//! | `mode` | the mode with the bits of the type, decimal; a link is an object of type link with its target as content |
//! | `uid`, `gid` | the owner, decimal |
//! | `mtime`, `atime`, `ctime` | seconds since 1970, with a fraction where there is one |
//! | `xattr` | extended attributes: JSON of names and Base64 of values, percent-encoded |
//!
//! A directory has them on its marker, `dir/`, of type `application/x-directory`
//! (<https://github.com/s3fs-fuse/s3fs-fuse>, `src/metaheader.cpp`, `src/s3fs_xml.cpp`).
//!
//! | `posix_attributes` | a stat costs | a page of a listing | a change of attributes |
//! |---|---|---|---|
//! | `off` | one request | one | is refused |
//! | `read` | one more | one more for each name | is refused |
//! | `full` | one more | one more for each name | a HEAD and a copy of the object onto itself |
//!
//! What a file is made with goes with the request that makes it and costs nothing.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use crate::error::UfsError;
use crate::metadata::{FileKind, Metadata};
use crate::object::backend::{Extra, ObjectMeta};
use crate::options::OptionSet;
use crate::write::{AttributeChange, Attributes};

/// Whether attributes are kept beside objects.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PosixAttributes {
    /// Objects have none.
    #[default]
    Off,
    /// Those that others gave them are shown.
    Read,
    /// They are shown and kept.
    Full,
}

impl PosixAttributes {
    pub(crate) fn of(options: &OptionSet<'_>) -> Result<Self, UfsError> {
        options.parsed(
            "posix_attributes",
            Self::default(),
            "off, read or full",
            |text| match text {
                "off" => Some(Self::Off),
                "read" => Some(Self::Read),
                "full" => Some(Self::Full),
                _ => None,
            },
        )
    }

    pub(crate) const fn are_read(self) -> bool {
        matches!(self, Self::Read | Self::Full)
    }

    pub(crate) const fn are_kept(self) -> bool {
        matches!(self, Self::Full)
    }

    /// What a new object of `kind` is given beside its bytes at `now`.
    pub(super) fn extra(self, kind: FileKind, attributes: &Attributes, now: SystemTime) -> Extra {
        let mut extra = Extra::default();
        if kind == FileKind::Directory {
            let directory = DIRECTORY_TYPE.to_owned();
            extra.system.insert("content-type", directory);
        }
        if self.are_kept() {
            let given = AttributeChange {
                // The type is in the mode.
                mode: Some(attributes.mode.unwrap_or_else(|| default_mode(kind))),
                uid: attributes.uid,
                gid: attributes.gid,
                mtime: attributes.mtime.or(Some(now)),
                atime: attributes.atime,
                xattrs: attributes
                    .xattrs
                    .iter()
                    .map(|(name, value)| (name.clone(), Some(value.clone())))
                    .collect(),
            };
            change(&mut extra, kind, &given, now);
        }
        extra
    }
}

/// Changes what `extra` says of an object of `kind`.
pub(super) fn change(extra: &mut Extra, kind: FileKind, change: &AttributeChange, now: SystemTime) {
    let mut set = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            extra.user.insert(name.to_owned(), value);
        }
    };
    let mode = change.mode.map(|mode| mode & 0o7777 | type_of(kind));
    set(MODE, mode.map(|mode| mode.to_string()));
    set(UID, change.uid.map(|uid| uid.to_string()));
    set(GID, change.gid.map(|gid| gid.to_string()));
    set(MTIME, change.mtime.map(time_to_text));
    set(ATIME, change.atime.map(time_to_text));
    set(CTIME, Some(time_to_text(now)));
    if change.xattrs.is_empty() {
        return;
    }
    let mut xattrs = extra
        .user
        .get(XATTR)
        .map_or_else(BTreeMap::new, |text| xattrs_of(text));
    for (name, value) in &change.xattrs {
        match value {
            Some(value) => xattrs.insert(name.clone(), value.clone()),
            None => xattrs.remove(name),
        };
    }
    match xattrs.is_empty() {
        true => extra.user.remove(XATTR),
        false => extra.user.insert(XATTR.to_owned(), xattrs_to_text(&xattrs)),
    };
}

/// What `extra` says of an object that is a file or a link.
pub(super) fn describe_file(object: ObjectMeta, extra: &Extra) -> Metadata {
    let mut metadata = Metadata::file(object.size, object.version, object.mtime);
    if number(extra, MODE).is_some_and(|mode| mode & TYPES == LINK) {
        metadata.kind = FileKind::Symlink;
        metadata.version = None;
    }
    describe(&mut metadata, extra);
    metadata
}

/// What `extra`, of its marker, says of a directory.
pub(super) fn describe_directory(extra: &Extra) -> Metadata {
    let mut metadata = Metadata::directory();
    describe(&mut metadata, extra);
    metadata
}

/// All attributes that `extra` has.
pub(super) fn attributes(metadata: &Metadata, extra: &Extra) -> Attributes {
    Attributes {
        mode: metadata.mode,
        uid: metadata.uid,
        gid: metadata.gid,
        mtime: metadata.mtime,
        atime: metadata.atime,
        xattrs: extra
            .user
            .get(XATTR)
            .map_or_else(BTreeMap::new, |text| xattrs_of(text)),
    }
}

/// How much of the 2 KiB that S3 keeps of user metadata is used.
pub(super) fn weight(extra: &Extra) -> usize {
    let of_user = extra.user.iter();
    of_user.map(|(name, value)| name.len() + value.len()).sum()
}

fn describe(metadata: &mut Metadata, extra: &Extra) {
    metadata.mode = number(extra, MODE).map(|mode| mode & 0o7777);
    metadata.uid = number(extra, UID);
    metadata.gid = number(extra, GID);
    let time = |name| extra.user.get(name).and_then(|text| time_of(text));
    metadata.mtime = time(MTIME).or(metadata.mtime);
    metadata.atime = time(ATIME);
    metadata.ctime = time(CTIME);
}

fn number(extra: &Extra, name: &str) -> Option<u32> {
    extra.user.get(name)?.trim().parse().ok()
}

const fn type_of(kind: FileKind) -> u32 {
    match kind {
        FileKind::File => 0o100_000,
        FileKind::Directory => 0o040_000,
        FileKind::Symlink => LINK,
    }
}

const fn default_mode(kind: FileKind) -> u32 {
    match kind {
        FileKind::File => 0o644,
        FileKind::Directory => 0o755,
        FileKind::Symlink => 0o777,
    }
}

fn time_to_text(time: SystemTime) -> String {
    match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(since) => format!("{}.{:09}", since.as_secs(), since.subsec_nanos()),
        Err(before) => format!(
            "-{}.{:09}",
            before.duration().as_secs(),
            before.duration().subsec_nanos()
        ),
    }
}

/// Whole seconds, or with a fraction of up to nine digits; of nothing else.
fn time_of(text: &str) -> Option<SystemTime> {
    let text = text.trim();
    let (negative, text) = match text.strip_prefix('-') {
        Some(text) => (true, text),
        None => (false, text),
    };
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits: String = fraction
        .chars()
        .chain("000000000".chars())
        .take(9)
        .collect();
    let distance = Duration::new(seconds.parse().ok()?, digits.parse().ok()?);
    match negative {
        true => SystemTime::UNIX_EPOCH.checked_sub(distance),
        false => SystemTime::UNIX_EPOCH.checked_add(distance),
    }
}

fn xattrs_to_text(xattrs: &BTreeMap<String, Bytes>) -> String {
    let pairs: Vec<String> = xattrs
        .iter()
        .map(|(name, value)| format!("\"{name}\":\"{}\"", BASE64_STANDARD.encode(value)))
        .collect();
    let text = format!("{{{}}}", pairs.join(","));
    utf8_percent_encode(&text, NON_ALPHANUMERIC).to_string()
}

/// Pairs that are not of the form are left out.
fn xattrs_of(text: &str) -> BTreeMap<String, Bytes> {
    let text = percent_decode_str(text).decode_utf8_lossy();
    let pairs = text.trim().trim_start_matches('{').trim_end_matches('}');
    let pairs = pairs.trim();
    let pairs = pairs.strip_prefix('"').unwrap_or(pairs);
    pairs
        .strip_suffix('"')
        .unwrap_or(pairs)
        .split("\",\"")
        .filter_map(|pair| {
            let (name, value) = pair.split_once("\":\"")?;
            let value = BASE64_STANDARD.decode(value).ok()?;
            Some((name.to_owned(), Bytes::from(value)))
        })
        .collect()
}

const MODE: &str = "mode";
const UID: &str = "uid";
const GID: &str = "gid";
const MTIME: &str = "mtime";
const ATIME: &str = "atime";
const CTIME: &str = "ctime";
const XATTR: &str = "xattr";
const DIRECTORY_TYPE: &str = "application/x-directory";

/// The bits of a mode that tell the type, and those of a link.
const TYPES: u32 = 0o170_000;
const LINK: u32 = 0o120_000;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn object() -> ObjectMeta {
        ObjectMeta {
            key: "k".into(),
            size: 3,
            version: None,
            mtime: Some(SystemTime::UNIX_EPOCH),
        }
    }

    /// As s3fs 1.97 writes them.
    #[test]
    fn what_s3fs_writes_is_understood() {
        let user = [
            ("mode", "33188"),
            ("uid", "1000"),
            ("gid", "100"),
            ("mtime", "1597070400.5"),
            ("atime", "1597070401"),
            ("ctime", "1597070402.000000007"),
            (
                "xattr",
                "%7B%22user.a%22%3A%22YQ%3D%3D%22%2C%22user.b%22%3A%22%22%7D",
            ),
        ];
        let extra = Extra {
            user: user.map(|(name, value)| (name.into(), value.into())).into(),
            ..Extra::default()
        };
        let metadata = describe_file(object(), &extra);
        assert_eq!(metadata.kind, FileKind::File);
        assert_eq!(metadata.mode, Some(0o644));
        assert_eq!((metadata.uid, metadata.gid), (Some(1000), Some(100)));
        let at = |seconds, nanos| Some(SystemTime::UNIX_EPOCH + Duration::new(seconds, nanos));
        assert_eq!(metadata.mtime, at(1_597_070_400, 500_000_000));
        assert_eq!(metadata.atime, at(1_597_070_401, 0));
        assert_eq!(metadata.ctime, at(1_597_070_402, 7));
        let xattrs = attributes(&metadata, &extra).xattrs;
        assert_eq!(
            (&xattrs["user.a"][..], &xattrs["user.b"][..]),
            (&b"a"[..], &b""[..])
        );
        let link = Extra {
            user: [("mode".to_owned(), "41471".to_owned())].into(),
            ..Extra::default()
        };
        assert_eq!(describe_file(object(), &link).kind, FileKind::Symlink);
    }

    #[test]
    fn nothing_is_kept_unless_asked_for() {
        let attributes = Attributes {
            mode: Some(0o600),
            ..Attributes::default()
        };
        let now = SystemTime::now();
        for mode in [PosixAttributes::Off, PosixAttributes::Read] {
            assert_eq!(
                mode.extra(FileKind::File, &attributes, now),
                Extra::default()
            );
        }
        let extra = PosixAttributes::Full.extra(FileKind::File, &attributes, now);
        assert_eq!(extra.user["mode"], "33152");
        assert!(extra.user.contains_key("mtime"));
    }

    proptest! {
        #[test]
        fn what_is_kept_is_read_again(
            mode in 0_u32..0o10000,
            uid in any::<u32>(),
            seconds in 0_u64..1 << 40,
            nanos in 0_u32..1_000_000_000,
            before in any::<bool>(),
            names in proptest::collection::btree_map(
                "user\\.[a-z:é]{1,8}",
                proptest::collection::vec(any::<u8>(), 0..20),
                0..4,
            ),
        ) {
            let distance = Duration::new(seconds, nanos);
            let mtime = match before {
                true => SystemTime::UNIX_EPOCH - distance,
                false => SystemTime::UNIX_EPOCH + distance,
            };
            let given = Attributes {
                mode: Some(mode),
                uid: Some(uid),
                gid: None,
                mtime: Some(mtime),
                atime: Some(mtime),
                xattrs: names.into_iter().map(|(name, value)| (name, value.into())).collect(),
            };
            let now = SystemTime::now();
            let extra = PosixAttributes::Full.extra(FileKind::File, &given, now);
            let metadata = describe_file(object(), &extra);
            prop_assert_eq!(attributes(&metadata, &extra), given);
        }
    }
}
