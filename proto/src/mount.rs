//! The mount table: which UFS serves a path.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error::ErrorKind;
use crate::id::MountId;
use crate::metadata::MetadataOptions;
use crate::profile::Profile;

/// An absolute, normalized path of the Millpond namespace.
///
/// - Starts with `/`; no empty, `.` or `..` component, no trailing `/` (except the root), no
///   NUL, at most 4096 bytes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MountPath(String);

impl MountPath {
    /// `/`.
    pub fn root() -> Self {
        Self("/".to_owned())
    }

    /// Parses a mount path; a trailing `/` is accepted and dropped.
    ///
    /// # Errors
    /// [`MountError::BadPath`] when the text is not an absolute normalized path.
    pub fn parse(text: &str) -> Result<Self, MountError> {
        let bad = |why| MountError::BadPath {
            path: text.to_owned(),
            why,
        };
        if !text.starts_with('/') {
            return Err(bad("it must start with /"));
        }
        if text.len() > 4096 {
            return Err(bad("it is longer than 4096 bytes"));
        }
        if text.contains('\0') {
            return Err(bad("it contains a NUL byte"));
        }
        let trimmed = text.strip_suffix('/').unwrap_or(text);
        if trimmed.is_empty() {
            return Ok(Self::root());
        }
        for component in trimmed[1..].split('/') {
            match component {
                "" => return Err(bad("it contains an empty component (//)")),
                "." | ".." => return Err(bad("it contains . or ..")),
                name if name.len() > 255 => return Err(bad("a component exceeds 255 bytes")),
                _ => {}
            }
        }
        Ok(Self(trimmed.to_owned()))
    }

    /// The path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The part of `path` below this mount path, without a leading `/`; none if `path` lies
    /// elsewhere. `path` is normalized like a mount path.
    pub fn strip<'p>(&self, path: &'p str) -> Option<&'p str> {
        if self.0 == "/" {
            return path.strip_prefix('/');
        }
        let rest = path.strip_prefix(self.0.as_str())?;
        if rest.is_empty() {
            Some(rest)
        } else {
            rest.strip_prefix('/')
        }
    }
}

impl fmt::Display for MountPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for MountPath {
    type Error = MountError;

    fn try_from(text: String) -> Result<Self, MountError> {
        Self::parse(&text)
    }
}

impl From<MountPath> for String {
    fn from(path: MountPath) -> Self {
        path.0
    }
}

/// A UFS bound to a path.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// The mount's number.
    pub id: MountId,
    /// Where it appears in the namespace.
    pub path: MountPath,
    /// The UFS: `s3://bucket/prefix`, `gs://…`, `az://…`, `http(s)://…`, `file:///dir`,
    /// `memory:///name`.
    pub ufs: String,
    /// Options of the UFS driver (endpoint, region, credentials, …).
    #[serde(default)]
    pub options: BTreeMap<String, String>,
}

impl Mount {
    /// The options as they may be printed: secret values replaced by `***`.
    pub fn redacted_options(&self) -> BTreeMap<String, String> {
        let hide = |key: &String, value: &String| {
            let shown = if is_secret_option(key) {
                "***"
            } else {
                value.as_str()
            };
            (key.clone(), shown.to_owned())
        };
        self.options.iter().map(|(k, v)| hide(k, v)).collect()
    }
}

impl fmt::Debug for Mount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mount")
            .field("id", &self.id.0)
            .field("path", &self.path.0)
            .field("ufs", &self.ufs)
            .field("options", &self.redacted_options())
            .finish()
    }
}

/// Whether the value of the UFS option `key` must never be printed.
pub fn is_secret_option(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    [
        "secret",
        "token",
        "password",
        "sas",
        "account_key",
        "access_key",
        "private_key",
        "service_account",
    ]
    .iter()
    .any(|word| key.contains(word))
        && !key.ends_with("_file")
}

/// Whether the options that are the mount's own, not its driver's, have a meaning.
///
/// # Errors
/// [`MountError::BadOption`] names the one that has not.
pub fn check_options(options: &BTreeMap<String, String>) -> Result<(), MountError> {
    Profile::of(options)?;
    MetadataOptions::of(options)?;
    Ok(())
}

/// All mounts. Nested mounts and a mount at `/` are allowed; the longest prefix wins.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MountTable {
    mounts: BTreeMap<MountPath, Mount>,
}

impl MountTable {
    /// A table with the one mount of a standalone client, at `/`.
    pub fn standalone(ufs: String, options: BTreeMap<String, String>) -> Self {
        let root = MountPath::root();
        let mount = Mount {
            id: MountId(0),
            path: root.clone(),
            ufs,
            options,
        };
        Self {
            mounts: BTreeMap::from([(root, mount)]),
        }
    }

    /// Adds `mount`.
    ///
    /// # Errors
    /// [`MountError::Exists`] if its path is taken; [`MountError::BadOption`] for options
    /// without meaning, as far as they are not the UFS driver's.
    pub fn add(&mut self, mount: Mount) -> Result<(), MountError> {
        check_options(&mount.options)?;
        if let Some(taken) = self.mounts.get(&mount.path) {
            let (path, ufs) = (taken.path.to_string(), taken.ufs.clone());
            return Err(MountError::Exists { path, ufs });
        }
        self.mounts.insert(mount.path.clone(), mount);
        Ok(())
    }

    /// Replaces the options of the mount at `path`.
    ///
    /// # Errors
    /// [`MountError::NotFound`] if there is none; [`MountError::BadOption`] as for
    /// [`add`](Self::add).
    pub fn update(
        &mut self,
        path: &MountPath,
        options: BTreeMap<String, String>,
    ) -> Result<(), MountError> {
        check_options(&options)?;
        match self.mounts.get_mut(path) {
            Some(mount) => mount.options = options,
            None => return Err(self.missing(path)),
        }
        Ok(())
    }

    /// Removes the mount at `path`.
    ///
    /// # Errors
    /// [`MountError::NotFound`] if there is none.
    pub fn remove(&mut self, path: &MountPath) -> Result<Mount, MountError> {
        self.mounts.remove(path).ok_or_else(|| self.missing(path))
    }

    fn missing(&self, path: &MountPath) -> MountError {
        let known: Vec<_> = self.mounts.keys().map(MountPath::as_str).collect();
        let known = if known.is_empty() {
            "none".to_owned()
        } else {
            known.join(", ")
        };
        MountError::NotFound {
            path: path.to_string(),
            known,
        }
    }

    /// All mounts in order of their paths.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Mount> {
        self.mounts.values()
    }

    /// Whether there is no mount.
    pub fn is_empty(&self) -> bool {
        self.mounts.is_empty()
    }

    /// The mount whose path is exactly `path`.
    pub fn at(&self, path: &MountPath) -> Option<&Mount> {
        self.mounts.get(path)
    }

    /// The mount called `id`.
    pub fn by_id(&self, id: MountId) -> Option<&Mount> {
        self.mounts.values().find(|m| m.id == id)
    }

    /// The mount with the longest path that holds the absolute normalized `path`, and the
    /// part of `path` below it (empty at the mount's root).
    pub fn resolve<'p>(&self, path: &'p str) -> Option<(&Mount, &'p str)> {
        let mut prefix = path;
        loop {
            let key = if prefix.is_empty() { "/" } else { prefix };
            if let Some(mount) = self.mounts.get(&MountPath(key.to_owned())) {
                return Some((mount, mount.path.strip(path)?));
            }
            if key == "/" {
                return None;
            }
            prefix = &prefix[..prefix.rfind('/')?];
        }
    }

    /// Names directly below the directory `path` that exist because a mount lies at or below
    /// them, whatever the UFS holds. Sorted.
    pub fn children(&self, path: &str) -> BTreeSet<&str> {
        let Ok(dir) = MountPath::parse(path) else {
            return BTreeSet::new();
        };
        self.mounts
            .keys()
            .filter_map(|mount| dir.strip(mount.as_str()))
            .filter_map(|below| below.split('/').next())
            .filter(|name| !name.is_empty())
            .collect()
    }
}

/// A mount table command could not be carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MountError {
    /// The text is not a mount path.
    #[error("mount path {path:?} is not usable: {why}")]
    BadPath {
        /// The text.
        path: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The path is taken.
    #[error(
        "{path} is already mounted from {ufs}; remove it first (`millpond mounts rm {path}`) \
         or choose another path"
    )]
    Exists {
        /// The path.
        path: String,
        /// What is mounted there.
        ufs: String,
    },
    /// An option has a value without meaning.
    #[error("mount option {option} is not usable: {why}")]
    BadOption {
        /// The option.
        option: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// There is no such mount.
    #[error("no mount at {path}; mounted paths: {known}")]
    NotFound {
        /// The path.
        path: String,
        /// The paths that are mounted.
        known: String,
    },
}

impl MountError {
    /// What the caller should do.
    pub const fn kind(&self) -> ErrorKind {
        match self {
            Self::BadPath { .. } | Self::Exists { .. } | Self::BadOption { .. } => {
                ErrorKind::Invalid
            }
            Self::NotFound { .. } => ErrorKind::NotFound,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn table(paths: &[&str]) -> MountTable {
        let mut table = MountTable::default();
        for (i, path) in paths.iter().enumerate() {
            let path = MountPath::parse(path).unwrap();
            let ufs = format!("memory:///{i}");
            let mount = Mount {
                id: MountId(i as u64 + 1),
                path,
                ufs,
                options: BTreeMap::new(),
            };
            table.add(mount).unwrap();
        }
        table
    }

    fn resolved(table: &MountTable, path: &str) -> Option<(u64, String)> {
        table
            .resolve(path)
            .map(|(m, rest)| (m.id.0, rest.to_owned()))
    }

    #[test]
    fn the_longest_prefix_wins() {
        let t = table(&["/", "/data", "/data/hot", "/database"]);
        assert_eq!(resolved(&t, "/"), Some((1, String::new())));
        assert_eq!(resolved(&t, "/x/y"), Some((1, "x/y".into())));
        assert_eq!(resolved(&t, "/data"), Some((2, String::new())));
        assert_eq!(resolved(&t, "/data/a"), Some((2, "a".into())));
        assert_eq!(resolved(&t, "/data/hot/a"), Some((3, "a".into())));
        assert_eq!(resolved(&t, "/data/hotter"), Some((2, "hotter".into())));
        assert_eq!(resolved(&t, "/database/x"), Some((4, "x".into())));
    }

    #[test]
    fn without_a_root_mount_other_paths_resolve_to_nothing() {
        let t = table(&["/a/b"]);
        assert_eq!(resolved(&t, "/"), None);
        assert_eq!(resolved(&t, "/a"), None);
        assert_eq!(resolved(&t, "/a/b/c"), Some((1, "c".into())));
        assert_eq!(t.children("/").into_iter().collect::<Vec<_>>(), ["a"]);
        assert_eq!(t.children("/a").into_iter().collect::<Vec<_>>(), ["b"]);
        assert!(t.children("/a/b").is_empty());
    }

    #[test]
    fn bad_mount_paths_are_refused_with_the_reason() {
        for bad in ["", "data", "/a//b", "/a/../b", "/.", "/a\0"] {
            assert!(MountPath::parse(bad).is_err(), "{bad:?}");
        }
        assert_eq!(MountPath::parse("/a/b/").unwrap().as_str(), "/a/b");
        assert_eq!(MountPath::parse("/").unwrap(), MountPath::root());
    }

    #[test]
    fn a_taken_or_unknown_path_is_named_in_the_error() {
        let mut t = table(&["/data"]);
        let again = t.iter().next().unwrap().clone();
        assert!(t.add(again).unwrap_err().to_string().contains("/data"));
        let missing = t.remove(&MountPath::parse("/date").unwrap()).unwrap_err();
        assert!(missing.to_string().contains("/data"), "{missing}");
        assert_eq!(missing.kind(), ErrorKind::NotFound);
    }

    #[test]
    fn metadata_options_are_checked_when_they_are_set() {
        let mut t = table(&["/data"]);
        let path = MountPath::parse("/data").unwrap();
        let options = |value: &str| [("metadata".to_owned(), value.to_owned())].into();
        t.update(&path, options("strict")).unwrap();
        let error = t.update(&path, options("sometimes")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert_eq!(t.at(&path).unwrap().options["metadata"], "strict");
        let mut new = t.at(&path).unwrap().clone();
        new.path = MountPath::parse("/new").unwrap();
        new.options = options("x");
        assert!(t.add(new).is_err());
    }

    #[test]
    fn secrets_never_print() {
        let options = [
            ("endpoint", "http://x"),
            ("secret_access_key", "hush"),
            ("sas_token", "hush"),
        ];
        let options = options.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        let table = MountTable::standalone("s3://b".into(), options);
        let printed = format!("{table:?}");
        assert!(
            !printed.contains("hush") && printed.contains("http://x"),
            "{printed}"
        );
    }

    proptest! {
        /// Resolution agrees with the definition: the longest mounted component prefix.
        #[test]
        fn resolve_agrees_with_brute_force(
            mounts in proptest::collection::btree_set("(/[ab]{1,2}){0,3}", 0..6),
            path in "(/[ab]{1,2}){1,4}",
        ) {
            let mounts: Vec<_> =
                mounts.iter().map(|m| if m.is_empty() { "/" } else { m.as_str() }).collect();
            let t = table(&mounts);
            let expected = mounts
                .iter()
                .filter(|m| **m == "/" || path == **m || path.starts_with(&format!("{m}/")))
                .max_by_key(|m| m.len());
            let got = t.resolve(&path).map(|(m, _)| m.path.as_str());
            prop_assert_eq!(got, expected.copied());
        }
    }
}
