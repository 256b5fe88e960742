//! Attributes of paths: from the cache, or from the store, once however many ask.

use std::sync::Arc;
use std::time::{Duration, Instant};

use millpond_proto::{ErrorKind, MetadataMode, MountId, Trust};
use millpond_ufs::Ufs;
use rand::Rng as _;
use tokio::time::{sleep, timeout};

use crate::attr::{Attr, FileKind};
use crate::core::Core;
use crate::error::ClientError;
use crate::listing::{FIRST_PAUSE, LONGEST_PAUSE};
use crate::metadata::{Asked, Believed, Directory, Known, remaining};
use crate::metrics::Answer;
use crate::namespace::Place;
use crate::snapshot::Snapshot;

/// How a look-up ended: what was found, and for how long it was to be believed from when on.
pub(crate) type Looked = Result<(Known, Asked), ClientError>;

/// A look-up under way: the mount table and the changes that were known when it began, and
/// the path. Nobody joins a look-up that began before a change.
pub(crate) type Lookup = (u64, u64, String);

/// What is known of a path.
#[derive(Debug, Clone)]
pub struct Found {
    /// Its attributes; none if it does not exist.
    pub attr: Option<Arc<Attr>>,
    /// How long this may be believed from now on without asking again: what the kernel may be
    /// told. Counted from when the store was asked, whoever asked it.
    pub valid: Duration,
}

/// How long the root of a mount may take to tell its attributes before it is shown without
/// them: a store that is down must not hide the mounts beside it.
const ROOT_PATIENCE: Duration = Duration::from_secs(2);

impl Core {
    /// What is known of the normalized `path`, from memory alone.
    pub(crate) fn known(&self, path: &str) -> Option<Believed> {
        let generation = self.snapshot().generation;
        let now = Instant::now();
        let in_listing = || {
            let name_at = path.rfind('/')? + 1;
            let dir = path[..name_at - 1].as_ref();
            let dir = if name_at == 1 { "/" } else { dir };
            let name = &path[name_at..];
            self.listings.find(self, dir, name, generation, now)
        };
        let believed = self
            .metadata
            .get(path, generation, now)
            .or_else(in_listing)?;
        match &believed.known {
            // An entry of a listing that does not tell the version: not enough to open.
            Known::Present(attr) if attr.is_file() && attr.version.is_none() => None,
            Known::Present(_) | Known::Absent => Some(believed),
        }
    }

    /// The directory at the normalized `path` as a whole, from memory alone.
    pub(crate) fn listed(&self, path: &str) -> Option<Arc<Directory>> {
        let generation = self.snapshot().generation;
        self.metadata.directory(path, generation, Instant::now())
    }

    /// The attributes of the normalized `path`, as old as its mount allows.
    pub(crate) async fn look_up(self: &Arc<Self>, path: &str) -> Result<Arc<Attr>, ClientError> {
        match self.find(path).await?.known {
            Known::Present(attr) => Ok(attr),
            Known::Absent => Err(ClientError::NotFound {
                path: path.to_owned(),
            }),
        }
    }

    /// What is known of the normalized `path`, as old as its mount allows.
    pub(crate) async fn find(self: &Arc<Self>, path: &str) -> Result<Believed, ClientError> {
        if let Some(known) = self.known(path) {
            self.metrics.count_metadata(Answer::Hit);
            return Ok(known);
        }
        self.metrics.count_metadata(Answer::Miss);
        let (known, asked) = self.ask(path).await?;
        let span = match known {
            Known::Present(_) => asked.trust.presence(),
            Known::Absent => asked.trust.absence(),
        };
        let valid = remaining(asked.at, span, Instant::now());
        Ok(Believed { known, valid })
    }

    /// A question that is about to be put to the store behind `mount`.
    pub(crate) fn question(&self, snapshot: &Snapshot, mount: MountId) -> Asked {
        Asked {
            generation: snapshot.generation,
            seq: self.metadata.seq(),
            at: Instant::now(),
            trust: snapshot.trust(mount, self.metadata.default_trust()),
        }
    }

    /// How long what is said of `path` is believed.
    pub(crate) fn trust_of(&self, path: &str) -> Trust {
        let snapshot = self.snapshot();
        let default = self.metadata.default_trust();
        match snapshot.view().mounts.resolve(path) {
            Some((mount, _)) => snapshot.trust(mount.id, default),
            None => default,
        }
    }

    async fn ask(self: &Arc<Self>, path: &str) -> Looked {
        let snapshot = self.snapshot();
        let seq = self.metadata.seq();
        if self.trust_of(path).mode == MetadataMode::Strict {
            // Who joins another's question may get an answer from before their own.
            let asking = self.ask_patiently(&snapshot, path);
            return match timeout(self.config.deadline, asking).await {
                Ok(answer) => answer,
                Err(_) => Err(self.too_late("looking up", path)),
            };
        }
        let key = (snapshot.generation, seq, path.to_owned());
        let flight = self.lookups.join(key, &self.tasks, || {
            let (core, path) = (Arc::clone(self), path.to_owned());
            async move {
                let (known, asked) = core.ask_patiently(&snapshot, &path).await?;
                let asked = Asked {
                    seq: asked.seq.min(seq),
                    ..asked
                };
                core.metadata.put(&path, known.clone(), asked);
                Ok((known, asked))
            }
        });
        match timeout(self.config.deadline, flight).await {
            Ok(Some(answer)) => answer,
            Ok(None) => Err(ClientError::ShutDown),
            Err(_) => Err(self.too_late("looking up", path)),
        }
    }

    /// Asks until a store that fails for a moment answers, or the client's deadline is near.
    async fn ask_patiently(&self, snapshot: &Snapshot, path: &str) -> Looked {
        let deadline = tokio::time::Instant::now() + self.config.deadline;
        let mut pause = FIRST_PAUSE;
        loop {
            let error = match self.ask_store(snapshot, path).await {
                Err(error) if error.kind().is_transient() => error,
                answer => return answer,
            };
            let jittered = pause.mul_f64(rand::rng().random_range(0.5..1.0));
            if tokio::time::Instant::now() + jittered >= deadline {
                return Err(error);
            }
            tracing::debug!(
                path,
                error = &error as &dyn std::error::Error,
                "a look-up failed, trying again"
            );
            self.metrics.metadata_retries.inc();
            sleep(jittered).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn ask_store(&self, snapshot: &Snapshot, path: &str) -> Looked {
        let place = Place::of(&snapshot.view().mounts, path);
        let fixed = |known| {
            let asked = Asked {
                generation: snapshot.generation,
                seq: self.metadata.seq(),
                at: Instant::now(),
                trust: self.metadata.default_trust(),
            };
            Ok((known, asked))
        };
        if let Some(mount) = place.mount_here() {
            let asked = self.question(snapshot, mount);
            let attr = self.root_of(snapshot, mount).await;
            return Ok((Known::Present(Arc::new(attr)), asked));
        }
        if place.is_fixed_directory() {
            return fixed(Known::Present(Arc::new(Attr::virtual_directory())));
        }
        let Some((mount, below)) = place.mount else {
            return fixed(Known::Absent);
        };
        let ufs = self.open_store(snapshot, mount).await?;
        let asked = self.question(snapshot, mount);
        let direct = async {
            let at = Instant::now();
            match ufs.stat(&below).await {
                Ok(metadata) => Ok((Some(metadata), at)),
                Err(error) if error.kind() == ErrorKind::NotFound => Ok((None, at)),
                Err(error) => Err(error),
            }
        };
        let (found, at) = match self.question_for(snapshot, mount, &below, asked.trust) {
            Some(question) => self.hedged(self.stat_by_owner(&question), direct).await?,
            None => direct.await?,
        };
        let known = match found {
            Some(metadata) => Known::Present(Arc::new(Attr::of(metadata, mount, &*ufs, &below))),
            None => Known::Absent,
        };
        Ok((known, Asked { at, ..asked }))
    }

    /// The root of a mount is a directory, whatever its store says or fails to say.
    async fn root_of(&self, snapshot: &Snapshot, mount: MountId) -> Attr {
        let asked = timeout(ROOT_PATIENCE, async {
            let ufs = self.open_store(snapshot, mount).await.ok()?;
            let metadata = ufs.stat("").await.ok();
            let attr = metadata.map(|m| Attr::of(m, mount, &*ufs, ""));
            Some(match attr {
                Some(attr) if attr.kind == FileKind::Directory => attr,
                _ => Attr::mount_root(mount, ufs.uri()),
            })
        });
        let named = snapshot.view().mounts.by_id(mount).map(|m| m.ufs.as_str());
        let unknown = || Attr::mount_root(mount, named.unwrap_or_default());
        asked.await.ok().flatten().unwrap_or_else(unknown)
    }

    /// The store behind `mount`, opened if need be.
    pub(crate) async fn open_store(
        &self,
        snapshot: &Snapshot,
        mount: MountId,
    ) -> Result<Arc<dyn Ufs>, ClientError> {
        let store = snapshot.store(mount).ok_or_else(|| ClientError::NotFound {
            path: format!("mount {mount}"),
        })?;
        Ok(store.open(&self.ufs_context).await?)
    }
}
