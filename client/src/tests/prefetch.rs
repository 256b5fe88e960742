//! Fetching ahead of opens: hint lists, the next files of a directory, traces.

use std::sync::atomic::Ordering;

use futures::TryStreamExt as _;

use super::*;
use crate::HintList;

/// `count` files `d/0000`, … of 10 KiB each.
fn files(store: &MemoryStore, count: u64) -> Vec<String> {
    let names: Vec<_> = (0..count).map(|n| format!("/d/{n:04}")).collect();
    for (n, name) in names.iter().enumerate() {
        store.put(&name[1..], pattern(n as u64, 10 * KIB));
    }
    names
}

async fn read_whole(fs: &FileSystem, path: &str) -> Vec<u8> {
    let file = fs.open(path).await.unwrap();
    let len = file.attr().size as u32;
    file.read(0, len).await.unwrap().to_vec()
}

async fn is_in_memory(fs: &FileSystem, path: &str) -> bool {
    let (file, _) = fs.core().open_file(path).await.unwrap();
    let piece = fs.core().layout.piece_at(file.id, file.size, 0);
    fs.core().memory.holds_any(&piece.id)
}

#[tokio::test]
async fn a_list_is_in_memory_before_it_is_read_and_read_as_it_is() {
    let (store, uri) = fresh_store();
    let names = files(&store, 20);
    let fs = standalone(&uri, small()).await;
    let order: Vec<_> = names.iter().rev().map(String::as_str).collect();
    fs.prefetch(HintList::parse(&order.join("\n"), "/"));
    wait_for("the list", || fs.stats().prefetch.files == 20).await;
    for (n, name) in names.iter().enumerate() {
        assert!(is_in_memory(&fs, name).await, "{name}");
        assert!(read_whole(&fs, name).await == pattern(n as u64, 10 * KIB));
    }
    let progress = fs.stats().prefetch;
    assert_eq!((progress.entries, progress.read), (20, 20));
    assert_eq!((progress.errors, progress.bytes_ahead), (0, 0));
    fs.shutdown().await;
}

#[tokio::test]
async fn a_long_list_stays_within_its_window_and_follows_its_reader() {
    let (store, uri) = fresh_store();
    let names = files(&store, 400);
    // A quarter of the tier of 6 MiB: 153 files.
    let fs = standalone(&uri, small()).await;
    fs.prefetch(HintList::parse(&names.join("\n"), "/"));
    let room = fs.core().memory.capacity() / 4;
    let full = room / (10 * KIB);
    wait_for("the window", || fs.stats().prefetch.files == full).await;
    for name in &names {
        read_whole(&fs, name).await;
        let progress = fs.stats().prefetch;
        assert!(progress.bytes_ahead <= room, "{progress:?}");
    }
    wait_for("the end", || !fs.stats().prefetch.running).await;
    assert_eq!(fs.stats().prefetch.read, 400);
    fs.shutdown().await;
}

#[tokio::test]
async fn what_cannot_be_fetched_is_counted_and_the_rest_goes_on() {
    let (store, uri) = fresh_store();
    let names = files(&store, 3);
    let fs = standalone(&uri, small()).await;
    let list = format!("{}\n/d/gone\n/d\n{}\n", names[0], names[2]);
    fs.prefetch(HintList::parse(&list, "/"));
    wait_for("the list", || !fs.stats().prefetch.running).await;
    let progress = fs.stats().prefetch;
    assert_eq!((progress.files, progress.errors), (2, 2));
    fs.shutdown().await;
}

#[tokio::test]
async fn a_list_is_replaced_and_ended() {
    let (store, uri) = fresh_store();
    let names = files(&store, 2);
    let fs = standalone(&uri, small()).await;
    fs.prefetch(HintList::parse(&"/d/gone\n".repeat(2000), "/"));
    fs.prefetch(HintList::parse(&names[1], "/"));
    wait_for("the second list", || fs.stats().prefetch.files == 1).await;
    assert_eq!(fs.stats().prefetch.entries, 1);
    fs.prefetch(HintList::default());
    let progress = fs.stats().prefetch;
    assert_eq!(
        (progress.entries, progress.running, progress.lists),
        (0, false, 2)
    );
    assert_eq!(fs.core().prefetch.watch.load(Ordering::Relaxed), 0);
    fs.shutdown().await;
}

#[tokio::test]
async fn parts_are_fetched_and_followed_by_where_readers_read() {
    let (store, uri) = fresh_store();
    store.put("big", pattern(1, 20 * MIB));
    let fs = standalone(&uri, small()).await;
    let parts: Vec<_> = (0..20).map(|n| (n * 7 % 20) * MIB).collect();
    let list: String = parts
        .iter()
        .map(|at| format!("big\t{at}\t{}\n", 64 * KIB))
        .collect();
    fs.prefetch(HintList::parse(&list, "/"));
    let file = fs.open("/big").await.unwrap();
    for (n, at) in parts.iter().enumerate() {
        let piece = fs.core().layout.piece_at(file.file_id(), 20 * MIB, *at);
        let there = || {
            fs.core().memory.holds_any(&piece.id)
                || !fs.core().flying.find(&piece.id, &(0..piece.len)).is_empty()
        };
        wait_for("the part", there).await;
        file.read(*at, 1000).await.unwrap();
        assert_eq!(fs.stats().prefetch.read, n as u64 + 1);
    }
    fs.shutdown().await;
}

#[tokio::test]
async fn the_next_files_of_a_directory_are_fetched_ahead() {
    let (store, uri) = fresh_store();
    let names = files(&store, 40);
    let fs = standalone(&uri, small()).await;
    let listed: Vec<_> = fs.list("/d").try_collect().await.unwrap();
    assert_eq!(listed.concat().len(), 40);
    for name in &names[..3] {
        read_whole(&fs, name).await;
    }
    wait_for("the next four", || fs.stats().prefetch.siblings == 4).await;
    for name in &names[3..7] {
        assert!(is_in_memory(&fs, name).await, "{name}");
    }
    assert!(!is_in_memory(&fs, &names[20]).await);
    fs.shutdown().await;
}

#[tokio::test]
async fn a_directory_that_was_not_listed_is_learnt_from_its_names() {
    let (store, uri) = fresh_store();
    let names = files(&store, 60);
    let fs = standalone(&uri, small()).await;
    let mut fetched = 0;
    for (at, name) in names.iter().enumerate() {
        if at > 12 && fetched == 0 {
            // Let the listing arrive.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        read_whole(&fs, name).await;
        fetched = fs.stats().prefetch.siblings;
    }
    wait_for("files fetched ahead", || fs.stats().prefetch.siblings > 0).await;
    fs.shutdown().await;
}

#[tokio::test]
async fn a_trace_is_a_list_of_what_was_opened() {
    let (store, uri) = fresh_store();
    let names = files(&store, 5);
    let fs = standalone(&uri, small()).await;
    fs.record("first").unwrap();
    for at in [3, 1, 4] {
        read_whole(&fs, &names[at]).await;
    }
    assert_eq!(fs.stats().prefetch.recording.as_deref(), Some("first"));
    fs.stop_record();
    read_whole(&fs, &names[0]).await;
    let traces = fs.traces();
    assert_eq!(&*traces[0].list, "/d/0003\n/d/0001\n/d/0004\n");
    let again = HintList::parse(&traces[0].list, "/");
    assert_eq!((again.len(), again.bad_lines()), (3, 0));
    fs.shutdown().await;
}
