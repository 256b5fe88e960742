//! Tuned quinn endpoints.
//!
//! The settings are measured: bytes per packet is what decides throughput and CPU, so MTU
//! discovery may climb to [`MAX_DATAGRAM`]; everything else only has to stay out of the way.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use quinn::{
    ClientConfig, Endpoint, EndpointConfig, IdleTimeout, MtuDiscoveryConfig, ServerConfig,
    TokioRuntime, TransportConfig, VarInt,
};
use socket2::{Domain, Protocol, Socket, Type};

use crate::NetError;
use crate::tls::{self, Identity, tls_error};

/// The largest datagram in bytes. quinn sends up to ten in one system call, which the kernel
/// limits to 64 KiB: anything above 6553 loses whole batches silently.
pub const MAX_DATAGRAM: u16 = 6500;

/// What one stream may have in flight, in bytes: two blocks of the usual size.
const STREAM_WINDOW: u32 = 8 << 20;

/// What one connection may have received and not yet read, and sent and not yet seen
/// acknowledged, in bytes. Bounds the memory that a peer can pin.
const CONNECTION_WINDOW: u32 = 16 << 20;

/// The most requests in flight on one connection.
pub(crate) const MAX_STREAMS: u32 = 1024;

/// A connection on which nothing arrives for so long is dead.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);

/// How often the dialling side makes sure that the other is there.
pub(crate) const KEEP_ALIVE: Duration = Duration::from_secs(1);

/// Kernel socket buffer, each way, in bytes.
const SOCKET_BUFFER: usize = 4 << 20;

/// An endpoint that listens on `addr` and can also dial, with one identity for both.
///
/// # Errors
/// `Invalid` for an unusable identity; [`NetError::Bind`] when the port is taken.
pub fn server_endpoint(addr: SocketAddr, identity: &Identity) -> Result<Endpoint, NetError> {
    let server = server_settings(identity)?;
    let client = client_settings(identity)?;
    let socket = bind(addr).map_err(|source| NetError::Bind { addr, source })?;
    let mut endpoint = endpoint(socket, Some(server), addr)?;
    endpoint.set_default_client_config(client);
    Ok(endpoint)
}

/// An endpoint that only dials, from any free port.
///
/// # Errors
/// `Invalid` for an unusable identity; [`NetError::Bind`] when the system has no port left.
pub fn client_endpoint(identity: &Identity) -> Result<Endpoint, NetError> {
    let client = client_settings(identity)?;
    let v6 = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0));
    let v4 = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
    // Both families from one socket; a host without IPv6 gets IPv4 alone.
    let socket = bind(v6)
        .or_else(|_| bind(v4))
        .map_err(|source| NetError::Bind { addr: v4, source })?;
    let mut endpoint = endpoint(socket, None, v4)?;
    endpoint.set_default_client_config(client);
    Ok(endpoint)
}

/// Makes a listening endpoint show `identity` to connections accepted from now on.
///
/// # Errors
/// `Invalid` for an unusable identity.
pub fn replace_identity(endpoint: &Endpoint, identity: &Identity) -> Result<(), NetError> {
    endpoint.set_server_config(Some(server_settings(identity)?));
    Ok(())
}

/// How to accept connections with `identity`.
///
/// # Errors
/// `Invalid` for an unusable identity.
pub fn server_settings(identity: &Identity) -> Result<ServerConfig, NetError> {
    let mut config = ServerConfig::with_crypto(Arc::new(tls::server_config(identity)?));
    let mut transport = transport();
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(MAX_STREAMS))
        // The dialling side keeps connections alive; an abandoned one dies by itself.
        .keep_alive_interval(None);
    config.transport_config(Arc::new(transport));
    config.max_incoming(256);
    Ok(config)
}

/// How to dial with `identity`.
///
/// # Errors
/// `Invalid` for an unusable identity.
pub fn client_settings(identity: &Identity) -> Result<ClientConfig, NetError> {
    let mut config = ClientConfig::new(Arc::new(tls::client_config(identity)?));
    let mut transport = transport();
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(0))
        .keep_alive_interval(Some(KEEP_ALIVE));
    config.transport_config(Arc::new(transport));
    Ok(config)
}

fn transport() -> TransportConfig {
    let mut mtu = MtuDiscoveryConfig::default();
    mtu.upper_bound(MAX_DATAGRAM);
    let idle = IdleTimeout::try_from(IDLE_TIMEOUT).expect("ten seconds are within range");
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
        .receive_window(VarInt::from_u32(CONNECTION_WINDOW))
        .send_window(u64::from(CONNECTION_WINDOW))
        .send_fairness(false)
        // The handshake must fit the 3x anti-amplification limit: start small and climb.
        .initial_mtu(1200)
        .mtu_discovery_config(Some(mtu))
        .max_idle_timeout(Some(idle))
        .datagram_receive_buffer_size(None);
    transport
}

fn endpoint(
    socket: UdpSocket,
    server: Option<ServerConfig>,
    addr: SocketAddr,
) -> Result<Endpoint, NetError> {
    let mut config = EndpointConfig::default();
    config
        .max_udp_payload_size(MAX_DATAGRAM)
        .map_err(|e| tls_error("set up QUIC", e))?;
    Endpoint::new(config, server, socket, Arc::new(TokioRuntime))
        .map_err(|source| NetError::Bind { addr, source })
}

fn bind(addr: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
    if addr.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    // The kernel caps these at net.core.{r,w}mem_max: less is slower, not wrong.
    let _ = socket.set_recv_buffer_size(SOCKET_BUFFER);
    let _ = socket.set_send_buffer_size(SOCKET_BUFFER);
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    Ok(socket.into())
}
