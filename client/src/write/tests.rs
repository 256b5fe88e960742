//! Files that are written, over the memory store.

use std::sync::Arc;

use bytes::Bytes;
use millpond_proto::{ErrorKind, Refusal};
use millpond_ufs::Attributes;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::Writer;
use crate::tests::{MIB, fresh_store, pattern, small, standalone};
use crate::{ClientConfig, FileSystem};

async fn create(fs: &FileSystem, path: &str) -> Writer {
    fs.create(path, Attributes::default(), false).await.unwrap()
}

async fn content(writer: &Writer) -> Vec<u8> {
    let size = writer.size();
    let mut whole = Vec::new();
    while (whole.len() as u64) < size {
        let part = writer.read(whole.len() as u64, 1 << 20).await.unwrap();
        assert!(!part.is_empty(), "a short read");
        whole.extend_from_slice(&part);
    }
    whole
}

/// What can be done to a file that is open twice.
#[derive(Debug, Clone)]
enum Step {
    Write(u64, u64, bool),
    Append(u64),
    Truncate(u64),
    Punch(u64, u64),
    Extend(u64),
    Read(u64, u64),
    Flush,
    Reopen,
    /// Another client puts the file; seen when it is opened again.
    Replace(u64),
}

fn steps(longest: u64) -> impl Strategy<Value = Vec<Step>> {
    // Short and long ones, at any place.
    let len = (0..24_u32, 0..longest).prop_map(move |(shift, len)| len >> shift);
    let at = 0..longest;
    let step = prop_oneof![
        8 => (at.clone(), len.clone(), any::<bool>()).prop_map(|(at, len, by)| Step::Write(at, len, by)),
        3 => len.clone().prop_map(Step::Append),
        2 => at.clone().prop_map(Step::Truncate),
        2 => (at.clone(), len.clone()).prop_map(|(at, len)| Step::Punch(at, len)),
        1 => at.clone().prop_map(Step::Extend),
        5 => (at, len).prop_map(|(at, len)| Step::Read(at, len)),
        2 => Just(Step::Flush),
        1 => Just(Step::Reopen),
        1 => (0..longest).prop_map(Step::Replace),
    ];
    proptest::collection::vec(step, 1..40)
}

struct Model {
    fs: FileSystem,
    store: Arc<millpond_ufs::memory::MemoryStore>,
    writers: [Writer; 2],
    bytes: Vec<u8>,
    seed: u64,
    longest: u64,
}

impl Model {
    async fn step(&mut self, step: Step) {
        self.seed += 1;
        let data = |len: u64| Bytes::from(pattern(self.seed, len));
        match step {
            Step::Write(at, len, by) => {
                let len = len.min(self.longest - at);
                let data = data(len);
                let writer = &self.writers[usize::from(by)];
                if writer.try_write(at, &data).is_none() {
                    writer.write(at, data.clone()).await.unwrap();
                }
                self.put(at, &data);
            }
            Step::Append(len) => {
                let at = self.bytes.len() as u64;
                let data = data(len.min(self.longest.saturating_sub(at)));
                assert_eq!(self.writers[0].append(data.clone()).await.unwrap(), at);
                self.put(at, &data);
            }
            Step::Truncate(size) => {
                self.writers[1].truncate(size).await.unwrap();
                self.bytes.resize(size as usize, 0);
            }
            Step::Extend(end) => {
                self.writers[0].extend(end).await.unwrap();
                let len = self.bytes.len().max(end as usize);
                self.bytes.resize(len, 0);
            }
            Step::Punch(at, len) => {
                self.writers[0].punch(at..at + len).await.unwrap();
                let end = ((at + len) as usize).min(self.bytes.len());
                self.bytes[(at as usize).min(end)..end].fill(0);
            }
            Step::Read(at, len) => {
                let mut got = Vec::new();
                while (got.len() as u64) < len {
                    let from = at + got.len() as u64;
                    let left = (len - got.len() as u64) as u32;
                    let part = match self.writers[1].try_read(from, left) {
                        Some(part) => part,
                        None => self.writers[1].read(from, left).await.unwrap(),
                    };
                    if part.is_empty() {
                        break;
                    }
                    got.extend_from_slice(&part);
                }
                let end = ((at + len) as usize).min(self.bytes.len());
                let start = (at as usize).min(end);
                assert!(got == self.bytes[start..end], "wrong bytes at {at}");
            }
            Step::Flush => {
                self.writers[0].flush().await.unwrap();
                assert!(self.store.get("f").unwrap() == self.bytes, "the store");
            }
            Step::Reopen | Step::Replace(_) => {
                for writer in &self.writers {
                    writer.flush().await.unwrap();
                }
                assert!(self.store.get("f").unwrap() == self.bytes, "the store");
                if let Step::Replace(len) = step {
                    self.bytes = pattern(self.seed, len);
                    self.store.put("f", self.bytes.clone());
                    self.fs.refresh("/f", false).await.unwrap();
                }
                let writers = [open(&self.fs).await, open(&self.fs).await];
                self.writers = writers;
                assert!(
                    content(&self.writers[0]).await == self.bytes,
                    "opened again"
                );
            }
        }
        assert_eq!(self.writers[1].size(), self.bytes.len() as u64);
        assert_eq!(
            self.fs.stat("/f").await.unwrap().size,
            self.bytes.len() as u64
        );
    }

    fn put(&mut self, at: u64, data: &[u8]) {
        if data.is_empty() {
            return;
        }
        let (at, end) = (at as usize, at as usize + data.len());
        self.bytes.resize(self.bytes.len().max(end), 0);
        self.bytes[at..end].copy_from_slice(data);
    }
}

async fn open(fs: &FileSystem) -> Writer {
    fs.open_for_writing("/f", false).await.unwrap()
}

/// Walks through files that may be so long.
fn walks(longest: u64, cases: u32) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut runner = TestRunner::new(Config {
        cases,
        max_shrink_iters: 200,
        failure_persistence: None,
        ..Config::default()
    });
    let first = prop_oneof![Just(None), (0..longest).prop_map(Some)];
    let walked = runner.run(&(first, steps(longest)), |(first, steps)| {
        runtime.block_on(async {
            let (store, uri) = fresh_store();
            let fs = standalone(&uri, small()).await;
            let bytes = pattern(99, first.unwrap_or(0));
            if first.is_some() {
                store.put("f", bytes.clone());
            }
            let writers = match first {
                Some(_) => [open(&fs).await, open(&fs).await],
                None => [create(&fs, "/f").await, create(&fs, "/f").await],
            };
            let (seed, longest) = (0, longest);
            let mut model = Model {
                fs,
                store,
                writers,
                bytes,
                seed,
                longest,
            };
            for step in steps {
                model.step(step).await;
            }
            let [one, other] = model.writers;
            one.close().await.unwrap();
            other.close().await.unwrap();
            assert!(
                model.store.get("f").unwrap() == model.bytes,
                "the store, closed"
            );
            model.fs.shutdown().await;
        });
        Ok(())
    });
    walked.unwrap();
}

#[test]
fn little_files_are_what_a_model_says() {
    walks(3000, 64);
}

#[test]
fn files_that_are_staged_are_what_a_model_says() {
    walks(3 * MIB, 6);
}

#[test]
fn files_of_many_parts_are_what_a_model_says() {
    walks(24 * MIB, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_file_goes_up_while_it_is_written_and_needs_little_room() {
    let (store, uri) = fresh_store();
    let config = ClientConfig {
        staging_size: 24 * MIB,
        ..small()
    };
    let fs = standalone(&uri, config).await;
    let bytes = pattern(1, 60 * MIB + 5);
    let writer = create(&fs, "/f").await;
    for (number, piece) in bytes.chunks(1 << 20).enumerate() {
        let at = number as u64 * MIB;
        writer
            .write(at, Bytes::copy_from_slice(piece))
            .await
            .unwrap();
    }
    // Its beginning was given up.
    assert_eq!(writer.read(0, 1).await.unwrap_err().kind(), ErrorKind::Busy);
    let late = writer.write(0, Bytes::from_static(b"x")).await;
    assert_eq!(late.unwrap_err().refusal(), Some(Refusal::NoSpace));
    let tail = 60 * MIB;
    assert!(writer.read(tail, 100).await.unwrap() == bytes[tail as usize..]);
    assert_eq!(store.get("f"), None);
    writer.flush().await.unwrap();
    assert!(store.get("f").unwrap() == bytes);
    assert!(content(&writer).await == bytes);
    writer.write(0, Bytes::from_static(b"x")).await.unwrap();
    writer.close().await.unwrap();
    let stored = store.get("f").unwrap();
    assert!(stored[0] == b'x' && stored[1..] == bytes[1..]);
}

#[tokio::test]
async fn writes_beyond_the_room_are_refused_and_the_rest_is_kept() {
    let (store, uri) = fresh_store();
    let config = ClientConfig {
        staging_size: 4 * MIB,
        ..small()
    };
    let fs = standalone(&uri, config).await;
    let writer = create(&fs, "/f").await;
    let bytes = pattern(1, 4 * MIB);
    writer.write(0, Bytes::from(bytes.clone())).await.unwrap();
    let more = writer.write(4 * MIB, Bytes::from_static(b"more")).await;
    assert_eq!(more.unwrap_err().refusal(), Some(Refusal::NoSpace));
    writer.close().await.unwrap();
    assert!(store.get("f").unwrap() == bytes);
    // What was closed takes no room.
    let other = create(&fs, "/g").await;
    other.write(0, Bytes::from(bytes.clone())).await.unwrap();
    other.close().await.unwrap();
    assert!(store.get("g").unwrap() == bytes);
}

#[tokio::test]
async fn of_two_writers_the_last_one_wins_unless_told_otherwise() {
    for if_match in [false, true] {
        let (store, uri) = fresh_store();
        store.put("f", "first");
        let config = || ClientConfig {
            if_match,
            ..small()
        };
        let clients = [
            standalone(&uri, config()).await,
            standalone(&uri, config()).await,
        ];
        let [a, b] = [open(&clients[0]).await, open(&clients[1]).await];
        a.write(0, Bytes::from_static(b"A")).await.unwrap();
        b.write(4, Bytes::from_static(b"B")).await.unwrap();
        a.close().await.unwrap();
        assert_eq!(store.get("f").unwrap(), "Airst");
        let second = b.close().await;
        if if_match {
            assert_eq!(second.unwrap_err().kind(), ErrorKind::Stale);
            assert_eq!(store.get("f").unwrap(), "Airst");
        } else {
            second.unwrap();
            assert_eq!(store.get("f").unwrap(), "firsB", "whole files, never a mix");
        }
    }
}

#[tokio::test]
async fn only_one_client_makes_a_file_that_must_be_new() {
    let (store, uri) = fresh_store();
    let clients = [
        standalone(&uri, small()).await,
        standalone(&uri, small()).await,
    ];
    let make = |fs: &FileSystem| {
        let fs = fs.clone();
        async move { fs.create("/f", Attributes::default(), true).await }
    };
    let [a, b] = [
        make(&clients[0]).await.unwrap(),
        make(&clients[1]).await.unwrap(),
    ];
    a.write(0, Bytes::from_static(b"a")).await.unwrap();
    b.write(0, Bytes::from_static(b"b")).await.unwrap();
    let again = make(&clients[0]).await;
    assert_eq!(again.unwrap_err().refusal(), Some(Refusal::Exists));
    b.close().await.unwrap();
    assert_eq!(
        a.close().await.unwrap_err().refusal(),
        Some(Refusal::Exists)
    );
    assert_eq!(store.get("f").unwrap(), "b");
    let late = make(&clients[0]).await;
    assert_eq!(late.unwrap_err().refusal(), Some(Refusal::Exists));
}

#[tokio::test]
async fn what_is_not_sent_yet_shows_in_its_own_client_only() {
    let (_store, uri) = fresh_store();
    let (fs, other) = (
        standalone(&uri, small()).await,
        standalone(&uri, small()).await,
    );
    let writer = create(&fs, "/new").await;
    writer.write(0, Bytes::from_static(b"12345")).await.unwrap();
    assert_eq!(fs.stat("/new").await.unwrap().size, 5);
    assert_eq!(fs.stat_cached("/new").unwrap().size, 5);
    assert_eq!(
        other.stat("/new").await.unwrap_err().kind(),
        ErrorKind::NotFound
    );
    writer.close().await.unwrap();
    other.refresh("/new", false).await.unwrap();
    assert_eq!(other.stat("/new").await.unwrap().size, 5);
}
