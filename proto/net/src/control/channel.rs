//! Connections to coordinators: in the clear on the own host, TLS wherever something proves who
//! either end is.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Request, Status};

use super::client::ControlConfig;
use super::token::JoinToken;
use crate::NetError;
use crate::tls::{self, Identity, PeerRole};

/// What a process has to show to a coordinator.
///
/// With a token every connection is TLS: first with the token, then with the certificate that it
/// brought. Without one, connections to other hosts are TLS as soon as there is a certificate; what
/// is in the clear is served on the coordinator's own host, and elsewhere by `--open-join`.
#[derive(Debug, Clone, Default)]
pub struct Access {
    /// A token, if the process was given one.
    pub token: Option<JoinToken>,
    /// Its certificate, once it has one.
    pub identity: Option<Identity>,
}

/// Shows a token with every call.
#[derive(Debug, Clone)]
pub(super) struct Bearer(Option<MetadataValue<Ascii>>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(bearer) = &self.0 {
            request
                .metadata_mut()
                .insert("authorization", bearer.clone());
        }
        Ok(request)
    }
}

impl Access {
    /// A connection to the coordinator at `addr`, made when it is first used.
    pub(super) fn channel(
        &self,
        addr: &str,
        config: &ControlConfig,
    ) -> Result<(Channel, Bearer), NetError> {
        let wrong = |why: String| NetError::Address {
            addr: addr.to_owned(),
            why,
        };
        let (host, port) = addr
            .rsplit_once(':')
            .ok_or_else(|| wrong("the port is missing".into()))?;
        if host.is_empty() || port.parse::<u16>().is_err() {
            return Err(wrong("the host is empty or the port is no number".into()));
        }
        let endpoint = Endpoint::from_shared(format!("http://{addr}"))
            .map_err(|e| wrong(e.to_string()))?
            .connect_timeout(config.connect_timeout)
            .tcp_nodelay(true)
            // Finds out that a coordinator is gone while a watch waits for the next view.
            .http2_keep_alive_interval(Duration::from_secs(3))
            .keep_alive_timeout(Duration::from_secs(3))
            .keep_alive_while_idle(true);
        let (tls, bearer) = match (&self.token, &self.identity) {
            (None, None) => return Ok((endpoint.connect_lazy(), Bearer(None))),
            (None, Some(_)) if is_own_host(host) => {
                return Ok((endpoint.connect_lazy(), Bearer(None)));
            }
            (_, Some(identity)) => (tls::grpc_client_config(identity)?, Bearer(None)),
            (Some(token), None) => {
                let bearer = token.bearer().parse();
                let bearer = bearer.map_err(|_| wrong("the token is no text".into()))?;
                (
                    tls::grpc_pinned_config(token.fingerprint)?,
                    Bearer(Some(bearer)),
                )
            }
        };
        let limit = config.connect_timeout;
        let connector = TlsConnector::from(Arc::new(tls));
        let connect = tower::service_fn(move |uri: Uri| {
            let connector = connector.clone();
            async move {
                let dialled = tokio::time::timeout(limit, dial(uri, connector)).await;
                dialled.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))
            }
        });
        Ok((endpoint.connect_with_connector_lazy(connect), bearer))
    }
}

async fn dial(
    uri: Uri,
    connector: TlsConnector,
) -> std::io::Result<TokioIo<tokio_rustls::client::TlsStream<TcpStream>>> {
    let (host, port) = (uri.host().unwrap_or_default(), uri.port_u16().unwrap_or(0));
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let stream = TcpStream::connect((host, port)).await?;
    stream.set_nodelay(true)?;
    let name = PeerRole::Coordinator.to_string();
    let name = ServerName::try_from(name).map_err(std::io::Error::other)?;
    Ok(TokioIo::new(connector.connect(name, stream).await?))
}

fn is_own_host(host: &str) -> bool {
    let ip = host.trim_start_matches('[').trim_end_matches(']').parse();
    host == "localhost" || ip.is_ok_and(|ip: IpAddr| ip.is_loopback())
}
