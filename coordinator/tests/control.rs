//! The service over real connections.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test that cannot go on should fail"
)]
#![allow(missing_docs, reason = "tests")]

mod common;

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use common::{Client, PATIENCE, beat, connect, csr, join, mount, status, view_where};
use millpond_coordinator::{Config, Coordinator, FirstStart};
use millpond_net::control::{
    Access, ControlClient, ControlConfig, JoinRequest, JoinToken, ViewWatch, WatchConfig,
};
use millpond_net::tls::{Identity, KeyRequest, PeerRole};
use millpond_proto::wire::pb;
use millpond_proto::{ClusterView, ErrorKind, MemberState, MountPath, NodeId, NodeStats};
use tempfile::TempDir;
use tonic::Code;

struct Cluster {
    coordinator: Coordinator,
    dir: TempDir,
}

impl Cluster {
    async fn start() -> Self {
        Self::with(|_| {}).await
    }

    async fn with(change: impl FnOnce(&mut Config)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut config = config(&dir);
        change(&mut config);
        let coordinator = Coordinator::start(config).await.unwrap();
        Self { coordinator, dir }
    }

    async fn client(&self) -> Client {
        connect(self.coordinator.addr()).await
    }
}

fn config(dir: &TempDir) -> Config {
    Config {
        data_dir: dir.path().to_owned(),
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        advertise: None,
        first_start: FirstStart::Alone,
        secret_file: None,
        admin: None,
        block_size: None,
        open_join: false,
        heartbeat_interval: Duration::from_millis(100),
        death_timeout: Duration::from_millis(600),
    }
}

fn state(view: &ClusterView, node: u64) -> Option<MemberState> {
    view.member(NodeId(node)).map(|m| m.state)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_joins_serves_falls_silent_dies_and_comes_back() {
    let cluster = Cluster::start().await;
    let mut client = cluster.client().await;

    let joined = client.join(join(1, 10)).await.unwrap().into_inner();
    assert_eq!(joined.node_id, 1);
    assert_eq!(joined.heartbeat_interval_ms, 100);
    let view = ClusterView::try_from(joined.view.unwrap()).unwrap();
    assert_eq!(state(&view, 1), Some(MemberState::Joining));
    assert_eq!(view.cluster, cluster.coordinator.cluster());

    // The first heartbeat says that the node serves; its answer comes when all know.
    let answer = client.heartbeat(beat(1, 10)).await.unwrap().into_inner();
    let (view, nodes) = status(&mut client).await;
    assert_eq!(state(&view, 1), Some(MemberState::Active));
    assert_eq!((view.epoch.0, view.version), (1, answer.version));
    assert_eq!(nodes[0].stats.unwrap().misses, 7);
    assert!(nodes[0].heartbeat_age_ms.is_some());

    // Silence.
    let dead = |v: &ClusterView| state(v, 1) == Some(MemberState::Dead);
    let view = view_where(&mut client, "node-1 dies of silence", dead).await;
    assert_eq!(view.epoch.0, 2);
    let stale = client.heartbeat(beat(1, 10)).await.unwrap_err();
    assert_eq!(stale.code(), Code::FailedPrecondition);
    assert!(stale.message().contains("dead"), "{stale}");

    // The same process joins again with its identity.
    let again = pb::JoinRequest {
        node_id: 1,
        cluster_id: joined_cluster(&view),
        ..join(1, 10)
    };
    assert_eq!(client.join(again).await.unwrap().into_inner().node_id, 1);
    client.heartbeat(beat(1, 10)).await.unwrap();
    let (view, _) = status(&mut client).await;
    assert_eq!(
        (state(&view, 1), view.epoch.0),
        (Some(MemberState::Active), 3)
    );

    client
        .leave(pb::LeaveRequest {
            node_id: 1,
            incarnation: 10,
        })
        .await
        .unwrap();
    let (view, _) = status(&mut client).await;
    assert_eq!(
        (state(&view, 1), view.epoch.0),
        (Some(MemberState::Left), 4)
    );
    cluster.coordinator.shutdown().await;
}

fn joined_cluster(view: &ClusterView) -> Vec<u8> {
    view.cluster.0.to_vec()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_reports_stays_and_one_of_two_processes_is_fenced() {
    let cluster = Cluster::start().await;
    let mut client = cluster.client().await;
    client.join(join(1, 10)).await.unwrap();
    client.join(join(2, 10)).await.unwrap();
    client.heartbeat(beat(2, 10)).await.unwrap();
    let mut interval = tokio::time::interval(Duration::from_millis(50));
    for _ in 0..60 {
        interval.tick().await;
        client.heartbeat(beat(1, 10)).await.unwrap();
    }
    let dead = |v: &ClusterView| state(v, 2) == Some(MemberState::Dead);
    let view = view_where(&mut client, "node-2 dies", dead).await;
    assert_eq!(state(&view, 1), Some(MemberState::Active));

    // A second process with a copy of the data directory of node-1.
    let second = client.join(join(1, 11)).await.unwrap().into_inner();
    assert_eq!(second.node_id, 1);
    client.heartbeat(beat(1, 11)).await.unwrap();
    for refusal in [
        client.heartbeat(beat(1, 10)).await.unwrap_err(),
        client.join(join(1, 10)).await.unwrap_err(),
    ] {
        assert_eq!(refusal.code(), Code::FailedPrecondition);
        let message = refusal.message();
        assert!(
            message.contains("another process uses the data directory"),
            "{message}"
        );
    }
    let unknown = client.heartbeat(beat(9, 1)).await.unwrap_err();
    assert_eq!(unknown.code(), Code::FailedPrecondition);
    assert!(unknown.message().contains("node-9"), "{unknown}");
    cluster.coordinator.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watcher_gets_the_present_view_and_every_later_state_of_it() {
    let cluster = Cluster::start().await;
    let mut client = cluster.client().await;
    client
        .add_mount(mount("/a", &[("secret_access_key", "hush")]))
        .await
        .unwrap();
    let mut watch = client
        .watch(pb::WatchRequest {})
        .await
        .unwrap()
        .into_inner();
    let next = async |watch: &mut tonic::Streaming<pb::View>| {
        let view = tokio::time::timeout(PATIENCE, watch.message())
            .await
            .unwrap();
        ClusterView::try_from(view.unwrap().unwrap()).unwrap()
    };
    let first = next(&mut watch).await;
    assert_eq!(first.mounts.iter().len(), 1);
    let options = &first.mounts.iter().next().unwrap().options;
    assert_eq!(
        options["secret_access_key"], "hush",
        "readers need the secrets"
    );

    for n in 0..20 {
        client
            .add_mount(mount(&format!("/b{n}"), &[]))
            .await
            .unwrap();
    }
    let mut last = first;
    while last.mounts.iter().len() < 21 {
        let view = next(&mut watch).await;
        assert!(
            view.version > last.version,
            "each view is later than the one before"
        );
        last = view;
    }

    // A coordinator that stops does not wait for its watchers.
    let stopped = tokio::time::timeout(PATIENCE, cluster.coordinator.shutdown());
    stopped.await.unwrap();
    let end = tokio::time::timeout(PATIENCE, watch.message())
        .await
        .unwrap();
    assert!(matches!(end, Ok(None) | Err(_)), "{end:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mounts_are_added_changed_removed_and_shown_without_secrets() {
    let cluster = Cluster::start().await;
    let mut client = cluster.client().await;
    let options = [("endpoint", "http://x"), ("secret_access_key", "hush")];
    let added = client
        .add_mount(mount("/data", &options))
        .await
        .unwrap()
        .into_inner();
    let shown = added.mount.unwrap();
    assert_eq!(shown.id, 1);
    assert_eq!(shown.options["secret_access_key"], "***");

    let taken = client.add_mount(mount("/data/", &[])).await.unwrap_err();
    assert_eq!(taken.code(), Code::InvalidArgument);
    assert!(
        taken
            .message()
            .contains("/data is already mounted from s3://"),
        "{taken}"
    );
    client.add_mount(mount("/", &[])).await.unwrap();
    client.add_mount(mount("/data/hot", &[])).await.unwrap();

    let update = pb::UpdateMountRequest {
        path: "/data".into(),
        set: [("region".to_owned(), "eu".to_owned())].into(),
        unset: vec!["endpoint".into()],
    };
    let updated = client
        .update_mount(update)
        .await
        .unwrap()
        .into_inner()
        .mount
        .unwrap();
    let keys: Vec<_> = updated.options.keys().map(String::as_str).collect();
    assert_eq!(keys.len(), 2, "{keys:?}");

    let remove = |path: &str| pb::RemoveMountRequest { path: path.into() };
    client.remove_mount(remove("/data")).await.unwrap();
    let missing = client.remove_mount(remove("/data")).await.unwrap_err();
    assert_eq!(missing.code(), Code::NotFound);
    assert!(
        missing.message().contains("mounted paths: /, /data/hot"),
        "{missing}"
    );

    let mut bad = mount("/x", &[]);
    bad.ufs = "ftp://host".into();
    let bad = client.add_mount(bad).await.unwrap_err();
    assert_eq!(bad.code(), Code::InvalidArgument);
    assert!(
        bad.message().contains("ftp") && bad.message().contains("s3"),
        "{bad}"
    );
    let (view, _) = status(&mut client).await;
    assert!(!format!("{view:?}").contains("hush"));
    cluster.coordinator.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_name_the_role_that_the_coordinator_chose() {
    let cluster = Cluster::start().await;
    let mut client = cluster.client().await;
    let key = KeyRequest::generate().unwrap();
    let request = pb::JoinRequest {
        csr_pem: key.csr_pem.clone(),
        ..join(1, 10)
    };
    let joined = client.join(request).await.unwrap().into_inner();
    let node: Identity = key.certified(joined.ca_pem.clone(), joined.cert_pem);
    assert_eq!(node.role().unwrap(), PeerRole::Node(NodeId(1)));

    let key = KeyRequest::generate().unwrap();
    let mut request = pb::CertifyRequest {
        role: pb::Role::Client.into(),
        csr_pem: key.csr_pem.clone(),
    };
    let certified = client.certify(request.clone()).await.unwrap().into_inner();
    assert_eq!(certified.cluster_id, cluster.coordinator.cluster().0);
    assert_eq!(certified.ca_pem, joined.ca_pem);
    let identity = key.certified(certified.ca_pem, certified.cert_pem);
    assert_eq!(identity.role().unwrap(), PeerRole::Client);

    request.role = pb::Role::Unspecified.into();
    let refused = client.certify(request).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);

    // A join that cannot be certified leaves no member behind.
    let nonsense = pb::JoinRequest {
        csr_pem: "nonsense".into(),
        ..join(2, 10)
    };
    let refused = client.join(nonsense).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
    assert_eq!(status(&mut client).await.0.members.len(), 1);
    cluster.coordinator.shutdown().await;
}

/// An address of this machine that is not loopback, if it has one.
fn outer_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    // Sends nothing: it only asks the routing table.
    socket.connect("192.0.2.1:9").ok()?;
    let ip = socket.local_addr().ok()?.ip();
    (!ip.is_loopback() && !ip.is_unspecified()).then_some(ip)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_machines_are_served_only_with_open_join() {
    let Some(outer) = outer_address() else {
        eprintln!("skipped: this machine has no address but loopback");
        return;
    };
    let everywhere = SocketAddr::from(([0, 0, 0, 0], 0));
    let closed = Cluster::with(|c| c.listen = everywhere).await;
    let port = closed.coordinator.addr().port();
    let mut client = connect(SocketAddr::new(outer, port)).await;
    for refusal in [
        client.join(join(1, 10)).await.unwrap_err(),
        client.add_mount(mount("/a", &[])).await.unwrap_err(),
        client
            .watch(pb::WatchRequest {})
            .await
            .map(|_| ())
            .unwrap_err(),
        client
            .certify(pb::CertifyRequest {
                role: pb::Role::Client.into(),
                csr_pem: csr(),
            })
            .await
            .unwrap_err(),
    ] {
        assert_eq!(refusal.code(), Code::PermissionDenied);
        assert!(refusal.message().contains("--open-join"), "{refusal}");
    }
    // They may look, and see no secret.
    let secret = mount("/a", &[("secret_access_key", "hush")]);
    closed.client().await.add_mount(secret).await.unwrap();
    let option = |view: ClusterView| {
        let mount = view.mounts.iter().next().unwrap();
        mount.options["secret_access_key"].clone()
    };
    assert_eq!(option(status(&mut client).await.0), "***");
    assert_eq!(option(status(&mut closed.client().await).await.0), "hush");
    closed.coordinator.shutdown().await;

    let open = Cluster::with(|c| (c.listen, c.open_join) = (everywhere, true)).await;
    let port = open.coordinator.addr().port();
    let mut client = connect(SocketAddr::new(outer, port)).await;
    client.join(join(1, 10)).await.unwrap();
    open.coordinator.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_restart_nobody_is_dead_before_the_grace_period() {
    let cluster = Cluster::start().await;
    let mut client = cluster.client().await;
    client.join(join(1, 10)).await.unwrap();
    client.heartbeat(beat(1, 10)).await.unwrap();
    let Cluster { coordinator, dir } = cluster;
    let id = coordinator.cluster();
    coordinator.shutdown().await;

    let coordinator = Coordinator::start(config(&dir)).await.unwrap();
    assert_eq!(coordinator.cluster(), id);
    let mut client = connect(coordinator.addr()).await;
    let (view, _) = status(&mut client).await;
    assert_eq!(state(&view, 1), Some(MemberState::Active));
    // It goes on reporting as if nothing had happened.
    client.heartbeat(beat(1, 10)).await.unwrap();
    assert_eq!(status(&mut client).await.0.epoch, view.epoch);
    coordinator.shutdown().await;
}

/// A process that has `token` and speaks TLS.
fn with_token(cluster: &Cluster, token: &str) -> ControlClient {
    let access = Access {
        token: Some(token.parse().unwrap()),
        identity: None,
    };
    let config = ControlConfig {
        patience: Duration::ZERO,
        ..ControlConfig::default()
    };
    let addrs = vec![cluster.coordinator.addr().to_string()];
    ControlClient::with_access(addrs, config, access).unwrap()
}

fn join_request(dir: u8, key: &KeyRequest, node: Option<NodeId>) -> JoinRequest {
    JoinRequest {
        cluster: None,
        node,
        addr: "127.0.0.1:7100".to_owned(),
        admin: String::new(),
        zone: String::new(),
        weight: 100,
        capacity: 1 << 30,
        incarnation: 5,
        csr_pem: key.csr_pem.clone(),
        data_dir_id: vec![dir; 16],
    }
}

async fn change(client: &ControlClient, path: &str) -> Result<(), ErrorKind> {
    let path = MountPath::parse(path).unwrap();
    let added = client.add_mount(&path, "s3://bucket", Default::default());
    added.await.map(|_| ()).map_err(|error| error.kind())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_makes_a_process_what_it_says_and_nothing_else() {
    let cluster = Cluster::start().await;
    let addr = cluster.coordinator.addr().to_string();
    let local = ControlClient::new(vec![addr]).unwrap();
    let hour = Duration::from_secs(3600);
    let make = async |role: &str, uses| local.create_token(role, hour, uses).await.unwrap();
    let (node_token, info) = make("node", Some(1)).await;
    assert_eq!((info.role.as_str(), info.uses_left), ("node", Some(1)));

    // A node comes in with the token, and later without: with what it was given.
    let node = with_token(&cluster, &node_token);
    let key = KeyRequest::generate().unwrap();
    let refused = change(&node, "/by-token").await;
    assert_eq!(
        refused,
        Err(ErrorKind::Denied),
        "a token for nodes changes nothing"
    );
    let joined = node.join(&join_request(1, &key, None)).await.unwrap();
    node.join(&join_request(1, &key, None))
        .await
        .expect("a retry uses nothing up");
    let identity = Identity::new(joined.ca_pem, joined.cert_pem, key.key_pem.clone());
    node.adopt(&identity).unwrap();
    node.heartbeat(joined.node, 5, NodeStats::default())
        .await
        .unwrap();
    assert_eq!(change(&node, "/by-node").await, Err(ErrorKind::Denied));
    let other = node.heartbeat(NodeId(77), 5, NodeStats::default()).await;
    assert_eq!(
        other.unwrap_err().kind(),
        ErrorKind::Denied,
        "it speaks for itself alone"
    );
    let other = node.join(&join_request(2, &key, None)).await;
    assert_eq!(
        other.unwrap_err().kind(),
        ErrorKind::Denied,
        "and joins as itself alone"
    );

    // Used up, and never good for anything else.
    let second = with_token(&cluster, &node_token);
    let refused = second.join(&join_request(3, &key, None)).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Denied, "{refused}");
    let refused = second.certify(&key.csr_pem).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Denied, "{refused}");

    // A client is certified, follows the view, renews, and changes nothing.
    let (client_token, _) = make("client", None).await;
    let client = with_token(&cluster, &client_token);
    let certified = client.certify(&key.csr_pem).await.unwrap();
    let identity = Identity::new(certified.ca_pem, certified.cert_pem, key.key_pem.clone());
    assert_eq!(identity.role().unwrap(), PeerRole::Client);
    client.adopt(&identity).unwrap();
    client.certify(&key.csr_pem).await.unwrap();
    let watch = ViewWatch::start(client.clone(), WatchConfig::default())
        .await
        .unwrap();
    watch.first(PATIENCE).await.unwrap();
    watch.shutdown().await;
    assert_eq!(change(&client, "/by-client").await, Err(ErrorKind::Denied));

    // An operator changes the cluster until its token is revoked.
    let (operator_token, info) = make("operator", None).await;
    let operator = with_token(&cluster, &operator_token);
    change(&operator, "/by-operator").await.unwrap();
    let good: Vec<_> = operator.tokens().await.unwrap();
    let roles: Vec<_> = good.iter().map(|token| token.role.as_str()).collect();
    assert_eq!(roles.len(), 2, "the one for nodes is used up: {roles:?}");
    local.revoke_token(&info.id).await.unwrap();
    assert_eq!(change(&operator, "/no-more").await, Err(ErrorKind::Denied));
    let again = local.revoke_token(&info.id).await.unwrap_err();
    assert_eq!(again.kind(), ErrorKind::NotFound);

    // Another cluster's coordinator, or somebody in between, is not spoken to.
    let mut elsewhere: JoinToken = client_token.parse().unwrap();
    elsewhere.fingerprint[0] ^= 1;
    let stranger = with_token(&cluster, &elsewhere.text());
    let refused = stranger.certify(&key.csr_pem).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unavailable, "{refused}");
    let foreign = Cluster::start().await;
    let misled = with_token(&foreign, &client_token);
    let refused = misled.certify(&key.csr_pem).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unavailable, "{refused}");
    // Nor is a certificate of another cluster taken.
    let (foreign_token, _) = {
        let addr = foreign.coordinator.addr().to_string();
        let foreign = ControlClient::new(vec![addr]).unwrap();
        foreign.create_token("client", hour, None).await.unwrap()
    };
    let visitor = with_token(&foreign, &foreign_token);
    visitor.adopt(&identity).unwrap();
    let refused = visitor.certify(&key.csr_pem).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unavailable, "{refused}");

    let (wrong, nonsense) = (
        local.create_token("king", hour, None).await.unwrap_err(),
        local
            .create_token("node", Duration::ZERO, None)
            .await
            .unwrap_err(),
    );
    assert_eq!(
        (wrong.kind(), nonsense.kind()),
        (ErrorKind::Invalid, ErrorKind::Invalid)
    );
    cluster.coordinator.shutdown().await;
    foreign.coordinator.shutdown().await;
}
