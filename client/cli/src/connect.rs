//! How commands reach a cluster or a store.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use millpond_client::{ClientConfig, FileSystem};
use millpond_net::control::{Access, ControlClient, ControlConfig, JoinToken};
use millpond_process::{UsageError, shared_registry};
use millpond_proto::ErrorKind;
use millpond_ufs::{UfsContext, UfsError, UfsMetrics};
use tempfile::TempDir;

use crate::options::{option_map, parse_option};

/// The flag that names the cluster.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct ClusterArgs {
    /// Coordinators of the cluster, separated by commas
    #[arg(
        long,
        global = true,
        value_name = "HOST:PORT,…",
        env = "MILLPOND_COORDINATOR",
        default_value = "127.0.0.1:7000",
        value_delimiter = ','
    )]
    pub(crate) coordinator: Vec<String>,
    /// File with a token (millpond token create), for coordinators on other machines: of role
    /// client to read, of role operator to change the cluster
    #[arg(long, global = true, value_name = "FILE", env = "MILLPOND_TOKEN_FILE")]
    pub(crate) token_file: Option<PathBuf>,
}

/// The flags of commands that look either at a cluster or straight at one store.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct TargetArgs {
    /// Look at this store instead of a cluster: s3://bucket/prefix, file:///dir, …
    #[arg(long, value_name = "URI")]
    uri: Option<String>,
    /// An option of that store's driver; may be repeated
    #[arg(long = "option", value_name = "KEY=VALUE", requires = "uri", value_parser = parse_option)]
    options: Vec<(String, String)>,
}

/// A file system of one command, with the temporary directory of its certificate.
#[derive(Debug)]
pub(crate) struct Session {
    fs: FileSystem,
    _state: Option<TempDir>,
}

impl ClusterArgs {
    /// A client of the control plane.
    ///
    /// # Errors
    /// [`UsageError`] for an address that is none.
    pub(crate) fn control(&self) -> Result<ControlClient, UsageError> {
        let token = self.token_file.as_deref().map(JoinToken::read).transpose();
        let access = Access {
            token: token.map_err(|error| UsageError(format!("--token-file: {error}")))?,
            identity: None,
        };
        let config = ControlConfig::default();
        let client = ControlClient::with_access(self.coordinator.clone(), config, access);
        client.map_err(|error| UsageError(format!("--coordinator: {error}")))
    }

    /// The cluster's namespace.
    ///
    /// A command takes a certificate of its own and forgets it with its state: commands never
    /// share a directory with a mount or with each other.
    pub(crate) async fn file_system(&self) -> anyhow::Result<Session> {
        let state = tempfile::Builder::new()
            .prefix("millpond-cli-")
            .tempdir()
            .context("cannot make a temporary directory")?;
        let config = ClientConfig {
            coordinators: self.coordinator.clone(),
            token_file: self.token_file.clone(),
            state_dir: state.path().to_owned(),
            ..ClientConfig::default()
        };
        let fs = FileSystem::connect(config, &shared_registry()).await?;
        Ok(Session {
            fs,
            _state: Some(state),
        })
    }
}

impl TargetArgs {
    /// The store of `--uri`, else the cluster's namespace.
    pub(crate) async fn open(self, cluster: &ClusterArgs) -> anyhow::Result<Session> {
        let Some(uri) = self.uri else {
            return cluster.file_system().await;
        };
        standalone(&uri, option_map(self.options)?).await
    }
}

async fn standalone(uri: &str, options: BTreeMap<String, String>) -> anyhow::Result<Session> {
    let config = ClientConfig::default();
    let fs = FileSystem::standalone(uri, options, config, &shared_registry()).await?;
    Ok(Session { fs, _state: None })
}

impl Session {
    /// The file system.
    pub(crate) fn fs(&self) -> &FileSystem {
        &self.fs
    }

    /// Closes all connections and removes the command's state.
    pub(crate) async fn close(self) {
        self.fs.shutdown().await;
    }
}

/// What a one-shot command hands in when it opens a store.
pub(crate) fn ufs_context() -> UfsContext {
    UfsContext::new(Arc::new(UfsMetrics::new(&mut shared_registry().lock())))
}

/// A wrong URI or option is wrong input; all else is a failure.
pub(crate) fn ufs_usage(error: UfsError) -> anyhow::Error {
    if error.kind() == ErrorKind::Invalid {
        UsageError(error.to_string()).into()
    } else {
        error.into()
    }
}

/// `text` as an absolute normalized path: a missing leading `/`, repeated and trailing ones,
/// and `.` are forgiven.
///
/// # Errors
/// [`UsageError`] for a path with `..`, because its meaning depends on links.
pub(crate) fn normal_path(text: &str) -> Result<String, UsageError> {
    let mut path = String::new();
    for component in text.split('/').filter(|c| !c.is_empty() && *c != ".") {
        if component == ".." {
            return Err(UsageError(format!(
                "path {text:?} is not usable: it contains ..; write the path it leads to"
            )));
        }
        path.push('/');
        path.push_str(component);
    }
    Ok(if path.is_empty() {
        "/".to_owned()
    } else {
        path
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_made_absolute_and_normal() {
        for (text, path) in [
            ("", "/"),
            ("/", "/"),
            ("data", "/data"),
            ("//data/./a b//c/", "/data/a b/c"),
            ("/.hidden/...", "/.hidden/..."),
        ] {
            assert_eq!(normal_path(text).unwrap(), path);
        }
        assert!(normal_path("/a/../b").is_err());
    }
}
