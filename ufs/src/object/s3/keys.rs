//! Where the keys of an S3 mount come from.

use std::fmt;

use millpond_proto::ErrorKind;

use crate::environment::Environment;
use crate::error::{Op, UfsError};
use crate::object::network::Credentials;
use crate::object::s3::profile::Profile;
use crate::options::OptionSet;

/// The keys that were found, and what came with them.
#[derive(Debug)]
pub(super) struct Keys {
    pub(super) source: KeySource,
    /// For messages.
    pub(super) from: String,
    /// The region of the profile.
    pub(super) region: Option<String>,
    /// The endpoint of the profile.
    pub(super) endpoint: Option<String>,
}

/// How requests are signed. Debug output holds no secret.
pub(super) enum KeySource {
    Static {
        id: String,
        secret: String,
        token: Option<String>,
    },
    /// By a role that variables of the environment point to: web identity, container, pod.
    Delegated,
    /// By the role of the machine.
    Instance,
    /// Not at all.
    Anonymous,
}

impl Keys {
    /// Follows the option `credentials`; `auto` takes the first that there is of options,
    /// named profile, environment, roles, default profile, instance metadata.
    pub(super) fn find(
        options: &OptionSet<'_>,
        environment: &Environment,
    ) -> Result<Self, UfsError> {
        let none = |what: &str| {
            UfsError::new(
                ErrorKind::Denied,
                Op::Open,
                options.uri(),
                format!("no credentials in {what}"),
            )
        };
        let wanted = Credentials::of(options)?;
        match wanted {
            Credentials::Static => {
                return Self::of_options(options)?.ok_or_else(|| {
                    none("the options").with_hint("give access_key_id and secret_access_key")
                });
            }
            Credentials::Env => {
                return Self::of_environment(environment).ok_or_else(|| {
                    none("the environment")
                        .with_hint("set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
                });
            }
            Credentials::Profile => return Self::of_profile(options, environment),
            Credentials::Instance => {
                return Ok(Self::plain(KeySource::Instance, "instance metadata"));
            }
            Credentials::Anonymous => {
                return Ok(Self::plain(
                    KeySource::Anonymous,
                    "nowhere, credentials=anonymous",
                ));
            }
            Credentials::Auto => {}
        }
        if let Some(keys) = Self::of_options(options)? {
            return Ok(keys);
        }
        if options.text("profile").is_some() {
            return Self::of_profile(options, environment);
        }
        if let Some(keys) = Self::of_environment(environment) {
            return Ok(keys);
        }
        if environment.get("AWS_PROFILE").is_some() {
            return Self::of_profile(options, environment);
        }
        match Self::of_profile(options, environment) {
            Ok(keys) => Ok(keys),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Self::plain(
                KeySource::Instance,
                "options, environment, default profile, then instance metadata",
            )),
            Err(error) => Err(error),
        }
    }

    fn of_options(options: &OptionSet<'_>) -> Result<Option<Self>, UfsError> {
        match (
            options.text("access_key_id"),
            options.text("secret_access_key"),
        ) {
            (Some(id), Some(secret)) => Ok(Some(Self::plain(
                KeySource::Static {
                    id: id.to_owned(),
                    secret: secret.to_owned(),
                    token: options.text("session_token").map(str::to_owned),
                },
                "the options",
            ))),
            (None, None) => Ok(None),
            (Some(_), None) => Err(options.wrong("secret_access_key", "missing")),
            (None, Some(_)) => Err(options.wrong("access_key_id", "missing")),
        }
    }

    fn of_environment(environment: &Environment) -> Option<Self> {
        if let Some(id) = environment.get("AWS_ACCESS_KEY_ID")
            && let Some(secret) = environment.get("AWS_SECRET_ACCESS_KEY")
        {
            let token = environment.get("AWS_SESSION_TOKEN").map(str::to_owned);
            return Some(Self::plain(
                KeySource::Static {
                    id: id.to_owned(),
                    secret: secret.to_owned(),
                    token,
                },
                "the environment",
            ));
        }
        [
            "AWS_WEB_IDENTITY_TOKEN_FILE",
            "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
            "AWS_CONTAINER_CREDENTIALS_FULL_URI",
        ]
        .into_iter()
        .find(|name| environment.get(name).is_some())
        .map(|name| Self::plain(KeySource::Delegated, &format!("the role of {name}")))
    }

    fn of_profile(options: &OptionSet<'_>, environment: &Environment) -> Result<Self, UfsError> {
        let name = options
            .text("profile")
            .or_else(|| environment.get("AWS_PROFILE"))
            .unwrap_or("default");
        let profile = Profile::load(name, environment)
            .map_err(|error| UfsError::new(error.kind, Op::Open, options.uri(), error.cause))?;
        Ok(Self {
            source: KeySource::Static {
                id: profile.access_key_id,
                secret: profile.secret_access_key,
                token: profile.session_token,
            },
            from: format!("the profile {name}"),
            region: profile.region,
            endpoint: profile.endpoint,
        })
    }

    fn plain(source: KeySource, from: &str) -> Self {
        Self {
            source,
            from: from.to_owned(),
            region: None,
            endpoint: None,
        }
    }
}

impl fmt::Debug for KeySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Static { .. } => "Static",
            Self::Delegated => "Delegated",
            Self::Instance => "Instance",
            Self::Anonymous => "Anonymous",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::uri::Scheme;
    use std::collections::BTreeMap;

    fn find(options: &[(&str, &str)], variables: &[(&str, &str)]) -> Result<Keys, UfsError> {
        let map = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
            pairs
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect()
        };
        let values = map(options);
        let options = OptionSet::new("s3://b".into(), Scheme::S3, &values)?;
        Keys::find(&options, &Environment::new(map(variables), None))
    }

    fn from(options: &[(&str, &str)], variables: &[(&str, &str)]) -> String {
        match find(options, variables) {
            Ok(keys) => keys.from,
            Err(error) => format!("{}: {error}", error.kind()),
        }
    }

    const OPTIONS: [(&str, &str); 2] = [("access_key_id", "A"), ("secret_access_key", "S")];
    const VARIABLES: [(&str, &str); 2] =
        [("AWS_ACCESS_KEY_ID", "B"), ("AWS_SECRET_ACCESS_KEY", "T")];

    #[test]
    fn options_come_before_environment_before_instance() {
        assert_eq!(from(&OPTIONS, &VARIABLES), "the options");
        assert_eq!(from(&[], &VARIABLES), "the environment");
        assert!(from(&[], &[]).ends_with("instance metadata"));
        let role = [("AWS_WEB_IDENTITY_TOKEN_FILE", "/t")];
        assert_eq!(from(&[], &role), "the role of AWS_WEB_IDENTITY_TOKEN_FILE");
    }

    #[test]
    fn a_named_source_is_taken_or_missed_by_name() {
        let env = [("credentials", "env")];
        assert_eq!(from(&env, &VARIABLES), "the environment");
        assert!(from(&env, &[]).contains("denied: cannot open s3://b: no credentials in the env"));
        assert!(from(&[("credentials", "magic")], &[]).contains("is not one of auto, static"));
        assert!(from(&[("access_key_id", "A")], &[]).contains("secret_access_key: missing"));
        assert!(from(&[("profile", "p")], &VARIABLES).contains("not found"));
    }

    #[test]
    fn debug_shows_no_secret() {
        let keys = find(
            &[("access_key_id", "A"), ("secret_access_key", "hunter2")],
            &[],
        );
        assert!(!format!("{keys:?}").contains("hunter2"));
    }
}
