//! Wrong input ends with exit code 2, failures with 1, each with a message that says what to
//! do.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should fail")]

use std::process::{Command, Output};

fn millpond(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_millpond"))
        .args(args)
        .env_remove("MILLPOND_COORDINATOR")
        .output()
        .unwrap()
}

/// Asserts the exit code and that the message holds all `words`.
fn fails(args: &[&str], code: i32, words: &[&str]) {
    let output = millpond(args);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{args:?}: {stderr}");
    for word in words {
        assert!(stderr.contains(word), "{args:?} lacks {word:?}: {stderr}");
    }
    assert!(!stderr.contains("panicked"), "{args:?}: {stderr}");
}

#[test]
fn usage_errors_exit_with_2_and_name_what_is_wrong() {
    fails(&["frobnicate"], 2, &["frobnicate"]);
    fails(&["dev", "--nodes", "many"], 2, &["--nodes", "many"]);
    fails(&["dev", "--nodes", "0"], 2, &["--nodes", "64"]);
    fails(
        &["dev", "--block-size", "3MiB"],
        2,
        &["power of two", "4MiB"],
    );
    fails(
        &["dev", "--block-size", "4 elephants"],
        2,
        &["elephants", "64MiB"],
    );
    fails(&["dev", "--option", "a=b"], 2, &["--ufs"]);
    fails(&["dev", "--once", "--ufs", "foo://x"], 2, &["foo", "s3"]);
    fails(
        &["mounts", "add", "data", "file:///tmp"],
        2,
        &["start with /"],
    );
    fails(
        &["mounts", "add", "/data", "file:///tmp", "--option", "x"],
        2,
        &["key=value"],
    );
    fails(
        &[
            "mounts",
            "add",
            "/data",
            "file:///tmp",
            "--option",
            "endpiont=x",
        ],
        2,
        &["endpiont"],
    );
    fails(
        &[
            "mounts",
            "add",
            "/d",
            "file:///tmp",
            "--ufs-bandwidth",
            "fast",
        ],
        2,
        &["ufs_bandwidth", "fast", "85MB/s"],
    );
    fails(
        &["mounts", "add", "/d", "file:///tmp", "--ufs-requests", "0"],
        2,
        &["ufs_requests", "above zero"],
    );
    fails(
        &[
            "mount",
            "coord:7000/data",
            "/mnt",
            "--ufs-bandwidth",
            "1GB/s",
        ],
        2,
        &["--ufs-bandwidth", "millpond mounts"],
    );
    fails(&["mounts", "update", "/data"], 2, &["--option", "--unset"]);
    fails(
        &["mounts", "ls", "--coordinator", "nowhere"],
        2,
        &["nowhere", "HOST:PORT"],
    );
    fails(&["fs", "ls", "/a/../b"], 2, &[".."]);
    fails(&["fs", "find", "/", "--size", "+x"], 2, &["+x"]);
    fails(&["fs", "refresh", "/a/../b"], 2, &[".."]);
    fails(&["fs", "refresh"], 2, &["PATH", "Usage"]);
    fails(&["fs", "ls", "/", "--option", "a=b"], 2, &["--uri"]);
}

#[test]
fn failures_exit_with_1_and_say_what_was_tried() {
    fails(
        &["status", "--coordinator", "127.0.0.1:1"],
        1,
        &["127.0.0.1:1"],
    );
    let missing = "file:///nonexistent-millpond";
    fails(
        &["mounts", "add", "/data", missing],
        1,
        &["/nonexistent-millpond"],
    );
    fails(
        &["fs", "ls", "/", "--uri", missing],
        1,
        &["/nonexistent-millpond"],
    );
    fails(
        &["dev", "--once", "--ufs", missing],
        1,
        &["/nonexistent-millpond"],
    );
}

#[test]
fn a_mount_point_that_cannot_be_used_is_refused_before_any_work() {
    let full = tempfile::tempdir().unwrap();
    std::fs::write(full.path().join("file"), "x").unwrap();
    let full = full.path().to_str().unwrap();
    fails(&["dev", "--once", "--mount", full], 1, &["not empty", full]);
    let missing = "/nonexistent-millpond";
    fails(
        &["dev", "--once", "--mount", missing],
        1,
        &["mkdir", missing],
    );
}

#[test]
fn an_unknown_key_of_a_configuration_file_is_named_with_the_nearest() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let path = file.path().to_str().unwrap();
    for (command, text, nearest) in [
        (
            "dev-coordinator",
            "heartbeat_intervall = \"1s\"",
            "heartbeat_interval",
        ),
        ("dev-node", "memroy = \"1GiB\"", "memory"),
    ] {
        std::fs::write(path, text).unwrap();
        fails(
            &[command, "--config", path],
            2,
            &[path, nearest, "did you mean"],
        );
    }
}

#[test]
fn values_without_sense_are_named_with_their_key() {
    fails(
        &["dev-coordinator", "--block-size", "3MiB"],
        2,
        &["block_size", "power of two"],
    );
    let file = tempfile::NamedTempFile::new().unwrap();
    let path = file.path().to_str().unwrap();
    std::fs::write(path, "memory = \"plenty\"").unwrap();
    fails(
        &["dev-node", "--join", "127.0.0.1:1", "--config", path],
        2,
        &["memory", "plenty"],
    );
}

#[test]
fn help_is_there_for_everyone_and_hides_what_dev_starts() {
    let output = millpond(&["--help"]);
    assert!(output.status.success());
    let help = String::from_utf8(output.stdout).unwrap();
    for command in ["dev", "mount", "umount", "mounts", "fs", "status", "ring"] {
        assert!(help.contains(command), "{help}");
    }
    assert!(!help.contains("dev-node"), "{help}");
    let dev = String::from_utf8(millpond(&["dev", "--help"]).stdout).unwrap();
    // However the lines are broken.
    let dev = dev.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(
        dev.contains("2000 files") && dev.contains("512 MiB"),
        "{dev}"
    );
}
