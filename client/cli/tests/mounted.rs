//! Mounts as their users meet them: `mount(8)`'s helper, and the commands that look at mounts.
//!
//! Skipped with a line that says so where nothing can be mounted, unless
//! `MILLPOND_REQUIRE_FUSE=1`.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should fail")]
#![allow(clippy::print_stderr, reason = "a skipped test is told")]

#[path = "support/place.rs"]
mod place;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use place::{MILLPOND, Place, millpond, succeeds, wait_for};

#[test]
fn the_helper_mounts_in_the_background_as_the_table_says() {
    let Some(place) = Place::new("the_helper_mounts") else {
        return;
    };
    let options =
        place.options(",_netdev,noauto,x-systemd.automount,metadata_ttl=5s,file_mode=0640");
    succeeds(&place.mount(&options));
    assert!(place.is_mounted());
    assert_eq!(fs::read(place.dir().join("d/07")).unwrap(), vec![7; 10_000]);
    let config = fs::read(place.dir().join(".millpond/config")).unwrap();
    let config: Value = serde_json::from_slice(&config).unwrap();
    assert_eq!(config["file_mode"], "0640");
    assert_eq!(
        config["memory_limit"]
            .as_u64()
            .map(|limit| limit >= 256 << 20),
        Some(true)
    );
    // `mount -a` comes again.
    succeeds(&place.mount(&options));
    succeeds(&millpond(&["umount"], &place.dir()));
    assert!(!place.is_mounted());
}

#[test]
fn the_helper_says_what_is_wrong() {
    let Some(place) = Place::new("the_helper_says") else {
        return;
    };
    let output = place.mount(&place.options(",metadata_tll=5s"));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && stderr.contains("metadata_tll"),
        "{stderr}"
    );
    let output = place.mount(&place.options(",memory_limit=1MiB"));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && stderr.contains("40MiB"),
        "{stderr}"
    );
    assert!(!place.is_mounted());
}

/// A link to the program where mount(8) looks for helpers, for one test.
struct Installed(PathBuf);

impl Drop for Installed {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

#[test]
fn mount_8_knows_the_type() {
    let Some(place) = Place::new("mount_8_knows_the_type") else {
        return;
    };
    let link = PathBuf::from("/sbin/mount.fuse.millpond");
    if link.symlink_metadata().is_ok() || symlink(MILLPOND, &link).is_err() {
        eprintln!(
            "SKIPPED: mount_8_knows_the_type: cannot put a link at {}",
            link.display()
        );
        return;
    }
    let _installed = Installed(link);
    let mount = Command::new("mount")
        .args(["-t", "fuse.millpond", &place.uri()])
        .arg(place.dir())
        .args(["-o", &place.options(",ro,nosuid,umask=022")])
        .output();
    let Ok(mount) = mount else {
        eprintln!("SKIPPED: mount_8_knows_the_type: there is no mount(8)");
        return;
    };
    succeeds(&mount);
    assert_eq!(fs::read(place.dir().join("d/03")).unwrap(), vec![3; 10_000]);
    succeeds(&Command::new("umount").arg(place.dir()).output().unwrap());
    assert!(!place.is_mounted());
}

#[test]
fn stats_info_and_prefetch_ask_the_mount() {
    let Some(place) = Place::new("stats_info_and_prefetch") else {
        return;
    };
    succeeds(&place.mount(&place.options("")));
    let file = place.dir().join("d/05");
    fs::read(&file).unwrap();

    let text = succeeds(&millpond(&["stats", "--json", "--count", "2"], &file));
    let lines: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 2);
    assert!(
        lines[0]["resident_bytes"].as_u64().unwrap() > 1 << 20,
        "{text}"
    );
    let text = succeeds(&millpond(&["stats", "--count", "1"], &place.dir()));
    assert!(
        text.contains("ops/s") && text.lines().count() == 2,
        "{text}"
    );

    let info = succeeds(&millpond(&["info", "-o", "json"], &file));
    let info: Value = serde_json::from_str(&info).unwrap();
    assert_eq!(
        (&info["size"], &info["block_count"]),
        (&10_000.into(), &1.into())
    );
    assert_eq!(info["path"], "/d/05");
    assert_eq!(info["blocks"][0]["here"], "memory", "{info}");
    assert!(
        info["version"].as_str().unwrap().starts_with("local:"),
        "{info}"
    );
    let text = succeeds(&millpond(&["info"], &place.dir().join("d")));
    assert!(text.contains("directory"), "{text}");

    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: hints need CAP_SYS_ADMIN");
        return;
    }
    let stats = || -> Value {
        let text = fs::read(place.dir().join(".millpond/stats")).unwrap();
        serde_json::from_slice(&text).unwrap()
    };
    wait_for("the mount to take hints", || {
        millpond(&["fs", "prefetch"], &place.dir().join("d"))
            .status
            .success()
    });
    wait_for("the files", || {
        stats()["client"]["prefetch"]["files"].as_u64() >= Some(19)
    });
    let list = place.root().join("list");
    fs::write(&list, "d/01\nd/02\n").unwrap();
    let list = list.to_str().unwrap();
    succeeds(&millpond(&["fs", "prefetch", "--list", list], &place.dir()));
    wait_for("the list", || stats()["client"]["prefetch"]["entries"] == 2);
}

#[test]
fn a_mount_of_one_store_is_refreshed() {
    let Some(place) = Place::new("a_mount_of_one_store_is_refreshed") else {
        return;
    };
    succeeds(&place.mount(&place.options(",metadata=immutable")));
    let text = succeeds(&millpond(&["status"], &place.dir()));
    assert!(text.contains("off: there is no cache directory"), "{text}");
    assert!(text.contains("immutable"), "{text}");
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: refresh needs CAP_SYS_ADMIN");
        return;
    }
    let file = place.dir().join("d/01");
    let new = place.dir().join("d/new");
    assert_eq!(fs::read(&file).unwrap().len(), 10_000);
    assert_eq!(fs::read_dir(place.dir().join("d")).unwrap().count(), 20);
    fs::write(place.store().join("d/01"), "changed").unwrap();
    fs::write(place.store().join("d/new"), "new").unwrap();
    assert_eq!(fs::metadata(&file).unwrap().len(), 10_000);
    wait_for("the mount to take changes", || {
        let text = fs::read(place.dir().join(".millpond/config")).unwrap();
        let config: Value = serde_json::from_slice(&text).unwrap();
        config["takes_hints"] == true
    });
    let text = succeeds(&millpond(&["fs", "refresh"], &file));
    assert!(text.contains("asks the store again"), "{text}");
    wait_for("the change", || fs::read(&file).unwrap() == b"changed");
    // Nothing was there when the mount looked last.
    succeeds(&millpond(&["fs", "refresh"], &new));
    wait_for("the new file", || fs::read(&new).is_ok_and(|b| b == b"new"));
    fs::write(place.store().join("d/02"), "changed, too").unwrap();
    let text = succeeds(&millpond(
        &["fs", "refresh", "-r", "-o", "json"],
        &place.dir(),
    ));
    let report: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(report["recursive"], true);
    let file = place.dir().join("d/02");
    wait_for("all of it", || fs::read(&file).unwrap() == b"changed, too");
}

#[test]
fn what_is_on_no_mount_is_said_to_be_so() {
    let temp = tempfile::tempdir().unwrap();
    let output = millpond(&["stats"], temp.path());
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("no mount of millpond"), "{stderr}");
}
