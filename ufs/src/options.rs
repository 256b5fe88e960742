//! The options of each scheme: one table from which parsing, help and redaction come.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use bytesize::ByteSize;
use millpond_proto::ErrorKind;

use crate::error::{Op, UfsError};
use crate::uri::Scheme;

/// One option of a scheme.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OptionSpec {
    /// The key, as in `--option key=value`.
    pub key: &'static str,
    /// What it does, one sentence.
    pub help: &'static str,
    /// What holds when it is not given, as text for a person.
    pub default: &'static str,
    /// Whether the value must never be shown.
    pub secret: bool,
}

/// Every option of `scheme`, in the order in which help shows them.
///
/// | scheme | options |
/// |---|---|
/// | all | `timeout`, `concurrency`, `ufs_bandwidth`, `ufs_requests`, `read_only`, `metadata`, `metadata_ttl`, `cache_profile`, `shape`, `shape.latency`, `shape.latency_p99`, `shape.stream_bandwidth`, `shape.total_bandwidth`, `shape.request_rate`, `shape.error_rate`, `shape.seed` |
/// | all over the network | `max_retries`, `connect_timeout`, `allow_http` |
/// | S3, GCS, Azure, memory | `page_size`, `posix_attributes`, `directories` |
/// | `s3` | `endpoint`, `region`, `path_style`, `virtual_hosted_style_request`, `credentials`, `access_key_id`, `secret_access_key`, `session_token`, `profile`, `checksum`, `env_file` |
/// | `gs` | `endpoint`, `credentials`, `service_account_file`, `service_account_key`, `env_file` |
/// | `az` | `endpoint`, `account`, `credentials`, `access_key`, `sas_token`, `tenant_id`, `client_id`, `client_secret`, `federated_token_file`, `use_emulator`, `env_file` |
/// | `http` | `username`, `password`, `bearer_token` |
pub fn known_options(scheme: Scheme) -> Vec<&'static OptionSpec> {
    let groups: &[&[OptionSpec]] = match scheme {
        Scheme::S3 => &[S3, KEYED, NETWORK, COMMON, SHAPE],
        Scheme::Gcs => &[GCS, KEYED, NETWORK, COMMON, SHAPE],
        Scheme::Azure => &[AZURE, KEYED, NETWORK, COMMON, SHAPE],
        Scheme::Http => &[HTTP, NETWORK, COMMON, SHAPE],
        Scheme::Memory => &[KEYED, COMMON, SHAPE],
        Scheme::File => &[COMMON, SHAPE],
    };
    groups.iter().flat_map(|group| group.iter()).collect()
}

/// `options` with the values of secret ones replaced by `***`, for showing. An unknown key
/// counts as secret.
pub fn redacted(scheme: Scheme, options: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let known = known_options(scheme);
    let shown = |key: &str| known.iter().any(|spec| spec.key == key && !spec.secret);
    options
        .iter()
        .map(|(key, value)| {
            let value = if shown(key) { value.as_str() } else { "***" };
            (key.clone(), value.to_owned())
        })
        .collect()
}

/// The options of one mount, known to be options of its scheme.
pub(crate) struct OptionSet<'a> {
    uri: String,
    values: &'a BTreeMap<String, String>,
    secrets: Vec<String>,
}

impl<'a> OptionSet<'a> {
    /// Checks that every key of `values` is an option of `scheme`.
    pub(crate) fn new(
        uri: String,
        scheme: Scheme,
        values: &'a BTreeMap<String, String>,
    ) -> Result<Self, UfsError> {
        let known = known_options(scheme);
        for key in values.keys() {
            if !known.iter().any(|spec| spec.key == key) {
                return Err(unknown(&uri, key, &known));
            }
        }
        // They are the mount's, not the driver's: the cache above goes by them.
        if let Err(error) = millpond_proto::mount::check_options(values) {
            return Err(UfsError::new(
                ErrorKind::Invalid,
                Op::Open,
                &uri,
                error.to_string(),
            ));
        }
        let secrets = known
            .iter()
            .filter(|spec| spec.secret)
            .filter_map(|spec| values.get(spec.key).cloned())
            .collect();
        Ok(Self {
            uri,
            values,
            secrets,
        })
    }

    /// The value of `key`, unless it is not given or empty.
    pub(crate) fn text(&self, key: &str) -> Option<&'a str> {
        self.values
            .get(key)
            .map(String::as_str)
            .filter(|value| !value.is_empty())
    }

    pub(crate) fn flag(&self, key: &str, default: bool) -> Result<bool, UfsError> {
        self.parsed(key, default, "true or false", |text| match text {
            "true" | "yes" | "on" | "1" => Some(true),
            "false" | "no" | "off" | "0" => Some(false),
            _ => None,
        })
    }

    pub(crate) fn duration(&self, key: &str, default: Duration) -> Result<Duration, UfsError> {
        self.parsed(key, default, "a duration above zero such as 10s", |text| {
            humantime::parse_duration(text)
                .ok()
                .filter(|duration| !duration.is_zero())
        })
    }

    pub(crate) fn number<T: FromStr + PartialOrd + fmt::Display + Copy>(
        &self,
        key: &str,
        default: T,
        least: T,
        most: T,
    ) -> Result<T, UfsError> {
        let expected = format!("a number from {least} to {most}");
        self.parsed(key, default, &expected, |text| {
            text.parse()
                .ok()
                .filter(|number| *number >= least && *number <= most)
        })
    }

    /// Bytes per second, such as `85MB/s`, above 0; none is `unlimited`.
    pub(crate) fn bandwidth(
        &self,
        key: &str,
        default: Option<u64>,
    ) -> Result<Option<u64>, UfsError> {
        let expected = "a number of bytes per second such as 85MB/s, or unlimited";
        self.parsed(key, default, expected, |text| {
            or_unlimited(text, |text| {
                let bytes: ByteSize = text.strip_suffix("/s").unwrap_or(text).parse().ok()?;
                Some(bytes.as_u64()).filter(|bytes| *bytes > 0)
            })
        })
    }

    /// Requests per second, above 0; none is `unlimited`.
    pub(crate) fn request_rate(
        &self,
        key: &str,
        default: Option<u32>,
    ) -> Result<Option<u32>, UfsError> {
        let expected = "a number of requests per second above zero, or unlimited";
        self.parsed(key, default, expected, |text| {
            or_unlimited(text, |text| text.parse().ok().filter(|rate| *rate > 0))
        })
    }

    /// An error that says what is wrong with the option `key`. Does not repeat its value.
    pub(crate) fn wrong(&self, key: &str, cause: impl fmt::Display) -> UfsError {
        UfsError::new(
            ErrorKind::Invalid,
            Op::Open,
            &self.uri,
            format!("option {key}: {cause}"),
        )
    }

    /// The canonical URI of the mount that these options are for.
    pub(crate) fn uri(&self) -> &str {
        &self.uri
    }

    /// The values of the secret options that were given.
    pub(crate) fn secrets(&self) -> Vec<String> {
        self.secrets.clone()
    }

    /// The value of `key` as `parse` understands it; `expected` says what that would be.
    pub(crate) fn parsed<T>(
        &self,
        key: &str,
        default: T,
        expected: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<T, UfsError> {
        match self.text(key) {
            None => Ok(default),
            Some(text) => parse(text)
                .ok_or_else(|| self.wrong(key, format_args!("{text:?} is not {expected}"))),
        }
    }
}

/// How long and how often a mount is tried; the same for all stores over the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Patience {
    /// The longest that any one call may take.
    pub(crate) timeout: Duration,
    /// The longest that one attempt may take to connect.
    pub(crate) connect: Duration,
    /// Attempts after the first.
    pub(crate) max_retries: usize,
}

impl Patience {
    pub(crate) fn of(options: &OptionSet<'_>) -> Result<Self, UfsError> {
        let timeout = options.duration("timeout", DEFAULT_TIMEOUT)?;
        Ok(Self {
            timeout,
            connect: options
                .duration("connect_timeout", DEFAULT_CONNECT_TIMEOUT)?
                .min(timeout / 3),
            max_retries: options.number("max_retries", 3, 0, 100)?,
        })
    }

    /// When no further attempt is made, so that an attempt under way then still ends with
    /// its own cause and not with a bare timeout.
    pub(crate) fn retry_until(&self) -> Duration {
        self.timeout / 2
    }

    /// The longest silence of a store within one attempt.
    pub(crate) fn silence(&self) -> Duration {
        self.timeout / 2
    }
}

fn or_unlimited<T>(text: &str, parse: impl FnOnce(&str) -> Option<T>) -> Option<Option<T>> {
    match text {
        "unlimited" => Some(None),
        text => parse(text).map(Some),
    }
}

fn unknown(uri: &str, key: &str, known: &[&OptionSpec]) -> UfsError {
    let nearest = known
        .iter()
        .map(|spec| (strsim::damerau_levenshtein(spec.key, key), spec.key))
        .min()
        .filter(|(distance, nearest)| *distance <= nearest.len().max(key.len()) / 2);
    let hint = match nearest {
        Some((_, nearest)) => format!("did you mean {nearest}?"),
        None => {
            let keys: Vec<_> = known.iter().map(|spec| spec.key).collect();
            format!("known options: {}", keys.join(", "))
        }
    };
    UfsError::new(
        ErrorKind::Invalid,
        Op::Open,
        uri,
        format!("unknown option {key:?}"),
    )
    .with_hint(hint)
}

const fn plain(key: &'static str, default: &'static str, help: &'static str) -> OptionSpec {
    OptionSpec {
        key,
        help,
        default,
        secret: false,
    }
}

const fn secret(key: &'static str, default: &'static str, help: &'static str) -> OptionSpec {
    OptionSpec {
        key,
        help,
        default,
        secret: true,
    }
}

const COMMON: &[OptionSpec] = &[
    plain(
        "timeout",
        "10s",
        "The longest that a call, a page of a listing, or a pause within a read may take.",
    ),
    plain(
        "concurrency",
        "128",
        "How many calls may be in flight at the store at once, at the most; how many there are \
         follows from what makes the store faster and from what it refuses.",
    ),
    plain(
        "ufs_bandwidth",
        "unlimited",
        "Bytes per second that each process may read from the store and write to it, such as \
         1GB/s.",
    ),
    plain(
        "ufs_requests",
        "unlimited",
        "Requests per second that each process may send to the store.",
    ),
    plain(
        "read_only",
        "false",
        "Whether every change is refused, whatever the credentials allow.",
    ),
    plain(
        "metadata",
        "as each client chooses, else ttl",
        "How long attributes and listings are believed: strict (not at all), ttl, immutable \
         (until told otherwise).",
    ),
    plain(
        "metadata_ttl",
        "as each client chooses, else 1s",
        "How long attributes and listings are believed in mode ttl; absence for half of it.",
    ),
    plain(
        "cache_profile",
        "default",
        "What the data are used for: default, or dataset (read whole again and again and not \
         changed, as training does: nodes hold on to as much as fits, metadata is immutable \
         unless said otherwise).",
    ),
];

const SHAPE: &[OptionSpec] = &[
    plain(
        "shape",
        "none",
        "Makes the store as slow as another, for measurements: none, s3-same-region, \
         s3-cross-region, s3-express. The options below change the preset.",
    ),
    plain(
        "shape.latency",
        "the preset's",
        "Median time to the first byte of a request.",
    ),
    plain(
        "shape.latency_p99",
        "the preset's, moved with the median",
        "Time to the first byte that 99 of 100 requests do not exceed.",
    ),
    plain(
        "shape.stream_bandwidth",
        "the preset's",
        "Bytes per second of each read, such as 85MB/s, or unlimited.",
    ),
    plain(
        "shape.total_bandwidth",
        "the preset's",
        "Bytes per second of all reads of a process together, or unlimited.",
    ),
    plain(
        "shape.request_rate",
        "the preset's",
        "Requests per second of a process, or unlimited; more are refused as busy.",
    ),
    plain(
        "shape.error_rate",
        "the preset's",
        "The share of requests that fail, 0 to 1.",
    ),
    plain(
        "shape.seed",
        "1",
        "Chooses latencies and failures; the same seed gives the same.",
    ),
];

const NETWORK: &[OptionSpec] = &[
    plain(
        "max_retries",
        "3",
        "How often a failed request is tried again, within half of the timeout.",
    ),
    plain(
        "connect_timeout",
        "3s",
        "The longest that one attempt to connect may take; at most a third of the timeout.",
    ),
    plain(
        "allow_http",
        "true if the given endpoint begins with http://",
        "Whether to talk to the store without TLS.",
    ),
];

const KEYED: &[OptionSpec] = &[
    plain(
        "page_size",
        "1000",
        "How many names one request of a listing asks for.",
    ),
    plain(
        "posix_attributes",
        "off",
        "Modes, owners, times, extended attributes and links of objects, as s3fs keeps them in \
         user metadata: off, read (a request more for each stat and each name of a listing) or \
         full (kept too: a change of attributes copies the object onto itself).",
    ),
    plain(
        "directories",
        "markers",
        "What becomes of a directory whose last file goes: markers (it stays, with a marker; one \
         listing more for each removal) or implicit (it goes, unless it was made as such).",
    ),
];

const S3: &[OptionSpec] = &[
    plain(
        "endpoint",
        "AWS, or the variable AWS_ENDPOINT_URL",
        "The URL of an S3-compatible store.",
    ),
    plain(
        "region",
        "AWS_REGION, the profile's, else us-east-1",
        "The region of the bucket.",
    ),
    plain(
        "path_style",
        "true if endpoint is given",
        "Whether the bucket is the first part of the path and not of the host name.",
    ),
    plain(
        "virtual_hosted_style_request",
        "true unless endpoint is given",
        "The opposite of path_style, under the name that some tools use.",
    ),
    plain(
        "credentials",
        "auto",
        "Where the keys come from: static, env, profile, instance, anonymous; auto takes the \
         first that has any, the last being instance.",
    ),
    plain("access_key_id", "", "The access key id (static keys)."),
    secret("secret_access_key", "", "The secret access key."),
    secret("session_token", "", "The session token of temporary keys."),
    plain(
        "profile",
        "AWS_PROFILE, else default",
        "The profile in ~/.aws/credentials and ~/.aws/config.",
    ),
    plain(
        "checksum",
        "crc32c",
        "What is sent with everything that is written, for the store to check: crc32c, or none \
         for a store that refuses it.",
    ),
    plain(
        "env_file",
        "",
        "A .env file whose variables are laid over the process's.",
    ),
];

const GCS: &[OptionSpec] = &[
    plain(
        "endpoint",
        "https://storage.googleapis.com",
        "The URL of the store or of an emulator.",
    ),
    plain(
        "credentials",
        "auto",
        "Where the keys come from: static, env, instance, anonymous; auto takes the first that \
         has any.",
    ),
    plain(
        "service_account_file",
        "GOOGLE_SERVICE_ACCOUNT or GOOGLE_APPLICATION_CREDENTIALS",
        "The path of a service account's JSON file.",
    ),
    secret(
        "service_account_key",
        "GOOGLE_SERVICE_ACCOUNT_KEY",
        "The JSON of a service account's key.",
    ),
    plain(
        "env_file",
        "",
        "A .env file whose variables are laid over the process's.",
    ),
];

const AZURE: &[OptionSpec] = &[
    plain(
        "endpoint",
        "https://ACCOUNT.blob.core.windows.net",
        "The URL of the store or of an emulator.",
    ),
    plain(
        "account",
        "from the URI, else AZURE_STORAGE_ACCOUNT_NAME",
        "The storage account.",
    ),
    plain(
        "credentials",
        "auto",
        "Where the keys come from: static, env, instance, anonymous; auto takes the first that \
         has any.",
    ),
    secret(
        "access_key",
        "AZURE_STORAGE_ACCOUNT_KEY",
        "The account's access key.",
    ),
    secret(
        "sas_token",
        "AZURE_STORAGE_SAS_TOKEN",
        "A shared access signature.",
    ),
    plain(
        "tenant_id",
        "AZURE_TENANT_ID",
        "The tenant of a service principal.",
    ),
    plain(
        "client_id",
        "AZURE_CLIENT_ID",
        "The id of a service principal.",
    ),
    secret(
        "client_secret",
        "AZURE_CLIENT_SECRET",
        "The secret of a service principal.",
    ),
    plain(
        "federated_token_file",
        "AZURE_FEDERATED_TOKEN_FILE",
        "The token file of a workload identity.",
    ),
    plain(
        "use_emulator",
        "false",
        "Whether to talk to the Azurite emulator.",
    ),
    plain(
        "env_file",
        "",
        "A .env file whose variables are laid over the process's.",
    ),
];

const HTTP: &[OptionSpec] = &[
    plain("username", "", "The user name of basic authentication."),
    secret("password", "", "The password of basic authentication."),
    secret(
        "bearer_token",
        "",
        "The token of an Authorization: Bearer header.",
    ),
];

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);
const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests {
    use super::*;

    fn options(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    }

    fn refusal(pairs: &[(&str, &str)]) -> String {
        let values = options(pairs);
        let set = OptionSet::new("s3://b".into(), Scheme::S3, &values);
        match set.and_then(|set| Patience::of(&set)) {
            Ok(patience) => format!("accepted: {patience:?}"),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Invalid);
                error.to_string()
            }
        }
    }

    #[test]
    fn an_unknown_key_names_the_nearest_known_one() {
        assert_eq!(
            refusal(&[("acess_key_id", "x")]),
            "cannot open s3://b: unknown option \"acess_key_id\"; did you mean access_key_id?"
        );
        assert!(refusal(&[("zzzzzzzz", "x")]).contains("known options: endpoint, "));
    }

    #[test]
    fn wrong_values_say_what_is_expected() {
        assert!(refusal(&[("timeout", "soon")]).contains("a duration above zero such as 10s"));
        assert!(refusal(&[("timeout", "0s")]).contains("above zero"));
        assert!(refusal(&[("max_retries", "-1")]).contains("a number from 0 to 100"));
        assert!(refusal(&[("timeout", "5s")]).starts_with("accepted"));
    }

    #[test]
    fn redaction_shows_no_secret_and_no_unknown_key() {
        let shown = redacted(
            Scheme::S3,
            &options(&[
                ("endpoint", "http://h"),
                ("secret_access_key", "s"),
                ("odd", "t"),
            ]),
        );
        assert_eq!(shown["endpoint"], "http://h");
        assert_eq!(shown["secret_access_key"], "***");
        assert_eq!(shown["odd"], "***");
    }

    #[test]
    fn keys_are_unique_per_scheme() {
        for scheme in [
            Scheme::S3,
            Scheme::Gcs,
            Scheme::Azure,
            Scheme::Http,
            Scheme::Memory,
            Scheme::File,
        ] {
            let mut keys: Vec<_> = known_options(scheme).iter().map(|spec| spec.key).collect();
            let all = keys.len();
            keys.sort_unstable();
            keys.dedup();
            assert_eq!(keys.len(), all, "{scheme:?}");
        }
    }
}
