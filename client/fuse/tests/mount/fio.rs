//! `fio --verify`: what fio wrote to a local directory, each 4 KiB with a checksum and the place
//! where it belongs, is read through a mount of that directory and verified by fio.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Output};

use millpond_fuse::MountOptions;

use crate::support::{Rig, local, skip};

/// Two files, as fio names them for two jobs.
const JOB: [&str; 6] = [
    "--name=v",
    "--numjobs=2",
    "--size=12m",
    "--verify=crc32c",
    "--verify_interval=4096",
    "--filename_format=v.$jobnum",
];

const READS: [&[&str]; 6] = [
    &["--ioengine=psync", "--rw=read", "--bs=128k"],
    &["--ioengine=psync", "--rw=randread", "--bs=4k"],
    &["--ioengine=psync", "--rw=read", "--bs=1m", "--direct=1"],
    &["--ioengine=psync", "--rw=randread", "--bs=4k", "--direct=1"],
    &["--ioengine=mmap", "--rw=read", "--bs=64k"],
    &["--ioengine=mmap", "--rw=randread", "--bs=4k"],
];

fn fio(dir: &Path, more: &[&str]) -> Output {
    let mut fio = Command::new("fio");
    // It leaves a file about its state where it runs.
    fio.args(JOB).args(more).current_dir(std::env::temp_dir());
    fio.arg(format!("--directory={}", dir.display()));
    fio.output().unwrap()
}

fn verify(dir: &Path, how: &[&str]) -> Output {
    let careful = [
        "--readonly",
        "--allow_file_create=0",
        "--verify_fatal=1",
        "--verify_state_load=0",
        "--verify_state_save=0",
    ];
    fio(dir, &[&careful, how].concat())
}

fn verified(cache: Option<&Path>, adjust: impl FnOnce(&mut MountOptions)) {
    if Command::new("fio").arg("--version").output().is_err() {
        return skip("there is no fio");
    }
    let (dir, uri) = local();
    let write = [
        "--rw=write",
        "--bs=64k",
        "--do_verify=0",
        "--verify_state_save=0",
    ];
    let written = fio(dir.path(), &write);
    assert!(written.status.success(), "{written:?}");
    let disk = cache.map(|dir| (dir.to_owned(), 64 << 20));
    let Some(rig) = Rig::with_client(
        &uri,
        BTreeMap::new(),
        |client| {
            // Less than the files.
            client.memory = 8 << 20;
            client.disk = disk;
        },
        adjust,
    ) else {
        return;
    };
    // The second time from what was kept.
    for how in READS.iter().chain(&READS) {
        let read = verify(rig.dir(), how);
        assert!(read.status.success(), "{how:?}: {read:?}");
    }
    // It would be noticed.
    let mut bytes = std::fs::read(dir.path().join("v.1")).unwrap();
    bytes[5_000_000] ^= 1;
    std::fs::write(dir.path().join("v.1"), bytes).unwrap();
    std::thread::park_timeout(crate::support::TTL * 3);
    for how in [READS[0], READS[5]] {
        let read = verify(rig.dir(), how);
        assert!(!read.status.success(), "{how:?}: {read:?}");
    }
}

#[test]
fn fio_finds_what_it_wrote() {
    verified(None, |_| {});
}

#[test]
fn fio_finds_what_it_wrote_where_the_kernel_opens_files() {
    verified(None, |options| options.kernel_opens = true);
}

#[test]
fn fio_finds_what_it_wrote_in_a_local_disk_tier() {
    let cache = tempfile::tempdir().unwrap();
    verified(Some(cache.path()), |_| {});
}
