//! Which address of this node to tell the cluster.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::net::{UdpSocket, lookup_host};

/// The address at which others reach a node that listens on `listen` (with its real port):
/// the one it was told to advertise, else the one it listens on, else, where it listens on
/// all, the one from which the way leads to the first coordinator that has a name.
///
/// # Errors
/// When no coordinator's name can be looked up.
pub(super) async fn advertised(
    advertise: Option<&str>,
    listen: SocketAddr,
    coordinators: &[String],
) -> io::Result<String> {
    if let Some(advertise) = advertise {
        return Ok(advertise.to_owned());
    }
    if !listen.ip().is_unspecified() {
        return Ok(listen.to_string());
    }
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for coordinator in coordinators {
        match way_to(coordinator).await {
            Ok(ip) => return Ok(SocketAddr::new(ip, listen.port()).to_string()),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// `http://host:port` of an admin endpoint that listens on `admin`, seen from outside.
pub(super) fn admin_url(admin: Option<SocketAddr>, advertised: &str) -> String {
    let Some(admin) = admin else {
        return String::new();
    };
    if !admin.ip().is_unspecified() {
        return format!("http://{admin}");
    }
    let host = advertised
        .rsplit_once(':')
        .map_or(advertised, |(host, _)| host);
    format!("http://{host}:{}", admin.port())
}

/// The local address that packets to `host:port` leave from. Sends none.
async fn way_to(coordinator: &str) -> io::Result<IpAddr> {
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for target in lookup_host(coordinator).await? {
        let any: IpAddr = match target {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let socket = UdpSocket::bind((any, 0)).await?;
        match socket.connect(target).await {
            Ok(()) => return Ok(socket.local_addr()?.ip()),
            Err(error) => last = error,
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_unspecified_address_is_replaced_by_the_way_to_the_coordinator() {
        let coordinators = ["127.0.0.1:7000".to_owned()];
        let any: SocketAddr = "0.0.0.0:7100".parse().unwrap();
        let derived = advertised(None, any, &coordinators).await.unwrap();
        assert_eq!(derived, "127.0.0.1:7100");
        let own: SocketAddr = "127.0.0.9:7100".parse().unwrap();
        assert_eq!(
            advertised(None, own, &coordinators).await.unwrap(),
            "127.0.0.9:7100"
        );
        let told = advertised(Some("node.example:9"), any, &coordinators)
            .await
            .unwrap();
        assert_eq!(told, "node.example:9");
    }

    #[test]
    fn the_admin_endpoint_is_announced_where_others_reach_it() {
        let url = |addr: &str| admin_url(Some(addr.parse().unwrap()), "10.0.0.7:7100");
        assert_eq!(url("127.0.0.1:7101"), "http://127.0.0.1:7101");
        assert_eq!(url("0.0.0.0:7101"), "http://10.0.0.7:7101");
        assert_eq!(admin_url(None, "10.0.0.7:7100"), "");
    }
}
