//! What is mounted: a store, or a part of a cluster's namespace.

use millpond_process::UsageError;

use crate::connect::normal_path;

/// SOURCE of `millpond mount`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum MountSource {
    /// A store, mounted alone.
    Store(String),
    /// A directory of the namespace of the cluster with these coordinators.
    Cluster {
        /// As `host:port`.
        coordinators: Vec<String>,
        /// Absolute and normalized.
        subtree: String,
    },
}

/// `coord-1:7000,coord-2:7000/data` is a cluster; whatever has `://` in it, begins with `/` or
/// has no port is a store, which says itself what is wrong with it.
pub(crate) fn parse_source(text: &str) -> Result<MountSource, UsageError> {
    let (hosts, path) = match text.find('/') {
        Some(at) => text.split_at(at),
        None => (text, "/"),
    };
    let has_port = |host: &str| {
        let port = host
            .rsplit_once(':')
            .map(|(name, port)| (name, port.parse::<u16>()));
        matches!(port, Some((name, Ok(_))) if !name.is_empty())
    };
    if text.contains("://") || hosts.is_empty() || !hosts.split(',').all(has_port) {
        return Ok(MountSource::Store(text.to_owned()));
    }
    Ok(MountSource::Cluster {
        coordinators: hosts.split(',').map(str::to_owned).collect(),
        subtree: normal_path(path)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_with_ports_are_clusters_and_all_else_is_a_store() {
        let cluster = |text: &str| match parse_source(text).unwrap() {
            MountSource::Cluster {
                coordinators,
                subtree,
            } => Some((coordinators, subtree)),
            MountSource::Store(_) => None,
        };
        let one = |host: &str, path: &str| Some((vec![host.to_owned()], path.to_owned()));
        assert_eq!(cluster("coord:7000/data"), one("coord:7000", "/data"));
        assert_eq!(cluster("coord:7000"), one("coord:7000", "/"));
        assert_eq!(cluster("[::1]:7000/a/b/"), one("[::1]:7000", "/a/b"));
        let two = cluster("a:1,b:2/x").unwrap();
        assert_eq!(
            two,
            (vec!["a:1".to_owned(), "b:2".to_owned()], "/x".to_owned())
        );
        for store in [
            "s3://b/p",
            "/srv/data",
            "http://h:80/x",
            "coord/data",
            "memory:///x",
            ":7/x",
        ] {
            assert_eq!(cluster(store), None, "{store}");
        }
        assert!(parse_source("coord:7000/../x").is_err());
    }
}
