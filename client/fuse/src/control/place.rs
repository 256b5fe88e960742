//! The things in the control directory and their inode numbers.

use fuser::{FileType, INodeNo};
use millpond_client::Trace;

/// The name of the directory at the mount's root.
pub const DIRECTORY: &str = ".millpond";

/// Inode numbers of the control directory have this bit, those of paths have not.
const BIT: u64 = 1 << 63;

/// The first number that a content of the moment may have.
pub(super) const FIRST_SNAPSHOT: u64 = BIT | 16;

/// Whether `ino` belongs to the control directory.
pub(crate) const fn is_control(ino: INodeNo) -> bool {
    ino.0 & BIT != 0
}

/// One thing in the control directory.
#[derive(Debug, Clone)]
pub(super) enum Place {
    Directory,
    Stats,
    Config,
    Prefetch,
    Record,
    Refresh,
    Traces,
    Trace(Trace),
}

impl Place {
    /// What the directory itself holds.
    pub(super) const CHILDREN: [Self; 6] = [
        Self::Stats,
        Self::Config,
        Self::Prefetch,
        Self::Record,
        Self::Refresh,
        Self::Traces,
    ];

    /// The thing with the number `ino`, of those that keep theirs.
    pub(super) fn fixed(ino: u64) -> Option<Self> {
        let all = [
            Self::Directory,
            Self::Prefetch,
            Self::Record,
            Self::Refresh,
            Self::Traces,
        ];
        all.into_iter().find(|place| place.number() == ino)
    }

    /// Whether it is always the same inode; the others are a new one at each look-up.
    pub(super) fn is_fixed(&self) -> bool {
        Self::fixed(self.number()).is_some()
    }

    /// Its number; for what is a new inode each time, the one that listings show.
    pub(super) const fn number(&self) -> u64 {
        match self {
            Self::Directory => BIT | 1,
            Self::Stats => BIT | 2,
            Self::Config => BIT | 3,
            Self::Prefetch => BIT | 4,
            Self::Record => BIT | 5,
            Self::Traces => BIT | 6,
            Self::Trace(_) => BIT | 7,
            Self::Refresh => BIT | 8,
        }
    }

    pub(super) fn name(&self) -> &str {
        match self {
            Self::Directory => DIRECTORY,
            Self::Stats => "stats",
            Self::Config => "config",
            Self::Prefetch => "prefetch",
            Self::Record => "record",
            Self::Refresh => "refresh",
            Self::Traces => "traces",
            Self::Trace(trace) => &trace.name,
        }
    }

    pub(super) const fn kind(&self) -> FileType {
        match self {
            Self::Directory | Self::Traces => FileType::Directory,
            Self::Prefetch | Self::Record | Self::Refresh => FileType::NamedPipe,
            Self::Stats | Self::Config | Self::Trace(_) => FileType::RegularFile,
        }
    }

    /// What was opened by others is for the owner of the mount; hints and changes are for
    /// everyone who may use it.
    pub(super) const fn mode(&self) -> u16 {
        match self {
            Self::Directory => 0o555,
            Self::Stats | Self::Config => 0o444,
            Self::Prefetch | Self::Refresh => 0o222,
            Self::Record => 0o200,
            Self::Traces => 0o500,
            Self::Trace(_) => 0o400,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_distinct_and_not_those_of_paths() {
        let numbers = Place::CHILDREN.map(|place| place.number());
        assert_eq!(
            numbers
                .iter()
                .collect::<std::collections::BTreeSet<_>>()
                .len(),
            Place::CHILDREN.len()
        );
        for place in Place::CHILDREN {
            assert!(is_control(INodeNo(place.number())));
            assert!(place.number() < FIRST_SNAPSHOT);
            let fixed = Place::fixed(place.number()).map(|fixed| fixed.name().to_owned());
            let stays = !matches!(place, Place::Stats | Place::Config);
            assert_eq!(
                fixed.is_some(),
                stays && fixed.as_deref() == Some(place.name())
            );
        }
        assert!(!is_control(INodeNo(crate::inode::ROOT)));
        assert!(!is_control(INodeNo(u64::MAX >> 1)));
    }
}
