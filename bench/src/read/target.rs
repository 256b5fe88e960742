//! What the user wants read: opened, emptied of caches, asked what it took from its store.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use millpond_client::{ClientConfig, ClientError, FileSystem};
use millpond_process::{SharedRegistry, shared_registry};

use super::args::{ReadArgs, TargetKind};
use super::kernel;
use super::layout::FileInfo;
use super::source::{Library, Source};
use crate::cluster::UfsUse;
use crate::process_cluster::{Binaries, Metrics, Mount, limit_for};
use crate::record::KernelCache;
use crate::scenario::Context;

/// A directory, or a namespace behind a client of our own.
#[derive(Debug)]
pub(super) struct Target<'a> {
    context: &'a Context,
    args: &'a ReadArgs,
    source: Source,
    mount: Option<Mount>,
    /// All clients so far, the present one last.
    clients: Vec<Client>,
}

#[derive(Debug)]
struct Client {
    filesystem: FileSystem,
    registry: SharedRegistry,
}

impl<'a> Target<'a> {
    /// Opens it.
    ///
    /// # Errors
    /// When it cannot be reached, with what says so.
    pub(super) fn open(context: &'a Context, args: &'a ReadArgs, kind: TargetKind) -> Result<Self> {
        let mut target = Self {
            context,
            args,
            source: Source::Dir(args.dir.clone().unwrap_or_default()),
            mount: None,
            clients: Vec::new(),
        };
        match kind {
            TargetKind::Dir => {}
            TargetKind::Uri => target.new_client()?,
            TargetKind::Cluster => {
                // Through a mount too: it asks the nodes what they took from the store.
                target.new_client()?;
                if args.mount {
                    target.mount()?;
                }
            }
        }
        Ok(target)
    }

    /// The first part of its cases.
    pub(super) const fn name(&self) -> &'static str {
        match (&self.source, &self.mount) {
            (Source::Library(_), _) => "library",
            (Source::Dir(_), Some(_)) => "mount",
            (Source::Dir(_), None) => "dir",
        }
    }

    pub(super) const fn source(&self) -> &Source {
        &self.source
    }

    /// The processes whose CPU time is part of reading it, where they are known.
    pub(super) fn pids(&self) -> Vec<u32> {
        self.mount.iter().map(Mount::pid).collect()
    }

    /// Drops what can be dropped, and says what became of the kernel's pages.
    ///
    /// # Errors
    /// When files cannot be looked at, or no new client can be had.
    pub(super) fn drop_caches(&mut self, files: &[FileInfo]) -> Result<Option<KernelCache>> {
        let dropped = match self.source.dir() {
            Some(dir) => Some(kernel::drop_pages(dir, files)?),
            None => {
                self.end_client();
                self.new_client()?;
                None
            }
        };
        if self.args.drop_caches {
            kernel::drop_everything()?;
        }
        Ok(dropped)
    }

    /// What [`drop_caches`](Self::drop_caches) does not drop, for people.
    pub(super) const fn not_dropped(&self) -> &'static str {
        match (&self.source, &self.mount) {
            (Source::Library(_), _) => "the client was new in each run; caches of nodes stayed",
            (Source::Dir(_), _) => {
                "the kernel's pages were dropped before each run; caches of the process behind a \
                 mount stayed"
            }
        }
    }

    /// What it took from its store so far; none where nobody can tell.
    ///
    /// # Errors
    /// When a process that runs does not answer.
    pub(super) fn ufs_use(&self) -> Result<Option<UfsUse>> {
        let Some(client) = self.clients.last() else {
            return Ok(None);
        };
        let mut sum = UfsUse::default();
        for client in &self.clients {
            sum += UfsUse::of(&Metrics::of_registry(&client.registry)?);
        }
        if let Some(mount) = &self.mount {
            sum += UfsUse::of_mounts(&[mount])?;
        }
        let view = client.filesystem.view();
        for member in view.serving() {
            let asking = client.filesystem.node_stats(member.id);
            let stats = self.context.runtime.block_on(asking)?;
            sum += UfsUse {
                requests: stats.ufs_reads,
                gets: stats.ufs_reads,
                bytes: stats.ufs_bytes,
            };
        }
        Ok(Some(sum))
    }

    fn new_client(&mut self) -> Result<()> {
        let registry = shared_registry();
        let connecting = connect(self.context, self.args, &registry);
        let what = self.args.uri.clone();
        let what = what.unwrap_or_else(|| self.args.coordinator.join(","));
        let filesystem = self
            .context
            .runtime
            .block_on(connecting)
            .with_context(|| format!("cannot open {what}"))?;
        self.source = Source::Library(Library {
            filesystem: filesystem.clone(),
            root: self.root(),
            runtime: self.context.runtime.clone(),
        });
        self.clients.push(Client {
            filesystem,
            registry,
        });
        Ok(())
    }

    fn mount(&mut self) -> Result<()> {
        let parent = self.context.new_dir("running")?;
        let memory = limit_for(self.args.memory());
        let mount = Mount::of_cluster(
            &Binaries::here()?,
            &self.args.coordinator.join(","),
            &parent,
            "mount",
            &["--memory-limit", &memory],
        )?;
        let below = self.root();
        self.source = Source::Dir(mount.path().join(below.trim_start_matches('/')));
        self.mount = Some(mount);
        Ok(())
    }

    fn root(&self) -> String {
        self.args.path.clone().unwrap_or_else(|| "/".to_owned())
    }

    fn end_client(&self) {
        if let Some(client) = self.clients.last() {
            self.context.runtime.block_on(client.filesystem.shutdown());
        }
    }
}

impl Drop for Target<'_> {
    fn drop(&mut self) {
        // Before the client, which the mount does not need.
        drop(self.mount.take());
        self.end_client();
    }
}

async fn connect(
    context: &Context,
    args: &ReadArgs,
    registry: &SharedRegistry,
) -> Result<FileSystem, ClientError> {
    let config = ClientConfig {
        coordinators: args.coordinator.clone(),
        state_dir: context.dir().join("client"),
        memory: args.memory().bytes(),
        ..ClientConfig::default()
    };
    match &args.uri {
        Some(uri) => FileSystem::standalone(uri, args.ufs_options(), config, registry).await,
        None => FileSystem::connect(config, registry).await,
    }
}

/// The target's files, which must hold something.
///
/// # Errors
/// When they cannot be listed, or hold nothing.
pub(super) fn files(target: &Target<'_>) -> Result<Arc<[FileInfo]>> {
    let files = target.source.files()?;
    if super::layout::total(&files) == 0 {
        let message = "the target holds no bytes to read";
        return Err(millpond_process::UsageError::new(message).into());
    }
    Ok(files)
}
