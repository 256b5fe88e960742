//! The node's data directory: who the node is, across restarts.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use millpond_net::tls::Identity;
use millpond_proto::{ClusterId, NodeId};

use crate::error::NodeError;

/// A data directory that this process, and no other, uses. Dropping it lets it go.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    /// Holds the lock while it is open.
    _lock: File,
    id: [u8; 16],
    member: Option<Membership>,
}

/// Which member of which cluster a data directory belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Membership {
    /// The cluster.
    pub cluster: ClusterId,
    /// The node.
    pub node: NodeId,
}

/// `node.json`.
#[derive(Debug, Serialize, Deserialize)]
struct NodeFile {
    /// Drawn once, so that a repeated first join gets the same node id.
    data_dir_id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cluster: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    node: Option<NodeId>,
}

impl DataDir {
    /// Opens the directory at `path`, creating and marking it if it is new.
    ///
    /// # Errors
    /// [`NodeError::InUse`] if another process uses it, [`NodeError::Damaged`] if its content
    /// makes no sense, [`NodeError::Io`] if it cannot be written.
    pub fn open(path: &Path) -> Result<Self, NodeError> {
        let failed = |doing| {
            move |source| NodeError::Io {
                doing,
                path: path.to_owned(),
                source,
            }
        };
        fs::create_dir_all(path).map_err(failed("create the data directory"))?;
        let lock = lock(path).map_err(|error| match error {
            LockError::Held(pid) => NodeError::InUse {
                path: path.to_owned(),
                pid,
            },
            LockError::Io(source) => failed("lock the data directory")(source),
        })?;
        let file = path.join(NODE_FILE);
        let node = match fs::read_to_string(&file) {
            Ok(text) => parse(&text).map_err(|why| NodeError::Damaged {
                path: file.clone(),
                why,
            })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let id = rand::random();
                write_node_file(path, id, None)?;
                (id, None)
            }
            Err(error) => return Err(failed("read the data directory")(error)),
        };
        Ok(Self {
            path: path.to_owned(),
            _lock: lock,
            id: node.0,
            member: node.1,
        })
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What was drawn for the directory when it was created.
    pub const fn id(&self) -> [u8; 16] {
        self.id
    }

    /// Whom the directory belongs to; none before the first join.
    pub fn member(&self) -> Option<Membership> {
        self.member
    }

    /// The key and certificate kept from the last join; none before the first.
    ///
    /// # Errors
    /// When the file cannot be read or is damaged.
    pub fn identity(&self) -> Result<Option<Identity>, NodeError> {
        Ok(Identity::load(&self.path)?)
    }

    /// Where the last view is kept.
    pub fn view_file(&self) -> PathBuf {
        self.path.join("view.json")
    }

    /// Keeps what a join gave.
    ///
    /// # Errors
    /// [`NodeError::OtherCluster`] if the directory belongs to another cluster;
    /// [`NodeError::Io`] if it cannot be written.
    pub fn keep(&mut self, member: Membership, identity: &Identity) -> Result<(), NodeError> {
        if let Some(own) = self.member
            && own.cluster != member.cluster
        {
            return Err(NodeError::OtherCluster {
                path: self.path.clone(),
                ours: own.cluster,
                theirs: member.cluster,
            });
        }
        identity.save(&self.path)?;
        if self.member != Some(member) {
            write_node_file(&self.path, self.id, Some(member))?;
            self.member = Some(member);
        }
        Ok(())
    }
}

const NODE_FILE: &str = "node.json";
const LOCK_FILE: &str = "lock";

enum LockError {
    /// The other process, if it could be read.
    Held(Option<u32>),
    Io(io::Error),
}

fn lock(dir: &Path) -> Result<File, LockError> {
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(dir.join(LOCK_FILE))
        .map_err(LockError::Io)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let mut pid = String::new();
            // Only for the message: a pid that cannot be read is left out.
            let _ = file.read_to_string(&mut pid);
            return Err(LockError::Held(pid.trim().parse().ok()));
        }
        Err(errno) => return Err(LockError::Io(errno.into())),
    }
    let write_pid = |file: &mut File| {
        file.set_len(0)?;
        file.rewind()?;
        writeln!(file, "{}", std::process::id())
    };
    write_pid(&mut file).map_err(LockError::Io)?;
    Ok(file)
}

fn parse(text: &str) -> Result<([u8; 16], Option<Membership>), String> {
    let file: NodeFile = serde_json::from_str(text).map_err(|e| e.to_string())?;
    let member = match (file.cluster, file.node) {
        (Some(cluster), Some(node)) => Some(Membership {
            cluster: cluster.parse().map_err(|e| format!("cluster: {e}"))?,
            node,
        }),
        (None, None) => None,
        _ => return Err("cluster and node must be there both or not at all".to_owned()),
    };
    let mut id = [0; 16];
    hex::decode_to_slice(&file.data_dir_id, &mut id).map_err(|e| format!("data_dir_id: {e}"))?;
    Ok((id, member))
}

/// Written aside, synced and renamed: after a crash the old or the new file is there.
fn write_node_file(dir: &Path, id: [u8; 16], member: Option<Membership>) -> Result<(), NodeError> {
    let file = NodeFile {
        data_dir_id: hex::encode(id),
        cluster: member.map(|m| m.cluster.to_string()),
        node: member.map(|m| m.node),
    };
    let write = || {
        let aside = dir.join("node.json.tmp");
        let mut out = File::create(&aside)?;
        serde_json::to_writer_pretty(&mut out, &file)?;
        out.sync_all()?;
        fs::rename(&aside, dir.join(NODE_FILE))?;
        File::open(dir)?.sync_all()
    };
    write().map_err(|source| NodeError::Io {
        doing: "write the data directory",
        path: dir.join(NODE_FILE),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity() -> Identity {
        Identity::new("ca\n".into(), "cert\n".into(), "key\n".into())
    }

    fn member(cluster: u8) -> Membership {
        Membership {
            cluster: ClusterId([cluster; 16]),
            node: NodeId(4),
        }
    }

    #[test]
    fn the_id_and_the_membership_survive_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let mut first = DataDir::open(dir.path()).unwrap();
        assert_eq!(first.member(), None);
        let id = first.id();
        first.keep(member(1), &identity()).unwrap();
        drop(first);
        let second = DataDir::open(dir.path()).unwrap();
        assert_eq!(second.id(), id);
        assert_eq!(second.member(), Some(member(1)));
    }

    #[test]
    fn two_nodes_cannot_share_a_directory() {
        let dir = tempfile::tempdir().unwrap();
        let _first = DataDir::open(dir.path()).unwrap();
        let error = DataDir::open(dir.path()).unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, NodeError::InUse { .. }), "{text}");
        assert!(
            text.contains(&format!("pid {}", std::process::id())),
            "{text}"
        );
        assert!(text.contains("in use by another cache-node"), "{text}");
    }

    #[test]
    fn a_directory_of_another_cluster_is_refused_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        let mut data = DataDir::open(dir.path()).unwrap();
        data.keep(member(1), &identity()).unwrap();
        let error = data.keep(member(2), &identity()).unwrap_err();
        assert!(matches!(error, NodeError::OtherCluster { .. }), "{error}");
        assert_eq!(data.member(), Some(member(1)));
    }

    #[test]
    fn a_damaged_directory_is_named() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(NODE_FILE), "{\"data_dir_id\":").unwrap();
        let error = DataDir::open(dir.path()).unwrap_err().to_string();
        assert!(error.contains(NODE_FILE), "{error}");
    }
}
