//! What a mount's data are used for.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use crate::mount::MountError;

/// The mount option that names a [`Profile`]. (`profile` is that of S3 credentials.)
pub const PROFILE_OPTION: &str = "cache_profile";

/// What a mount's data are used for, and so how the tier treats them.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Profile {
    /// Anything: what is used again stays in the tier, and metadata is believed for the TTL.
    #[default]
    Default,
    /// Data that are read whole, again and again, and do not change, as training does. If they
    /// do not fit the tier it holds on to a part of them; metadata is believed until told
    /// otherwise, unless the mount says how.
    Dataset,
}

impl Profile {
    /// The word that the option uses.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Dataset => "dataset",
        }
    }

    /// Reads [`PROFILE_OPTION`].
    ///
    /// # Errors
    /// [`MountError::BadOption`] for a word without meaning.
    pub fn of(options: &BTreeMap<String, String>) -> Result<Self, MountError> {
        let Some(text) = options.get(PROFILE_OPTION) else {
            return Ok(Self::Default);
        };
        text.parse().map_err(|why| MountError::BadOption {
            option: PROFILE_OPTION,
            why,
        })
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl FromStr for Profile {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        [Self::Default, Self::Dataset]
            .into_iter()
            .find(|profile| profile.word() == text)
            .ok_or_else(|| format!("{text:?} is not default or dataset"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_option_names_a_profile_or_is_refused() {
        let read = |value: Option<&str>| {
            let pair = value.map(|value| (PROFILE_OPTION.to_owned(), value.to_owned()));
            Profile::of(&pair.into_iter().collect())
        };
        assert_eq!(read(None).unwrap(), Profile::Default);
        assert_eq!(read(Some("default")).unwrap(), Profile::Default);
        assert_eq!(read(Some("dataset")).unwrap(), Profile::Dataset);
        let error = read(Some("training")).unwrap_err().to_string();
        assert!(error.contains("default or dataset"), "{error}");
    }
}
