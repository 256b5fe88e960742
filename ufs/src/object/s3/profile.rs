//! Profiles of the AWS command line: `~/.aws/credentials` and `~/.aws/config`.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::PathBuf;

use millpond_proto::ErrorKind;

use crate::environment::Environment;

/// The keys and settings of one profile. Debug output holds no secret.
pub(super) struct Profile {
    pub(super) access_key_id: String,
    pub(super) secret_access_key: String,
    pub(super) session_token: Option<String>,
    pub(super) region: Option<String>,
    pub(super) endpoint: Option<String>,
}

/// Why a profile could not be had.
#[derive(Debug)]
pub(super) struct ProfileError {
    pub(super) kind: ErrorKind,
    pub(super) cause: String,
}

impl fmt::Debug for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Profile")
            .field("region", &self.region)
            .field("endpoint", &self.endpoint)
            .finish_non_exhaustive()
    }
}

impl Profile {
    /// Loads the profile `name` from both files; what the credentials file says wins.
    ///
    /// # Errors
    /// `NotFound` if neither file has it, `Unsupported` if it gets its keys in a way that is
    /// not known here (a process, single sign-on, another role), `Denied` if a file cannot
    /// be read.
    pub(super) fn load(name: &str, environment: &Environment) -> Result<Self, ProfileError> {
        let files = [
            ("AWS_CONFIG_FILE", "config", config_section(name)),
            (
                "AWS_SHARED_CREDENTIALS_FILE",
                "credentials",
                name.to_owned(),
            ),
        ];
        let mut settings = BTreeMap::new();
        let mut looked_at = Vec::new();
        for (variable, file, section) in files {
            let Some(path) = path(environment, variable, file) else {
                continue;
            };
            looked_at.push(path.display().to_string());
            match std::fs::read_to_string(&path) {
                Ok(text) => settings.extend(section_of(&text, &section)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    return Err(ProfileError {
                        kind: ErrorKind::Denied,
                        cause: format!("cannot read {}: {error}", path.display()),
                    });
                }
            }
        }
        let mut take = |key: &str| settings.remove(key).filter(|value| !value.is_empty());
        if let (Some(access_key_id), Some(secret_access_key)) =
            (take("aws_access_key_id"), take("aws_secret_access_key"))
        {
            return Ok(Self {
                access_key_id,
                secret_access_key,
                session_token: take("aws_session_token"),
                region: take("region"),
                endpoint: take("endpoint_url"),
            });
        }
        for way in [
            "credential_process",
            "sso_session",
            "sso_start_url",
            "role_arn",
        ] {
            if take(way).is_some() {
                return Err(ProfileError {
                    kind: ErrorKind::Unsupported,
                    cause: format!(
                        "the profile {name:?} gets its keys by {way}, which is not supported; \
                         export them to the environment instead"
                    ),
                });
            }
        }
        Err(ProfileError {
            kind: ErrorKind::NotFound,
            cause: format!(
                "there are no keys for the profile {name:?} in {}",
                match looked_at.is_empty() {
                    true => "any file: the home directory is not known".to_owned(),
                    false => looked_at.join(" or "),
                }
            ),
        })
    }
}

fn path(environment: &Environment, variable: &str, file: &str) -> Option<PathBuf> {
    match environment.get(variable) {
        Some(path) => Some(PathBuf::from(path)),
        None => Some(environment.home()?.join(".aws").join(file)),
    }
}

/// In the config file all sections but the default one are called `profile name`.
fn config_section(name: &str) -> String {
    match name {
        "default" => name.to_owned(),
        name => format!("profile {name}"),
    }
}

/// The `key = value` lines of `[section]`; nested (indented) ones are left out.
fn section_of(text: &str, section: &str) -> BTreeMap<String, String> {
    let mut settings = BTreeMap::new();
    let mut inside = false;
    for line in text.lines() {
        if line.starts_with([' ', '\t', '#', ';']) || line.is_empty() {
            continue;
        }
        if let Some(rest) = line.strip_prefix('[') {
            let title = rest.split(']').next().unwrap_or_default();
            inside = title.split_whitespace().eq(section.split_whitespace());
        } else if inside && let Some((key, value)) = line.split_once('=') {
            settings.insert(key.trim().to_ascii_lowercase(), value.trim().to_owned());
        }
    }
    settings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn home(credentials: &str, config: &str) -> (tempfile::TempDir, Environment) {
        let home = tempfile::tempdir().expect("a temporary directory");
        let aws = home.path().join(".aws");
        std::fs::create_dir(&aws).expect("made");
        std::fs::write(aws.join("credentials"), credentials).expect("written");
        std::fs::write(aws.join("config"), config).expect("written");
        let environment = Environment::new(BTreeMap::new(), Some(home.path().to_owned()));
        (home, environment)
    }

    #[test]
    fn keys_and_settings_come_from_both_files() {
        let (_home, environment) = home(
            "[default]\naws_access_key_id=D\naws_secret_access_key=E\n\n[lake]\n\
             aws_access_key_id = A\naws_secret_access_key = S=1/2+3\naws_session_token = T\n",
            "[profile lake]\nregion = eu-west-1\ns3 =\n  region = nested\n\
             endpoint_url = http://h:9000\n[default]\nregion = us-west-2\n",
        );
        let lake = Profile::load("lake", &environment).expect("found");
        assert_eq!(lake.access_key_id, "A");
        assert_eq!(lake.secret_access_key, "S=1/2+3");
        assert_eq!(lake.session_token.as_deref(), Some("T"));
        assert_eq!(lake.region.as_deref(), Some("eu-west-1"));
        assert_eq!(lake.endpoint.as_deref(), Some("http://h:9000"));
        let default = Profile::load("default", &environment).expect("found");
        assert_eq!(default.region.as_deref(), Some("us-west-2"));
    }

    #[test]
    fn missing_and_unsupported_profiles_are_told_apart() {
        let (_home, environment) = home("", "[profile sso]\nsso_session = x\n");
        let kind = |name| {
            Profile::load(name, &environment)
                .err()
                .map(|error| error.kind)
        };
        assert_eq!(kind("sso"), Some(ErrorKind::Unsupported));
        assert_eq!(kind("none"), Some(ErrorKind::NotFound));
    }
}
