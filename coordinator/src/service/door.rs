//! What comes in is checked and converted here, before it can become a command.
//!
//! These checks may grow stricter from release to release. The engine's may not (see there).

use std::collections::{BTreeMap, BTreeSet};

use millpond_proto::wire::pb;
use millpond_proto::{ClusterId, MountPath, MountTable, NodeId};

use super::failure::Failure;
use crate::engine::command::Identity;
use crate::engine::{Join, MountChange, NewMount};

/// The schemes that a UFS URI may have; `millpond-ufs` has their drivers.
const SCHEMES: [&str; 12] = [
    "s3", "s3a", "gs", "gcs", "az", "azure", "abfs", "abfss", "http", "https", "file", "memory",
];

const MAX_NAME: usize = 255;
const MAX_URI: usize = 4096;
const MAX_OPTIONS: usize = 64;
const MAX_OPTION_VALUE: usize = 32 << 10;
const MAX_MOUNTS: usize = 10_000;
/// All of the mount table's text, so that a view fits into one message with room to spare.
const MAX_TABLE: usize = 1 << 20;
/// The same as the ring's: more than this many times the normal weight changes nothing.
const MAX_WEIGHT: u32 = 10_000;

/// A join and its certificate request.
pub(super) fn join(request: pb::JoinRequest) -> Result<(Join, String), Failure> {
    let identity = match (request.cluster_id.as_slice(), request.node_id) {
        ([], 0) => None,
        ([], id) => {
            let node = NodeId(id);
            let message = format!("{node} joins without the id of its cluster");
            return Err(Failure::invalid(message));
        }
        (_, 0) => None,
        (cluster, id) => Some(Identity {
            cluster: ClusterId::try_from(cluster)?,
            node: NodeId(id),
        }),
    };
    if identity.is_none() && request.data_dir_id.is_empty() {
        let message = "a first join needs the id of the data directory (data_dir_id)";
        return Err(Failure::invalid(message));
    }
    if request.data_dir_id.len() > 64 {
        return Err(Failure::invalid("data_dir_id is longer than 64 bytes"));
    }
    if request.incarnation == 0 {
        let message = "incarnation is 0; it must grow with every start of the process";
        return Err(Failure::invalid(message));
    }
    peer_address(&request.addr)?;
    short("zone", &request.zone)?;
    short("admin address", &request.admin)?;
    if !(1..=MAX_WEIGHT).contains(&request.weight) {
        let message = format!("weight {} is not within 1 to {MAX_WEIGHT}", request.weight);
        return Err(Failure::invalid(message));
    }
    let join = Join {
        identity,
        data_dir: hex::encode(&request.data_dir_id),
        incarnation: request.incarnation,
        addr: request.addr,
        admin: request.admin,
        zone: request.zone,
        weight: request.weight,
        capacity: request.capacity,
    };
    Ok((join, request.csr_pem))
}

/// `host:port` that others can connect to.
fn peer_address(addr: &str) -> Result<(), Failure> {
    short("address", addr)?;
    let why = match addr.rsplit_once(':') {
        None => "it has no port",
        Some(("", _)) => "it has no host",
        Some((_, port)) => match port.parse::<u16>() {
            Err(_) => "the port is not a number up to 65535",
            Ok(0) => "the port is 0",
            Ok(_) if is_wildcard(addr) => "it means every address of a machine, not one machine",
            Ok(_) => return Ok(()),
        },
    };
    Err(Failure::invalid(format!(
        "node address {addr:?} cannot be connected to: {why}; set --advertise HOST:PORT"
    )))
}

fn is_wildcard(addr: &str) -> bool {
    let parsed = addr.parse::<std::net::SocketAddr>();
    parsed.is_ok_and(|a| a.ip().is_unspecified())
}

fn short(what: &str, text: &str) -> Result<(), Failure> {
    if text.len() > MAX_NAME {
        return Err(Failure::invalid(format!(
            "{what} is longer than {MAX_NAME} bytes"
        )));
    }
    if text.chars().any(char::is_control) {
        return Err(Failure::invalid(format!(
            "{what} {text:?} has control characters"
        )));
    }
    Ok(())
}

pub(super) fn mount_path(text: &str) -> Result<MountPath, Failure> {
    Ok(MountPath::parse(text)?)
}

pub(super) fn add_mount(
    request: pb::AddMountRequest,
    table: &MountTable,
) -> Result<NewMount, Failure> {
    let mount = NewMount {
        path: mount_path(&request.path)?,
        ufs: ufs_uri(&request.ufs)?,
        options: options(request.options)?,
    };
    if table.iter().len() >= MAX_MOUNTS {
        let message = format!("the mount table has {MAX_MOUNTS} entries, which is the limit");
        return Err(Failure::invalid(message));
    }
    let added = mount.ufs.len() + mount.path.as_str().len() + text_size(&mount.options);
    room(table, added)?;
    Ok(mount)
}

pub(super) fn update_mount(
    request: pb::UpdateMountRequest,
    table: &MountTable,
) -> Result<MountChange, Failure> {
    let change = MountChange {
        path: mount_path(&request.path)?,
        set: options(request.set)?,
        unset: request.unset.into_iter().collect::<BTreeSet<_>>(),
    };
    if change.set.is_empty() && change.unset.is_empty() {
        let message = "nothing to change: name options to set or to unset";
        return Err(Failure::invalid(message));
    }
    if let Some(both) = change
        .unset
        .iter()
        .find(|key| change.set.contains_key(*key))
    {
        return Err(Failure::invalid(format!(
            "option {both:?} is to be both set and unset"
        )));
    }
    if let Some(mount) = table.at(&change.path) {
        let new = change
            .set
            .keys()
            .filter(|k| !mount.options.contains_key(*k));
        if mount.options.len() + new.count() > MAX_OPTIONS {
            return Err(too_many_options());
        }
    }
    room(table, text_size(&change.set))?;
    Ok(change)
}

/// Basic syntax only: an absolute path, or `scheme://…` with a scheme that has a driver. The
/// driver checks the rest when someone uses the mount.
fn ufs_uri(text: &str) -> Result<String, Failure> {
    let bad = |why: String| {
        Failure::invalid(format!(
            "UFS {:?} is not usable: {why}; write something like s3://bucket/prefix, \
             gs://bucket, az://container, https://host/dir or file:///dir",
            without_userinfo(text)
        ))
    };
    if text.len() > MAX_URI {
        return Err(Failure::invalid(format!(
            "the UFS URI is longer than {MAX_URI} bytes"
        )));
    }
    if text.chars().any(char::is_control) {
        return Err(bad("it has control characters".to_owned()));
    }
    if text.starts_with('/') {
        return Ok(text.to_owned());
    }
    let Some((scheme, rest)) = text.split_once("://") else {
        return Err(bad("it is neither a URI nor an absolute path".to_owned()));
    };
    let scheme = scheme.to_ascii_lowercase();
    if !SCHEMES.contains(&scheme.as_str()) {
        let known = SCHEMES.join(", ");
        return Err(bad(format!(
            "the scheme {scheme:?} is unknown (known: {known})"
        )));
    }
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    // Containers of abfs are written before the @; anything with a password is not.
    let secret = authority
        .rsplit_once('@')
        .is_some_and(|(user, _)| user.contains(':'));
    if secret {
        let why = "it contains a password; give credentials as --option";
        return Err(bad(why.to_owned()));
    }
    match scheme.as_str() {
        "file" if !authority.is_empty() && authority != "localhost" => Err(bad(format!(
            "a file URI has no host, so write file:///{rest}"
        ))),
        "file" if path.is_empty() => Err(bad("it names no directory".to_owned())),
        "file" | "memory" => Ok(text.to_owned()),
        _ if authority.is_empty() => Err(bad("it names no bucket or host".to_owned())),
        _ => Ok(text.to_owned()),
    }
}

/// The text as it may be repeated in a message.
fn without_userinfo(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else {
        return text.to_owned();
    };
    let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
    match authority.rsplit_once('@') {
        Some((user, host)) if user.contains(':') => format!("{scheme}://***@{host}{path}"),
        _ => text.to_owned(),
    }
}

fn options(
    options: impl IntoIterator<Item = (String, String)>,
) -> Result<BTreeMap<String, String>, Failure> {
    let options: BTreeMap<_, _> = options.into_iter().collect();
    if options.len() > MAX_OPTIONS {
        return Err(too_many_options());
    }
    for (key, value) in &options {
        let good = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
        if key.is_empty() || key.len() > MAX_NAME || !key.chars().all(good) {
            return Err(Failure::invalid(format!(
                "{key:?} is not the name of an option"
            )));
        }
        // The value may be a secret: it is not repeated.
        if value.len() > MAX_OPTION_VALUE {
            let message = format!("the value of option {key:?} exceeds {MAX_OPTION_VALUE} bytes");
            return Err(Failure::invalid(message));
        }
    }
    Ok(options)
}

fn too_many_options() -> Failure {
    Failure::invalid(format!("a mount can have {MAX_OPTIONS} options"))
}

fn text_size(options: &BTreeMap<String, String>) -> usize {
    options.iter().map(|(k, v)| k.len() + v.len()).sum()
}

fn room(table: &MountTable, more: usize) -> Result<(), Failure> {
    let sizes = table
        .iter()
        .map(|m| m.ufs.len() + m.path.as_str().len() + text_size(&m.options));
    let used: usize = sizes.sum();
    if used + more > MAX_TABLE {
        let message = format!("the mount table would exceed {MAX_TABLE} bytes of text");
        return Err(Failure::invalid(message));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use millpond_proto::ErrorKind;

    use super::*;

    fn good() -> pb::JoinRequest {
        pb::JoinRequest {
            addr: "10.0.0.1:7100".into(),
            weight: 100,
            incarnation: 1,
            data_dir_id: vec![1; 16],
            ..pb::JoinRequest::default()
        }
    }

    fn refused(change: impl FnOnce(&mut pb::JoinRequest)) -> String {
        let mut request = good();
        change(&mut request);
        let failure = join(request).unwrap_err();
        assert_eq!(failure.kind(), ErrorKind::Invalid);
        failure.to_string()
    }

    #[test]
    fn joins_are_converted_and_nonsense_is_named() {
        assert_eq!(join(good()).unwrap().0.data_dir, "01".repeat(16));
        assert!(refused(|r| r.addr = "10.0.0.1".into()).contains("no port"));
        assert!(refused(|r| r.addr = ":7100".into()).contains("no host"));
        assert!(refused(|r| r.addr = "h:0".into()).contains("port is 0"));
        assert!(refused(|r| r.addr = "0.0.0.0:7100".into()).contains("--advertise"));
        assert!(refused(|r| r.addr = "[::]:7100".into()).contains("--advertise"));
        assert!(refused(|r| r.weight = 0).contains("weight 0"));
        assert!(refused(|r| r.incarnation = 0).contains("incarnation"));
        assert!(refused(|r| r.data_dir_id.clear()).contains("data_dir_id"));
        assert!(refused(|r| r.node_id = 3).contains("node-3"));
        assert!(refused(|r| (r.node_id, r.cluster_id) = (3, vec![1])).contains("cluster id"));
        assert!(refused(|r| r.zone = "z".repeat(300)).contains("zone"));
    }

    #[test]
    fn ufs_uris_need_a_known_scheme_and_a_place() {
        for uri in [
            "s3://bucket",
            "s3://bucket/a b/c",
            "S3://bucket",
            "gs://b/p",
            "az://c/p",
            "abfss://container@account.dfs.core.windows.net/p",
            "file:///data",
            "memory:///x",
            "https://host:8443/dir/",
            "http://h",
            "/data/sets",
        ] {
            assert_eq!(ufs_uri(uri).unwrap(), uri);
        }
        for (uri, why) in [
            ("", "neither a URI"),
            ("bucket/prefix", "neither a URI"),
            ("ftp://host/x", "known: s3"),
            ("s3://", "no bucket"),
            ("s3:///prefix", "no bucket"),
            ("file://host/x", "no host"),
            ("file://", "no directory"),
            ("s3://b/\n", "control"),
        ] {
            let error = ufs_uri(uri).unwrap_err().to_string();
            assert!(error.contains(why), "{uri}: {error}");
        }
        let error = ufs_uri("https://me:hush@host/x").unwrap_err().to_string();
        assert!(
            error.contains("password") && !error.contains("hush"),
            "{error}"
        );
    }

    #[test]
    fn the_mount_table_has_a_size_limit() {
        let mut table = MountTable::default();
        let big = |n: usize| pb::AddMountRequest {
            path: format!("/{n}"),
            ufs: "s3://b".into(),
            options: (0..60)
                .map(|i| (format!("o{i}"), "x".repeat(10 << 10)))
                .collect(),
        };
        let first = add_mount(big(1), &table).unwrap();
        table
            .add(millpond_proto::Mount {
                id: millpond_proto::MountId(1),
                path: first.path,
                ufs: first.ufs,
                options: first.options,
            })
            .unwrap();
        let error = add_mount(big(2), &table).unwrap_err().to_string();
        assert!(error.contains("mount table"), "{error}");
    }

    #[test]
    fn options_are_named_plainly_and_values_are_never_repeated() {
        let error = options([("a b".to_owned(), "hush".to_owned())])
            .unwrap_err()
            .to_string();
        assert!(error.contains("a b") && !error.contains("hush"), "{error}");
        assert!(options([("endpoint".to_owned(), "http://x".to_owned())]).is_ok());
    }

    #[test]
    fn an_update_must_change_something_once() {
        let table = MountTable::default();
        let update = |set: &[&str], unset: &[&str]| pb::UpdateMountRequest {
            path: "/d".into(),
            set: set
                .iter()
                .map(|k| ((*k).to_owned(), "v".to_owned()))
                .collect(),
            unset: unset.iter().map(|k| (*k).to_owned()).collect(),
        };
        assert!(update_mount(update(&["a"], &["b"]), &table).is_ok());
        assert!(update_mount(update(&[], &[]), &table).is_err());
        assert!(update_mount(update(&["a"], &["a"]), &table).is_err());
    }
}
