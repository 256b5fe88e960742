//! What the kernel keeps, and when it lets go of it; what waits for what.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use millpond_fuse::{MountOptions, Unmounted};
use millpond_s3_fixture::{Op, S3Fixture};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::{Rig, local, memory, pattern, wait_for};

const MIB: usize = 1 << 20;

/// The kernel asks at each open, or opens by itself.
const OPENS: [bool; 2] = [false, true];

fn rig(uri: &str, kernel_opens: bool) -> Option<Rig> {
    Rig::with(uri, BTreeMap::new(), |options| {
        options.kernel_opens = kernel_opens;
    })
}

#[test]
fn pages_of_an_unchanged_file_stay_in_the_kernel() {
    OPENS.into_iter().for_each(pages_stay);
}

fn pages_stay(kernel_opens: bool) {
    let (store, uri) = memory();
    let data = pattern(1, 2 * MIB);
    store.put("f", data.clone());
    let Some(rig) = rig(&uri, kernel_opens) else {
        return;
    };
    assert!(std::fs::read(rig.path("f")).unwrap() == data);
    let reads = rig.mounted().stats().reads;
    assert!(reads > 0);
    for _ in 0..3 {
        // Past the TTL, so that attributes are asked for again.
        std::thread::park_timeout(crate::support::TTL * 3);
        assert!(std::fs::read(rig.path("f")).unwrap() == data);
    }
    assert_eq!(rig.mounted().stats().reads, reads);
}

#[test]
fn a_changed_file_shows_its_new_bytes_whole() {
    OPENS.into_iter().for_each(changes);
}

fn changes(kernel_opens: bool) {
    let (store, uri) = memory();
    store.put("f", pattern(0, MIB));
    let Some(rig) = rig(&uri, kernel_opens) else {
        return;
    };
    let path = rig.path("f");
    let ino = std::fs::metadata(&path).unwrap().ino();
    // Longer, shorter, and of equal length.
    for (seed, len) in [(1, 3 * MIB), (2, MIB / 2), (3, MIB / 2), (4, 0), (5, MIB)] {
        let before = std::fs::read(&path).unwrap();
        let after = pattern(seed, len);
        store.put("f", after.clone());
        wait_for("the new version", || {
            // A read that met the change half way fails, it does not mix.
            let Ok(seen) = std::fs::read(&path) else {
                return false;
            };
            assert!(seen == before || seen == after, "a mix of two versions");
            seen == after
        });
        assert_eq!(std::fs::metadata(&path).unwrap().len(), len as u64);
    }
    if !kernel_opens {
        wait_for("the number that the path had", || {
            std::fs::metadata(&path).unwrap().ino() == ino
        });
    }
}

#[test]
fn opening_a_known_file_costs_no_request_where_the_kernel_opens() {
    let (store, uri) = memory();
    let data = pattern(1, 100_000);
    store.put("d/f", data.clone());
    let Some(rig) = Rig::with(&uri, believed_for_long(), |options| {
        options.kernel_opens = true;
    }) else {
        return;
    };
    assert!(std::fs::read(rig.path("d/f")).unwrap() == data);
    // The first read's own requests are counted just after they are answered.
    wait_for("opening without a request", || {
        let requests = rig.mounted().stats().requests;
        for _ in 0..100 {
            assert!(std::fs::read(rig.path("d/f")).unwrap() == data);
        }
        rig.mounted().stats().requests == requests
    });
    // It was read to its end: nothing is held for it.
    assert_eq!(rig.mounted().stats().open_files, 0);
}

/// The name is believed for an hour: only the failed read can tell it better.
#[test]
fn a_read_that_finds_its_version_gone_makes_the_next_open_see_the_new_one() {
    let (dir, uri) = local();
    let (old, new) = (pattern(1, 3 * MIB), pattern(2, 2 * MIB));
    std::fs::write(dir.path().join("f"), &old).unwrap();
    let Some(rig) = Rig::with(&uri, believed_for_long(), |options| {
        options.kernel_opens = true;
    }) else {
        return;
    };
    let reader = File::open(rig.path("f")).unwrap();
    let aside = dir.path().join("aside");
    std::fs::write(&aside, &new).unwrap();
    std::fs::rename(&aside, dir.path().join("f")).unwrap();
    // Past what the client believes.
    std::thread::park_timeout(crate::support::TTL * 3);
    let mut some = vec![0; 1000];
    let error = reader.read_exact_at(&mut some, 0).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ESTALE));
    assert_eq!(reader.metadata().unwrap().len(), old.len() as u64);
    wait_for("the new version", || {
        std::fs::read(rig.path("f")).is_ok_and(|seen| seen == new)
    });
}

#[test]
fn a_file_that_is_gone_is_stale_to_its_reader_and_absent_to_others() {
    let (store, uri) = memory();
    store.put("f", pattern(1, MIB));
    let Some(rig) = Rig::with(&uri, believed_for_long(), |options| {
        options.kernel_opens = true;
    }) else {
        return;
    };
    let reader = File::open(rig.path("f")).unwrap();
    store.delete("f");
    std::thread::park_timeout(crate::support::TTL * 3);
    let error = reader.read_exact_at(&mut [0; 100], 0).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ESTALE));
    wait_for("the name to go", || !rig.path("f").exists());
}

#[test]
fn a_reader_keeps_its_version_while_others_see_the_new_one() {
    OPENS.into_iter().for_each(reader_keeps_its_version);
}

fn reader_keeps_its_version(kernel_opens: bool) {
    let (dir, uri) = local();
    let (old, new) = (pattern(1, 2 * MIB), pattern(2, 3 * MIB));
    std::fs::write(dir.path().join("f"), &old).unwrap();
    let Some(rig) = rig(&uri, kernel_opens) else {
        return;
    };
    let path = rig.path("f");
    let reader = File::open(&path).unwrap();
    let ino = reader.metadata().unwrap().ino();
    let mut half = vec![0; MIB];
    reader.read_exact_at(&mut half, 0).unwrap();
    assert!(half == old[..MIB]);

    let aside = dir.path().join("aside");
    std::fs::write(&aside, &new).unwrap();
    std::fs::rename(&aside, dir.path().join("f")).unwrap();
    wait_for("the new version", || {
        std::fs::read(&path).is_ok_and(|seen| seen == new)
    });

    // The reader has its attributes, its pages, and for the rest its bytes or an error.
    let held = reader.metadata().unwrap();
    assert_eq!((held.len(), held.ino()), (old.len() as u64, ino));
    reader.read_exact_at(&mut half, 0).unwrap();
    assert!(half == old[..MIB]);
    match reader.read_exact_at(&mut half, MIB as u64) {
        Ok(()) => assert!(half == old[MIB..]),
        Err(error) => assert_eq!(error.raw_os_error(), Some(libc::ESTALE)),
    }
    // A file replaced while open is another file, as anywhere.
    let second = File::open(&path).unwrap();
    assert_ne!(second.metadata().unwrap().ino(), ino);
    let mut all = vec![0; new.len()];
    second.read_exact_at(&mut all, 0).unwrap();
    assert!(all == new);
    drop(reader);
    assert!(std::fs::read(&path).unwrap() == new);
}

#[test]
fn a_slow_read_delays_no_stat() {
    let fixture_runtime = tokio::runtime::Runtime::new().unwrap();
    let s3 = fixture_runtime.block_on(S3Fixture::start());
    s3.create_bucket("data");
    s3.put("data", "slow", pattern(1, 4 * MIB));
    s3.put("data", "quick", pattern(2, 100));
    let one_thread = |options: &mut MountOptions| options.threads = 1;
    let Some(rig) = Rig::with("s3://data", s3.options(), one_thread) else {
        return;
    };
    let slow = File::open(rig.path("slow")).unwrap();
    let gate = s3.faults().hold(Some(Op::Get));
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut got = vec![0; 1000];
            slow.read_exact_at(&mut got, 0).unwrap();
            got
        });
        wait_for("the read to arrive at the store", || gate.waiting() > 0);
        // The only fuser thread answers these, with the store and without.
        let stats = scope.spawn(|| {
            for _ in 0..20 {
                std::thread::park_timeout(crate::support::TTL / 4);
                assert_eq!(slow.metadata().unwrap().len(), 4 * MIB as u64);
                assert_eq!(std::fs::metadata(rig.path("quick")).unwrap().len(), 100);
                assert!(!rig.path("missing").exists());
            }
        });
        let deadline = Instant::now() + Duration::from_secs(20);
        while !stats.is_finished() && Instant::now() < deadline {
            std::thread::park_timeout(Duration::from_millis(10));
        }
        let (in_time, read_hung) = (stats.is_finished(), !reader.is_finished());
        gate.release();
        assert!(in_time, "stat waited for the read");
        assert!(read_hung, "the read was not slow");
        assert!(reader.join().unwrap() == pattern(1, 4 * MIB)[..1000]);
    });
    drop(slow);
    drop(rig);
    fixture_runtime.block_on(s3.shutdown());
}

/// Mount options by which names and attributes are believed for longer than any test runs.
fn believed_for_long() -> BTreeMap<String, String> {
    [("metadata_ttl".to_owned(), "1h".to_owned())].into()
}

/// Nothing but what must come from the store waits for it.
#[test]
fn a_store_that_hangs_holds_up_nothing_that_is_known() {
    OPENS.into_iter().for_each(hanging_store);
}

fn hanging_store(kernel_opens: bool) {
    let fixture_runtime = tokio::runtime::Runtime::new().unwrap();
    let s3 = fixture_runtime.block_on(S3Fixture::start());
    s3.create_bucket("data");
    s3.put("data", "d/known", pattern(1, 1000));
    s3.put("data", "d/other", pattern(2, 1000));
    let mut store = s3.options();
    store.extend(believed_for_long());
    let Some(mut rig) = Rig::with("s3://data", store, |options| {
        options.kernel_opens = kernel_opens;
        options.threads = 1;
    }) else {
        return;
    };
    let (known, other) = (rig.path("d/known"), rig.path("d/other"));
    assert!(std::fs::read(&known).unwrap() == pattern(1, 1000));
    let other = File::open(other).unwrap();
    let gate = s3.faults().hold(None);
    let mounted = rig.mounted.take().unwrap();
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| other.read_exact_at(&mut [0; 1000], 0));
        wait_for("the read to arrive at the store", || gate.waiting() > 0);
        let (dir, runtime) = (rig.dir(), &rig.runtime);
        let rest = scope.spawn(|| {
            assert!(nix::sys::statvfs::statvfs(dir).is_ok());
            assert_eq!(std::fs::metadata(&known).unwrap().len(), 1000);
            assert!(std::fs::read(&known).unwrap() == pattern(1, 1000));
            runtime.block_on(mounted.unmount()).unwrap()
        });
        let deadline = Instant::now() + Duration::from_secs(20);
        while !rest.is_finished() && Instant::now() < deadline {
            std::thread::park_timeout(Duration::from_millis(10));
        }
        let (in_time, read_hung) = (rest.is_finished(), !reader.is_finished());
        gate.release();
        assert!(in_time, "something waited for the store");
        assert!(read_hung, "the store did not hang");
        assert_eq!(rest.join().unwrap(), Unmounted::Lazy);
        reader.join().unwrap().unwrap();
    });
    drop(other);
    drop(rig);
    fixture_runtime.block_on(s3.shutdown());
}

/// Whoever waits for a read can be ended at once, whatever the store does.
#[test]
fn a_reader_of_a_store_that_hangs_can_be_ended() {
    OPENS.into_iter().for_each(ending_a_reader);
}

fn ending_a_reader(kernel_opens: bool) {
    let fixture_runtime = tokio::runtime::Runtime::new().unwrap();
    let s3 = fixture_runtime.block_on(S3Fixture::start());
    s3.create_bucket("data");
    // Not SIGINT: what a shell starts in the background ignores it, these tests perhaps too.
    let signals = [Signal::SIGUSR1, Signal::SIGTERM, Signal::SIGKILL];
    for signal in signals {
        s3.put("data", signal.as_str(), pattern(1, 4 * MIB));
    }
    let mut store = s3.options();
    store.extend(believed_for_long());
    let Some(rig) = Rig::with("s3://data", store, |options| {
        options.kernel_opens = kernel_opens;
    }) else {
        return;
    };
    for signal in signals {
        // One that nobody read yet.
        let path = rig.path(signal.as_str());
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 4 * MIB as u64);
        let gate = s3.faults().hold(Some(Op::Get));
        let mut reader = Command::new("cat");
        let mut reader = reader.arg(&path).stdout(Stdio::null()).spawn().unwrap();
        wait_for("the read to arrive at the store", || gate.waiting() > 0);
        let pid = Pid::from_raw(i32::try_from(reader.id()).unwrap());
        kill(pid, signal).unwrap();
        let deadline = Instant::now() + Duration::from_secs(20);
        let mut ended = None;
        while ended.is_none() && Instant::now() < deadline {
            std::thread::park_timeout(Duration::from_millis(10));
            ended = reader.try_wait().unwrap();
        }
        gate.release();
        let status = reader.wait().unwrap();
        assert_eq!(ended, Some(status), "it waited for the store");
        assert_eq!(status.signal(), Some(signal as i32));
        assert!(std::fs::read(&path).unwrap() == pattern(1, 4 * MIB));
    }
    drop(rig);
    fixture_runtime.block_on(s3.shutdown());
}
