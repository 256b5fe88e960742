//! Configuration in layers: defaults, TOML file, environment, flags; later wins.
//!
//! A process describes its settings as one serde struct `T` whose `Default` holds the
//! defaults and which serializes every key (no `skip_serializing_if`), so that the known keys
//! can be read off the defaults. The flags are a second struct with the same shape whose
//! fields are all `Option`.

mod env;
mod keys;
mod print;
mod size;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use figment::error::Kind;
use figment::providers::{Format, Toml};
use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider};
use millpond_proto::ErrorKind;
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use print::to_toml;
pub use size::{BadSize, Size};

/// The prefix of every environment variable of ours.
pub const ENV_PREFIX: &str = "MILLPOND_";

/// Reads the settings `T` from its defaults, then the TOML `file`, then environment variables
/// (`<env_prefix>SECTION__KEY`), then the `flags` that were given.
///
/// - A key of the file that `T` does not know is an error. An environment variable that `T`
///   does not know is ignored: the prefix is shared with other processes, and orchestrators
///   set variables named after services.
/// - In `flags`, `None` is a flag that was not given.
///
/// # Errors
/// [`ConfigError`], which names the key and where its value came from.
pub fn load<T: DeserializeOwned + Serialize + Default>(
    file: Option<&Path>,
    env_prefix: &str,
    flags: &impl Serialize,
) -> Result<T, ConfigError> {
    let variables = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    load_from(file, env_prefix, variables, flags)
}

fn load_from<T: DeserializeOwned + Serialize + Default>(
    file: Option<&Path>,
    env_prefix: &str,
    variables: impl Iterator<Item = (String, String)>,
    flags: &impl Serialize,
) -> Result<T, ConfigError> {
    let defaults = dict_of(&T::default())?;
    let mut layers = Figment::from(Layer::new("default", defaults.clone()));
    if let Some(path) = file {
        let dict = read_file(path)?;
        keys::check(&dict, &defaults, path)?;
        layers = layers.merge(Layer::new(format!("{}", path.display()), dict));
    }
    for (name, dict) in env::layers(variables, env_prefix, &defaults) {
        layers = layers.merge(Layer::new(format!("environment variable {name}"), dict));
    }
    let flags = keys::without_empty(dict_of(flags)?);
    layers = layers.merge(Layer::new("command line", flags));
    layers
        .extract()
        .map_err(|error| ConfigError::of(error, file))
}

/// `/var/lib/millpond/<role>` for root, else `$XDG_DATA_HOME/millpond/<role>`, else
/// `~/.local/share/millpond/<role>`; without a home directory a directory of the user's own
/// below the system's temporary one.
pub fn default_data_dir(role: &str) -> PathBuf {
    let uid = nix::unistd::geteuid();
    if uid.is_root() {
        return Path::new("/var/lib/millpond").join(role);
    }
    let absolute = |name| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|p| p.is_absolute())
    };
    absolute("XDG_DATA_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".local/share")))
        .map(|data| data.join("millpond"))
        .unwrap_or_else(|| std::env::temp_dir().join(format!("millpond-{uid}")))
        .join(role)
}

/// A configuration that cannot be used. All of them are the user's to fix: exit code 2.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration file {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is no TOML.
    #[error("the configuration file {} is not valid TOML: {message}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// What and where, by the parser.
        message: String,
    },
    /// The file has a key that does not exist.
    #[error("unknown key `{key}` in {}{}", path.display(), Hint(nearest))]
    UnknownKey {
        /// The file.
        path: PathBuf,
        /// The key with its sections.
        key: String,
        /// The known key that looks most like it.
        nearest: Option<String>,
    },
    /// A value does not make sense.
    #[error("`{key}` ({origin}): {message}")]
    Value {
        /// The key with its sections.
        key: String,
        /// The layer that the value came from.
        origin: String,
        /// What is wrong with it.
        message: String,
    },
}

impl ConfigError {
    /// A value that parses but does not make sense, found by a process's own validation.
    pub fn invalid(key: &str, message: impl fmt::Display) -> Self {
        Self::Value {
            key: key.to_owned(),
            origin: "configuration".to_owned(),
            message: message.to_string(),
        }
    }

    /// What the caller should do.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Read { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                ErrorKind::NotFound
            }
            Self::Read { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                ErrorKind::Denied
            }
            _ => ErrorKind::Invalid,
        }
    }

    fn of(error: figment::Error, file: Option<&Path>) -> Self {
        let mut path = error.path.clone();
        if let (Kind::UnknownField(field, known), Some(file)) = (&error.kind, file) {
            if path.last() != Some(field) {
                path.push(field.clone());
            }
            return Self::UnknownKey {
                path: file.to_owned(),
                key: path.join("."),
                nearest: keys::nearest(field, known.iter().copied()),
            };
        }
        let origin = error.metadata.as_ref().map(|m| m.name.to_string());
        Self::Value {
            key: path.join("."),
            origin: origin.unwrap_or_else(|| "configuration".to_owned()),
            message: error.kind.to_string(),
        }
    }
}

struct Hint<'a>(&'a Option<String>);

impl fmt::Display for Hint<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(nearest) => write!(f, "; did you mean `{nearest}`?"),
            None => f.write_str("; --print-config lists the known keys"),
        }
    }
}

/// One layer of the configuration with a name for error messages.
struct Layer {
    name: String,
    dict: Dict,
}

impl Layer {
    fn new(name: impl Into<String>, dict: Dict) -> Self {
        Self {
            name: name.into(),
            dict,
        }
    }
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.name.clone())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Map::from([(Profile::Default, self.dict.clone())]))
    }
}

fn read_file(path: &Path) -> Result<Dict, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
        path: path.to_owned(),
        source,
    })?;
    Toml::from_str(&text).map_err(|error| ConfigError::Syntax {
        path: path.to_owned(),
        message: error.to_string().trim_end().to_owned(),
    })
}

fn dict_of(value: &impl Serialize) -> Result<Dict, ConfigError> {
    match Value::serialize(value) {
        Ok(Value::Dict(_, dict)) => Ok(dict),
        // No flags at all.
        Ok(Value::Empty(..)) => Ok(Dict::new()),
        Ok(_) => Err(ConfigError::invalid("", "settings must be a table")),
        Err(error) => Err(ConfigError::invalid("", error)),
    }
}

#[cfg(test)]
mod tests;
