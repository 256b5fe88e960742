//! The coordinator's configuration: defaults, TOML file, `MILLPOND_…` environment, flags.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use millpond_process::config::ENV_PREFIX;
use millpond_process::logging::{LogArgs, LogConfig};
use millpond_process::{ConfigError, Size, default_data_dir};
use millpond_proto::BlockSize;
use serde::{Deserialize, Serialize};

/// The flags of `coordinator`. A flag that is not given leaves the value of the
/// configuration file, the environment, or the default.
#[derive(Debug, Default, Clone, clap::Args)]
pub struct CoordinatorArgs {
    /// TOML file with the same keys as --print-config shows
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Print the configuration that results from file, environment and flags, and exit
    #[arg(long)]
    pub print_config: bool,
    /// The settings.
    #[command(flatten)]
    pub flags: Flags,
}

/// The flags that are settings.
#[derive(Debug, Default, Clone, Serialize, clap::Args)]
pub struct Flags {
    /// Where the replicated log and the cluster's keys are kept
    /// [default: /var/lib/millpond/coordinator for root, else ~/.local/share/millpond/coordinator]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Address for nodes, clients and the CLI (gRPC) [default: 0.0.0.0:7000]
    #[arg(long, value_name = "IP:PORT")]
    pub listen: Option<String>,
    /// Where the other coordinators reach this one [default: the address of --listen]
    #[arg(long, value_name = "HOST:PORT")]
    pub advertise: Option<String>,
    /// Begin a group: the addresses of all its coordinators, this one's --advertise among them,
    /// the same list at each
    #[arg(long, value_name = "HOST:PORT,…", value_delimiter = ',')]
    pub peers: Option<Vec<String>>,
    /// Enter the running group that these coordinators are of
    #[arg(long, value_name = "HOST:PORT,…", value_delimiter = ',')]
    pub join: Option<Vec<String>>,
    /// File with the secret that all coordinators of a group share, such as `openssl rand -hex
    /// 32` makes [default: group.secret in the data directory, drawn at the first start]
    #[arg(long, value_name = "FILE")]
    pub secret_file: Option<PathBuf>,
    /// Address for metrics and health (HTTP), or `none` [default: 127.0.0.1:7001]
    #[arg(long, value_name = "IP:PORT")]
    pub admin: Option<String>,
    /// Size of every block, a power of two from 64KiB to 64MiB, fixed at the first start
    /// [default: 4MiB]
    #[arg(long, value_name = "SIZE")]
    pub block_size: Option<Size>,
    /// Serve whoever reaches the port, and give out certificates to them. Without it only
    /// processes on this machine are served
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub open_join: Option<bool>,
    /// How often nodes report [default: 1s]
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    #[serde(with = "humantime_serde")]
    pub heartbeat_interval: Option<Duration>,
    /// After how long a silent node is dead [default: 5s]
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    #[serde(with = "humantime_serde")]
    pub death_timeout: Option<Duration>,
    /// What is logged.
    #[command(flatten)]
    pub log: LogArgs,
}

/// The keys as they are written. [`Settings::validate`] makes a [`Config`] of them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Where the replicated log and the cluster's keys are kept.
    pub data_dir: PathBuf,
    /// `IP:PORT` for nodes, clients and the CLI.
    pub listen: String,
    /// `HOST:PORT` where the other coordinators reach this one; that of `listen` if none.
    pub advertise: Option<String>,
    /// All coordinators of a group that is to begin.
    pub peers: Vec<String>,
    /// Coordinators of the running group to enter.
    pub join: Vec<String>,
    /// File with the group's secret; `group.secret` in the data directory if none.
    pub secret_file: Option<PathBuf>,
    /// `IP:PORT` for metrics and health, or `none`.
    pub admin: String,
    /// Size of every block; 4 MiB at the first start if none.
    pub block_size: Option<Size>,
    /// Serve peers on other machines, and certify them.
    pub open_join: bool,
    /// How often nodes report.
    #[serde(with = "humantime_serde")]
    pub heartbeat_interval: Duration,
    /// After how long a silent node is dead.
    #[serde(with = "humantime_serde")]
    pub death_timeout: Duration,
    /// What is logged, and how.
    pub log: LogConfig,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            data_dir: default_data_dir("coordinator"),
            listen: "0.0.0.0:7000".to_owned(),
            advertise: None,
            peers: Vec::new(),
            join: Vec::new(),
            secret_file: None,
            admin: "127.0.0.1:7001".to_owned(),
            block_size: None,
            open_join: false,
            heartbeat_interval: Duration::from_secs(1),
            death_timeout: Duration::from_secs(5),
            log: LogConfig::default(),
        }
    }
}

/// What a coordinator needs to know, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Where the replicated log and the cluster's keys are kept.
    pub data_dir: PathBuf,
    /// For nodes, clients and the CLI; port 0 lets the system choose.
    pub listen: SocketAddr,
    /// Where the other coordinators reach this one; where it listens if none.
    pub advertise: Option<String>,
    /// What it does at its first start.
    pub first_start: FirstStart,
    /// The group's secret; in the data directory if none.
    pub secret_file: Option<PathBuf>,
    /// For metrics and health.
    pub admin: Option<SocketAddr>,
    /// The block size asked for. The first start takes it or 4 MiB; a later start with
    /// another one is an error.
    pub block_size: Option<BlockSize>,
    /// Whether peers on other machines are served and certified.
    pub open_join: bool,
    /// How often nodes report.
    pub heartbeat_interval: Duration,
    /// After how long a silent node is dead.
    pub death_timeout: Duration,
}

/// What a coordinator does at its first start. Later it goes on in the group that its log knows.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub enum FirstStart {
    /// Begins a group of its own.
    #[default]
    Alone,
    /// Begins a group together with others: the addresses of all in order, and its own place.
    Together {
        /// Sorted, without duplicates.
        peers: Vec<String>,
        /// The index of this coordinator.
        own: usize,
    },
    /// Enters the running group that one of these is of.
    Enter(Vec<String>),
}

impl CoordinatorArgs {
    /// The settings that result from all layers.
    ///
    /// # Errors
    /// [`ConfigError`] names the key and where its value came from.
    pub fn settings(&self) -> Result<Settings, ConfigError> {
        millpond_process::config::load(self.config.as_deref(), ENV_PREFIX, &self.flags)
    }
}

impl Settings {
    /// Checks that the values make sense.
    ///
    /// # Errors
    /// [`ConfigError::Value`] names the key and what is wrong.
    pub fn validate(&self) -> Result<Config, ConfigError> {
        let admin = match self.admin.as_str() {
            "none" | "" => None,
            text => Some(address("admin", text)?),
        };
        let block_size = self.block_size.map(|size| BlockSize::new(size.bytes()));
        let block_size = block_size.transpose();
        if self.heartbeat_interval < Duration::from_millis(10) {
            let why = "it must be at least 10ms";
            return Err(ConfigError::invalid("heartbeat_interval", why));
        }
        if self.death_timeout < self.heartbeat_interval * 2 {
            let why = format!(
                "{} is less than two heartbeat intervals of {}: one lost heartbeat would kill a \
                 node",
                humantime::format_duration(self.death_timeout),
                humantime::format_duration(self.heartbeat_interval)
            );
            return Err(ConfigError::invalid("death_timeout", why));
        }
        if self.death_timeout > Duration::from_secs(3600) {
            return Err(ConfigError::invalid(
                "death_timeout",
                "it must be at most 1h",
            ));
        }
        if self.data_dir.as_os_str().is_empty() {
            return Err(ConfigError::invalid("data_dir", "it is empty"));
        }
        let listen = address("listen", &self.listen)?;
        if let Some(advertise) = &self.advertise {
            host_and_port("advertise", advertise)?;
        }
        Ok(Config {
            data_dir: self.data_dir.clone(),
            listen,
            advertise: self.advertise.clone(),
            first_start: self.first_start(listen)?,
            secret_file: self.secret_file.clone(),
            admin,
            block_size: block_size.map_err(|e| ConfigError::invalid("block_size", e))?,
            open_join: self.open_join,
            heartbeat_interval: self.heartbeat_interval,
            death_timeout: self.death_timeout,
        })
    }
}

impl Settings {
    fn first_start(&self, listen: SocketAddr) -> Result<FirstStart, ConfigError> {
        for (key, addrs) in [("peers", &self.peers), ("join", &self.join)] {
            for addr in addrs {
                host_and_port(key, addr)?;
            }
        }
        if self.peers.is_empty() && self.join.is_empty() {
            return Ok(FirstStart::Alone);
        }
        let key = if self.join.is_empty() {
            "peers"
        } else {
            "join"
        };
        if !self.peers.is_empty() && !self.join.is_empty() {
            let why = "a coordinator begins a group (peers) or enters one (join), not both";
            return Err(ConfigError::invalid("join", why));
        }
        if self.secret_file.is_none() {
            let why = format!(
                "{key} needs the secret that the coordinators of the group share: make a file with \
                 `openssl rand -hex 32`, give it to each, and name it here (the secret of a \
                 coordinator that began alone is group.secret in its data directory)"
            );
            return Err(ConfigError::invalid("secret_file", why));
        }
        if self.advertise.is_none() && listen.ip().is_unspecified() {
            let why = format!("{key} needs it: the others cannot reach {listen}");
            return Err(ConfigError::invalid("advertise", why));
        }
        if !self.join.is_empty() {
            return Ok(FirstStart::Enter(self.join.clone()));
        }
        let own = self.advertise.clone().unwrap_or_else(|| listen.to_string());
        let peers: BTreeSet<String> = self.peers.iter().cloned().collect();
        let peers: Vec<String> = peers.into_iter().collect();
        match peers.iter().position(|peer| *peer == own) {
            Some(own) => Ok(FirstStart::Together { peers, own }),
            None => Err(ConfigError::invalid(
                "peers",
                format!("{own}, which is this coordinator, is not in the list of all"),
            )),
        }
    }
}

fn host_and_port(key: &str, text: &str) -> Result<(), ConfigError> {
    let parts = text.rsplit_once(':');
    let valid = parts.is_some_and(|(host, port)| {
        !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port != 0)
    });
    if valid {
        return Ok(());
    }
    let why = format!("{text:?} is not an address; write HOST:PORT, like 10.0.0.1:7000");
    Err(ConfigError::invalid(key, why))
}

fn address(key: &str, text: &str) -> Result<SocketAddr, ConfigError> {
    // The one name that needs no resolver.
    let numeric = match text.strip_prefix("localhost:") {
        Some(port) => format!("127.0.0.1:{port}"),
        None => text.to_owned(),
    };
    numeric.parse().map_err(|_| {
        let why = format!("{text:?} is not an address; write IP:PORT, like 127.0.0.1:7000");
        ConfigError::invalid(key, why)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn invalid(change: impl FnOnce(&mut Settings)) -> String {
        let mut settings = Settings::default();
        change(&mut settings);
        settings.validate().unwrap_err().to_string()
    }

    #[test]
    fn the_defaults_are_valid_and_as_documented() {
        let config = Settings::default().validate().unwrap();
        assert_eq!(config.listen.to_string(), "0.0.0.0:7000");
        assert_eq!(config.admin.unwrap().to_string(), "127.0.0.1:7001");
        assert_eq!(config.block_size, None);
        assert!(!config.open_join);
    }

    #[test]
    fn values_that_make_no_sense_are_named() {
        let error = invalid(|s| s.block_size = Some(Size(3 << 20)));
        assert!(
            error.contains("block_size") && error.contains("power of two"),
            "{error}"
        );
        let error = invalid(|s| s.listen = "here".into());
        assert!(
            error.contains("listen") && error.contains("IP:PORT"),
            "{error}"
        );
        let error = invalid(|s| s.death_timeout = Duration::from_millis(1500));
        assert!(
            error.contains("death_timeout") && error.contains("1s"),
            "{error}"
        );
        let error = invalid(|s| s.heartbeat_interval = Duration::ZERO);
        assert!(error.contains("heartbeat_interval"), "{error}");
    }

    #[test]
    fn a_group_needs_a_secret_a_reachable_address_and_itself_in_the_list() {
        let peers = |list: &[&str]| list.iter().map(|&p| p.to_owned()).collect::<Vec<_>>();
        let group = |settings: &mut Settings| {
            settings.listen = "10.0.0.2:7000".into();
            settings.secret_file = Some("/s".into());
            settings.peers = peers(&["10.0.0.3:7000", "10.0.0.2:7000", "10.0.0.1:7000"]);
        };
        let mut settings = Settings::default();
        group(&mut settings);
        let first = settings.validate().unwrap().first_start;
        let sorted = peers(&["10.0.0.1:7000", "10.0.0.2:7000", "10.0.0.3:7000"]);
        assert_eq!(
            first,
            FirstStart::Together {
                peers: sorted,
                own: 1
            }
        );

        let error = |change: fn(&mut Settings)| {
            invalid(|s| {
                group(s);
                change(s);
            })
        };
        assert!(error(|s| s.secret_file = None).contains("openssl"));
        assert!(error(|s| s.listen = "0.0.0.0:7000".into()).contains("advertise"));
        assert!(error(|s| s.advertise = Some("10.0.0.9:7000".into())).contains("not in the list"));
        assert!(error(|s| s.join = vec!["10.0.0.9:7000".into()]).contains("not both"));
        assert!(error(|s| s.peers = vec!["10.0.0.9".into()]).contains("HOST:PORT"));
    }

    #[test]
    fn flags_override_and_leave_the_rest() {
        let args = CoordinatorArgs {
            flags: Flags {
                listen: Some("127.0.0.1:0".into()),
                admin: Some("none".into()),
                death_timeout: Some(Duration::from_secs(9)),
                ..Flags::default()
            },
            ..CoordinatorArgs::default()
        };
        let config = args.settings().unwrap().validate().unwrap();
        assert_eq!(config.listen.to_string(), "127.0.0.1:0");
        assert_eq!(config.admin, None);
        assert_eq!(config.death_timeout, Duration::from_secs(9));
        assert_eq!(config.heartbeat_interval, Duration::from_secs(1));
    }
}
