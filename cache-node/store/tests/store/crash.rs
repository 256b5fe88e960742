//! Killed at any point, a directory opens again and holds only right bytes.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use millpond_store::{DiskConfig, DiskTier};

use super::support::{assert_right, block, block_files, disk_usage, id};

const ROOM: u64 = 4 << 20;
const DIR: &str = "MILLPOND_TEST_CRASH_DIR";

fn len(index: u64) -> usize {
    20_000 + (index as usize * 7919) % 300_000
}

/// What the child process runs: it never ends by itself.
#[test]
#[ignore = "runs as the child of another test"]
fn child_inserts_until_killed() {
    let Some(dir) = std::env::var_os(DIR) else {
        return;
    };
    let config = DiskConfig::new(PathBuf::from(dir), ROOM, None);
    let tier = DiskTier::open(config).unwrap();
    let threads: Vec<_> = (0..3u64)
        .map(|worker| {
            let tier = tier.clone();
            std::thread::spawn(move || {
                for index in 0u64.. {
                    let id = id((index % 50) as u8, worker * 1000 + index % 40);
                    tier.write_blocking(id, &block(&id, len(id.index)));
                    if index % 3 == 0 {
                        tier.remove(&id);
                    }
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
}

/// Kills the child whatever happens to the test.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn whatever_survives_a_kill_is_right() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("blocks");
    let mut survived = 0;
    for round in 0..6u64 {
        let mut child = Killed(
            Command::new(std::env::current_exe().unwrap())
                .args([
                    "--ignored",
                    "--exact",
                    "store::crash::child_inserts_until_killed",
                ])
                .env(DIR, &path)
                .stdout(Stdio::null())
                .spawn()
                .unwrap(),
        );
        // Long enough that it writes and evicts; a little later each time.
        let deadline = Instant::now() + Duration::from_secs(30);
        while block_files(&path).len() < 4 + round as usize * 2 {
            assert!(
                child.0.try_wait().unwrap().is_none(),
                "the child ended early"
            );
            assert!(Instant::now() < deadline, "the child writes nothing");
            std::thread::yield_now();
        }
        drop(child);

        assert!(disk_usage(&path) <= ROOM, "round {round}");
        let tier = DiskTier::open(DiskConfig::new(path.clone(), ROOM, None)).unwrap();
        assert_eq!(
            disk_usage(&path),
            tier.used(),
            "nothing half-written is left"
        );
        for file in block_files(&path) {
            let name = file.file_name().unwrap().to_str().unwrap();
            let id: millpond_proto::BlockId = name.parse().unwrap();
            let len = len(id.index);
            let hit = tier.read_blocking(&id, 0, len as u32).unwrap();
            assert_right(&hit, &id, len, 0);
            survived += 1;
        }
    }
    assert!(survived > 0, "nothing ever survived");
}
