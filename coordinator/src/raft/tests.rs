//! openraft's own checks of a store, and ours of what survives.

use std::time::{Duration, Instant};

use millpond_proto::{BlockSize, ClusterId, MountPath};
use openraft::StorageError;
use openraft::testing::{StoreBuilder, Suite};
use tempfile::TempDir;

use super::log::LogStore;
use super::machine::Machine;
use super::*;
use crate::engine::{NewMount, Outcome};
use crate::secret::GroupSecret;

struct Builder;

impl StoreBuilder<Types, LogStore, Machine, TempDir> for Builder {
    async fn build(&self) -> Result<(TempDir, LogStore, Machine), StorageError<u64>> {
        let dir = tempfile::tempdir().unwrap();
        let db = db::Db::open(&dir.path().join(DB_FILE), secret(&dir).sealer()).unwrap();
        let machine = Machine::open(db.clone()).await.unwrap();
        Ok((dir, LogStore::new(db), machine))
    }
}

#[test]
fn the_store_passes_openrafts_suite() {
    Suite::test_all(Builder).unwrap();
}

fn bootstrap() -> Op {
    Op::Bootstrap {
        cluster: ClusterId([5; 16]),
        block_size: BlockSize::DEFAULT,
    }
}

fn mount(n: u64) -> Op {
    Op::AddMount(NewMount {
        path: MountPath::parse(&format!("/m{n}")).unwrap(),
        ufs: "s3://bucket".into(),
        options: [("secret_access_key".to_owned(), n.to_string())].into(),
    })
}

fn secret(dir: &TempDir) -> GroupSecret {
    GroupSecret::read_or_draw(dir.path()).unwrap()
}

async fn start(dir: &TempDir) -> Consensus {
    let secret = secret(dir);
    let peers = Arc::new(Peers::new(&secret).unwrap());
    let opened = Consensus::open(dir.path(), FIRST, secret.sealer(), peers);
    let consensus = opened.await.unwrap();
    let alone = [(FIRST, "127.0.0.1:7000".to_owned())];
    consensus.begin(alone.into()).await.unwrap();
    let wait = consensus.raft.wait(Some(Duration::from_secs(20)));
    wait.metrics(|m| m.current_leader == Some(FIRST), "leads")
        .await
        .unwrap();
    consensus.catch_up().await.unwrap();
    consensus
}

async fn propose(consensus: &Consensus, op: Op) -> Outcome {
    consensus.propose(op).await.unwrap().result.unwrap()
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let first = start(&dir).await;
    assert!(first.is_leader() && first.view().is_err());
    propose(&first, bootstrap()).await;
    for n in 1..=5 {
        propose(&first, mount(n)).await;
    }
    let before = first.view().unwrap();
    first.shutdown().await;
    drop(first);

    let second = start(&dir).await;
    assert_eq!(second.view().unwrap(), before);
    let next = propose(&second, mount(6)).await;
    assert!(matches!(next, Outcome::Mount(m) if m.id.0 == 6));
    second.shutdown().await;
}

/// Through several snapshots: the log in the file is cut, and the state is whole.
#[tokio::test]
async fn the_log_is_cut_behind_snapshots_and_the_state_survives_them() {
    let dir = tempfile::tempdir().unwrap();
    let first = start(&dir).await;
    propose(&first, bootstrap()).await;
    first.raft.trigger().snapshot().await.unwrap();
    for n in 1..=KEEP_BEHIND_SNAPSHOT + 150 {
        propose(&first, mount(n)).await;
    }
    first.raft.trigger().snapshot().await.unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    let mut metrics = first.raft.metrics();
    while metrics.borrow().purged.is_none_or(|p| p.index < 100) {
        assert!(
            Instant::now() < deadline,
            "the log was not cut: {:?}",
            metrics.borrow()
        );
        let _ = tokio::time::timeout(Duration::from_millis(100), metrics.changed()).await;
    }
    propose(&first, mount(9999)).await;
    let before = first.view().unwrap();
    first.shutdown().await;
    drop(first);
    drop(metrics);

    let second = start(&dir).await;
    assert_eq!(second.view().unwrap(), before);
    assert!(second.raft.metrics().borrow().snapshot.is_some());
    second.shutdown().await;
}

#[tokio::test]
async fn refusals_come_back_as_they_are_and_proposals_run_side_by_side() {
    let dir = tempfile::tempdir().unwrap();
    let consensus = Arc::new(start(&dir).await);
    propose(&consensus, bootstrap()).await;
    let tasks = tokio_util::task::TaskTracker::new();
    let running: Vec<_> = (0..32)
        .map(|n| {
            let consensus = Arc::clone(&consensus);
            tasks.spawn(async move { propose(&consensus, mount(n)).await })
        })
        .collect();
    for task in running {
        task.await.unwrap();
    }
    assert_eq!(consensus.view().unwrap().mounts.iter().len(), 32);
    let again = consensus.propose(mount(3)).await.unwrap();
    assert_eq!(again.result.unwrap_err().kind(), ErrorKind::Invalid);
    consensus.shutdown().await;
    let stopped = consensus.propose(mount(99)).await.unwrap_err();
    assert_eq!(stopped.kind(), ErrorKind::Unavailable);
}

#[tokio::test]
async fn consensus_says_so_when_the_disk_fails() {
    let dir = tempfile::tempdir().unwrap();
    let consensus = start(&dir).await;
    propose(&consensus, bootstrap()).await;
    consensus.db.close().await;
    let error = consensus.propose(mount(1)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    let failed = tokio::time::timeout(Duration::from_secs(10), consensus.failed());
    let reason = failed.await.unwrap();
    assert!(reason.contains("database"), "{reason}");
}

#[tokio::test]
async fn only_the_owner_can_read_the_log_and_only_with_the_secret() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let consensus = start(&dir).await;
    propose(&consensus, bootstrap()).await;
    propose(&consensus, mount(123_456_789)).await;
    consensus.raft.trigger().snapshot().await.unwrap();
    let wait = consensus.raft.wait(Some(Duration::from_secs(20)));
    wait.metrics(|m| m.snapshot.is_some(), "a snapshot")
        .await
        .unwrap();
    let file = std::fs::metadata(dir.path().join(DB_FILE)).unwrap();
    assert_eq!(file.permissions().mode() & 0o777, 0o600);
    consensus.shutdown().await;

    let bytes = std::fs::read(dir.path().join(DB_FILE)).unwrap();
    for secret in ["123456789", "secret_access_key"] {
        let found = bytes.windows(secret.len()).any(|w| w == secret.as_bytes());
        assert!(!found, "{secret} is in the file");
    }
    let other = tempfile::tempdir().unwrap();
    let stranger = GroupSecret::read_or_draw(other.path()).unwrap();
    let peers = Arc::new(Peers::new(&stranger).unwrap());
    let opened = Consensus::open(dir.path(), FIRST, stranger.sealer(), peers);
    let error = opened.await.unwrap_err().to_string();
    assert!(error.contains("--secret-file"), "{error}");
}
