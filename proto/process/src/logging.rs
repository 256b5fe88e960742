//! Logs: one subscriber per process, on stderr, for people or as JSON.

use std::io::IsTerminal;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::error::UsageError;

/// Filters that apply unless the user names the target: openraft logs ordinary races of
/// elections as warnings and errors, and twice a second that a coordinator is gone, which our own
/// log says once; fuser warns when it finds that we unmounted already, and
/// object_store tells of each retry, which our own error sums up.
const BUILT_IN: &str =
    "openraft=error,openraft::replication=off,fuser::session=error,object_store=warn";

/// What is logged, and how: the `[log]` section of a configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogConfig {
    /// `error`, `warn`, `info`, `debug`, `trace`, or filters like `info,millpond_net=debug`.
    pub level: String,
    /// For people or for machines.
    pub format: LogFormat,
}

/// How a log line looks.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One readable line per event, coloured on a terminal.
    #[default]
    Human,
    /// One JSON object per line.
    Json,
}

/// The log flags of every command. Serializes to what a `[log]` section holds, only the flags
/// that were given, so it can be one field (`log`) of a process's flags.
#[derive(Debug, Default, Clone, Serialize, clap::Args)]
pub struct LogArgs {
    /// What to log: error, warn, info, debug, trace, or filters like info,millpond_net=debug
    /// [default: info]
    #[arg(long, env = "MILLPOND_LOG", value_name = "LEVEL", global = true)]
    #[serde(rename = "level", skip_serializing_if = "Option::is_none")]
    pub log_level: Option<String>,
    /// How log lines look [default: human]
    #[arg(long, value_enum, value_name = "FORMAT", global = true)]
    #[serde(rename = "format", skip_serializing_if = "Option::is_none")]
    pub log_format: Option<LogFormat>,
}

impl LogArgs {
    /// The flags over the defaults, for commands without a configuration file.
    pub fn config(&self) -> LogConfig {
        let default = LogConfig::default();
        LogConfig {
            level: self.log_level.clone().unwrap_or(default.level),
            format: self.log_format.unwrap_or(default.format),
        }
    }
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            level: "info".to_owned(),
            format: LogFormat::Human,
        }
    }
}

/// Sends the process's logs to stderr as `config` says. Only the first call counts.
///
/// # Errors
/// [`UsageError`] when `level` is no filter.
pub fn init(config: &LogConfig) -> Result<(), UsageError> {
    let filter = filter(&config.level)?;
    let stderr = std::io::stderr;
    let result = match config.format {
        LogFormat::Human => tracing_subscriber::registry()
            .with(filter)
            .with(
                fmt::layer()
                    .with_writer(stderr)
                    .with_ansi(stderr().is_terminal()),
            )
            .try_init(),
        LogFormat::Json => tracing_subscriber::registry()
            .with(filter)
            .with(fmt::layer().json().flatten_event(true).with_writer(stderr))
            .try_init(),
    };
    // An error means that a subscriber is set already, as in tests that share a process.
    let _ = result;
    Ok(())
}

fn filter(level: &str) -> Result<EnvFilter, UsageError> {
    // A later filter replaces an earlier one of the same target.
    EnvFilter::try_new(format!("{BUILT_IN},{level}")).map_err(|error| {
        UsageError(format!(
            "log level {level:?} is not a filter ({error}); use error, warn, info, debug, trace, \
             or target=level pairs separated by commas"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_and_filters_are_accepted_and_nonsense_is_named() {
        for good in ["info", "warn,millpond_net=debug", "openraft=debug", "off"] {
            assert!(filter(good).is_ok(), "{good}");
        }
        let error = filter("millpond=loud").unwrap_err().to_string();
        assert!(
            error.contains("millpond=loud") && error.contains("debug"),
            "{error}"
        );
    }

    #[test]
    fn raft_noise_is_off_unless_asked_for() {
        assert!(
            filter("info")
                .unwrap()
                .to_string()
                .contains("openraft=error")
        );
        let asked = filter("info,openraft=debug").unwrap().to_string();
        assert!(
            asked.contains("openraft=debug") && !asked.contains("openraft=error"),
            "{asked}"
        );
    }

    #[test]
    fn flags_override_only_what_they_name() {
        let args = LogArgs {
            log_format: Some(LogFormat::Json),
            ..LogArgs::default()
        };
        let config = args.config();
        assert_eq!(
            (config.level.as_str(), config.format),
            ("info", LogFormat::Json)
        );
        assert_eq!(
            serde_json::to_string(&args).unwrap(),
            r#"{"format":"json"}"#
        );
    }

    #[test]
    fn init_may_be_called_twice() {
        init(&LogConfig::default()).unwrap();
        init(&LogConfig::default()).unwrap();
    }
}
