//! Clusters within this process, from start to end.

use futures::TryStreamExt;

use super::*;
use crate::scenario::{CommonArgs, OutputArgs};

fn context() -> (tokio::runtime::Runtime, Context) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let _within = runtime.enter();
    let args = CommonArgs {
        seed: 1,
        runs: None,
        duration: None,
        quick: true,
        cases: Vec::new(),
        processes: false,
        work_dir: None,
        output: OutputArgs::default(),
    };
    let context = Context::new(&args).unwrap();
    (runtime, context)
}

fn small() -> ClusterSpec {
    ClusterSpec {
        nodes: 2,
        node_memory: "64MiB".to_owned(),
        node_disk: "0".to_owned(),
        ..ClusterSpec::default()
    }
}

fn read_all(context: &Context, filesystem: &FileSystem, path: &str) -> Vec<u8> {
    context.runtime.block_on(async {
        let file = filesystem.open(path).await.unwrap();
        let len = u32::try_from(file.attr().size).unwrap();
        file.read(0, len).await.unwrap().to_vec()
    })
}

#[test]
fn an_in_process_cluster_serves_and_proves_what_is_warm() {
    let (_runtime, context) = context();
    let data = context.new_dir("data").unwrap();
    let bytes = vec![7u8; 1 << 20];
    std::fs::write(data.join("file"), &bytes).unwrap();
    let mut cluster = Cluster::start(&context, small(), Kind::InProcess).unwrap();
    let uri = format!("file://{}", data.display());
    cluster.add_ufs("/data", &uri, &BTreeMap::new()).unwrap();
    let first = cluster.client(ClientConfig::default()).unwrap();
    assert_eq!(read_all(&context, &first, "/data/file"), bytes);
    let cold = cluster.ufs_use(&[]).unwrap();
    assert!(cold.gets >= 1 && cold.bytes == 1 << 20, "{cold:?}");
    let second = cluster.client(ClientConfig::default()).unwrap();
    assert_eq!(read_all(&context, &second, "/data/file"), bytes);
    let warm = cluster.ufs_use(&[]).unwrap() - cold;
    assert_eq!((warm.gets, warm.bytes), (0, 0), "{warm:?}");
    assert_eq!(cluster.add_node().unwrap(), 2);
    assert_eq!(cluster.nodes(), 3);
    cluster.remove_ufs("/data").unwrap();
    let late = cluster.client(ClientConfig::default()).unwrap();
    let names = context
        .runtime
        .block_on(late.list("/").try_collect::<Vec<_>>());
    assert_eq!(names.unwrap().concat().len(), 0);
    drop(cluster);
    let open = context.runtime.block_on(first.open("/data/file"));
    assert!(open.is_err(), "the end of the cluster ended its clients");
}

#[test]
fn a_node_that_cannot_start_says_why() {
    let (_runtime, context) = context();
    let spec = ClusterSpec {
        block_size: "64MiB".to_owned(),
        ..small()
    };
    let error = Cluster::start(&context, spec, Kind::InProcess).unwrap_err();
    let error = format!("{error:#}");
    assert!(
        error.contains("node 0") && error.contains("--memory"),
        "{error}"
    );
}
