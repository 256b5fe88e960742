//! Mounts whose processes end as they should not, and what is left of them.
//!
//! Skipped with a line that says so where nothing can be mounted, unless
//! `MILLPOND_REQUIRE_FUSE=1`.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should fail")]
#![allow(clippy::print_stderr, reason = "a skipped test is told")]
#![allow(dead_code, reason = "support is shared")]

#[path = "support/place.rs"]
mod place;

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::ops::Deref;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use place::{MILLPOND, Place, millpond, succeeds, wait_for};

/// A place whose processes end with it.
struct Scene(Place);

impl Scene {
    fn new(test: &str) -> Option<Self> {
        Place::new(test).map(Self)
    }

    /// A mount in the foreground, once it is up.
    fn foreground(&self) -> Child {
        let mut child = Command::new(MILLPOND)
            .arg("mount")
            .args([Path::new(&self.uri()), &self.dir()])
            .arg("--state-dir")
            .arg(self.root().join("state"))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let stdout = child.stdout.take().unwrap();
        BufReader::new(stdout).read_line(&mut line).unwrap();
        assert!(line.contains("mnt"), "{line}");
        child
    }

    /// A mount that was killed.
    fn kill_one(&self) {
        let mut child = self.foreground();
        child.kill().unwrap();
        wait_for("the killed mount to end", || {
            child.try_wait().unwrap().is_some()
        });
        self.assert_dead();
    }

    fn assert_dead(&self) {
        assert!(self.is_mounted());
        let error = fs::metadata(self.dir().join("d")).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOTCONN), "{error}");
    }

    fn assert_reads(&self) {
        assert!(self.can_read());
    }

    fn can_read(&self) -> bool {
        fs::read(self.dir().join("d/07")).is_ok_and(|content| content == vec![7; 10_000])
    }

    /// The processes of mounts here that were started with `flag`.
    fn processes(&self, flag: &str) -> Vec<Pid> {
        let dir = self.root().to_str().unwrap().to_owned();
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let Some(pid) = entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse().ok())
            else {
                continue;
            };
            let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line);
            if line.contains(&dir) && line.split('\0').any(|argument| argument.starts_with(flag)) {
                found.push(Pid::from_raw(pid));
            }
        }
        found
    }

    fn the_process(&self, flag: &str) -> Pid {
        let found = self.processes(flag);
        assert_eq!(found.len(), 1, "{flag}: {found:?}");
        found[0]
    }

    fn wait_for_the_end(&self) {
        wait_for("all processes to end", || {
            self.processes("mount").is_empty()
        });
    }
}

impl Deref for Scene {
    type Target = Place;

    fn deref(&self) -> &Place {
        &self.0
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        // The supervisors first, so that they start nothing again.
        for flag in ["--detached", "mount"] {
            for process in self.processes(flag) {
                let _ = kill(process, Signal::SIGKILL);
            }
        }
    }
}

#[test]
fn a_mount_in_the_background_that_is_killed_is_made_again() {
    let Some(scene) = Scene::new("a_mount_in_the_background_that_is_killed") else {
        return;
    };
    succeeds(&scene.mount(&scene.options("")));
    for signal in [Signal::SIGKILL, Signal::SIGABRT] {
        let before = scene.the_process("--supervised");
        kill(before, signal).unwrap();
        wait_for("the mount to be made again", || {
            let is_another = matches!(scene.processes("--supervised")[..], [now] if now != before);
            // The kernel may have the file still, but it never opens a directory by itself.
            is_another && fs::read_dir(scene.dir()).is_ok() && scene.can_read()
        });
    }
    succeeds(&millpond(&["umount"], &scene.dir()));
    scene.wait_for_the_end();
    assert!(!scene.is_mounted());
}

#[test]
fn a_mount_that_is_taken_away_after_its_end_is_not_made_again() {
    let Some(scene) = Scene::new("a_mount_that_is_taken_away_after_its_end") else {
        return;
    };
    succeeds(&scene.mount(&scene.options("")));
    let supervisor = scene.the_process("--detached");
    kill(supervisor, Signal::SIGSTOP).unwrap();
    kill(scene.the_process("--supervised"), Signal::SIGKILL).unwrap();
    wait_for("the mount to die", || !scene.can_read());
    succeeds(&millpond(&["umount"], &scene.dir()));
    kill(supervisor, Signal::SIGCONT).unwrap();
    scene.wait_for_the_end();
    assert!(!scene.is_mounted());
}

#[test]
fn signals_to_the_supervisor_end_the_mount() {
    let Some(scene) = Scene::new("signals_to_the_supervisor") else {
        return;
    };
    succeeds(&scene.mount(&scene.options("")));
    kill(scene.the_process("--detached"), Signal::SIGTERM).unwrap();
    scene.wait_for_the_end();
    assert!(!scene.is_mounted());
}

#[test]
fn a_mount_goes_on_without_its_supervisor_and_ends_in_order() {
    let Some(scene) = Scene::new("a_mount_goes_on_without_its_supervisor") else {
        return;
    };
    succeeds(&scene.mount(&scene.options("")));
    kill(scene.the_process("--detached"), Signal::SIGKILL).unwrap();
    wait_for("the supervisor to end", || {
        scene.processes("--detached").is_empty()
    });
    scene.assert_reads();
    succeeds(&millpond(&["umount"], &scene.dir()));
    scene.wait_for_the_end();
}

#[test]
fn the_next_mount_takes_a_dead_one_away() {
    let Some(scene) = Scene::new("the_next_mount_takes_a_dead_one_away") else {
        return;
    };
    // In the foreground, and from the table of mounts.
    scene.kill_one();
    scene.kill_one();
    succeeds(&scene.mount(&scene.options("")));
    scene.assert_reads();
    succeeds(&millpond(&["umount"], &scene.dir()));
    assert!(!scene.is_mounted(), "there was one mount, not several");

    // Through a link.
    scene.kill_one();
    let link = scene.root().join("link");
    symlink(scene.dir(), &link).unwrap();
    let state = scene.root().join("state");
    let state = state.to_str().unwrap();
    let uri = scene.uri();
    let args = ["mount", "--background", "--state-dir", state, &uri];
    succeeds(&millpond(&args, &link));
    scene.assert_reads();
    succeeds(&millpond(&["umount"], &link));
    assert!(!scene.is_mounted());
}

#[test]
fn a_dead_mount_can_be_taken_away() {
    let Some(scene) = Scene::new("a_dead_mount_can_be_taken_away") else {
        return;
    };
    for how in [
        &["umount"][..],
        &["umount", "--lazy"],
        &["umount", "--force"],
    ] {
        scene.kill_one();
        succeeds(&millpond(how, &scene.dir()));
        assert!(!scene.is_mounted());
        assert_eq!(fs::read_dir(scene.dir()).unwrap().count(), 0);
    }
}

#[test]
fn a_second_mount_at_one_place_is_refused() {
    let Some(scene) = Scene::new("a_second_mount_at_one_place") else {
        return;
    };
    let mut first = scene.foreground();
    let uri = scene.uri();
    for flags in [&[][..], &["--background"]] {
        let args = [&["mount"][..], flags, &[&uri]].concat();
        let output = millpond(&args, &scene.dir());
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        assert!(stderr.contains("is a mount point already"), "{stderr}");
    }
    scene.assert_reads();
    kill(Pid::from_raw(first.id() as i32), Signal::SIGTERM).unwrap();
    assert!(first.wait().unwrap().success());
}

#[test]
fn signals_end_a_mount_in_order() {
    let Some(scene) = Scene::new("signals_end_a_mount_in_order") else {
        return;
    };
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        if signal == Signal::SIGHUP && ignores_hangup() {
            eprintln!("SKIPPED: SIGHUP is ignored here, as by nohup, and then by mounts as well");
            continue;
        }
        let mut child = scene.foreground();
        scene.assert_reads();
        kill(Pid::from_raw(child.id() as i32), signal).unwrap();
        let status = child.wait().unwrap();
        assert!(status.success(), "{signal}: {status}");
        assert!(!scene.is_mounted(), "{signal}");
    }
}

fn ignores_hangup() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    u64::from_str_radix(ignored.unwrap().trim(), 16).unwrap() & 1 == 1
}

#[test]
fn a_cluster_that_is_not_there_is_named_and_nothing_is_mounted() {
    let Some(scene) = Scene::new("a_cluster_that_is_not_there") else {
        return;
    };
    let options = scene.options("");
    let mut helper = Command::new(scene.helper());
    helper.arg("127.0.0.1:1/data").arg(scene.dir());
    let output = helper.args(["-o", &options]).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("127.0.0.1:1"), "{stderr}");
    assert!(!scene.is_mounted());
    assert!(scene.processes("mount").is_empty());
}
