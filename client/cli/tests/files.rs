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

#[test]
fn what_is_put_moved_and_removed_is_so_in_the_store() {
    let (from, store) = (tree(), tempfile::tempdir().unwrap());
    let store = store.path();
    let local = |name: &str| from.path().join(name).to_str().unwrap().to_owned();
    let has = |name: &str| fs::read(store.join(name)).unwrap();
    run(store, &["mkdir", "-p", "/made/deep"]);
    let sent = json(
        store,
        &["put", "-r", &local("sub"), &local("a.txt"), "/made"],
    );
    assert_eq!((&sent["files"], &sent["left_out"]), (&3.into(), &0.into()));
    assert!(has("made/sub/b c.bin") == pattern(BIG));
    assert_eq!(has("made/a.txt"), b"0123456789");
    let again = json(store, &["put", "--update", &local("a.txt"), "/made"]);
    assert_eq!(
        (&again["files"], &again["left_out"]),
        (&0.into(), &1.into())
    );
    run(store, &["put", &local("a.txt"), "/made/sub/b c.bin"]);
    assert_eq!(has("made/sub/b c.bin"), b"0123456789");

    run(store, &["mv", "/made/a.txt", "/made/deep"]);
    run(store, &["mv", "/made/deep", "/moved"]);
    assert_eq!(has("moved/a.txt"), b"0123456789");
    input(store, &["write", "/moved/a.txt"], b"first ");
    input(store, &["append", "/moved/a.txt"], b"second");
    input(store, &["append", "/new.txt"], b"third");
    assert_eq!(
        (has("moved/a.txt"), has("new.txt")),
        (b"first second".into(), b"third".into())
    );
    run(store, &["touch", "/empty", "/new.txt"]);
    assert_eq!(
        (has("empty"), has("new.txt")),
        (Vec::new(), b"third".into())
    );
    let removed = json(store, &["rm", "-r", "/made", "/empty"]);
    assert_eq!(
        (&removed["files"], &removed["directories"]),
        (&3.into(), &3.into())
    );
    let mut left: Vec<_> = fs::read_dir(store)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    left.sort();
    assert_eq!(left, ["moved", "new.txt"]);
}

#[test]
fn gc_removes_what_was_left_and_only_when_told_to() {
    let store = tempfile::tempdir().unwrap();
    let left = store.path().join(".millpond-unfinished-0123456789abcdef-f");
    fs::write(&left, "half").unwrap();
    let gc = |args: &[&str]| -> Value {
        let output = Command::new(env!("CARGO_BIN_EXE_millpond"))
            .args([
                "gc",
                &format!("file://{}", store.path().display()),
                "-o",
                "json",
            ])
            .args(args)
            .output()
            .unwrap();
        assert!(output.status.success());
        serde_json::from_slice(&output.stdout).unwrap()
    };
    assert_eq!(gc(&["--remove"]), serde_json::json!([]), "it is too young");
    let found = gc(&["--older-than", "0s"]);
    assert_eq!(
        (&found[0]["path"], &found[0]["removed"]),
        (&"/f".into(), &false.into())
    );
    assert!(left.exists());
    gc(&["--older-than", "0s", "--remove"]);
    assert!(!left.exists());
}

/// As [`run`], with bytes on standard input.
fn input(store: &Path, args: &[&str], bytes: &[u8]) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_millpond"))
        .arg("fs")
        .args(args)
        .args(["--uri", &format!("file://{}", store.display())])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    std::io::Write::write_all(&mut stdin, bytes).unwrap();
    drop(stdin);
    assert!(child.wait().unwrap().success(), "{args:?}");
}
