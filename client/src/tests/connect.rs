//! Joining a cluster through a coordinator that speaks the real protocol.

use std::os::unix::fs::PermissionsExt as _;
use std::pin::Pin;

use futures::{Stream, StreamExt as _};
use millpond_net::ca::ClusterCa;
use millpond_net::tls::PeerRole;
use millpond_proto::wire::pb;
use millpond_proto::wire::pb::control_server::{Control, ControlServer};
use millpond_proto::{ClusterId, ClusterView, Epoch, ErrorKind, MountTable};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

use super::node::mounts;
use super::*;

const CLUSTER: ClusterId = ClusterId([3; 16]);

/// Certifies clients and sends views; does nothing else.
struct Coordinator {
    ca: ClusterCa,
    views: watch::Receiver<pb::View>,
}

type Answer<T> = Result<Response<T>, Status>;

fn none<T>() -> Answer<T> {
    Err(Status::unimplemented("not in this test"))
}

#[async_trait::async_trait]
impl Control for Coordinator {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<pb::View, Status>> + Send>>;

    async fn certify(&self, request: Request<pb::CertifyRequest>) -> Answer<pb::CertifyResponse> {
        let signed = self
            .ca
            .sign_csr(&request.into_inner().csr_pem, PeerRole::Client);
        Ok(Response::new(pb::CertifyResponse {
            cluster_id: CLUSTER.0.to_vec(),
            cert_pem: signed.unwrap(),
            ca_pem: self.ca.cert_pem().to_owned(),
        }))
    }

    async fn watch(&self, _: Request<pb::WatchRequest>) -> Answer<Self::WatchStream> {
        let mut views = self.views.clone();
        views.mark_changed();
        let stream = futures::stream::unfold(views, |mut views| async {
            views.changed().await.ok()?;
            let view = views.borrow_and_update().clone();
            Some((Ok(view), views))
        });
        Ok(Response::new(stream.boxed()))
    }

    async fn join(&self, _: Request<pb::JoinRequest>) -> Answer<pb::JoinResponse> {
        none()
    }

    async fn heartbeat(&self, _: Request<pb::HeartbeatRequest>) -> Answer<pb::HeartbeatResponse> {
        none()
    }

    async fn leave(&self, _: Request<pb::LeaveRequest>) -> Answer<pb::LeaveResponse> {
        none()
    }

    async fn add_mount(&self, _: Request<pb::AddMountRequest>) -> Answer<pb::MountResponse> {
        none()
    }

    async fn update_mount(&self, _: Request<pb::UpdateMountRequest>) -> Answer<pb::MountResponse> {
        none()
    }

    async fn remove_mount(&self, _: Request<pb::RemoveMountRequest>) -> Answer<pb::MountResponse> {
        none()
    }

    async fn status(&self, _: Request<pb::StatusRequest>) -> Answer<pb::StatusResponse> {
        none()
    }

    async fn coordinators(
        &self,
        _: Request<pb::CoordinatorsRequest>,
    ) -> Answer<pb::CoordinatorsResponse> {
        none()
    }

    async fn remove_coordinator(
        &self,
        _: Request<pb::RemoveCoordinatorRequest>,
    ) -> Answer<pb::CoordinatorsResponse> {
        none()
    }

    async fn create_token(
        &self,
        _: Request<pb::CreateTokenRequest>,
    ) -> Answer<pb::CreateTokenResponse> {
        none()
    }

    async fn list_tokens(
        &self,
        _: Request<pb::ListTokensRequest>,
    ) -> Answer<pb::ListTokensResponse> {
        none()
    }

    async fn revoke_token(
        &self,
        _: Request<pb::RevokeTokenRequest>,
    ) -> Answer<pb::RevokeTokenResponse> {
        none()
    }

    async fn transfer_lead(
        &self,
        _: Request<pb::TransferLeadRequest>,
    ) -> Answer<pb::CoordinatorsResponse> {
        none()
    }
}

fn view(version: u64, mounts: MountTable) -> pb::View {
    (&ClusterView {
        cluster: CLUSTER,
        version,
        epoch: Epoch(1),
        block_size: BlockSize::new(64 * KIB).unwrap(),
        members: Vec::new(),
        mounts,
    })
        .into()
}

/// A running coordinator; stops when dropped.
struct Running {
    addr: String,
    views: watch::Sender<pb::View>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Running {
    fn start(first: pb::View) -> Self {
        let incoming = TcpIncoming::bind(([127, 0, 0, 1], 0).into()).unwrap();
        let addr = incoming.local_addr().unwrap().to_string();
        let (views, receiver) = watch::channel(first);
        let coordinator = Coordinator {
            ca: ClusterCa::create(&CLUSTER).unwrap(),
            views: receiver,
        };
        let stop = CancellationToken::new();
        let tasks = TaskTracker::new();
        let server = tonic::transport::Server::builder()
            .add_service(ControlServer::new(coordinator))
            .serve_with_incoming(incoming);
        let stopped = stop.clone();
        tasks.spawn(async move {
            stopped.run_until_cancelled(server).await;
        });
        tasks.close();
        Self {
            addr,
            views,
            stop,
            tasks,
        }
    }

    async fn stop(self) {
        self.stop.cancel();
        self.tasks.wait().await;
    }
}

async fn connect(addr: &str, dir: &std::path::Path) -> Result<FileSystem, crate::ClientError> {
    let config = ClientConfig {
        coordinators: vec![addr.to_owned()],
        state_dir: dir.join("state"),
        ..small()
    };
    FileSystem::connect(config, &Mutex::new(Registry::default())).await
}

#[tokio::test]
async fn a_client_follows_its_coordinator_and_starts_without_it_from_the_last_view() {
    let dir = tempfile::tempdir().unwrap();
    let (store, uri) = fresh_store();
    store.put("f", "content");
    let coordinator = Running::start(view(1, mounts(&[("/a", &uri)])));
    let addr = coordinator.addr.clone();

    let fs = connect(&addr, dir.path()).await.unwrap();
    assert!(fs.is_live());
    assert_eq!(fs.statfs().block_size, 64 << 10);
    let file = fs.open("/a/f").await.unwrap();
    assert_eq!(file.read(0, 100).await.unwrap(), "content");

    let both = mounts(&[("/a", &uri), ("/b", &uri)]);
    coordinator.views.send_replace(view(2, both));
    wait_for("the second mount", || fs.mount_paths().len() == 2).await;
    assert_eq!(fs.stat("/b/f").await.unwrap().size, 7);

    let key = dir.path().join("state/identity.pem");
    let mode = std::fs::metadata(key).unwrap().permissions().mode();
    assert_eq!(mode & 0o077, 0, "the key is for its owner alone");
    coordinator.stop().await;
    wait_for("the loss of the coordinator", || !fs.is_live()).await;
    assert_eq!(fs.open("/b/f").await.unwrap().file_id(), file.file_id());
    fs.shutdown().await;

    let again = connect(&addr, dir.path()).await.unwrap();
    assert!(!again.is_live());
    let file = again.open("/b/f").await.unwrap();
    assert_eq!(file.read(0, 100).await.unwrap(), "content");
}

#[tokio::test]
async fn a_first_start_without_a_coordinator_fails_and_says_whom_it_tried() {
    let dir = tempfile::tempdir().unwrap();
    let error = connect("127.0.0.1:1", dir.path()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("127.0.0.1:1"), "{error}");
    let error = connect("no-port", dir.path()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
}
