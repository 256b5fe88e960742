//! Calls to coordinators, and the view that outlives them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::BoxStream;
use millpond_net::NetError;
use millpond_net::control::{ControlClient, ControlConfig, JoinRequest, ViewWatch, WatchConfig};
use millpond_proto::wire::pb;
use millpond_proto::{
    BlockSize, ClusterId, ClusterView, Epoch, ErrorKind, Member, MemberState, MountPath,
    MountTable, NodeId, NodeStats,
};
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_stream::wrappers::{TcpListenerStream, WatchStream};
use tokio_util::task::TaskTracker;
use tonic::{Request, Response, Status};

use super::support::{eventually, soon};

const CLUSTER: ClusterId = ClusterId([5; 16]);

fn view(version: u64, epoch: u64, nodes: u64) -> ClusterView {
    ClusterView {
        cluster: CLUSTER,
        version,
        epoch: Epoch(epoch),
        block_size: BlockSize::DEFAULT,
        members: (1..=nodes)
            .map(|n| Member {
                id: NodeId(n),
                addr: format!("127.0.0.1:{}", 7100 + n),
                admin: String::new(),
                zone: String::new(),
                weight: 100,
                capacity: 1 << 30,
                state: MemberState::Active,
                incarnation: 1,
            })
            .collect(),
        mounts: MountTable::standalone(
            "s3://b/p".into(),
            [("secret_access_key".into(), "hush".into())].into(),
        ),
    }
}

/// A coordinator that says what it is told to say.
struct Fake {
    view: watch::Sender<pb::View>,
    calls: parking_lot::Mutex<Vec<&'static str>>,
}

/// The fake as a service of its own type.
struct Service(Arc<Fake>);

impl std::ops::Deref for Service {
    type Target = Fake;

    fn deref(&self) -> &Fake {
        &self.0
    }
}

type Reply<T> = Result<Response<T>, Status>;

#[async_trait::async_trait]
impl pb::control_server::Control for Service {
    type WatchStream = BoxStream<'static, Result<pb::View, Status>>;

    async fn join(&self, request: Request<pb::JoinRequest>) -> Reply<pb::JoinResponse> {
        self.calls.lock().push("join");
        let request = request.into_inner();
        assert_eq!(
            (request.node_id, request.cluster_id.len()),
            (0, 0),
            "a first join"
        );
        Ok(Response::new(pb::JoinResponse {
            node_id: 3,
            view: Some(self.view.borrow().clone()),
            cert_pem: "cert".into(),
            ca_pem: "ca".into(),
            heartbeat_interval_ms: 1000,
        }))
    }

    async fn heartbeat(
        &self,
        request: Request<pb::HeartbeatRequest>,
    ) -> Reply<pb::HeartbeatResponse> {
        let request = request.into_inner();
        if request.node_id == 3 {
            let version = request.stats.unwrap_or_default().served_bytes;
            return Ok(Response::new(pb::HeartbeatResponse { version }));
        }
        Err(Status::failed_precondition("join again"))
    }

    async fn leave(&self, _: Request<pb::LeaveRequest>) -> Reply<pb::LeaveResponse> {
        Ok(Response::new(pb::LeaveResponse {}))
    }

    async fn certify(&self, request: Request<pb::CertifyRequest>) -> Reply<pb::CertifyResponse> {
        assert_eq!(request.get_ref().role(), pb::Role::Client);
        Ok(Response::new(pb::CertifyResponse {
            cluster_id: CLUSTER.0.to_vec(),
            cert_pem: "cert".into(),
            ca_pem: "ca".into(),
        }))
    }

    async fn watch(&self, _: Request<pb::WatchRequest>) -> Reply<Self::WatchStream> {
        self.calls.lock().push("watch");
        let views = WatchStream::new(self.view.subscribe());
        Ok(Response::new(views.map(Ok).boxed()))
    }

    async fn add_mount(&self, request: Request<pb::AddMountRequest>) -> Reply<pb::MountResponse> {
        self.calls.lock().push("add_mount");
        let request = request.into_inner();
        if request.path == "/taken" {
            return Err(Status::invalid_argument("/taken is taken"));
        }
        let mount = pb::Mount {
            id: 9,
            path: request.path,
            ufs: request.ufs,
            options: request.options,
        };
        Ok(Response::new(pb::MountResponse { mount: Some(mount) }))
    }

    async fn update_mount(&self, _: Request<pb::UpdateMountRequest>) -> Reply<pb::MountResponse> {
        Ok(Response::new(pb::MountResponse { mount: None }))
    }

    async fn remove_mount(&self, _: Request<pb::RemoveMountRequest>) -> Reply<pb::MountResponse> {
        Err(Status::not_found("no mount at /gone"))
    }

    async fn coordinators(
        &self,
        _: Request<pb::CoordinatorsRequest>,
    ) -> Reply<pb::CoordinatorsResponse> {
        Err(Status::unimplemented("not asked for here"))
    }

    async fn remove_coordinator(
        &self,
        _: Request<pb::RemoveCoordinatorRequest>,
    ) -> Reply<pb::CoordinatorsResponse> {
        Err(Status::unimplemented("not asked for here"))
    }

    async fn create_token(
        &self,
        _: Request<pb::CreateTokenRequest>,
    ) -> Reply<pb::CreateTokenResponse> {
        Err(Status::unimplemented("not asked for here"))
    }

    async fn list_tokens(
        &self,
        _: Request<pb::ListTokensRequest>,
    ) -> Reply<pb::ListTokensResponse> {
        Err(Status::unimplemented("not asked for here"))
    }

    async fn revoke_token(
        &self,
        _: Request<pb::RevokeTokenRequest>,
    ) -> Reply<pb::RevokeTokenResponse> {
        Err(Status::unimplemented("not asked for here"))
    }

    async fn transfer_lead(
        &self,
        _: Request<pb::TransferLeadRequest>,
    ) -> Reply<pb::CoordinatorsResponse> {
        Err(Status::unimplemented("not asked for here"))
    }

    async fn status(&self, _: Request<pb::StatusRequest>) -> Reply<pb::StatusResponse> {
        let node = |node_id, heartbeat_age_ms| pb::NodeStatus {
            node_id,
            heartbeat_age_ms,
            stats: None,
        };
        Ok(Response::new(pb::StatusResponse {
            view: Some(self.view.borrow().clone()),
            nodes: vec![node(1, Some(250)), node(2, None)],
            leader: "127.0.0.1:7000".into(),
        }))
    }
}

/// A coordinator in a runtime of its own, so that it can be killed with all its connections.
struct Coordinator {
    fake: Arc<Fake>,
    addr: SocketAddr,
    runtime: Option<Runtime>,
}

impl Coordinator {
    async fn start(first: &ClusterView) -> Self {
        Self::start_at("127.0.0.1:0".parse().unwrap(), first).await
    }

    async fn start_at(addr: SocketAddr, first: &ClusterView) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let listening = runtime.spawn(tokio::net::TcpListener::bind(addr));
        let listener = listening.await.unwrap().unwrap();
        let addr = listener.local_addr().unwrap();
        let fake = Arc::new(Fake {
            view: watch::channel(first.into()).0,
            calls: parking_lot::Mutex::default(),
        });
        let service = pb::control_server::ControlServer::new(Service(Arc::clone(&fake)));
        let serving = tonic::transport::Server::builder()
            .add_service(service)
            .serve_with_incoming(TcpListenerStream::new(listener));
        runtime.spawn(serving);
        Self {
            fake,
            addr,
            runtime: Some(runtime),
        }
    }

    fn say(&self, view: &ClusterView) {
        self.fake.view.send_replace(view.into());
    }
}

impl Drop for Coordinator {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn client(addrs: &[SocketAddr]) -> ControlClient {
    let config = ControlConfig {
        connect_timeout: Duration::from_millis(500),
        call_timeout: Duration::from_secs(3),
        patience: Duration::from_millis(400),
    };
    let addrs = addrs.iter().map(ToString::to_string).collect();
    ControlClient::with_config(addrs, config).unwrap()
}

/// An address where nothing listens.
fn nobody() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}

async fn watch(client: ControlClient, file: Option<&Path>) -> ViewWatch {
    let config = WatchConfig {
        file: file.map(Path::to_owned),
        ..WatchConfig::default()
    };
    ViewWatch::start(client, config).await.unwrap()
}

fn join_request() -> JoinRequest {
    JoinRequest {
        cluster: None,
        node: None,
        addr: "127.0.0.1:7100".into(),
        admin: String::new(),
        zone: String::new(),
        weight: 100,
        capacity: 1,
        incarnation: 1,
        csr_pem: "csr".into(),
        data_dir_id: vec![1; 16],
    }
}

#[tokio::test]
async fn every_call_speaks_domain_types() {
    let coordinator = Coordinator::start(&view(4, 2, 2)).await;
    let client = client(&[coordinator.addr]);
    // Calls must be possible from any task.
    let in_task = client.clone();
    let joined = TaskTracker::new()
        .spawn(async move { in_task.join(&join_request()).await })
        .await
        .unwrap()
        .unwrap();
    assert_eq!((joined.node, &joined.view), (NodeId(3), &view(4, 2, 2)));
    assert_eq!(joined.heartbeat_interval, Duration::from_secs(1));

    let stats = NodeStats {
        served_bytes: 77,
        ..NodeStats::default()
    };
    assert_eq!(client.heartbeat(NodeId(3), 1, stats).await.unwrap(), 77);
    let error = client.heartbeat(NodeId(4), 1, stats).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Stale);
    client.leave(NodeId(3), 1).await.unwrap();
    assert_eq!(client.certify("csr").await.unwrap().cluster, CLUSTER);

    let status = client.status().await.unwrap();
    assert_eq!(status.leader, "127.0.0.1:7000");
    assert_eq!(
        status.nodes[0].heartbeat_age,
        Some(Duration::from_millis(250))
    );
    assert_eq!(status.nodes[1].heartbeat_age, None);

    let path = MountPath::parse("/data").unwrap();
    let options = BTreeMap::from([("k".to_owned(), "v".to_owned())]);
    let mount = client
        .add_mount(&path, "s3://b", options.clone())
        .await
        .unwrap();
    assert_eq!((mount.path, mount.options), (path.clone(), options));
    let error = client.remove_mount(&path).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("no mount at /gone"), "{error}");
    let error = client
        .update_mount(&path, BTreeMap::new(), vec![])
        .await
        .unwrap_err();
    assert!(matches!(error, NetError::Message(_)), "{error}");
}

#[tokio::test]
async fn a_refusal_is_final_and_made_once() {
    let (one, two) = (
        Coordinator::start(&view(1, 1, 1)).await,
        Coordinator::start(&view(1, 1, 1)).await,
    );
    let client = client(&[one.addr, two.addr]);
    let taken = MountPath::parse("/taken").unwrap();
    let error = client
        .add_mount(&taken, "s3://b", BTreeMap::new())
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("/taken is taken"), "{error}");
    assert_eq!(*one.fake.calls.lock(), ["add_mount"]);
    assert!(two.fake.calls.lock().is_empty());
}

#[tokio::test]
async fn the_coordinator_that_answers_is_found_and_remembered() {
    let coordinator = Coordinator::start(&view(1, 1, 1)).await;
    let client = client(&[nobody(), nobody(), coordinator.addr]);
    for _ in 0..3 {
        client.join(&join_request()).await.unwrap();
    }
    assert_eq!(coordinator.fake.calls.lock().len(), 3);
}

#[tokio::test]
async fn when_nobody_answers_the_error_says_who_was_asked() {
    let nobody = nobody();
    let error = client(&[nobody]).status().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    let text = error.to_string();
    assert!(
        text.contains(&nobody.to_string()) && text.contains("status"),
        "{text}"
    );
    assert!(
        matches!(error, NetError::NoCoordinator { after, .. } if after >= Duration::from_millis(400))
    );
}

#[tokio::test]
async fn addresses_without_sense_are_refused() {
    for wrong in [
        "",
        "host",
        "host:",
        ":7000",
        "host:70000",
        "ho st:7000",
        "host:7000/x",
    ] {
        let error = ControlClient::new(vec![wrong.to_owned()]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{wrong}");
        assert!(error.to_string().contains(wrong), "{error}");
    }
    assert!(ControlClient::new(vec![]).is_err());
    ControlClient::new(vec!["coord:7000".into(), "[::1]:7000".into()]).unwrap();
}

#[tokio::test]
async fn views_are_followed_and_rings_rebuilt_only_with_the_epoch() {
    let coordinator = Coordinator::start(&view(1, 1, 1)).await;
    let watch = watch(client(&[coordinator.addr]), None).await;
    let first = watch.first(Duration::from_secs(10)).await.unwrap();
    assert!(watch.is_live());
    assert_eq!(*first.view, view(1, 1, 1));
    assert!(first.previous.is_none());
    assert_eq!(first.peer(NodeId(1)).unwrap().addr, "127.0.0.1:7101");
    assert!(first.peer(NodeId(2)).is_none());

    let version = |v: u64| watch.current().is_some_and(|r| r.view.version == v);
    coordinator.say(&view(2, 1, 1));
    eventually("version 2", || version(2)).await;
    let second = watch.current().unwrap();
    assert!(
        Arc::ptr_eq(&first.ring, &second.ring),
        "same epoch, same ring"
    );

    coordinator.say(&view(3, 2, 3));
    eventually("version 3", || version(3)).await;
    let third = watch.current().unwrap();
    assert_eq!((third.ring.epoch(), third.ring.len()), (Epoch(2), 3));
    assert!(Arc::ptr_eq(&first.ring, third.previous.as_ref().unwrap()));

    // A coordinator that lags behind takes nothing back.
    coordinator.say(&view(2, 1, 1));
    coordinator.say(&view(4, 2, 3));
    eventually("version 4", || version(4)).await;
    let fourth = watch.current().unwrap();
    assert!(Arc::ptr_eq(&first.ring, fourth.previous.as_ref().unwrap()));
    watch.shutdown().await;
}

#[tokio::test]
async fn the_last_view_is_on_disk_private_and_used_when_nobody_answers() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("state/view.json");
    let coordinator = Coordinator::start(&view(7, 3, 2)).await;
    let addr = coordinator.addr;
    let following = watch(client(&[addr]), Some(&file)).await;
    following.first(Duration::from_secs(10)).await.unwrap();
    eventually("the view is kept", || file.exists()).await;
    let mode = std::fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "mount options may hold secrets");
    coordinator.say(&view(8, 3, 2));
    let kept = || std::fs::read_to_string(&file).unwrap_or_default();
    eventually("the newer view is kept", || {
        kept().contains("\"version\": 8")
    })
    .await;

    drop(coordinator);
    eventually("the loss is noticed", || !following.is_live()).await;
    assert_eq!(
        following.current().unwrap().view.version,
        8,
        "the view stays"
    );
    following.shutdown().await;

    let offline = watch(client(&[addr]), Some(&file)).await;
    let routing = offline.first(Duration::from_millis(300)).await.unwrap();
    assert!(!offline.is_live());
    assert_eq!(*routing.view, view(8, 3, 2));
    assert_eq!(routing.ring.len(), 2);

    // And it finds the coordinator again when it returns.
    let deadline = soon(10_000);
    while std::net::TcpListener::bind(addr).is_err() {
        assert!(Instant::now() < deadline, "the port is never free");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let _back = Coordinator::start_at(addr, &view(9, 4, 3)).await;
    offline.hint(Epoch(4));
    eventually("the new view", || {
        offline.is_live() && offline.current().unwrap().view.version == 9
    })
    .await;
    assert_eq!(
        offline.current().unwrap().previous.as_ref().unwrap().len(),
        2
    );
}

#[tokio::test]
async fn without_coordinator_and_without_file_there_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("view.json");
    let watching = watch(client(&[nobody()]), Some(&file)).await;
    let error = watching
        .first(Duration::from_millis(100))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    // A damaged file is as good as none.
    std::fs::write(&file, "{").unwrap();
    let watching = watch(client(&[nobody()]), Some(&file)).await;
    assert!(watching.current().is_none());
}

#[tokio::test]
async fn another_clusters_view_is_not_taken() {
    let coordinator = Coordinator::start(&view(1, 1, 1)).await;
    let other = ClusterId([6; 16]);
    let config = WatchConfig {
        cluster: Some(other),
        ..WatchConfig::default()
    };
    let watching = ViewWatch::start(client(&[coordinator.addr]), config)
        .await
        .unwrap();
    eventually("it was asked", || {
        coordinator.fake.calls.lock().contains(&"watch")
    })
    .await;
    assert!(watching.first(Duration::from_millis(300)).await.is_err());

    let dir = tempfile::tempdir().unwrap();
    let config = WatchConfig {
        file: Some(dir.path().join("view.json")),
        cluster: Some(other),
        initial: Some(view(1, 1, 1)),
    };
    let error = ViewWatch::start(client(&[coordinator.addr]), config)
        .await
        .unwrap_err();
    assert!(matches!(error, NetError::OtherCluster { .. }), "{error}");
}
