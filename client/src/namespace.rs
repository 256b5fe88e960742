//! Paths: which mount holds one, and which exist because of mounts. Pure.

use millpond_proto::{MountId, MountTable, Refusal};

use crate::error::ClientError;

/// `path` without a trailing `/`, if it is an absolute, normalized path.
///
/// # Errors
/// [`ClientError::BadPath`] that says what is wrong; refused as `NameTooLong` for more than 4096
/// bytes, or 255 in one component.
pub(crate) fn normal(path: &str) -> Result<&str, ClientError> {
    let bad = |why| {
        Err(ClientError::BadPath {
            path: path.to_owned(),
            why,
        })
    };
    let too_long = || {
        Err(ClientError::Refused {
            action: "use",
            path: path.to_owned(),
            refusal: Refusal::NameTooLong,
        })
    };
    let Some(below) = path.strip_prefix('/') else {
        return bad("it must start with /");
    };
    if path.len() > 4096 {
        return too_long();
    }
    let below = below.strip_suffix('/').unwrap_or(below);
    if below.is_empty() {
        return if path.len() <= 2 && path != "//" {
            Ok("/")
        } else {
            bad("it contains an empty component (//)")
        };
    }
    for component in below.split('/') {
        match component {
            "" => return bad("it contains an empty component (//)"),
            "." | ".." => return bad("it contains . or .."),
            name if name.len() > 255 => return too_long(),
            name if name.contains('\0') => return bad("it contains a NUL byte"),
            _ => {}
        }
    }
    Ok(&path[..=below.len()])
}

/// `name` in the directory `dir`.
pub(crate) fn join(dir: &str, name: &str) -> String {
    if dir == "/" {
        format!("/{name}")
    } else {
        format!("{dir}/{name}")
    }
}

/// Where a path lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    /// The mount that holds the path, and the path below it; empty at the mount's root.
    pub(crate) mount: Option<(MountId, String)>,
    /// Names in the directory that exist because a mount lies at or below them. They hide
    /// whatever the store has under the same name.
    pub(crate) children: Vec<String>,
    root: bool,
}

impl Place {
    /// Where the normalized `path` lies.
    pub(crate) fn of(mounts: &MountTable, path: &str) -> Self {
        Self {
            mount: mounts
                .resolve(path)
                .map(|(mount, below)| (mount.id, below.to_owned())),
            children: mounts
                .children(path)
                .into_iter()
                .map(str::to_owned)
                .collect(),
            root: path == "/",
        }
    }

    /// The mount that begins at this very path.
    pub(crate) fn mount_here(&self) -> Option<MountId> {
        let (id, below) = self.mount.as_ref()?;
        below.is_empty().then_some(*id)
    }

    /// Whether the path is a directory whatever any store says.
    pub(crate) fn is_fixed_directory(&self) -> bool {
        self.root || !self.children.is_empty() || self.mount_here().is_some()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use millpond_proto::{Mount, MountPath};

    use super::*;

    fn table(paths: &[&str]) -> MountTable {
        let mut table = MountTable::default();
        for (i, path) in paths.iter().enumerate() {
            table
                .add(Mount {
                    id: MountId(i as u64 + 1),
                    path: MountPath::parse(path).unwrap(),
                    ufs: format!("memory:///{i}"),
                    options: BTreeMap::new(),
                })
                .unwrap();
        }
        table
    }

    #[test]
    fn paths_are_absolute_and_normalized() {
        assert_eq!(normal("/").unwrap(), "/");
        assert_eq!(normal("/a/b c/").unwrap(), "/a/b c");
        assert_eq!(normal("/ü").unwrap(), "/ü");
        for wrong in ["", "a", "//", "/a//b", "/a//", "/./a", "/a/..", "/a\0b"] {
            assert!(normal(wrong).is_err(), "{wrong:?}");
        }
        assert!(normal(&format!("/{}", "x".repeat(255))).is_ok());
        assert!(normal(&format!("/{}", "x".repeat(256))).is_err());
    }

    #[test]
    fn the_longest_mount_holds_a_path() {
        let table = table(&["/", "/data", "/data/deep/er"]);
        let place = |path| Place::of(&table, path);
        assert_eq!(place("/x").mount, Some((MountId(1), "x".into())));
        assert_eq!(place("/data/x/y").mount, Some((MountId(2), "x/y".into())));
        assert_eq!(place("/data").mount_here(), Some(MountId(2)));
        assert_eq!(
            place("/data/deep/er/z").mount,
            Some((MountId(3), "z".into()))
        );
        assert_eq!(
            place("/dataset").mount,
            Some((MountId(1), "dataset".into()))
        );
    }

    #[test]
    fn directories_above_mounts_exist() {
        let table = table(&["/a/b/c"]);
        for path in ["/", "/a", "/a/b", "/a/b/c"] {
            assert!(Place::of(&table, path).is_fixed_directory(), "{path}");
        }
        assert_eq!(Place::of(&table, "/a").children, ["b"]);
        assert!(!Place::of(&table, "/x").is_fixed_directory());
        assert_eq!(Place::of(&table, "/x").mount, None);
    }
}
