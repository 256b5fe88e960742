//! Every byte, in every way of reading.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;

use crate::support::{Rig, local, memory, pattern};

const BLOCK: usize = 4 << 20;

/// The sizes at which something ends or begins.
fn sizes() -> [usize; 9] {
    [
        0,
        1,
        511,
        4096,
        65_537,
        BLOCK - 1,
        BLOCK,
        BLOCK + 1,
        3 * BLOCK + 7,
    ]
}

#[test]
fn files_of_all_sizes_read_back_byte_for_byte() {
    let (store, uri) = memory();
    for (seed, size) in sizes().into_iter().enumerate() {
        store.put(&format!("d/{size}"), pattern(seed as u64, size));
    }
    let Some(rig) = Rig::new(&uri) else { return };
    for (seed, size) in sizes().into_iter().enumerate() {
        let path = rig.path("d").join(size.to_string());
        let expected = pattern(seed as u64, size);
        assert_eq!(std::fs::metadata(&path).unwrap().len(), size as u64);
        assert!(
            std::fs::read(&path).unwrap() == expected,
            "{size} sequential"
        );

        let file = File::open(&path).unwrap();
        for at in [0, 1, 4095, size / 2, size.saturating_sub(5), size, size + 9] {
            let mut got = [0; 5000];
            let n = file.read_at(&mut got, at as u64).unwrap();
            let end = size.min(at + 5000);
            let want = expected.get(at..end).unwrap_or_default();
            assert!(&got[..n] == want, "{size} at {at}");
        }
    }
}

#[test]
fn odd_names_are_themselves() {
    let (store, uri) = memory();
    let long = "n".repeat(255);
    let names = [
        "a b",
        "ünï/çødé 文件",
        "%41",
        "quote\"'",
        "a\\b",
        "-rf",
        &long,
    ];
    for name in names {
        store.put(name, name.as_bytes().to_vec());
    }
    let Some(rig) = Rig::new(&uri) else { return };
    for name in names {
        assert_eq!(std::fs::read(rig.path(name)).unwrap(), name.as_bytes());
    }
}

#[test]
fn a_sparse_file_reads_zeros_and_its_far_end() {
    const FAR: u64 = 5 << 30;
    let (dir, uri) = local();
    let sparse = File::create(dir.path().join("sparse")).unwrap();
    sparse.write_all_at(b"begin", 0).unwrap();
    sparse.write_all_at(b"the end", FAR).unwrap();
    let Some(rig) = Rig::new(&uri) else { return };
    let mut file = File::open(rig.path("sparse")).unwrap();
    assert_eq!(file.metadata().unwrap().len(), FAR + 7);
    let mut got = [0; 8];
    file.read_exact_at(&mut got, 0).unwrap();
    assert_eq!(&got, b"begin\0\0\0");
    file.read_exact_at(&mut got, FAR / 2).unwrap();
    assert_eq!(got, [0; 8]);
    let mut end = Vec::new();
    assert_eq!(file.seek(SeekFrom::End(-7)).unwrap(), FAR);
    file.read_to_end(&mut end).unwrap();
    assert_eq!(end, b"the end");
    assert_eq!(file.read_at(&mut got, u64::MAX >> 2).unwrap(), 0);
}

/// Where data is in a file is not told: all of it counts as data up to its end.
#[test]
fn a_seek_for_data_or_a_hole_is_right_everywhere() {
    use rustix::fs::{SeekFrom, seek};
    use rustix::io::Errno;

    const SIZE: u64 = 3 << 20;
    let (dir, uri) = local();
    let sparse = File::create(dir.path().join("sparse")).unwrap();
    sparse.set_len(SIZE).unwrap();
    sparse.write_all_at(b"data", SIZE / 2).unwrap();
    File::create(dir.path().join("empty")).unwrap();
    for kernel_opens in [false, true] {
        let Some(rig) = Rig::with(&uri, Default::default(), |options| {
            options.kernel_opens = kernel_opens;
        }) else {
            return;
        };
        for (name, size) in [("sparse", SIZE), ("empty", 0)] {
            let file = File::open(rig.path(name)).unwrap();
            for at in [0, 1, SIZE / 2, SIZE - 1]
                .into_iter()
                .filter(|at| *at < size)
            {
                assert_eq!(seek(&file, SeekFrom::Data(at)), Ok(at), "{name} at {at}");
                assert_eq!(seek(&file, SeekFrom::Hole(at)), Ok(size), "{name} at {at}");
            }
            for at in [size, size + 1] {
                assert_eq!(seek(&file, SeekFrom::Data(at)), Err(Errno::NXIO));
                assert_eq!(seek(&file, SeekFrom::Hole(at)), Err(Errno::NXIO));
            }
        }
    }
}

#[test]
fn many_readers_read_at_once() {
    let (store, uri) = memory();
    let files: Vec<Vec<u8>> = (0..4).map(|n| pattern(n, BLOCK + 1000)).collect();
    for (n, data) in files.iter().enumerate() {
        store.put(&n.to_string(), data.clone());
    }
    let Some(rig) = Rig::new(&uri) else { return };
    std::thread::scope(|scope| {
        for reader in 0..8usize {
            let (rig, files) = (&rig, &files);
            scope.spawn(move || {
                let file = File::open(rig.path(&(reader % 4).to_string())).unwrap();
                let data = &files[reader % 4];
                let mut got = vec![0; 70_000];
                for step in 0..40 {
                    let at = (step * 104_729 + reader * 7919) % data.len();
                    let n = file.read_at(&mut got, at as u64).unwrap();
                    let end = data.len().min(at + got.len());
                    assert!(got[..n] == data[at..end], "reader {reader} at {at}");
                }
            });
        }
    });
    // Each file has 40 pieces of 70,000 bytes that were asked for; how much between them the
    // kernel reads along is its own choice.
    assert!(rig.mounted().stats().read_bytes >= 4 * 40 * 70_000);
}

#[test]
fn a_mapped_file_shows_its_bytes() {
    let (store, uri) = memory();
    let data = pattern(9, BLOCK + 12_345);
    store.put("mapped", data.clone());
    let Some(rig) = Rig::new(&uri) else { return };
    let mut file = File::open(rig.path("mapped")).unwrap();
    for shared in [true, false] {
        let map = map::Map::of(&file, data.len(), shared);
        // Backwards, so that readahead does not hide a wrong offset.
        for at in (0..data.len()).rev().step_by(4096) {
            assert_eq!(map.bytes()[at], data[at], "at {at}, shared {shared}");
        }
        assert!(map.bytes() == data);
    }
    let mut all = Vec::new();
    file.read_to_end(&mut all).unwrap();
    assert!(all == data);
}

pub(crate) mod map {
    #![allow(unsafe_code, reason = "mapping a file needs mmap itself")]

    use std::fs::File;
    use std::os::fd::AsRawFd;

    pub(crate) struct Map {
        at: *mut libc::c_void,
        len: usize,
    }

    impl Map {
        pub(crate) fn of(file: &File, len: usize, shared: bool) -> Self {
            let kind = if shared {
                libc::MAP_SHARED
            } else {
                libc::MAP_PRIVATE
            };
            // SAFETY: a fresh mapping at an address of the kernel's choice.
            let at = unsafe {
                libc::mmap(
                    std::ptr::null_mut(),
                    len,
                    libc::PROT_READ,
                    kind,
                    file.as_raw_fd(),
                    0,
                )
            };
            assert_ne!(at, libc::MAP_FAILED, "{}", std::io::Error::last_os_error());
            Self { at, len }
        }

        pub(crate) fn bytes(&self) -> &[u8] {
            // SAFETY: mapped until drop, and the file is not truncated meanwhile.
            unsafe { std::slice::from_raw_parts(self.at.cast(), self.len) }
        }
    }

    impl Drop for Map {
        fn drop(&mut self) {
            // SAFETY: mapped by `of`, and no slice outlives self.
            unsafe {
                libc::munmap(self.at, self.len);
            }
        }
    }
}
