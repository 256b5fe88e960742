//! POSIX attributes of objects.

use super::{Backend, Inner, ObjectMeta};
use crate::metadata::Metadata;
use crate::object::backend::Extra;
use crate::write::Attributes;

/// Whether attributes are kept beside objects.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PosixAttributes {
    /// Objects have none.
    #[default]
    Off,
}

impl PosixAttributes {
    pub(crate) const fn are_read(self) -> bool {
        match self {
            Self::Off => false,
        }
    }
}

impl<B: Backend> Inner<B> {
    pub(super) fn extra_of_file(&self, _: &str, _: &Attributes) -> Extra {
        Extra::default()
    }

    pub(super) fn extra_of_directory(&self, _: &Attributes) -> Extra {
        Extra::default()
    }

    /// What a stat would say of `object`, a file that was given `extra`.
    pub(super) fn described(&self, object: ObjectMeta, _: &Extra) -> Metadata {
        Metadata::file(object.size, object.version, object.mtime)
    }
}
