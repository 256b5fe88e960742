//! `millpond fs` over a store without a cluster.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should fail")]

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

const BIG: usize = 9 << 20;

fn tree() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("sub/deep")).unwrap();
    fs::write(dir.path().join("a.txt"), "0123456789").unwrap();
    fs::write(dir.path().join("sub/b c.bin"), pattern(BIG)).unwrap();
    fs::write(dir.path().join("sub/deep/empty"), "").unwrap();
    dir
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 31 % 251) as u8).collect()
}

/// Runs `millpond fs <args> --uri file://<store>`; its stdout.
fn run(store: &Path, args: &[&str]) -> Vec<u8> {
    let output = Command::new(env!("CARGO_BIN_EXE_millpond"))
        .arg("fs")
        .args(args)
        .args(["--uri", &format!("file://{}", store.display())])
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {stderr}");
    output.stdout
}

fn json(store: &Path, args: &[&str]) -> Value {
    let args: Vec<_> = args.iter().copied().chain(["-o", "json"]).collect();
    serde_json::from_slice(&run(store, &args)).unwrap()
}

fn paths(rows: &Value) -> Vec<&str> {
    let rows = rows.as_array().unwrap().iter();
    let mut paths: Vec<_> = rows.map(|row| row["path"].as_str().unwrap()).collect();
    paths.sort_unstable();
    paths
}

#[test]
fn ls_lists_one_level_or_all() {
    let dir = tree();
    assert_eq!(paths(&json(dir.path(), &["ls", "/"])), ["a.txt", "sub"]);
    let all = json(dir.path(), &["ls", "-R", "/"]);
    let expected = [
        "/a.txt",
        "/sub",
        "/sub/b c.bin",
        "/sub/deep",
        "/sub/deep/empty",
    ];
    assert_eq!(paths(&all), expected);
    let long = String::from_utf8(run(dir.path(), &["ls", "-l", "/"])).unwrap();
    assert!(
        long.lines()
            .any(|l| l.starts_with('d') && l.ends_with("sub/")),
        "{long}"
    );
}

#[test]
fn stat_tells_the_version_and_the_object() {
    let dir = tree();
    let stat = json(dir.path(), &["stat", "a.txt"]);
    assert_eq!(stat["size"], 10);
    assert_eq!(stat["kind"], "file");
    assert!(stat["ufs"].as_str().unwrap().ends_with("/a.txt"), "{stat}");
    assert!(
        stat["version"].as_str().unwrap().starts_with("local:"),
        "{stat}"
    );
}

#[test]
fn cat_writes_the_bytes_asked_for() {
    let dir = tree();
    assert_eq!(run(dir.path(), &["cat", "/a.txt"]), b"0123456789");
    assert_eq!(
        run(
            dir.path(),
            &["cat", "/a.txt", "--offset", "3", "--len", "4"]
        ),
        b"3456"
    );
    assert_eq!(run(dir.path(), &["cat", "/a.txt", "--offset", "99"]), b"");
    assert_eq!(run(dir.path(), &["cat", "/sub/deep/empty"]), b"");
    assert_eq!(run(dir.path(), &["cat", "/sub/b c.bin"]), pattern(BIG));
}

#[test]
fn cp_copies_trees_and_leaves_nothing_else() {
    let dir = tree();
    let to = tempfile::tempdir().unwrap();
    let target = to.path().join("copy");
    let copied = json(dir.path(), &["cp", "-r", "/", target.to_str().unwrap()]);
    assert_eq!(copied["files"], 3);
    assert_eq!(fs::read(target.join("sub/b c.bin")).unwrap(), pattern(BIG));
    assert_eq!(fs::read(target.join("a.txt")).unwrap(), b"0123456789");
    assert_eq!(fs::read_dir(target.join("sub")).unwrap().count(), 2);
    run(dir.path(), &["cp", "/a.txt", to.path().to_str().unwrap()]);
    assert_eq!(fs::read(to.path().join("a.txt")).unwrap(), b"0123456789");
}

#[test]
fn du_and_find_agree_on_what_is_there() {
    let dir = tree();
    let total = json(dir.path(), &["du", "-s", "/"]);
    assert_eq!(total[0]["bytes"], BIG as u64 + 10);
    assert_eq!(
        (&total[0]["files"], &total[0]["directories"]),
        (&3.into(), &2.into())
    );
    let find = |args: &[&str]| {
        let args: Vec<_> = ["find", "/"].iter().chain(args).copied().collect();
        paths(&json(dir.path(), &args))
            .into_iter()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    assert_eq!(find(&["--type", "d"]), ["/", "/sub", "/sub/deep"]);
    assert_eq!(find(&["--name", "*.bin"]), ["/sub/b c.bin"]);
    assert_eq!(find(&["--size", "+1MiB"]), ["/sub/b c.bin"]);
    assert_eq!(find(&["--size", "-0"]), ["/sub/deep/empty"]);
}
