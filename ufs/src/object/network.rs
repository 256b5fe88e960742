//! What the builders of all network stores share.

use std::time::Duration;

use object_store::{BackoffConfig, ClientConfigKey, ClientOptions, RetryConfig};

use crate::environment::{Environment, parse_env_file};
use crate::error::UfsError;
use crate::options::{OptionSet, Patience};

/// A parsed and checked `endpoint` option: scheme, host and port, perhaps a base path, no
/// slash at the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Endpoint(url::Url);

impl Endpoint {
    pub(crate) fn parse(options: &OptionSet<'_>, text: &str) -> Result<Self, UfsError> {
        let wrong = |cause: &str| options.wrong("endpoint", cause);
        let url = url::Url::parse(text)
            .map_err(|error| wrong(&format!("not a URL such as http://host:9000: {error}")))?;
        if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
            return Err(wrong("not an http:// or https:// URL"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(wrong(
                "credentials do not belong in it; give them as options",
            ));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(wrong("it must not have a query or fragment"));
        }
        Ok(Self(url))
    }

    pub(crate) fn text(&self) -> &str {
        self.0.as_str().trim_end_matches('/')
    }

    pub(crate) fn is_plain(&self) -> bool {
        self.0.scheme() == "http"
    }

    /// The same endpoint with `bucket` as the first part of the host name.
    pub(crate) fn with_bucket_host(&self, bucket: &str) -> Option<Self> {
        let mut url = self.0.clone();
        let host = format!("{bucket}.{}", url.host_str()?);
        url.set_host(Some(&host)).ok()?;
        Some(Self(url))
    }
}

/// The settings of the HTTP client.
pub(crate) fn client(
    options: &OptionSet<'_>,
    patience: Patience,
    endpoint: Option<&Endpoint>,
) -> Result<ClientOptions, UfsError> {
    let allow_http = options.flag("allow_http", endpoint.is_some_and(Endpoint::is_plain))?;
    if let Some(endpoint) = endpoint
        && endpoint.is_plain()
        && !allow_http
    {
        return Err(options.wrong(
            "allow_http",
            format_args!("false, but the endpoint {} is plain HTTP", endpoint.text()),
        ));
    }
    Ok(ClientOptions::new()
        .with_allow_http(allow_http)
        .with_timeout_disabled()
        .with_connect_timeout(patience.connect)
        .with_read_timeout(patience.silence())
        .with_pool_idle_timeout(IDLE)
        .with_config(
            ClientConfigKey::UserAgent,
            concat!("millpond/", env!("CARGO_PKG_VERSION")),
        ))
}

/// How requests are tried again.
pub(crate) fn retry(patience: Patience) -> RetryConfig {
    RetryConfig {
        backoff: BackoffConfig {
            init_backoff: Duration::from_millis(100),
            max_backoff: Duration::from_secs(2),
            base: 2.0,
        },
        max_retries: patience.max_retries,
        retry_timeout: patience.retry_until(),
    }
}

/// The process's environment with the mount's `.env` file over it.
pub(crate) fn environment(
    options: &OptionSet<'_>,
    process: &Environment,
) -> Result<Environment, UfsError> {
    let Some(path) = options.text("env_file") else {
        return Ok(process.clone());
    };
    let text = std::fs::read_to_string(path)
        .map_err(|error| options.wrong("env_file", format_args!("cannot read {path}: {error}")))?;
    let variables = parse_env_file(&text).map_err(|line| {
        options.wrong(
            "env_file",
            format_args!("line {line} of {path} is not NAME=value"),
        )
    })?;
    Ok(process.overlaid(variables))
}

/// Which credentials a mount asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Credentials {
    Auto,
    Static,
    Env,
    Profile,
    Instance,
    Anonymous,
}

impl Credentials {
    pub(crate) fn of(options: &OptionSet<'_>) -> Result<Self, UfsError> {
        Ok(match options.text("credentials").unwrap_or("auto") {
            "auto" => Self::Auto,
            "static" => Self::Static,
            "env" => Self::Env,
            "profile" => Self::Profile,
            "instance" => Self::Instance,
            "anonymous" => Self::Anonymous,
            other => {
                return Err(options.wrong(
                    "credentials",
                    format_args!(
                        "{other:?} is not one of auto, static, env, profile, instance, anonymous"
                    ),
                ));
            }
        })
    }
}

/// Shorter than the idle timeout of the common stores and proxies in front of them.
const IDLE: Duration = Duration::from_secs(15);
