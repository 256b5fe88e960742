//! A place to mount, for tests that run the program.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use millpond_fuse::{mountinfo, preflight};
use tempfile::TempDir;

pub(crate) const MILLPOND: &str = env!("CARGO_BIN_EXE_millpond");

/// A store of a few files, a place to mount it, and the helper by its name. Unmounts when it
/// goes.
pub(crate) struct Place {
    temp: TempDir,
}

impl Place {
    pub(crate) fn new(test: &str) -> Option<Self> {
        if let Err(why) = preflight::check_right() {
            let required = std::env::var_os("MILLPOND_REQUIRE_FUSE").is_some_and(|v| v == "1");
            assert!(!required, "MILLPOND_REQUIRE_FUSE=1, but: {why}");
            eprintln!("SKIPPED: {test}: {why}");
            return None;
        }
        let temp = tempfile::tempdir().unwrap();
        let place = Self { temp };
        fs::create_dir(place.dir()).unwrap();
        fs::create_dir_all(place.store().join("d")).unwrap();
        for n in 0..20 {
            let content = vec![n; 10_000];
            fs::write(place.store().join(format!("d/{n:02}")), content).unwrap();
        }
        symlink(MILLPOND, place.helper()).unwrap();
        Some(place)
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.temp.path().canonicalize().unwrap()
    }

    pub(crate) fn dir(&self) -> PathBuf {
        self.root().join("mnt")
    }

    pub(crate) fn store(&self) -> PathBuf {
        self.root().join("store")
    }

    pub(crate) fn helper(&self) -> PathBuf {
        self.root().join("mount.fuse.millpond")
    }

    pub(crate) fn uri(&self) -> String {
        format!("file://{}", self.store().display())
    }

    /// Options of a mount that leaves nothing outside of the temporary directory.
    pub(crate) fn options(&self, more: &str) -> String {
        format!("rw,state_dir={}{more}", self.root().join("state").display())
    }

    pub(crate) fn mount(&self, options: &str) -> Output {
        let mut helper = Command::new(self.helper());
        helper.arg(self.uri()).arg(self.dir()).args(["-o", options]);
        helper.output().unwrap()
    }

    pub(crate) fn is_mounted(&self) -> bool {
        mountinfo::mount_at(&self.dir()).unwrap().is_some()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let dir = self.dir();
        let _ = Command::new(MILLPOND)
            .arg("umount")
            .arg("--lazy")
            .arg(&dir)
            .output();
    }
}

pub(crate) fn succeeds(output: &Output) -> String {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub(crate) fn millpond(args: &[&str], path: &Path) -> Output {
    Command::new(MILLPOND)
        .args(args)
        .arg(path)
        .output()
        .unwrap()
}

pub(crate) fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !condition() {
        assert!(Instant::now() < deadline, "waited 30 s for: {what}");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}
