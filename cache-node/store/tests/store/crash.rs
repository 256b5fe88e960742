//! Killed at any point, a directory opens again and holds only right bytes.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use millpond_store::{DiskConfig, DiskTier, Policy, Scrub, Store, StoreConfig};

use super::support::{assert_accounted, assert_right, block, block_files, disk_usage, id};

const ROOM: u64 = 4 << 20;
const DIR: &str = "MILLPOND_TEST_CRASH_DIR";

/// How often the child is killed, where that is not set: enough to find what happens often.
const ROUNDS: &str = "MILLPOND_TEST_CRASH_ROUNDS";
const FEW: u64 = 8;

const FILES: u8 = 50;
const WORKERS: u64 = 3;
const BLOCKS: u64 = 40;

fn len(index: u64) -> usize {
    20_000 + (index as usize * 7919) % 300_000
}

/// What the child process runs: it never ends by itself.
#[tokio::test]
#[ignore = "runs as the child of another test"]
async fn child_inserts_until_killed() {
    let Some(dir) = std::env::var_os(DIR) else {
        return;
    };
    let config = StoreConfig {
        write_buffer: 2 << 20,
        scrub: Scrub {
            rate: 1 << 40,
            first: Duration::ZERO,
            every: Duration::from_millis(50),
        },
        ..StoreConfig::new(0, Some((PathBuf::from(dir), ROOM)), None)
    };
    let store = Store::open(config).await.unwrap();
    let worker = |worker: u64| {
        let store = &store;
        async move {
            for step in 0u64.. {
                let id = id(
                    (step % u64::from(FILES)) as u8,
                    worker * 1000 + step % BLOCKS,
                );
                let policy = match step % 4 {
                    0 => Policy::Hold,
                    _ => Policy::ScanResistant,
                };
                let block = block(&id, len(id.index)).under(policy);
                let inserted = store.insert(id, block).await;
                match step % 5 {
                    0 => drop(inserted.on_disk().await),
                    1 => store.remove(&id).await,
                    _ => {}
                }
                if let Some(hit) = store.read(&id, 0, len(id.index) as u32).await {
                    assert_right(&hit, &id, len(id.index), 0);
                }
            }
        }
    };
    futures::future::join_all((0..WORKERS).map(worker)).await;
}

/// Kills the child whatever happens to the test.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts the child and kills it after it has done something, and `more` looks at what.
fn run_and_kill(dir: &Path, more: u64) {
    let child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--ignored",
            "--exact",
            "store::crash::child_inserts_until_killed",
        ])
        .env(DIR, dir)
        .stdout(Stdio::null())
        .spawn();
    let mut child = Killed(child.unwrap());
    let deadline = Instant::now() + Duration::from_secs(120);
    let before = block_files(dir);
    let mut more = more;
    // Until it writes, and then for a while that nobody has chosen.
    while more > 0 {
        if block_files(dir) != before {
            more -= 1;
        }
        let ended = child.0.try_wait().unwrap();
        assert!(
            ended.is_none(),
            "the child ended early: it read wrong bytes?"
        );
        assert!(Instant::now() < deadline, "the child writes nothing");
        std::thread::yield_now();
    }
}

#[test]
fn whatever_survives_a_kill_is_right() {
    let rounds = std::env::var_os(ROUNDS).map_or(FEW, |n| n.to_str().unwrap().parse().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("blocks");
    let mut survived = 0;
    let mut chance = u64::from(std::process::id()) | 1;
    for round in 0..rounds {
        chance = chance
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let more = 1 + (chance >> 33) % 200;
        run_and_kill(&path, more);
        let told = format!("round {round}, killed after {more} looks");

        assert!(disk_usage(&path) <= ROOM, "{told}");
        let tier = DiskTier::open(DiskConfig::new(path.clone(), ROOM, None)).unwrap();
        assert_eq!(
            disk_usage(&path),
            tier.used(),
            "{told}: something half-written is left"
        );
        assert_accounted(&tier.stats(), 0);
        for file in block_files(&path) {
            let name = file.file_name().unwrap().to_str().unwrap();
            let id: millpond_proto::BlockId = name.parse().unwrap();
            let len = len(id.index);
            let Some(hit) = tier.read_blocking(&id, 0, len as u32) else {
                panic!("{told}: {id} is damaged");
            };
            assert_right(&hit, &id, len, 0);
            survived += 1;
        }
        // And nothing else is served than what has a file.
        for file in 0..FILES {
            for index in 0..WORKERS * 1000 {
                let id = id(file, index);
                if tier.contains(&id) {
                    let hit = tier.read_blocking(&id, 0, len(index) as u32).unwrap();
                    assert_right(&hit, &id, len(index), 0);
                }
            }
        }
        assert_eq!(tier.stats().corrupt, 0, "{told}");
    }
    assert!(survived > 0, "nothing ever survived");
}
