use millpond_proto::FileVersion;

use super::*;
use crate::attr::FileKind;

const TTL: Trust = Trust {
    mode: MetadataMode::Ttl,
    ttl: Duration::from_secs(10),
};

fn cache() -> MetadataCache {
    MetadataCache::new(8 << 20, TTL)
}

fn asked(at: Instant) -> Asked {
    Asked {
        generation: 1,
        seq: 0,
        at,
        trust: TTL,
    }
}

fn file(version: &str, mode: Option<u32>) -> Attr {
    Attr {
        kind: FileKind::File,
        version: Some(FileVersion::ETag(version.into())),
        mode,
        ..Attr::virtual_directory()
    }
}

fn present(version: &str) -> Known {
    Known::Present(Arc::new(file(version, None)))
}

fn listing(names: &[&str]) -> Vec<DirEntry> {
    let entry = |name: &&str| DirEntry {
        name: (*name).into(),
        attr: Arc::new(file("listed", None)),
    };
    names.iter().map(entry).collect()
}

/// The version that is known of `path`: `None` if nothing is, `"-"` if it is absent.
fn version(cache: &MetadataCache, path: &str, at: Instant) -> Option<String> {
    Some(match cache.get(path, 1, at)?.known {
        Known::Present(attr) => match &attr.version {
            Some(FileVersion::ETag(tag)) => tag.to_string(),
            other => panic!("{other:?}"),
        },
        Known::Absent => "-".to_owned(),
    })
}

fn change(path: &str, recursive: bool) -> Change {
    Change {
        path: path.to_owned(),
        recursive,
    }
}

#[test]
fn entries_are_believed_for_the_ttl_and_absence_for_half() {
    let cache = cache();
    let start = Instant::now();
    cache.put("/a", present("1"), asked(start));
    cache.put("/b", Known::Absent, asked(start));
    let at = |seconds| start + Duration::from_secs(seconds);
    assert_eq!(version(&cache, "/a", at(9)).as_deref(), Some("1"));
    assert_eq!(cache.get("/a", 1, at(9)).unwrap().valid.as_secs(), 1);
    assert_eq!(version(&cache, "/a", at(10)), None);
    assert_eq!(version(&cache, "/b", at(4)).as_deref(), Some("-"));
    assert_eq!(version(&cache, "/b", at(5)), None);
}

#[test]
fn strict_mounts_keep_nothing_and_immutable_ones_keep_what_exists() {
    let cache = cache();
    let start = Instant::now();
    let trusting = |mode| Asked {
        trust: Trust { mode, ..TTL },
        ..asked(start)
    };
    cache.put("/strict", present("1"), trusting(MetadataMode::Strict));
    cache.put_directory("/s", listing(&["x"]), trusting(MetadataMode::Strict));
    assert_eq!(version(&cache, "/strict", start), None);
    assert_eq!(version(&cache, "/s/x", start), None);
    assert!(cache.directory("/s", 1, start).is_none());

    let fixed = trusting(MetadataMode::Immutable);
    cache.put("/fixed", present("1"), fixed);
    cache.put("/gone", Known::Absent, fixed);
    cache.put_directory("/d", listing(&["x"]), fixed);
    let much_later = start + Duration::from_secs(1_000_000);
    assert_eq!(version(&cache, "/fixed", much_later).as_deref(), Some("1"));
    assert_eq!(version(&cache, "/gone", much_later), None);
    assert_eq!(
        version(&cache, "/d/x", much_later).as_deref(),
        Some("listed")
    );
    assert_eq!(version(&cache, "/d/y", much_later).as_deref(), Some("-"));
}

#[test]
fn a_directory_answers_for_the_names_that_it_has_and_has_not() {
    let cache = cache();
    let start = Instant::now();
    cache.put_directory("/d", listing(&["x", "sub"]), asked(start));
    cache.put_directory("/", listing(&["d"]), asked(start));
    assert_eq!(version(&cache, "/d/x", start).as_deref(), Some("listed"));
    assert_eq!(version(&cache, "/d/y", start).as_deref(), Some("-"));
    assert_eq!(version(&cache, "/d/sub/x", start), None);
    assert_eq!(version(&cache, "/d", start).as_deref(), Some("listed"));
    assert_eq!(version(&cache, "/", start), None);
    let at = |seconds| start + Duration::from_secs(seconds);
    assert_eq!(version(&cache, "/d/y", at(5)), None, "half of the TTL");
    assert_eq!(cache.directory("/d", 1, at(9)).unwrap().entries().len(), 2);
    assert!(cache.directory("/d", 1, at(10)).is_none());
    assert!(cache.directory("/d", 2, start).is_none());
    assert!(cache.directory("/", 1, start).is_some());
}

#[test]
fn the_later_answer_is_right() {
    let cache = cache();
    let start = Instant::now();
    let later = start + Duration::from_secs(1);
    cache.put("/d/x", present("stat"), asked(start));
    cache.put("/d/gone", present("stat"), asked(start));
    cache.put_directory("/d", listing(&["x"]), asked(later));
    assert_eq!(version(&cache, "/d/x", later).as_deref(), Some("listed"));
    assert_eq!(version(&cache, "/d/gone", later).as_deref(), Some("-"));
    let last = start + Duration::from_secs(2);
    cache.put("/d/x", present("stat again"), asked(last));
    assert_eq!(version(&cache, "/d/x", last).as_deref(), Some("stat again"));
}

#[test]
fn another_mount_table_is_another_generation() {
    let cache = cache();
    let now = Instant::now();
    cache.put("/a", present("1"), asked(now));
    cache.put_directory("/d", listing(&["x"]), asked(now));
    assert!(cache.get("/a", 2, now).is_none());
    assert!(cache.get("/d/x", 2, now).is_none());
}

#[test]
fn a_listing_keeps_what_stat_knew_of_the_same_version() {
    let cache = cache();
    let now = Instant::now();
    let known = Known::Present(Arc::new(file("1", Some(0o600))));
    cache.put("/a", known, asked(now));
    assert_eq!(cache.complete("/a", 1, file("1", None)).mode, Some(0o600));
    assert_eq!(cache.complete("/a", 1, file("2", None)).mode, None);
}

#[test]
fn what_is_forgotten_is_asked_for_again_and_nothing_else() {
    let cache = cache();
    let now = Instant::now();
    let fill = || {
        let asked = Asked {
            seq: cache.seq(),
            ..asked(now)
        };
        for path in ["/", "/d", "/d/x", "/d/sub/y", "/dd"] {
            cache.put(path, present("1"), asked);
        }
        for dir in ["/", "/d", "/d/sub"] {
            cache.put_directory(dir, listing(&["x"]), asked);
        }
    };
    let known = |path| cache.get(path, 1, now).is_some();
    let dir = |path| cache.directory(path, 1, now).is_some();

    fill();
    cache.forget(change("/d/x", false));
    assert!(!known("/d/x") && !dir("/d"));
    assert!(known("/d") && known("/d/sub/y") && dir("/") && dir("/d/sub"));

    fill();
    cache.forget(change("/d", true));
    assert!(!known("/d/x") && !known("/d/sub/y") && !dir("/d") && !dir("/d/sub"));
    assert!(!known("/d") && !dir("/"), "it may be gone itself");
    assert!(known("/dd") && known("/"));

    fill();
    cache.forget(Change::everything());
    assert!(!known("/") && !known("/dd") && !dir("/"));
    fill();
    assert!(known("/") && known("/dd"));
}

#[test]
fn an_answer_from_before_a_change_is_not_kept() {
    let cache = cache();
    let now = Instant::now();
    let before = asked(now);
    cache.forget(change("/d/x", false));
    cache.put("/d/x", present("old"), before);
    cache.put_directory("/d", listing(&["x"]), before);
    assert!(cache.get("/d/x", 1, now).is_none());
    cache.put("/d/y", present("1"), before);
    assert!(cache.get("/d/y", 1, now).is_some(), "it did not change");
    let after = Asked {
        seq: cache.seq(),
        ..before
    };
    cache.put("/d/x", present("new"), after);
    assert_eq!(version(&cache, "/d/x", now).as_deref(), Some("new"));
}

#[test]
fn memory_is_bounded_and_large_directories_are_not_kept() {
    let cache = MetadataCache::new(1 << 20, TTL);
    let now = Instant::now();
    for dir in 0..200 {
        let names: Vec<String> = (0..100).map(|i| format!("file-{i}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        cache.put_directory(&format!("/{dir}"), listing(&names), asked(now));
    }
    cache.entries.run_pending_tasks();
    assert!(cache.entries.weighted_size() <= 1 << 20);
    let kept = (0..200).filter(|dir| cache.directory(&format!("/{dir}"), 1, now).is_some());
    assert!((10..100).contains(&kept.count()));

    let names: Vec<String> = (0..2000).map(|i| format!("file-{i}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    cache.put_directory("/large", listing(&names), asked(now));
    assert!(cache.directory("/large", 1, now).is_none());
}
