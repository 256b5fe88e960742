//! Groups of real coordinators: kills, restarts, entries, strangers.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on should fail"
)]
#![allow(missing_docs, reason = "tests")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::PATIENCE;
use millpond_net::control::{ClusterStatus, ControlClient, ControlConfig, CoordinatorInfo};
use millpond_proto::wire::pb;
use millpond_proto::wire::pb::group_client::GroupClient;
use millpond_proto::{ErrorKind, MountPath};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio_util::task::TaskTracker;

/// Coordinators on fixed ports of this machine, with one secret.
struct Group {
    dir: TempDir,
    addrs: Vec<String>,
    running: BTreeMap<usize, Child>,
}

impl Group {
    /// Starts `n`, all at once: none is ready before a majority is there.
    async fn start(n: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let group = Self {
            addrs: free_addrs(n + 1),
            running: BTreeMap::new(),
            dir,
        };
        group.write_secret("secret", &"s3cret-".repeat(8));
        let mut group = group;
        let peers = group.addrs[..n].join(",");
        let starting: Vec<_> = (0..n)
            .map(|i| group.command(i, &["--peers", &peers]))
            .map(spawn)
            .collect();
        for (i, child) in starting.into_iter().enumerate() {
            let child = ready(child).await.unwrap();
            group.running.insert(i, child);
        }
        group
    }

    fn write_secret(&self, name: &str, text: &str) {
        use std::os::unix::fs::OpenOptionsExt;
        let mut options = std::fs::OpenOptions::new();
        let file = options.write(true).create_new(true).mode(0o600);
        let mut file = file.open(self.path(name)).unwrap();
        std::io::Write::write_all(&mut file, text.as_bytes()).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn command(&self, i: usize, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_coordinator"));
        command
            .arg("--data-dir")
            .arg(self.path(&i.to_string()))
            .arg("--secret-file")
            .arg(self.path("secret"))
            .args(["--listen", &self.addrs[i], "--admin", "none"])
            .args(args)
            .env_remove("MILLPOND_LOG")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true);
        command
    }

    async fn restart(&mut self, i: usize) {
        let child = ready(spawn(self.command(i, &[]))).await.unwrap();
        self.running.insert(i, child);
    }

    async fn kill(&mut self, i: usize) {
        self.running.remove(&i).unwrap().kill().await.unwrap();
    }

    /// A client of all of them that goes on trying.
    fn client(&self) -> ControlClient {
        let config = ControlConfig {
            patience: PATIENCE,
            ..ControlConfig::default()
        };
        ControlClient::with_config(self.addrs.clone(), config).unwrap()
    }

    fn index(&self, addr: &str) -> usize {
        self.addrs.iter().position(|a| a == addr).unwrap()
    }
}

fn spawn(mut command: Command) -> Child {
    command.spawn().unwrap()
}

/// The process once it has said that it serves; none if it ended instead.
async fn ready(mut child: Child) -> Option<Child> {
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let line = tokio::time::timeout(PATIENCE, lines.next_line()).await;
    line.expect("neither ready nor ended").unwrap()?;
    Some(child)
}

/// Addresses that nobody uses at the moment, and that the system gives to nobody by itself
/// (those from 32768 on): a coordinator that was killed finds its own again.
fn free_addrs(n: usize) -> Vec<String> {
    let mut held: Vec<TcpListener> = Vec::new();
    while held.len() < n {
        let port = rand::random_range(20_000..32_000);
        held.extend(TcpListener::bind(("127.0.0.1", port)));
    }
    let addrs = held.iter().map(|l| l.local_addr().unwrap().to_string());
    // In the order in which they get their numbers.
    addrs.collect::<BTreeSet<_>>().into_iter().collect()
}

async fn group_where(
    client: &ControlClient,
    what: &str,
    wanted: impl Fn(&[CoordinatorInfo]) -> bool,
) -> Vec<CoordinatorInfo> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let group = client.coordinators().await.unwrap();
        if wanted(&group) {
            return group;
        }
        assert!(Instant::now() < deadline, "not {what}: {group:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The status as a leader tells it.
async fn fresh_status(client: &ControlClient) -> ClusterStatus {
    let deadline = Instant::now() + PATIENCE;
    loop {
        // Whoever does not lead yet, or any more, says so.
        match client.status().await {
            Ok(status) if !status.leader.is_empty() => return status,
            other => assert!(Instant::now() < deadline, "no leader: {other:?}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn leader(group: &[CoordinatorInfo]) -> Option<&CoordinatorInfo> {
    group.iter().find(|member| member.leads)
}

/// Adds mounts, one after the other, until told to stop; returns what was acknowledged.
async fn add_mounts(client: ControlClient, round: usize, stop: Arc<AtomicBool>) -> Vec<String> {
    let mut acknowledged = Vec::new();
    for n in 0.. {
        let path = format!("/r{round}/m{n}");
        let mount = MountPath::parse(&path).unwrap();
        if client
            .add_mount(&mount, "s3://bucket", BTreeMap::new())
            .await
            .is_ok()
        {
            acknowledged.push(path);
        }
        if stop.load(Ordering::Relaxed) {
            break;
        }
    }
    acknowledged
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_loses_nothing_acknowledged_whichever_of_it_is_killed() {
    let mut group = Group::start(3).await;
    let client = group.client();
    let tasks = TaskTracker::new();
    let mut acknowledged = BTreeSet::new();
    let mut cluster = None;
    for round in 0..3 {
        let stop = Arc::new(AtomicBool::new(false));
        let adding = tasks.spawn(add_mounts(client.clone(), round, Arc::clone(&stop)));
        let members = group_where(&client, "led", |g| leader(g).is_some()).await;
        let victim = match round {
            // A follower, then leaders.
            0 => members.iter().find(|m| !m.leads).unwrap().addr.clone(),
            _ => leader(&members).unwrap().addr.clone(),
        };
        let victim = group.index(&victim);
        group.kill(victim).await;
        // Another leads, and takes what is asked of it.
        let gone = group.addrs[victim].clone();
        group_where(&client, "led by another", |g| {
            leader(g).is_some_and(|l| l.addr != gone)
        })
        .await;
        let mount = MountPath::parse(&format!("/after{round}")).unwrap();
        let added = client.add_mount(&mount, "s3://bucket", BTreeMap::new());
        added.await.unwrap();
        acknowledged.insert(mount.to_string());
        stop.store(true, Ordering::Relaxed);
        acknowledged.extend(adding.await.unwrap());
        group.restart(victim).await;

        let status = fresh_status(&client).await;
        assert_eq!(
            *cluster.get_or_insert(status.view.cluster),
            status.view.cluster
        );
        let present: BTreeSet<_> = status
            .view
            .mounts
            .iter()
            .map(|m| m.path.to_string())
            .collect();
        let lost: Vec<_> = acknowledged.difference(&present).collect();
        assert!(lost.is_empty(), "round {round}: {lost:?}");
    }
    // Whoever is asked, alone, has it all: the others by passing the question on.
    for addr in &group.addrs[..3] {
        let one = ControlClient::new(vec![addr.clone()]).unwrap();
        let status = fresh_status(&one).await;
        assert!(status.view.mounts.iter().len() >= acknowledged.len());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn coordinators_enter_leave_and_hand_over_and_strangers_stay_out() {
    let mut group = Group::start(1).await;
    let client = group.client();
    let mount = MountPath::parse("/data").unwrap();
    let options = [("secret_access_key".to_owned(), "hush".to_owned())];
    let added = client.add_mount(&mount, "s3://bucket", options.into());
    added.await.unwrap();

    // The second enters by way of the first, and is certified by the same authority.
    let first = group.addrs[0].clone();
    let second = ready(spawn(group.command(1, &["--join", &first]))).await;
    group.running.insert(1, second.unwrap());
    let members = group_where(&client, "two voters", |g| {
        g.iter().filter(|m| m.votes).count() == 2
    })
    .await;
    let other = members.iter().find(|m| m.addr == group.addrs[1]).unwrap();
    let certified = |addr: &str| {
        let one = ControlClient::new(vec![addr.to_owned()]).unwrap();
        async move { one.certify(&common::csr()).await.unwrap() }
    };
    let (a, b) = (certified(&first).await, certified(&other.addr).await);
    assert_eq!(a.ca_pem, b.ca_pem);

    // It leads when it is told to.
    let after = client.transfer_lead(other.id).await.unwrap();
    assert_eq!(leader(&after).unwrap().id, other.id);
    group_where(&client, "led by the second", |g| {
        leader(g).is_some_and(|l| l.id == other.id)
    })
    .await;

    // The first goes; the second has everything.
    let left = client
        .remove_coordinator(members[0].id.min(members[1].id))
        .await
        .unwrap();
    assert_eq!(left.len(), 1);
    group.kill(0).await;
    let status = fresh_status(&client).await;
    assert!(status.view.mounts.at(&mount).is_some());
    let last = client.remove_coordinator(other.id).await.unwrap_err();
    assert_eq!(last.kind(), ErrorKind::Invalid, "{last}");
    let unknown = client.remove_coordinator(77).await.unwrap_err();
    assert_eq!(unknown.kind(), ErrorKind::NotFound, "{unknown}");

    // Nobody without the secret takes part: neither in the clear, nor with another secret.
    let clear = format!("http://{}", group.addrs[1]);
    let mut stranger = GroupClient::connect(clear).await.unwrap();
    let refused = stranger.lead(pb::LeadRequest {}).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::PermissionDenied);
    group.write_secret("other", &"another-".repeat(8));
    let dir = group.path("stranger");
    let other_secret = group.path("other");
    let addr = group.addrs[0].clone();
    let mut command = Command::new(env!("CARGO_BIN_EXE_coordinator"));
    command
        .arg("--data-dir")
        .arg(dir)
        .arg("--secret-file")
        .arg(other_secret)
        .args([
            "--listen",
            &addr,
            "--admin",
            "none",
            "--join",
            &group.addrs[1],
        ])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let mut child = command.spawn().unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
    let told = async {
        loop {
            let line = log.next_line().await.unwrap().expect("the process ended");
            if line.contains("not in the group yet") {
                return line;
            }
        }
    };
    let told = tokio::time::timeout(PATIENCE, told).await.unwrap();
    assert!(told.contains(&group.addrs[1]), "{told}");
    let members = client.coordinators().await.unwrap();
    assert_eq!(members.len(), 1, "{members:?}");
}
