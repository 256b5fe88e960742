//! The settings of a mount: read in layers, checked, and turned into what is used.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::time::Duration;

use millpond_client::ClientConfig;
use millpond_fuse::MountOptions;
use millpond_process::config::{self, ConfigError, ENV_PREFIX, to_toml};
use millpond_process::logging::{LogArgs, LogConfig};
use millpond_process::{Size, UsageError, default_data_dir};
use millpond_proto::MetadataMode;
use serde::{Deserialize, Serialize};

use super::source::MountSource;
use super::{MountArgs, memory};
use crate::options::option_map;

/// The settings as they are written: file, environment and flags laid over the defaults.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Settings {
    mount: MountSection,
    log: LogConfig,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct MountSection {
    coordinators: Vec<String>,
    token_file: Option<PathBuf>,
    memory_limit: Size,
    cache_dir: Option<PathBuf>,
    cache_size: Size,
    passthrough: String,
    local_socket: String,
    state_dir: Option<PathBuf>,
    uid: Option<u32>,
    gid: Option<u32>,
    file_mode: String,
    dir_mode: String,
    umask: String,
    allow_other: bool,
    read_only: bool,
    staging_dir: Option<PathBuf>,
    staging_size: Size,
    if_match: bool,
    rename_limit: u64,
    metadata: MetadataMode,
    #[serde(with = "humantime_serde")]
    metadata_ttl: Duration,
    read_ahead: Size,
    admin: String,
    /// Options of a standalone source's driver.
    options: BTreeMap<String, String>,
}

impl Default for MountSection {
    fn default() -> Self {
        Self {
            coordinators: vec!["127.0.0.1:7000".to_owned()],
            token_file: None,
            memory_limit: memory::default_limit(),
            cache_dir: None,
            cache_size: Size::gib(10),
            passthrough: "auto".to_owned(),
            local_socket: "auto".to_owned(),
            state_dir: None,
            uid: None,
            gid: None,
            file_mode: "0644".to_owned(),
            dir_mode: "0755".to_owned(),
            umask: "0".to_owned(),
            allow_other: false,
            read_only: false,
            staging_dir: None,
            staging_size: Size::gib(16),
            if_match: false,
            rename_limit: ClientConfig::default().rename_limit,
            metadata: MetadataMode::Ttl,
            metadata_ttl: Duration::from_secs(1),
            read_ahead: Size::mib(4),
            admin: "none".to_owned(),
            options: BTreeMap::new(),
        }
    }
}

/// The flags that were given, in the shape of [`Settings`].
#[derive(Debug, Serialize)]
struct Flags {
    mount: MountFlags,
    log: LogArgs,
}

#[derive(Debug, Serialize)]
struct MountFlags {
    coordinators: Option<Vec<String>>,
    token_file: Option<PathBuf>,
    memory_limit: Option<String>,
    cache_dir: Option<PathBuf>,
    cache_size: Option<String>,
    passthrough: Option<String>,
    local_socket: Option<String>,
    state_dir: Option<PathBuf>,
    uid: Option<u32>,
    gid: Option<u32>,
    file_mode: Option<String>,
    dir_mode: Option<String>,
    umask: Option<String>,
    allow_other: Option<bool>,
    read_only: Option<bool>,
    staging_dir: Option<PathBuf>,
    staging_size: Option<String>,
    if_match: Option<bool>,
    rename_limit: Option<u64>,
    metadata: Option<MetadataMode>,
    metadata_ttl: Option<String>,
    admin: Option<String>,
    options: Option<BTreeMap<String, String>>,
}

/// The settings as they are used: checked, no strings left.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) client: ClientConfig,
    pub(super) mount: MountOptions,
    pub(super) admin: Option<SocketAddr>,
    pub(super) options: BTreeMap<String, String>,
    /// Whether the kernel opens files without asking, should the mount be read-only.
    pub(super) opens_if_read_only: bool,
    state_dir: Option<PathBuf>,
}

impl Settings {
    pub(super) fn load(args: &MountArgs) -> anyhow::Result<Self> {
        let mut settings: Self =
            config::load(args.config.as_deref(), ENV_PREFIX, &Flags::of(args)?)?;
        settings.source(args);
        Ok(settings)
    }

    pub(super) const fn log(&self) -> &LogConfig {
        &self.log
    }

    pub(super) fn print(&self) -> anyhow::Result<()> {
        let text = to_toml(self)?;
        std::io::stdout().lock().write_all(text.as_bytes())?;
        Ok(())
    }

    /// Checks everything that can be checked without asking anyone.
    pub(super) fn plan(&self) -> anyhow::Result<Plan> {
        let mount = &self.mount;
        let client = ClientConfig {
            coordinators: mount.coordinators.clone(),
            token_file: mount.token_file.clone(),
            memory: memory::for_data(mount.memory_limit)?,
            disk: mount
                .cache_dir
                .clone()
                .map(|dir| (dir, mount.cache_size.bytes())),
            metadata_mode: mount.metadata,
            metadata_ttl: mount.metadata_ttl,
            local_socket: auto("local-socket", &mount.local_socket)?,
            read_only: mount.read_only,
            staging_dir: mount.staging_dir.clone(),
            staging_size: mount.staging_size.bytes(),
            if_match: mount.if_match,
            rename_limit: mount.rename_limit,
            ..ClientConfig::default()
        };
        client
            .validate()
            .map_err(|error| UsageError(error.to_string()))?;
        let read_ahead_kb = u32::try_from(mount.read_ahead.bytes() >> 10)
            .map_err(|_| ConfigError::invalid("mount.read_ahead", "it must be below 4TiB"))?;
        let passthrough = auto("passthrough", &mount.passthrough)?;
        // An open has to say whether the kernel may read from the local tier itself.
        let opens_if_read_only = mount.cache_dir.is_none() || !passthrough;
        let defaults = MountOptions::default();
        let options = MountOptions {
            uid: mount.uid.unwrap_or(defaults.uid),
            gid: mount.gid.unwrap_or(defaults.gid),
            file_mode: octal("file-mode", &mount.file_mode)?,
            dir_mode: octal("dir-mode", &mount.dir_mode)?,
            umask: octal("umask", &mount.umask)?,
            allow_other: mount.allow_other,
            memory_limit: Some(mount.memory_limit.bytes()),
            read_ahead_kb,
            read_only: mount.read_only,
            // Where a file can be written the kernel has to ask at each open.
            kernel_opens: mount.read_only && opens_if_read_only,
            passthrough,
            ..defaults
        };
        Ok(Plan {
            client,
            mount: options,
            admin: admin_address(&mount.admin)?,
            options: mount.options.clone(),
            opens_if_read_only,
            state_dir: mount.state_dir.clone(),
        })
    }

    /// A standalone mount has no cluster; a source may name the cluster.
    fn source(&mut self, args: &MountArgs) {
        match &args.source {
            Some(MountSource::Store(_)) => self.mount.coordinators.clear(),
            Some(MountSource::Cluster { coordinators, .. }) => {
                self.mount.coordinators.clone_from(coordinators);
            }
            None => {}
        }
    }
}

impl Plan {
    /// Takes over which part of a cluster's namespace is shown.
    pub(super) fn show(&mut self, args: &MountArgs) -> Result<(), UsageError> {
        if !args.budget.is_empty() && !matches!(args.source, Some(MountSource::Store(_))) {
            return Err(UsageError::new(
                "--ufs-bandwidth and --ufs-requests are for a store; those of a cluster's mounts \
                 are set by `millpond mounts`",
            ));
        }
        if let Some(MountSource::Cluster {
            coordinators,
            subtree,
        }) = &args.source
        {
            if !args.options.is_empty() {
                return Err(UsageError::new(
                    "--option is for a store; those of a cluster's mounts are set by `millpond \
                     mounts`",
                ));
            }
            self.mount.subtree.clone_from(subtree);
            self.mount.fs_name = format!("{}{subtree}", coordinators.join(","));
        }
        Ok(())
    }

    /// Where the state of a mount at `dir` is: each mount point has its own by default, so
    /// that mounts do not share a certificate and a restart finds the last view.
    pub(super) fn state_dir(&self, dir: &Path) -> PathBuf {
        self.state_dir.clone().unwrap_or_else(|| {
            let dir = std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned());
            let name = dir.to_string_lossy();
            // `-` is doubled, so that no two directories share a name.
            let name = name.trim_matches('/').replace('-', "--").replace('/', "-");
            default_data_dir("mount").join(if name.is_empty() { "-" } else { &name })
        })
    }
}

impl Flags {
    fn of(args: &MountArgs) -> Result<Self, UsageError> {
        let options = option_map(args.budget.and(&args.options))?;
        Ok(Self {
            mount: MountFlags {
                coordinators: given_coordinators(args),
                token_file: args.token_file.clone(),
                memory_limit: args.memory_limit.clone(),
                cache_dir: args.cache_dir.clone(),
                cache_size: args.cache_size.clone(),
                passthrough: args.passthrough.clone(),
                local_socket: args.local_socket.clone(),
                state_dir: args.state_dir.clone(),
                uid: args.uid,
                gid: args.gid,
                file_mode: args.file_mode.clone(),
                dir_mode: args.dir_mode.clone(),
                umask: args.umask.clone(),
                allow_other: args.allow_other.then_some(true),
                read_only: args.read_only.then_some(true),
                staging_dir: args.staging_dir.clone(),
                staging_size: args.staging_size.clone(),
                if_match: args.if_match.then_some(true),
                rename_limit: args.rename_limit,
                metadata: args.metadata,
                metadata_ttl: args.metadata_ttl.clone(),
                admin: args.admin.clone(),
                options: (!options.is_empty()).then_some(options),
            },
            log: args.log.clone(),
        })
    }
}

/// What the command line says, else the environment variable that all commands know.
fn given_coordinators(args: &MountArgs) -> Option<Vec<String>> {
    let given = [&args.coordinator, &args.coordinator_of_environment];
    given.into_iter().find(|list| !list.is_empty()).cloned()
}

/// Whether something is to be done where it can be.
fn auto(setting: &str, text: &str) -> Result<bool, UsageError> {
    match text {
        "auto" => Ok(true),
        "off" => Ok(false),
        _ => Err(UsageError(format!(
            "--{setting} {text:?} is neither auto nor off"
        ))),
    }
}

fn octal(setting: &str, text: &str) -> Result<u32, UsageError> {
    let digits = text.strip_prefix("0o").unwrap_or(text);
    u32::from_str_radix(digits, 8)
        .ok()
        .filter(|mode| *mode <= 0o7777)
        .ok_or_else(|| {
            UsageError(format!(
                "--{setting} {text:?} is not a mode: write octal digits, 0 to 7777, like 0644"
            ))
        })
}

fn admin_address(text: &str) -> Result<Option<SocketAddr>, UsageError> {
    if text == "none" {
        return Ok(None);
    }
    let mut found = text.to_socket_addrs().map_err(|_| not_an_address(text))?;
    found.next().map(Some).ok_or_else(|| not_an_address(text))
}

fn not_an_address(text: &str) -> UsageError {
    UsageError(format!(
        "--admin {text:?} is not an address: write HOST:PORT like 127.0.0.1:7301, or none"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_octal() {
        assert_eq!(octal("umask", "022").unwrap(), 0o22);
        assert_eq!(octal("umask", "0o755").unwrap(), 0o755);
        for bad in ["8", "rw-", "", "77777", "-1"] {
            let error = octal("umask", bad).unwrap_err().to_string();
            assert!(error.contains("--umask"), "{error}");
        }
    }

    #[test]
    fn defaults_make_a_plan() {
        let plan = Settings::default().plan().unwrap();
        assert_eq!(plan.client.metadata_mode, MetadataMode::Ttl);
        assert_eq!(plan.client.metadata_ttl, Duration::from_secs(1));
        assert_eq!(plan.mount.file_mode, 0o644);
        assert_eq!(plan.admin, None);
    }

    #[test]
    fn settings_without_sense_are_named() {
        let mut settings = Settings::default();
        settings.mount.memory_limit = Size::mib(1);
        let error = settings.plan().unwrap_err().to_string();
        assert!(error.contains("memory"), "{error}");
        let mut settings = Settings::default();
        settings.mount.admin = "here".to_owned();
        let error = settings.plan().unwrap_err().to_string();
        assert!(error.contains("--admin"), "{error}");
        let mut settings = Settings::default();
        settings.mount.local_socket = "on".to_owned();
        let error = settings.plan().unwrap_err().to_string();
        assert!(error.contains("--local-socket"), "{error}");
    }

    #[test]
    fn the_kernel_asks_at_opens_where_files_may_be_passed_through() {
        let kernel_opens = |cache: bool, passthrough: &str| {
            let mut settings = Settings::default();
            settings.mount.read_only = true;
            settings.mount.cache_dir = cache.then(|| "/cache".into());
            settings.mount.passthrough = passthrough.to_owned();
            settings.plan().map(|plan| plan.mount.kernel_opens)
        };
        assert!(!kernel_opens(true, "auto").unwrap());
        assert!(kernel_opens(true, "off").unwrap());
        assert!(kernel_opens(false, "auto").unwrap());
        let plan = Settings::default().plan().unwrap();
        assert!(!plan.mount.read_only && !plan.mount.kernel_opens);
        let error = kernel_opens(true, "on").unwrap_err().to_string();
        assert!(error.contains("--passthrough"), "{error}");
    }

    #[test]
    fn each_mount_point_has_its_own_state() {
        let plan = Settings::default().plan().unwrap();
        let state = |dir: &str| plan.state_dir(Path::new(dir));
        assert_ne!(state("/mnt/a-b"), state("/mnt/a/b"));
        assert!(state("/mnt/data").ends_with("mount/mnt-data"));
    }
}
