//! The settings of a cache node: defaults, TOML file, environment, flags; then checked.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;
use serde::{Deserialize, Serialize};

use millpond_process::config::{ENV_PREFIX, load};
use millpond_process::logging::{LogArgs, LogConfig};
use millpond_process::{ConfigError, Size, UsageError, default_data_dir};
use millpond_proto::ring::NORMAL_WEIGHT;

use crate::memory::{MIN_MEMORY, usable_memory};

/// The port of a coordinator whose address names none.
const COORDINATOR_PORT: u16 = 7000;

/// The most memory that is taken without being asked for.
const DEFAULT_MEMORY_LIMIT: Size = Size::gib(8);

/// The disk capacity when none is asked for, where the disk has room for twice as much.
const DEFAULT_DISK_CAPACITY: Size = Size::gib(20);

/// 20 GiB in 20 minutes, and little beside what any disk can read.
const DEFAULT_SCRUB_RATE: Size = Size::mib(16);

/// The smallest disk tier: less is a mistake of unit.
const MIN_DISK: Size = Size::mib(64);

/// The largest weight: a hundred times that of an ordinary node.
const MAX_WEIGHT: u32 = NORMAL_WEIGHT * 100;

/// Flags of `cache-node`. Each overrides the key of the same name of the configuration file.
#[derive(Debug, Default, Clone, Args, Serialize)]
pub struct NodeArgs {
    /// Coordinators to join, HOST:PORT[,HOST:PORT…]; the port defaults to 7000
    #[arg(long, value_name = "HOST:PORT", value_delimiter = ',')]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub join: Option<Vec<String>>,

    /// File with a token that lets the node in: `millpond token create --role node` makes one.
    /// Needed once, where the coordinator is on another machine
    #[arg(long, value_name = "FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_file: Option<PathBuf>,

    /// TOML file with settings; --print-config shows the keys
    #[arg(long, value_name = "FILE")]
    #[serde(skip)]
    pub config: Option<PathBuf>,

    /// Directory for the node's identity and last cluster view [default:
    /// /var/lib/millpond/cache-node for root, else ~/.local/share/millpond/cache-node]
    #[arg(long, value_name = "DIR")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_dir: Option<PathBuf>,

    /// Address to serve blocks on (QUIC over UDP); port 0 picks a free one
    /// [default: 0.0.0.0:7100]
    #[arg(long, value_name = "ADDR:PORT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listen: Option<SocketAddr>,

    /// Address at which clients and other nodes reach this node [default: the address that
    /// leads to the coordinator, with the port of --listen]
    #[arg(long, value_name = "HOST:PORT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advertise: Option<String>,

    /// Address of the metrics and health endpoint, or none [default: 127.0.0.1:7101]
    #[arg(long, value_name = "ADDR:PORT|none")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub admin: Option<String>,

    /// Memory for block data, fills and replies included; the process takes up to 128MiB
    /// more for everything else [default: a quarter of the machine's memory, at most 8GiB]
    #[arg(long, value_name = "SIZE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<Size>,

    /// Directories of the disk tier, DIR[,DIR…], each on a device of its own [default: blocks,
    /// in the data directory]
    #[arg(long, value_name = "DIR", value_delimiter = ',')]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk: Option<Vec<PathBuf>>,

    /// Size of the disk tier in each directory; 0 for none [default: 20GiB, at most half of
    /// the free space]
    #[arg(long, value_name = "SIZE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk_capacity: Option<Size>,

    /// Bytes a second that the scrub of the disk tier reads at most, once over all blocks a
    /// day; 0 for no scrub [default: 16MiB]
    #[arg(long, value_name = "SIZE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scrub_rate: Option<Size>,

    /// Whether clients on this host get blocks through a Unix socket, as descriptors of their
    /// files: auto, or off [default: auto]
    #[arg(long, value_name = "auto|off")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub local_socket: Option<String>,

    /// Users whose clients may use that socket, beside root and the node's own [default: none]
    #[arg(long, value_name = "UID", value_delimiter = ',')]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub local_users: Option<Vec<u32>>,

    /// Failure domain of this node, such as a rack; replicas prefer distinct zones
    /// [default: none]
    #[arg(long, value_name = "NAME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,

    /// Share of the blocks relative to an ordinary node's 100 [default: 100]
    #[arg(long, value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight: Option<u32>,

    /// Print the settings in effect as TOML and exit
    #[arg(long)]
    #[serde(skip)]
    pub print_config: bool,

    #[allow(missing_docs, reason = "a doc comment here would become help text")]
    #[command(flatten)]
    pub log: LogArgs,
}

/// The settings as written: every key of the configuration file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Coordinators, `host` or `host:port`; a list, or one text with commas.
    #[serde(deserialize_with = "list_or_text")]
    pub join: Vec<String>,
    /// File with a token that lets the node in.
    pub token_file: Option<PathBuf>,
    /// Directory of identity and last view.
    pub data_dir: PathBuf,
    /// Address to serve blocks on.
    pub listen: SocketAddr,
    /// Address that others are told; derived when absent.
    pub advertise: Option<String>,
    /// Address of metrics and health, or `none`.
    pub admin: String,
    /// Limit of memory for block data; derived when absent.
    pub memory: Option<Size>,
    /// Directories of the disk tier, a list or one text with commas; `blocks` in the data
    /// directory when there are none.
    #[serde(deserialize_with = "list_or_text")]
    pub disk: Vec<PathBuf>,
    /// Limit of the disk tier in each directory, 0 for none; derived when absent.
    pub disk_capacity: Option<Size>,
    /// Bytes a second that the scrub reads; 0 for none.
    pub scrub_rate: Size,
    /// `auto` or `off`: a Unix socket for clients on this host.
    pub local_socket: String,
    /// Users that it lets in, beside root and the node's own.
    #[serde(deserialize_with = "users")]
    pub local_users: Vec<u32>,
    /// Failure domain.
    pub zone: String,
    /// Share of the blocks, 100 is ordinary.
    pub weight: u32,
    /// Logs.
    pub log: LogConfig,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            join: Vec::new(),
            token_file: None,
            data_dir: default_data_dir("cache-node"),
            listen: SocketAddr::from(([0, 0, 0, 0], 7100)),
            advertise: None,
            admin: "127.0.0.1:7101".to_owned(),
            memory: None,
            disk: Vec::new(),
            disk_capacity: None,
            scrub_rate: DEFAULT_SCRUB_RATE,
            local_socket: "auto".to_owned(),
            local_users: Vec::new(),
            zone: String::new(),
            weight: NORMAL_WEIGHT,
            log: LogConfig::default(),
        }
    }
}

/// The settings of a node, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeConfig {
    /// Coordinators as `host:port`, at least one.
    pub coordinators: Vec<String>,
    /// File with a token that lets the node in.
    pub token_file: Option<PathBuf>,
    /// Directory of identity and last view.
    pub data_dir: PathBuf,
    /// Address to serve blocks on; port 0 for any.
    pub listen: SocketAddr,
    /// `host:port` that others are told; none to derive it.
    pub advertise: Option<String>,
    /// Address of metrics and health; none for no endpoint.
    pub admin: Option<SocketAddr>,
    /// Limit of memory for block data, fills and replies included.
    pub memory: Size,
    /// Directories of the disk tier; none for no disk tier.
    pub disks: Vec<PathBuf>,
    /// Limit of the disk tier in each directory; none for half of the free space, at most
    /// 20 GiB.
    pub disk_capacity: Option<Size>,
    /// Bytes a second that the scrub of the disk tier reads at most; 0 for none.
    pub scrub_rate: Size,
    /// Users that the Unix socket lets in, beside root and the node's own; none for no socket.
    pub local_users: Option<Vec<u32>>,
    /// Failure domain; empty for none.
    pub zone: String,
    /// Share of the blocks.
    pub weight: u32,
}

impl Settings {
    /// The settings that `args`, its configuration file and the environment give.
    ///
    /// # Errors
    /// [`ConfigError`] for a file that cannot be read, an unknown key, or a malformed value.
    pub fn load(args: &NodeArgs) -> Result<Self, ConfigError> {
        load(args.config.as_deref(), ENV_PREFIX, args)
    }

    /// Checks the settings.
    ///
    /// # Errors
    /// [`UsageError`] that names the setting, what is wrong with it, and what to do.
    pub fn validate(self) -> Result<NodeConfig, UsageError> {
        if self.join.is_empty() {
            return Err(UsageError::new(
                "no coordinator to join; name at least one with --join HOST:7000",
            ));
        }
        let coordinators = self.join.iter().map(|text| coordinator(text));
        let coordinators = coordinators.collect::<Result<_, _>>()?;
        if let Some(advertise) = &self.advertise {
            check_host_port("advertise", advertise)?;
        }
        let admin = match self.admin.as_str() {
            "none" => None,
            text => Some(text.parse().map_err(|_| {
                UsageError::new(format!(
                    "admin address {text:?} is not usable; write ADDR:PORT like 127.0.0.1:7101, \
                     or none"
                ))
            })?),
        };
        if self.weight == 0 || self.weight > MAX_WEIGHT {
            return Err(UsageError::new(format!(
                "weight {} is out of range; use 1 to {MAX_WEIGHT}, where 100 is an ordinary node",
                self.weight
            )));
        }
        let memory = self.memory.unwrap_or_else(default_memory);
        if memory < MIN_MEMORY {
            return Err(UsageError::new(format!(
                "memory of {memory} is too little: it must be at least {MIN_MEMORY}; raise \
                 --memory"
            )));
        }
        if let Some(machine) = usable_memory()
            && memory.0 > machine
        {
            return Err(UsageError::new(format!(
                "memory of {memory} is more than this machine has ({}MiB); lower --memory",
                machine >> 20
            )));
        }
        let disks = match self.disk_capacity {
            Some(Size(0)) => Vec::new(),
            Some(capacity) if capacity < MIN_DISK => {
                return Err(UsageError::new(format!(
                    "disk capacity of {capacity} is too little: it must be at least {MIN_DISK}, \
                     or 0 for no disk tier; change --disk-capacity"
                )));
            }
            _ if self.disk.is_empty() => vec![self.data_dir.join("blocks")],
            _ => self.disk,
        };
        let local_users = match self.local_socket.as_str() {
            "auto" => Some(self.local_users),
            "off" => None,
            text => {
                return Err(UsageError::new(format!(
                    "--local-socket {text:?} is neither auto nor off"
                )));
            }
        };
        Ok(NodeConfig {
            local_users,
            coordinators,
            token_file: self.token_file,
            data_dir: self.data_dir,
            listen: self.listen,
            advertise: self.advertise,
            admin,
            memory,
            disks,
            disk_capacity: self.disk_capacity,
            scrub_rate: self.scrub_rate,
            zone: self.zone,
            weight: self.weight,
        })
    }
}

/// The limit of a disk tier on a file system with `free` bytes, of which the tier's own
/// blocks already hold `held`, when none was asked for. Whole mebibytes.
pub(crate) fn default_disk_capacity(free: u64, held: u64) -> Size {
    let half = free.saturating_add(held) / 2;
    Size(half.min(DEFAULT_DISK_CAPACITY.0) >> 20 << 20)
}

/// A quarter of the machine's memory within bounds, in whole mebibytes.
fn default_memory() -> Size {
    let quarter = usable_memory().unwrap_or(Size::gib(4).0) / 4;
    Size(quarter.clamp(MIN_MEMORY.0, DEFAULT_MEMORY_LIMIT.0) >> 20 << 20)
}

fn coordinator(text: &str) -> Result<String, UsageError> {
    let text = text.trim();
    let bracketed = text.starts_with('[');
    let has_port = match text.rsplit_once(':') {
        Some((host, _)) => !bracketed || host.ends_with(']'),
        None => false,
    };
    let full = if has_port {
        text.to_owned()
    } else {
        format!("{text}:{COORDINATOR_PORT}")
    };
    check_host_port("join", &full)?;
    Ok(full)
}

fn check_host_port(key: &str, text: &str) -> Result<(), UsageError> {
    let wrong = |why: &str| {
        UsageError::new(format!(
            "--{key} {text:?} is not usable: {why}; write HOST:PORT like 10.0.0.5:7000"
        ))
    };
    let (host, port) = text
        .rsplit_once(':')
        .ok_or_else(|| wrong("it has no port"))?;
    match port.parse::<u16>() {
        Ok(0) | Err(_) => return Err(wrong("the port is not a number from 1 to 65535")),
        Ok(_) => {}
    }
    let bare_v6 = host.contains(':') && !(host.starts_with('[') && host.ends_with(']'));
    if bare_v6 {
        return Err(wrong("an IPv6 address needs brackets"));
    }
    if host.is_empty() || host.contains(|c: char| c.is_whitespace() || c == '/') {
        return Err(wrong("the host is malformed"));
    }
    Ok(())
}

/// A list as TOML has it, or text with commas as an environment variable has it.
fn list_or_text<'de, D, T>(from: D) -> Result<Vec<T>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: From<String> + Deserialize<'de>,
{
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Either<T> {
        Text(String),
        List(Vec<T>),
    }
    Ok(match Either::deserialize(from)? {
        Either::List(list) => list,
        Either::Text(text) => text
            .split(',')
            .map(|item| item.trim().to_owned())
            .filter(|item| !item.is_empty())
            .map(T::from)
            .collect(),
    })
}

/// A list as TOML has it, or numbers with commas as an environment variable has them.
fn users<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Vec<u32>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Either {
        One(u32),
        Text(String),
        List(Vec<u32>),
    }
    match Either::deserialize(from)? {
        Either::One(user) => Ok(vec![user]),
        Either::List(list) => Ok(list),
        Either::Text(text) => {
            let numbers = text
                .split(',')
                .map(str::trim)
                .filter(|item| !item.is_empty());
            let numbers = numbers.map(|item| item.parse().map_err(serde::de::Error::custom));
            numbers.collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: NodeArgs,
    }

    fn config_of(flags: &[&str]) -> Result<NodeConfig, UsageError> {
        let all = ["cache-node", "--join", "c:7000"];
        let cli = Cli::try_parse_from(all.iter().chain(flags)).unwrap();
        Settings::load(&cli.args).unwrap().validate()
    }

    #[test]
    fn defaults_need_only_a_coordinator() {
        let config = config_of(&[]).unwrap();
        assert_eq!(config.coordinators, ["c:7000"]);
        assert_eq!(config.listen.port(), 7100);
        assert!(config.memory >= MIN_MEMORY && config.memory <= DEFAULT_MEMORY_LIMIT);
        assert_eq!(config.disks, [config.data_dir.join("blocks")]);
        assert_eq!(config.disk_capacity, None);
    }

    #[test]
    fn coordinators_may_leave_out_the_port() {
        for (text, full) in [
            ("host", "host:7000"),
            ("10.0.0.1:7", "10.0.0.1:7"),
            ("[::1]", "[::1]:7000"),
            ("[::1]:9", "[::1]:9"),
        ] {
            assert_eq!(coordinator(text).as_deref(), Ok(full));
        }
        for wrong in [
            "",
            ":7000",
            "host:0",
            "host:x",
            "::1",
            "a b:7000",
            "http://h:7000",
        ] {
            let error = coordinator(wrong).unwrap_err().to_string();
            assert!(error.contains("HOST:PORT"), "{wrong}: {error}");
        }
    }

    #[test]
    fn values_without_sense_are_refused_with_the_flag_to_change() {
        for (flags, names) in [
            (&["--memory", "1MiB"][..], "--memory"),
            (&["--memory", "8000PiB"], "--memory"),
            (&["--disk-capacity", "1KiB"], "--disk-capacity"),
            (&["--weight", "0"], "weight"),
            (&["--admin", "nowhere"], "admin"),
            (&["--local-socket", "on"], "--local-socket"),
            (&["--advertise", "nowhere"], "--advertise"),
        ] {
            let error = config_of(flags).unwrap_err().to_string();
            assert!(error.contains(names), "{flags:?}: {error}");
        }
        let none = Settings::default().validate().unwrap_err().to_string();
        assert!(none.contains("--join"), "{none}");
    }

    #[test]
    fn no_disk_tier_is_a_choice() {
        let none = config_of(&["--disk", "/x", "--disk-capacity", "0"]).unwrap();
        assert!(none.disks.is_empty());
        let one = config_of(&["--disk", "/x", "--disk-capacity", "1GiB"]).unwrap();
        assert_eq!(one.disks, [PathBuf::from("/x")]);
        assert_eq!(one.disk_capacity, Some(Size::gib(1)));
    }

    #[test]
    fn a_disk_tier_may_have_several_directories() {
        let both = [PathBuf::from("/x"), PathBuf::from("/y")];
        for flags in [&["--disk", "/x,/y"][..], &["--disk", "/x", "--disk", "/y"]] {
            assert_eq!(config_of(flags).unwrap().disks, both, "{flags:?}");
        }
        for written in ["disk = [\"/x\", \"/y\"]", "disk = \"/x, /y\""] {
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), written).unwrap();
            let path = file.path().to_str().unwrap();
            assert_eq!(
                config_of(&["--config", path]).unwrap().disks,
                both,
                "{written}"
            );
        }
    }

    #[test]
    fn the_scrub_can_be_slower_and_off() {
        assert_eq!(config_of(&[]).unwrap().scrub_rate, DEFAULT_SCRUB_RATE);
        for (text, rate) in [("1MiB", Size::mib(1)), ("0", Size(0))] {
            let config = config_of(&["--scrub-rate", text]).unwrap();
            assert_eq!(config.scrub_rate, rate);
        }
    }

    #[test]
    fn the_local_socket_lets_in_whom_it_is_told_to() {
        assert_eq!(config_of(&[]).unwrap().local_users, Some(Vec::new()));
        let users = config_of(&["--local-users", "7,1000"]).unwrap().local_users;
        assert_eq!(users, Some(vec![7, 1000]));
        assert_eq!(
            config_of(&["--local-socket", "off"]).unwrap().local_users,
            None
        );
    }

    #[test]
    fn users_may_be_a_list_or_a_text() {
        for (toml, expected) in [
            ("local_users = [7, 8]", vec![7, 8]),
            ("local_users = 7", vec![7]),
            ("local_users = \"7, 8\"", vec![7, 8]),
            ("local_users = \"\"", vec![]),
        ] {
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), toml).unwrap();
            let args = NodeArgs {
                config: Some(file.path().to_owned()),
                ..NodeArgs::default()
            };
            assert_eq!(
                Settings::load(&args).unwrap().local_users,
                expected,
                "{toml}"
            );
        }
    }

    #[test]
    fn a_default_disk_tier_leaves_half_of_the_free_space() {
        assert_eq!(default_disk_capacity(1 << 40, 0), DEFAULT_DISK_CAPACITY);
        assert_eq!(default_disk_capacity(10 << 30, 0), Size::gib(5));
        // The tier's own blocks count as free space, or it would shrink with each restart.
        assert_eq!(default_disk_capacity(6 << 30, 4 << 30), Size::gib(5));
    }

    #[test]
    fn the_printed_configuration_reads_back() {
        let printed = millpond_process::config::to_toml(&Settings::default()).unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), printed).unwrap();
        let args = NodeArgs {
            config: Some(file.path().to_owned()),
            ..NodeArgs::default()
        };
        assert_eq!(Settings::load(&args).unwrap(), Settings::default());
    }

    #[test]
    fn an_unknown_key_names_the_nearest_known_one() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "disk_capasity = \"1GiB\"\n").unwrap();
        let args = NodeArgs {
            config: Some(file.path().to_owned()),
            ..NodeArgs::default()
        };
        let error = Settings::load(&args).unwrap_err().to_string();
        assert!(error.contains("disk_capacity"), "{error}");
    }
}
