//! What the tests share: a client of the service and requests that are good.
#![allow(dead_code, reason = "each test binary uses a part")]

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use millpond_net::tls::KeyRequest;
use millpond_proto::ClusterView;
use millpond_proto::wire::pb;
use millpond_proto::wire::pb::control_client::ControlClient;
use tonic::transport::{Channel, Endpoint};

pub(crate) type Client = ControlClient<Channel>;

/// How long anything may take before a test gives up.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) async fn connect(addr: SocketAddr) -> Client {
    let endpoint = Endpoint::from_shared(format!("http://{addr}")).unwrap();
    let endpoint = endpoint.timeout(PATIENCE).connect_timeout(PATIENCE);
    ControlClient::new(endpoint.connect().await.unwrap())
}

pub(crate) fn csr() -> String {
    KeyRequest::generate().unwrap().csr_pem
}

/// The first join of the data directory `dir`.
pub(crate) fn join(dir: u8, incarnation: u64) -> pb::JoinRequest {
    pb::JoinRequest {
        addr: format!("127.0.0.1:71{dir:02}"),
        weight: 100,
        capacity: 1 << 30,
        incarnation,
        csr_pem: csr(),
        data_dir_id: vec![dir; 16],
        ..pb::JoinRequest::default()
    }
}

pub(crate) fn beat(node: u64, incarnation: u64) -> pb::HeartbeatRequest {
    pb::HeartbeatRequest {
        node_id: node,
        incarnation,
        stats: Some(pb::NodeStats {
            misses: 7,
            ..pb::NodeStats::default()
        }),
    }
}

pub(crate) fn mount(path: &str, options: &[(&str, &str)]) -> pb::AddMountRequest {
    let options = options
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
    pb::AddMountRequest {
        path: path.to_owned(),
        ufs: "s3://bucket/prefix".to_owned(),
        options: options.collect(),
    }
}

pub(crate) async fn status(client: &mut Client) -> (ClusterView, Vec<pb::NodeStatus>) {
    let status = client
        .status(pb::StatusRequest {})
        .await
        .unwrap()
        .into_inner();
    (status.view.unwrap().try_into().unwrap(), status.nodes)
}

/// Asks for the view until it is as `wanted`.
pub(crate) async fn view_where(
    client: &mut Client,
    what: &str,
    wanted: impl Fn(&ClusterView) -> bool,
) -> ClusterView {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let (view, _) = status(client).await;
        if wanted(&view) {
            return view;
        }
        assert!(
            Instant::now() < deadline,
            "never: {what}; the view is {view:#?}"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
