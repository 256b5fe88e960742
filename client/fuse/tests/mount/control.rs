//! The virtual directory `.millpond`.

use std::collections::BTreeMap;
use std::fs::{read_dir, read_to_string};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use millpond_fuse::control::{Config, Stats};
use millpond_fuse::mountinfo;
use millpond_fuse::unmount::{Force, unmount};
use millpond_ufs::memory::MemoryStore;

use crate::support::{Rig, errno, memory, pattern, skip, wait_for};

/// Twenty files of 10 KiB in `d`.
fn filled(store: &MemoryStore) -> Vec<String> {
    let names: Vec<_> = (0..20).map(|n| format!("d/{n:02}")).collect();
    for (n, name) in names.iter().enumerate() {
        store.put(name, pattern(n as u64, 10 << 10));
    }
    names
}

fn control(rig: &Rig, name: &str) -> std::path::PathBuf {
    rig.path(".millpond").join(name)
}

fn stats(rig: &Rig) -> Stats {
    serde_json::from_str(&read_to_string(control(rig, "stats")).unwrap()).unwrap()
}

fn config(rig: &Rig) -> Config {
    serde_json::from_str(&read_to_string(control(rig, "config")).unwrap()).unwrap()
}

/// Whether this process may take hints; waits until it does.
fn takes_hints(rig: &Rig) -> bool {
    if !rustix::process::geteuid().is_root() {
        skip("hints need CAP_SYS_ADMIN");
        return false;
    }
    wait_for("the pipes", || config(rig).takes_hints);
    true
}

#[test]
fn the_directory_is_found_and_not_listed() {
    let (store, uri) = memory();
    store.put("f", "content");
    store.put(".millpond/stats", "of the store");
    let Some(rig) = Rig::new(&uri) else { return };
    let names = |dir: &Path| -> Vec<_> {
        let mut names: Vec<_> = read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    };
    assert_eq!(names(rig.dir()), ["f"]);
    let inside = rig.path(".millpond");
    let all = ["config", "prefetch", "record", "refresh", "stats", "traces"];
    assert_eq!(names(&inside), all);
    assert_eq!(names(&inside.join("traces")), [] as [&str; 0]);
    assert!(inside.is_dir());
    assert!(
        control(&rig, "prefetch")
            .metadata()
            .unwrap()
            .file_type()
            .is_fifo()
    );
    assert_eq!(errno(std::fs::metadata(inside.join("other"))), libc::ENOENT);
    assert_eq!(
        errno(std::fs::metadata(inside.join("stats/x"))),
        libc::ENOTDIR
    );
    assert!(stats(&rig).requests > 0, "not what the store has there");
}

#[test]
fn stats_are_of_the_moment_and_have_a_size() {
    let (store, uri) = memory();
    let names = filled(&store);
    let Some(rig) = Rig::new(&uri) else { return };
    let before = stats(&rig);
    for name in &names {
        std::fs::read(rig.path(name)).unwrap();
    }
    let mut after = stats(&rig);
    wait_for("new figures", || {
        after = stats(&rig);
        after.read_bytes - before.read_bytes == 20 * (10 << 10)
    });
    assert_eq!(after.client.read_bytes.total(), 20 * (10 << 10));
    let reads = &after.operations["read"];
    assert_eq!(reads.requests, reads.latency_us.total());
    assert!(reads.requests >= 20 && reads.p99_us >= reads.p50_us);
    assert!(after.resident_bytes > 1 << 20);
    let path = control(&rig, "stats");
    let text = read_to_string(&path).unwrap();
    assert!(text.ends_with("}\n"));
    assert!(path.metadata().unwrap().len() > 100);
    let listed = std::process::Command::new("cat")
        .arg(&path)
        .output()
        .unwrap();
    assert!(serde_json::from_slice::<Stats>(&listed.stdout).is_ok());
}

#[test]
fn the_configuration_is_that_in_effect() {
    let (store, uri) = memory();
    store.put("sub/f", "content");
    let adjust = |options: &mut millpond_fuse::MountOptions| {
        options.subtree = "/sub".to_owned();
        options.file_mode = 0o600;
    };
    let Some(rig) = Rig::with(&uri, BTreeMap::new(), adjust) else {
        return;
    };
    let config = config(&rig);
    assert_eq!(Path::new(&config.directory), rig.dir());
    assert_eq!(
        (config.subtree.as_str(), config.source.as_str()),
        ("/sub", "test")
    );
    assert_eq!(
        (config.memory, config.file_mode.as_str()),
        (64 << 20, "0600")
    );
    assert_eq!(config.mounts[0].ufs, uri);
    assert_eq!(config.passthrough, "off");
    let why = config.passthrough_off_because.unwrap();
    assert_eq!(why, "there is no cache directory");
    assert_eq!(std::fs::read(rig.path("f")).unwrap(), b"content");
}

#[test]
fn a_list_written_to_the_pipe_is_fetched_and_an_empty_one_ends_it() {
    let (store, uri) = memory();
    let names = filled(&store);
    let Some(rig) = Rig::new(&uri) else { return };
    if !takes_hints(&rig) {
        return;
    }
    let mut list: String = names[..10].iter().map(|name| format!("{name}\n")).collect();
    for name in &names[10..] {
        list += &format!("{}\n", rig.path(name).display());
    }
    list += "gone\n../bad\n";
    std::fs::write(control(&rig, "prefetch"), list).unwrap();
    wait_for("the list", || rig.fs.stats().prefetch.files == 20);
    wait_for("the missing file", || rig.fs.stats().prefetch.errors == 1);
    assert_eq!(rig.fs.stats().prefetch.bad_lines, 1);
    let ufs = rig.fs.ufs_bytes();
    for (n, name) in names.iter().enumerate() {
        assert!(std::fs::read(rig.path(name)).unwrap() == pattern(n as u64, 10 << 10));
    }
    assert_eq!(rig.fs.ufs_bytes(), ufs, "all was there before");
    assert_eq!(rig.fs.stats().prefetch.read, 20);
    std::fs::write(control(&rig, "prefetch"), "\n").unwrap();
    wait_for("the end", || rig.fs.stats().prefetch.entries == 0);
}

#[test]
fn what_was_opened_is_recorded_and_can_be_replayed() {
    let (store, uri) = memory();
    let names = filled(&store);
    let Some(rig) = Rig::new(&uri) else { return };
    if !takes_hints(&rig) {
        return;
    }
    std::fs::write(control(&rig, "record"), "start first\n").unwrap();
    wait_for("the start", || {
        stats(&rig).client.prefetch.recording.is_some()
    });
    for at in [7, 3, 11] {
        std::fs::read(rig.path(&names[at])).unwrap();
    }
    std::fs::write(control(&rig, "record"), "stop\n").unwrap();
    let trace = control(&rig, "traces").join("first");
    wait_for("the trace", || trace.exists());
    assert_eq!(read_to_string(&trace).unwrap(), "d/07\nd/03\nd/11\n");
    let replay = std::process::Command::new("cp")
        .args([&trace, &control(&rig, "prefetch")])
        .status();
    assert!(replay.unwrap().success());
    wait_for("the replay", || rig.fs.stats().prefetch.entries == 3);
}

#[test]
fn what_changed_behind_the_mount_is_seen_once_it_is_written_to_the_pipe() {
    let (store, uri) = memory();
    for path in ["sub/d/f", "sub/d/e/g", "sub/h"] {
        store.put(path, "old");
    }
    let immutable = [("metadata".to_owned(), "immutable".to_owned())].into();
    let adjust = |options: &mut millpond_fuse::MountOptions| options.subtree = "/sub".to_owned();
    let Some(rig) = Rig::with(&uri, immutable, adjust) else {
        return;
    };
    if !takes_hints(&rig) {
        return;
    }
    let read = |path: &str| read_to_string(rig.path(path)).unwrap();
    let all = ["d/f", "d/e/g", "h"];
    assert_eq!(all.map(read), ["old", "old", "old"]);
    for path in ["sub/d/f", "sub/d/e/g", "sub/h"] {
        store.put(path, "newer");
    }
    assert_eq!(all.map(read), ["old", "old", "old"]);
    let refresh = |text: &str| {
        let before = stats(&rig).refreshed.paths;
        std::fs::write(control(&rig, "refresh"), text).unwrap();
        let lines = text.lines().count() as u64;
        wait_for("the paths", || {
            stats(&rig).refreshed.paths == before + lines
        });
    };
    refresh("d/f\n");
    wait_for("the file", || read("d/f") == "newer");
    assert_eq!([read("d/e/g"), read("h")], ["old", "old"]);
    refresh(&format!("{}/\n../h\n", rig.path("d").display()));
    wait_for("all below", || read("d/e/g") == "newer");
    assert_eq!(
        (read("h").as_str(), stats(&rig).refreshed.bad_lines),
        ("old", 1)
    );
    refresh("/\n");
    wait_for("everything", || read("h") == "newer");
}

/// Also where the kernel opens files by itself.
#[test]
fn figures_and_hints_need_no_open() {
    let (store, uri) = memory();
    let names = filled(&store);
    let adjust = |options: &mut millpond_fuse::MountOptions| options.kernel_opens = true;
    let Some(rig) = Rig::with(&uri, BTreeMap::new(), adjust) else {
        return;
    };
    if !takes_hints(&rig) {
        return;
    }
    std::fs::write(control(&rig, "prefetch"), names.join("\n")).unwrap();
    wait_for("the list", || stats(&rig).client.prefetch.files == 20);
    for name in &names {
        std::fs::read(rig.path(name)).unwrap();
    }
    wait_for("the reads", || stats(&rig).client.prefetch.read == 20);
    assert_eq!(
        errno(std::fs::write(control(&rig, "stats"), "x")),
        libc::EROFS
    );
}

/// Hints do not keep the mount busy, and the file system ends with its last mount.
#[test]
fn a_mount_that_takes_hints_can_be_unmounted_by_anyone() {
    let (store, uri) = memory();
    store.put("f", "content");
    let Some(mut rig) = Rig::new(&uri) else {
        return;
    };
    if !takes_hints(&rig) {
        return;
    }
    unmount(rig.dir(), Force::Clean).unwrap();
    assert!(mountinfo::mount_at(rig.dir()).unwrap().is_none());
    let mounted = rig.mounted.take().unwrap();
    rig.runtime.block_on(async {
        let ended = tokio::time::timeout(std::time::Duration::from_secs(10), mounted.ended());
        ended.await.unwrap();
    });
}

#[test]
fn nothing_there_can_be_changed() {
    let (store, uri) = memory();
    store.put("f", "content");
    let Some(rig) = Rig::new(&uri) else { return };
    let stats = control(&rig, "stats");
    assert_eq!(errno(std::fs::write(&stats, "x")), libc::EROFS);
    assert_eq!(errno(std::fs::remove_file(&stats)), libc::EROFS);
    assert_eq!(
        errno(std::fs::write(control(&rig, "new"), "x")),
        libc::EROFS
    );
    assert_eq!(
        errno(std::fs::create_dir(control(&rig, "traces/x"))),
        libc::EROFS
    );
}
