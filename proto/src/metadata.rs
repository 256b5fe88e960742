//! How long what was said of a path is believed.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::mount::MountError;
use crate::profile::{PROFILE_OPTION, Profile};

/// The mount option that names a [`MetadataMode`].
pub const MODE_OPTION: &str = "metadata";

/// The mount option that names how long attributes are believed in mode `ttl`.
pub const TTL_OPTION: &str = "metadata_ttl";

/// How a mount's attributes, names and listings are believed.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MetadataMode {
    /// Never: each `stat` and each `open` asks the store.
    Strict,
    /// For a while.
    #[default]
    Ttl,
    /// Until told otherwise: the data does not change, or its changes are announced.
    Immutable,
}

impl MetadataMode {
    /// The word that options and flags use.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Strict => "strict",
            Self::Ttl => "ttl",
            Self::Immutable => "immutable",
        }
    }
}

impl fmt::Display for MetadataMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl FromStr for MetadataMode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        [Self::Strict, Self::Ttl, Self::Immutable]
            .into_iter()
            .find(|mode| mode.word() == text)
            .ok_or_else(|| format!("{text:?} is not strict, ttl or immutable"))
    }
}

/// What a mount's options say of its metadata; what they leave open is the client's choice.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct MetadataOptions {
    /// The mode.
    pub mode: Option<MetadataMode>,
    /// The TTL.
    pub ttl: Option<Duration>,
}

impl MetadataOptions {
    /// Reads [`MODE_OPTION`] and [`TTL_OPTION`]. A TTL alone means mode `ttl`; without either,
    /// the metadata of a data set ([`Profile`]) are `immutable`.
    ///
    /// # Errors
    /// [`MountError::BadOption`] for a value without meaning, or a TTL in another mode.
    pub fn of(options: &BTreeMap<String, String>) -> Result<Self, MountError> {
        let bad = |option, why| MountError::BadOption { option, why };
        let mode = match options.get(MODE_OPTION) {
            Some(text) => Some(text.parse().map_err(|why| bad(MODE_OPTION, why))?),
            None => None,
        };
        let ttl = match options.get(TTL_OPTION) {
            Some(text) => Some(parse_duration(text).ok_or_else(|| {
                let why = format!("{text:?} is not a time such as 500ms, 1s, 5m or 1h");
                bad(TTL_OPTION, why)
            })?),
            None => None,
        };
        match (mode, ttl) {
            (Some(mode @ (MetadataMode::Strict | MetadataMode::Immutable)), Some(_)) => {
                let why = format!("it has no meaning with {MODE_OPTION}={mode}; leave one away");
                Err(bad(TTL_OPTION, why))
            }
            (None, Some(_)) => Ok(Self {
                mode: Some(MetadataMode::Ttl),
                ttl,
            }),
            (None, None) => Ok(Self {
                mode: match Profile::of(options)? {
                    Profile::Dataset => Some(MetadataMode::Immutable),
                    Profile::Default => None,
                },
                ttl,
            }),
            (mode, ttl) => Ok(Self { mode, ttl }),
        }
    }

    /// `options` without those that are the mount's own: what the UFS driver is to see.
    pub fn strip(options: &BTreeMap<String, String>) -> BTreeMap<String, String> {
        let ours = |key: &str| [MODE_OPTION, TTL_OPTION, PROFILE_OPTION].contains(&key);
        options
            .iter()
            .filter(|(key, _)| !ours(key))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect()
    }

    /// What holds for a mount with these options where everything else is as in `default`.
    pub fn over(&self, default: Trust) -> Trust {
        Trust {
            mode: self.mode.unwrap_or(default.mode),
            ttl: self.ttl.unwrap_or(default.ttl),
        }
    }
}

/// How long what the store said is believed, counted from when it was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trust {
    /// The mode.
    pub mode: MetadataMode,
    /// For mode `ttl`; in mode `immutable` it bounds the belief in absence alone.
    pub ttl: Duration,
}

impl Trust {
    /// How long that something exists, with its attributes, is believed.
    pub const fn presence(&self) -> Duration {
        match self.mode {
            MetadataMode::Strict => Duration::ZERO,
            MetadataMode::Ttl => self.ttl,
            MetadataMode::Immutable => FOREVER,
        }
    }

    /// How long the answer that one path does not exist is believed.
    pub fn absence(&self) -> Duration {
        match self.mode {
            MetadataMode::Strict => Duration::ZERO,
            MetadataMode::Ttl | MetadataMode::Immutable => self.ttl / 2,
        }
    }

    /// How long it is believed that a name which a whole listing does not have is absent.
    pub fn absence_from_listing(&self) -> Duration {
        match self.mode {
            MetadataMode::Immutable => FOREVER,
            MetadataMode::Strict | MetadataMode::Ttl => self.absence(),
        }
    }
}

/// Longer than any process runs, and far from where clocks overflow.
pub const FOREVER: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// A whole number with a unit: ms, s, m, h or d; `0` needs none.
fn parse_duration(text: &str) -> Option<Duration> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().ok()?;
    let ms = match unit.trim() {
        "" if number == 0 => 0,
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    let duration = Duration::from_millis(number.checked_mul(ms)?);
    (duration <= FOREVER).then_some(duration)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<MetadataOptions, MountError> {
        let pairs = pairs.iter().map(|(k, v)| ((*k).into(), (*v).into()));
        MetadataOptions::of(&pairs.collect())
    }

    const DEFAULT: Trust = Trust {
        mode: MetadataMode::Ttl,
        ttl: Duration::from_secs(1),
    };

    #[test]
    fn a_mount_overrides_what_it_names_and_nothing_else() {
        assert_eq!(read(&[]).unwrap().over(DEFAULT), DEFAULT);
        let long = read(&[("metadata_ttl", "5m")]).unwrap().over(DEFAULT);
        assert_eq!(long.presence(), Duration::from_secs(300));
        assert_eq!(long.absence(), Duration::from_secs(150));
        let fixed = read(&[("metadata", "immutable")]).unwrap().over(DEFAULT);
        assert_eq!(fixed.presence(), FOREVER);
        assert_eq!(fixed.absence(), Duration::from_millis(500));
        assert_eq!(fixed.absence_from_listing(), FOREVER);
        let strict = read(&[("metadata", "strict")]).unwrap().over(DEFAULT);
        assert_eq!(strict.presence(), Duration::ZERO);
        assert_eq!(strict.absence_from_listing(), Duration::ZERO);
        let dataset = read(&[("cache_profile", "dataset")]).unwrap().over(DEFAULT);
        assert_eq!(dataset.presence(), FOREVER);
        let changing = [("cache_profile", "dataset"), ("metadata_ttl", "1s")];
        let changing = read(&changing).unwrap().over(DEFAULT);
        assert_eq!(changing.presence(), Duration::from_secs(1));
        // A TTL speaks of mode ttl, whatever the client's own default is.
        let default = Trust {
            mode: MetadataMode::Strict,
            ..DEFAULT
        };
        let short = read(&[("metadata_ttl", "10ms")]).unwrap().over(default);
        assert_eq!(short.presence(), Duration::from_millis(10));
    }

    #[test]
    fn values_without_meaning_are_refused_with_what_would_do() {
        let why = |pairs: &[(&str, &str)]| read(pairs).unwrap_err().to_string();
        assert!(why(&[("metadata", "never")]).contains("strict, ttl or immutable"));
        for wrong in ["soon", "1", "-1s", "1.5s", "", "99999999999d"] {
            assert!(why(&[("metadata_ttl", wrong)]).contains("500ms"), "{wrong}");
        }
        let both = why(&[("metadata", "strict"), ("metadata_ttl", "1s")]);
        assert!(both.contains("metadata=strict"), "{both}");
        assert_eq!(
            read(&[("metadata_ttl", "0")]).unwrap().ttl,
            Some(Duration::ZERO)
        );
    }

    #[test]
    fn the_driver_sees_its_own_options_alone() {
        let options = [
            ("region", "x"),
            ("metadata", "ttl"),
            ("metadata_ttl", "1s"),
            ("cache_profile", "dataset"),
        ];
        let options = options.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        let left: Vec<_> = MetadataOptions::strip(&options).into_keys().collect();
        assert_eq!(left, ["region"]);
    }
}
