//! The commands that look at files of a cluster and change what is cached of them, on two
//! mounts of it.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on should fail"
)]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use millpond_bench::process_cluster::{ClusterSpec, ProcessCluster, fuse_or_skip, wait_until};
use serde_json::Value;
use tempfile::TempDir;

const WITHIN: Duration = Duration::from_secs(20);
const MIB: usize = 1 << 20;

/// A local directory below `/data` of a cluster of two nodes, and two mounts that believe what
/// they know for an hour, the second with a tier on disk.
struct Lake {
    cluster: ProcessCluster,
    source: TempDir,
    mounts: [PathBuf; 2],
    _tier: TempDir,
}

impl Lake {
    /// With `files`; none where nothing can be mounted.
    fn new(test: &str, files: &[(&str, Vec<u8>)]) -> Option<Self> {
        if !fuse_or_skip(test) {
            return None;
        }
        let (source, tier) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for (path, content) in files {
            let path = source.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        let mut cluster = ProcessCluster::start(ClusterSpec {
            nodes: 2,
            block_size: "1MiB".to_owned(),
            ..ClusterSpec::default()
        })
        .unwrap();
        let uri = format!("file://{}", source.path().display());
        let believed = [("metadata_ttl".to_owned(), "1h".to_owned())];
        cluster
            .add_ufs("/data", &uri, &BTreeMap::from(believed))
            .unwrap();
        let dir = tier.path().to_str().unwrap();
        let flags: [&[&str]; 2] = [&[], &["--cache-dir", dir, "--cache-size", "100MiB"]];
        let mounts = flags.map(|flags| {
            let mount = cluster.add_mount(flags).unwrap();
            cluster.mount(mount).path().join("data")
        });
        Some(Self {
            cluster,
            source,
            mounts,
            _tier: tier,
        })
    }

    /// Replaces a file in the store at once.
    fn replace(&self, path: &str, content: &[u8]) {
        let target = self.source.path().join(path);
        let aside = self.source.path().join("aside");
        fs::write(&aside, content).unwrap();
        fs::rename(&aside, target).unwrap();
    }

    /// What `millpond ARGS… -o json` prints, with the cluster for what is on no mount.
    fn json(&self, args: &[&str]) -> Value {
        let text = self.cluster.coordinated(&[args, &["-o", "json"]].concat());
        serde_json::from_str(&text.unwrap()).unwrap()
    }

    fn info(&self, path: &Path) -> Value {
        self.json(&["info", path.to_str().unwrap()])
    }

    fn end(self) {
        self.cluster.shutdown().unwrap();
    }
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    let name = |entry: std::io::Result<fs::DirEntry>| entry.unwrap().file_name();
    let mut names: Vec<_> = entries
        .map(|entry| name(entry).into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn a_refresh_shows_a_change_in_the_store_to_all_mounts_and_only_that_change() {
    let test = "a_refresh_shows_a_change_in_the_store_to_all_mounts_and_only_that_change";
    let old = || b"old".to_vec();
    let files = [("d/told", old()), ("d/untold", old()), ("e/f", old())];
    let Some(lake) = Lake::new(test, &files) else {
        return;
    };
    let read = |dir: &Path, path: &str| fs::read_to_string(dir.join(path)).unwrap();
    for dir in &lake.mounts {
        assert_eq!(names(&dir.join("d")), ["told", "untold"]);
        for (path, _) in &files {
            assert_eq!(read(dir, path), "old");
        }
    }
    for (path, _) in &files {
        lake.replace(path, b"changed");
    }
    fs::write(lake.source.path().join("d/more"), "new").unwrap();
    for dir in &lake.mounts {
        assert_eq!(read(dir, "d/told"), "old");
        assert_eq!(fs::metadata(dir.join("d/told")).unwrap().len(), 3);
        assert_eq!(names(&dir.join("d")), ["told", "untold"]);
    }

    let refreshed = lake.json(&["fs", "refresh", "/data/d/told"]);
    assert_eq!(refreshed["told"].as_array().unwrap().len(), 2);
    assert_eq!(refreshed["silent"], Value::Array(Vec::new()));
    for dir in &lake.mounts {
        wait_until(WITHIN, || read(dir, "d/told") == "changed").unwrap();
        assert_eq!(fs::metadata(dir.join("d/told")).unwrap().len(), 7);
        // The directory that holds it is listed anew.
        wait_until(WITHIN, || names(&dir.join("d")).len() == 3).unwrap();
        assert_eq!(read(dir, "e/f"), "old", "nobody told of it");
    }

    lake.json(&["fs", "refresh", "/data", "-r"]);
    for dir in &lake.mounts {
        for path in ["d/untold", "e/f"] {
            wait_until(WITHIN, || read(dir, path) == "changed").unwrap();
        }
        assert_eq!(read(dir, "d/more"), "new");
    }

    // Told to one mount by the path that the file has there.
    lake.replace("e/f", b"changed again");
    for dir in &lake.mounts {
        assert_eq!(read(dir, "e/f"), "changed");
    }
    let on_mount = lake.mounts[0].join("e/f");
    lake.json(&["fs", "refresh", on_mount.to_str().unwrap()]);
    for dir in &lake.mounts {
        wait_until(WITHIN, || read(dir, "e/f") == "changed again").unwrap();
    }
    lake.end();
}

#[test]
fn info_tells_the_version_and_where_each_block_belongs_and_is() {
    let test = "info_tells_the_version_and_where_each_block_belongs_and_is";
    let content = vec![7; 2 * MIB + 5];
    let Some(lake) = Lake::new(test, &[("d/f", content.clone())]) else {
        return;
    };
    let [reader, other] = &lake.mounts;
    let places = |info: &Value, of: &str| -> Vec<String> {
        let blocks = info["blocks"].as_array().unwrap();
        let place = |block: &Value| match of {
            "here" => block["here"].as_str().unwrap().to_owned(),
            _ => block["cached"].as_array().unwrap().len().to_string(),
        };
        blocks.iter().map(place).collect()
    };

    let before = lake.info(&reader.join("d/f"));
    assert_eq!(before["path"], "/data/d/f");
    assert_eq!(before["size"], content.len());
    assert_eq!(before["block_size"], MIB);
    assert_eq!(before["block_count"], 3);
    assert!(before["version"].as_str().unwrap().starts_with("local:"));
    assert!(before["ufs"].as_str().unwrap().ends_with("/d/f"));
    for block in before["blocks"].as_array().unwrap() {
        let owners = block["owners"].as_array().unwrap();
        assert!(!owners.is_empty(), "{before}");
    }
    let lens = before["blocks"].as_array().unwrap().iter();
    let lens: Vec<u64> = lens.map(|block| block["bytes"].as_u64().unwrap()).collect();
    assert_eq!(lens, [MIB as u64, MIB as u64, 5]);
    assert_eq!(places(&before, "here"), ["none"; 3]);
    assert_eq!(places(&before, "cached"), ["0"; 3]);

    // A reader may go round a node that is slow for a moment: it has nothing then.
    lake.json(&["fs", "prefetch", "/data/d/f"]);
    assert!(fs::read(reader.join("d/f")).unwrap() == content);
    wait_until(WITHIN, || {
        let info = lake.info(&reader.join("d/f"));
        places(&info, "here") == ["memory"; 3]
            && places(&info, "cached").iter().all(|nodes| nodes != "0")
    })
    .unwrap_or_else(|_| panic!("{}", lake.info(&reader.join("d/f"))));
    let elsewhere = lake.info(&other.join("d/f"));
    assert_eq!(places(&elsewhere, "here"), ["none"; 3]);
    assert_eq!(elsewhere["version"], before["version"]);
    // By its path in the namespace a client of the command's own is asked.
    let named = lake.info(Path::new("/data/d/f"));
    assert_eq!(named["mount"], Value::Null);
    assert_eq!(named["file_id"], before["file_id"]);

    lake.replace("d/f", &content[..100]);
    lake.json(&["fs", "refresh", "/data/d/f"]);
    wait_until(WITHIN, || {
        let info = lake.info(&reader.join("d/f"));
        info["size"] == 100 && info["version"] != before["version"]
    })
    .unwrap();
    lake.end();
}

#[test]
fn a_prefetch_ends_with_the_files_in_the_tier() {
    let test = "a_prefetch_ends_with_the_files_in_the_tier";
    let files: Vec<_> = (0..10_u8)
        .map(|n| (format!("d/{n}"), vec![n; MIB + 300_000]))
        .collect();
    let named: Vec<_> = files.iter().map(|(p, c)| (&**p, c.clone())).collect();
    let Some(lake) = Lake::new(test, &named) else {
        return;
    };
    let report = lake.json(&["fs", "prefetch", "/data/d"]);
    let bytes: usize = files.iter().map(|(_, content)| content.len()).sum();
    let expected = serde_json::json!({
        "mount": null, "files": 10, "bytes": bytes, "blocks": 20, "filled": 20, "not_kept": 0,
    });
    assert_eq!(report, expected);
    let again = lake.json(&["fs", "prefetch", "/data/d"]);
    assert_eq!(
        (&again["blocks"], &again["filled"]),
        (&20.into(), &0.into())
    );
    let [hinted, tiered] = lake.mounts.clone();
    for (path, _) in &files {
        wait_until(WITHIN, || {
            let info = lake.info(&tiered.join(path));
            let blocks = info["blocks"].as_array().unwrap();
            blocks.len() == 2
                && blocks.iter().all(|block| {
                    assert_eq!(block["here"], "none", "{info}");
                    !block["cached"].as_array().unwrap().is_empty()
                })
        })
        .unwrap_or_else(|_| panic!("{}", lake.info(&tiered.join(path))));
    }
    // A mount takes hints from those who may mount.
    if fs::metadata("/proc/self").unwrap().uid() == 0 {
        let dir = hinted.join("d");
        let report = lake.json(&["fs", "prefetch", dir.to_str().unwrap()]);
        assert_eq!(report["files"], 10);
        assert!(hinted.starts_with(report["mount"].as_str().unwrap()));
        for (path, _) in &files {
            wait_until(WITHIN, || {
                let info = lake.info(&hinted.join(path));
                let blocks = info["blocks"].as_array().unwrap();
                blocks.iter().all(|block| block["here"] == "memory")
            })
            .unwrap_or_else(|_| panic!("{}", lake.info(&hinted.join(path))));
        }
    }
    // The store is gone: what was fetched is all there is.
    for (path, _) in &files {
        fs::remove_file(lake.source.path().join(path)).unwrap();
    }
    for (path, content) in &files {
        // A reader that found a node slow for a moment asked the store in vain.
        let read = || fs::read(tiered.join(path)).is_ok_and(|read| read == *content);
        wait_until(WITHIN, read).unwrap_or_else(|error| panic!("{path}: {error}"));
    }
    lake.end();
}
