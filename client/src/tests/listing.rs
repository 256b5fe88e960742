//! What listings cost a store, and what they tell afterwards.

use std::collections::BTreeSet;

use futures::{StreamExt as _, TryStreamExt as _};
use millpond_s3_fixture::S3Fixture;

use super::*;
use crate::DirEntry;

async fn s3(config: ClientConfig) -> (S3Fixture, FileSystem) {
    let server = S3Fixture::start().await;
    server.create_bucket("bucket");
    let registry = Mutex::new(Registry::default());
    let fs = FileSystem::standalone("s3://bucket", server.options(), config, &registry);
    let fs = fs.await.unwrap();
    server.reset_counters();
    (server, fs)
}

fn hour() -> ClientConfig {
    ClientConfig {
        metadata_ttl: Duration::from_secs(3600),
        ..small()
    }
}

async fn names(fs: &FileSystem, path: &str) -> Vec<String> {
    let pages: Vec<Vec<DirEntry>> = fs.list(path).try_collect().await.unwrap();
    let entries = pages.into_iter().flatten();
    entries.map(|entry| entry.name.to_string()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tree_costs_one_list_request_per_page_and_then_nothing() {
    let (server, fs) = s3(hour()).await;
    for i in 0..2000 {
        server.put("bucket", &format!("d{:02}/f{i:04}", i % 20), "x");
    }
    let walk = async || {
        let mut files = 0;
        for dir in names(&fs, "/").await {
            for name in names(&fs, &format!("/{dir}")).await {
                let attr = fs.stat(&format!("/{dir}/{name}")).await.unwrap();
                files += attr.size;
            }
        }
        files
    };
    assert_eq!(walk().await, 2000);
    let cold = server.counters();
    assert_eq!((cold.lists, cold.heads, cold.requests), (21, 0, 21));
    assert_eq!(walk().await, 2000);
    assert_eq!(
        fs.stat("/d00/none").await.unwrap_err().kind(),
        millpond_proto::ErrorKind::NotFound
    );
    assert!(fs.is_known_absent("/d07/none") && fs.is_known_absent("/none"));
    assert_eq!(server.counters(), cold, "the second time costs nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_are_fetched_once_for_all_who_list_at_once() {
    let (server, fs) = s3(hour()).await;
    for i in 0..3500 {
        server.put("bucket", &format!("d/f{i:04}"), "x");
    }
    server.faults().set_latency(Duration::from_millis(20));
    let lists = (0..16).map(|_| names(&fs, "/d"));
    let listed = futures::future::join_all(lists).await;
    for names in &listed {
        assert_eq!(names.len(), 3500);
        assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), 3500);
    }
    assert_eq!(server.counters().requests, 4);
    let directory = fs.list_cached("/d").expect("it is kept as a whole");
    assert_eq!(directory.entries().len(), 3500);
    assert_eq!(directory.get("f0042").unwrap().attr.size, 1);
    let again = fs.list_cached("/d").unwrap();
    assert!(Arc::ptr_eq(&directory, &again), "shared, not copied");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_that_is_left_early_is_not_read_to_its_end() {
    let (server, fs) = s3(hour()).await;
    for i in 0..20_000 {
        server.put("bucket", &format!("d/f{i:05}"), "x");
    }
    server.reset_counters();
    let mut pages = fs.pages("/d");
    let first = pages.next().await.unwrap().unwrap();
    // The last name of a page waits: a directory of the same name would hide it.
    assert_eq!(first.entries().len(), 999);
    assert_eq!(server.counters().requests, 1, "before the first entry");
    // What is known of a part is used while it is being listed.
    assert_eq!(fs.stat("/d/f00998").await.unwrap().size, 1);
    assert_eq!(server.counters().requests, 1);
    for _ in 0..2 {
        pages.next().await.unwrap().unwrap();
    }
    drop(pages);
    assert_eq!(server.counters().requests, 3);
    assert!(fs.list_cached("/d").is_none(), "a part is not the whole");
    assert!(fs.stat_cached("/d/f00998").is_none());
    assert!(!fs.is_known_absent("/d/f19999"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_too_large_for_the_cache_streams_in_bounded_memory() {
    let config = ClientConfig {
        metadata_memory: 4 << 20,
        ..hour()
    };
    let (server, fs) = s3(config).await;
    let total = 20_000;
    for i in 0..total {
        server.put("bucket", &format!("d/f{i:05}"), "x");
    }
    server.reset_counters();
    let mut pages = fs.pages("/d");
    let mut slow = fs.pages("/d");
    assert_eq!(slow.next().await.unwrap().unwrap().entries().len(), 999);
    let mut seen = Vec::new();
    while let Some(page) = pages.next().await {
        seen.extend(page.unwrap().entries().iter().map(|e| e.name.to_string()));
        let held = fs.core().listings.held();
        assert!(held < 2 << 20, "{held} bytes of pages are held");
    }
    let expected: Vec<String> = (0..total).map(|i| format!("f{i:05}")).collect();
    assert!(seen == expected, "{} of {}", seen.len(), expected.len());
    assert_eq!(server.counters().requests, 20);
    assert!(fs.list_cached("/d").is_none());
    assert!(!fs.is_known_absent("/d/none"));
    assert_eq!(fs.stat_cached("/d/f19999").map(|attr| attr.size), Some(1));

    // The one who was left behind goes on where it was, without a gap and without a double.
    let mut seen = expected[..999].to_vec();
    while let Some(page) = slow.next().await {
        seen.extend(page.unwrap().entries().iter().map(|e| e.name.to_string()));
    }
    assert!(seen == expected, "{} of {}", seen.len(), expected.len());
    drop((pages, slow));
    assert_eq!(fs.core().listings.held(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listing_that_breaks_off_goes_on_where_it_was() {
    let (server, fs) = s3(hour()).await;
    for i in 0..5000 {
        server.put("bucket", &format!("d/f{i:04}"), "x");
    }
    let mut pages = fs.pages("/d");
    let mut seen: Vec<String> = Vec::new();
    let mut take = |page: crate::Page| {
        seen.extend(page.entries().iter().map(|e| e.name.to_string()));
    };
    take(pages.next().await.unwrap().unwrap());
    // More than the driver's own patience; and the entries where it broke off go, with others.
    server.faults().fail_next(6, 503);
    for gone in [3, 500, 996, 997, 998] {
        server.delete("bucket", &format!("d/f{gone:04}"));
    }
    while let Some(page) = pages.next().await {
        take(page.unwrap());
    }
    let expected: Vec<String> = (0..5000).map(|i| format!("f{i:04}")).collect();
    assert!(seen == expected, "{} of {}", seen.len(), expected.len());
}

#[tokio::test]
async fn an_empty_root_is_empty_and_kept() {
    let (server, fs) = s3(hour()).await;
    assert_eq!(names(&fs, "/").await, Vec::<String>::new());
    assert_eq!(names(&fs, "/").await, Vec::<String>::new());
    assert_eq!(server.counters().requests, 1);
    assert!(fs.is_known_absent("/x"));
}
