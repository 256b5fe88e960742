//! The example configurations are what the processes really read.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should fail")]

use std::path::{Path, PathBuf};
use std::process::Command;

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../deploy")
        .join(name)
}

/// What `command --config deploy/<file> --print-config` prints.
fn printed(command: &[&str], file: &str) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_millpond"))
        .args(command)
        .arg("--config")
        .arg(example(file))
        .arg("--print-config")
        .env_clear()
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{file}: {stderr}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_coordinator_example_loads() {
    let settings = printed(&["dev-coordinator"], "coordinator.toml");
    assert!(settings.contains("listen = \"0.0.0.0:7000\""), "{settings}");
    assert!(settings.contains("block_size = \"4MiB\""), "{settings}");
}

#[test]
fn the_cache_node_example_loads() {
    let settings = printed(&["dev-node"], "cache-node.toml");
    assert!(settings.contains("memory = \"4GiB\""), "{settings}");
    assert!(settings.contains("disk_capacity = \"20GiB\""), "{settings}");
}

#[test]
fn the_mount_example_loads() {
    let settings = printed(&["mount", "/mnt/data"], "mount.toml");
    assert!(settings.contains("allow_other = true"), "{settings}");
    assert!(settings.contains("cache_size = \"10GiB\""), "{settings}");
}

#[test]
fn every_key_of_the_examples_is_shown_even_those_left_out() {
    for (command, file) in [
        (&["dev-coordinator"][..], "coordinator.toml"),
        (&["dev-node"], "cache-node.toml"),
        (&["mount", "/mnt/data"], "mount.toml"),
    ] {
        let example = std::fs::read_to_string(example(file)).unwrap();
        for line in printed(command, file).lines() {
            let line = line.trim_start_matches("# ");
            let Some(key) = line.split([' ', '=']).next().filter(|key| !key.is_empty()) else {
                continue;
            };
            let shown = example
                .lines()
                .any(|l| l.trim_start_matches("# ").starts_with(key));
            assert!(shown, "{file} does not show {key}");
        }
    }
}
