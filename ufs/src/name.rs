//! Which keys are files, and how paths and keys map to each other.

use std::fmt;

/// Why a name cannot be shown as a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NameFault {
    /// Nothing between two slashes.
    Empty,
    /// `.` or `..`.
    Dots,
    /// An ASCII control character.
    Control,
    /// More than [`MAX_NAME`] bytes.
    TooLong,
    /// A slash inside a single name.
    Slash,
    /// One that is kept for files that are being written: see [`UNFINISHED`].
    Reserved,
}

/// How the names of files begin that are being written and not in their place yet. They are
/// hidden, in every store, and nothing can be given such a name.
pub const UNFINISHED: &str = ".millpond-unfinished-";

/// The longest name in bytes, as in Linux.
pub const MAX_NAME: usize = 255;

/// Why `name` cannot be one component of a path into an object store; `None` if it can.
pub fn fault(name: &str) -> Option<NameFault> {
    if name.is_empty() {
        Some(NameFault::Empty)
    } else if name == "." || name == ".." {
        Some(NameFault::Dots)
    } else if name.len() > MAX_NAME {
        Some(NameFault::TooLong)
    } else if name.bytes().any(|byte| byte == b'/') {
        Some(NameFault::Slash)
    } else if name.bytes().any(|byte| byte.is_ascii_control()) {
        Some(NameFault::Control)
    } else if name.starts_with(UNFINISHED) {
        Some(NameFault::Reserved)
    } else {
        None
    }
}

/// Whether `path` has the form that [`Ufs`](crate::Ufs) asks for: `""`, or components that
/// are neither empty nor `.` nor `..`, separated by single slashes, without NUL.
pub fn is_well_formed(path: &str) -> bool {
    path.is_empty()
        || path
            .split('/')
            .all(|name| !matches!(name, "" | "." | "..") && !name.contains('\0'))
}

/// The part of the key space that a mount shows, and the map between its paths and keys.
///
/// The map adds or removes `prefix/` and changes nothing else, so it is one to one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyPrefix(String);

impl KeyPrefix {
    /// The keys below `prefix`, which has no slash at either end; all keys if it is empty.
    pub fn new(prefix: &str) -> Self {
        Self(prefix.to_owned())
    }

    /// The key of the object at `path`; `None` if no such key can be reached.
    pub fn key(&self, path: &str) -> Option<String> {
        if path.is_empty() || path.split('/').any(|name| fault(name).is_some()) {
            return None;
        }
        Some(match self.0.as_str() {
            "" => path.to_owned(),
            prefix => format!("{prefix}/{path}"),
        })
    }

    /// The prefix of all keys in the directory at `path`: empty, or ending in `/`. `None` if
    /// no such key can be reached.
    pub fn directory(&self, path: &str) -> Option<String> {
        let mut key = match path {
            "" => self.0.clone(),
            path => self.key(path)?,
        };
        if !key.is_empty() {
            key.push('/');
        }
        Some(key)
    }

    /// The path of the object with `key`; `None` if it is outside this prefix or hidden.
    pub fn path<'a>(&self, key: &'a str) -> Option<&'a str> {
        let path = match self.0.as_str() {
            "" => key,
            prefix => key.strip_prefix(prefix)?.strip_prefix('/')?,
        };
        (!path.split('/').any(|name| fault(name).is_some())).then_some(path)
    }
}

impl fmt::Display for NameFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "is empty",
            Self::Dots => "is . or ..",
            Self::Control => "has a control character",
            Self::TooLong => "is longer than 255 bytes",
            Self::Slash => "has a slash",
            Self::Reserved => "is kept for files that are being written",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn hidden_names_are_exactly_the_documented_ones() {
        for (name, expected) in [
            ("", Some(NameFault::Empty)),
            (".", Some(NameFault::Dots)),
            ("..", Some(NameFault::Dots)),
            ("a\nb", Some(NameFault::Control)),
            ("a\u{7f}", Some(NameFault::Control)),
            (".millpond-unfinished-x", Some(NameFault::Reserved)),
            ("...", None),
            (".hidden", None),
            ("a b%2F#?\\*~é☃", None),
        ] {
            assert_eq!(fault(name), expected, "{name:?}");
        }
        assert_eq!(fault(&"x".repeat(255)), None);
        assert_eq!(fault(&"x".repeat(256)), Some(NameFault::TooLong));
        assert_eq!(fault(&"é".repeat(128)), Some(NameFault::TooLong));
    }

    #[test]
    fn keys_beside_the_prefix_are_outside() {
        let prefix = KeyPrefix::new("data");
        assert_eq!(prefix.path("data/x"), Some("x"));
        assert_eq!(prefix.path("data-2/x"), None);
        assert_eq!(prefix.path("data"), None);
        assert_eq!(prefix.directory(""), Some("data/".into()));
        assert_eq!(KeyPrefix::new("").directory(""), Some(String::new()));
    }

    proptest! {
        #[test]
        fn path_to_key_and_back_is_the_identity(
            prefix in prop_oneof![Just(String::new()), "[a-z %]{1,4}(/[a-z#]{1,3})?"],
            names in proptest::collection::vec("\\PC{1,20}", 1..5),
        ) {
            let path = names.join("/");
            let prefix = KeyPrefix::new(&prefix);
            match prefix.key(&path) {
                Some(key) => prop_assert_eq!(prefix.path(&key), Some(path.as_str())),
                None => prop_assert!(path.split('/').any(|name| fault(name).is_some())),
            }
        }

        #[test]
        fn key_to_path_and_back_is_the_identity(key in "[a-c/%.\u{1}é]{0,12}") {
            let prefix = KeyPrefix::new("a");
            if let Some(path) = prefix.path(&key) {
                prop_assert_eq!(prefix.key(path), Some(key.clone()));
            }
        }
    }
}
