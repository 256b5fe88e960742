#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on should fail"
)]
//! What an S3 mount does when things go wrong, and where its keys come from, against a real
//! server.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::Request;
use axum::http::{Method, StatusCode};
use axum::response::IntoResponse;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use millpond_proto::{ErrorKind, FileVersion};
use millpond_s3_fixture::{Op as Asked, S3Fixture, pattern};
use millpond_ufs::{
    Attributes, Condition, Environment, Op, RenameMode, Ufs, UfsContext, UfsError, UfsMetrics,
    open, probe, read_to_bytes,
};
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio_util::task::TaskTracker;

mod s3 {
    mod faults;
}

type Options = BTreeMap<String, String>;

const MIB: u64 = 1 << 20;

#[tokio::test]
async fn a_store_that_ignores_conditions_is_found_out() {
    let (s3, ufs) = mount(&[]).await;
    s3.put("lake", "f", "old bytes");
    let old = version_of(&*ufs, "f").await;
    s3.put("lake", "f", "new bytes");
    s3.faults().set_ignore_preconditions(true);
    let error = read(&*ufs, "f", &old, 9).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Stale, "{error}");
}

#[tokio::test]
async fn an_answer_with_another_etag_is_stale() {
    let (s3, ufs) = mount(&[]).await;
    s3.put("lake", "f", "bytes");
    let version = version_of(&*ufs, "f").await;
    s3.faults().wrong_etag_next(1);
    let error = read(&*ufs, "f", &version, 5).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Stale, "{error}");
    assert_eq!(read(&*ufs, "f", &version, 5).await.unwrap(), "bytes");
}

#[tokio::test]
async fn a_body_that_breaks_off_is_continued_where_it_broke() {
    let (s3, ufs) = mount(&[]).await;
    s3.put_generated("lake", "big", 4 * MIB, 7);
    let version = version_of(&*ufs, "big").await;
    s3.faults().cut_next(2, 300_000);
    let bytes = read(&*ufs, "big", &version, 4 * MIB).await.unwrap();
    assert!(bytes == pattern(7, 0, 4 << 20), "wrong bytes");
    assert_eq!(s3.counters().gets, 3);
}

#[tokio::test]
async fn a_body_that_always_breaks_off_is_an_error_never_a_short_read() {
    let (s3, ufs) = mount(&[]).await;
    s3.put_generated("lake", "big", MIB, 7);
    let version = version_of(&*ufs, "big").await;
    s3.faults().cut_next(u64::MAX, 1000);
    let error = read(&*ufs, "big", &version, MIB).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
}

#[tokio::test]
async fn passing_failures_are_tried_again_and_lasting_ones_end_in_time() {
    let (s3, ufs) = mount(&[("timeout", "4s")]).await;
    s3.put("lake", "f", "bytes");
    s3.faults().fail_next(2, 503);
    assert_eq!(ufs.stat("f").await.unwrap().size, 5);

    s3.faults().fail_all(503);
    let started = Instant::now();
    let error = ufs.stat("f").await.unwrap_err();
    assert!(started.elapsed() < Duration::from_secs(5));
    assert!(error.kind().try_next_source(), "{error}");
    assert!(error.to_string().contains("(tried for "), "{error}");
    assert!(error.to_string().contains("status 503"), "{error}");
}

#[tokio::test]
async fn a_store_that_hangs_is_a_timeout() {
    let (s3, ufs) = mount(&[("timeout", "600ms")]).await;
    s3.put("lake", "f", "bytes");
    let version = version_of(&*ufs, "f").await;
    let _gate = s3.faults().hold(None);
    let started = Instant::now();
    let kinds = [
        ufs.stat("f").await.unwrap_err().kind(),
        read(&*ufs, "f", &version, 5).await.unwrap_err().kind(),
        probe(&*ufs).await.unwrap_err().kind(),
    ];
    assert_eq!(kinds, [ErrorKind::Timeout; 3]);
    assert!(started.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn an_unreachable_endpoint_is_named_with_how_long_it_was_tried() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", closed.local_addr().unwrap());
    drop(closed);
    let options = options(&[
        ("endpoint", &endpoint),
        ("credentials", "anonymous"),
        ("timeout", "2s"),
    ]);
    let ufs = open("s3://lake", &options, UfsContext::detached())
        .await
        .unwrap();
    let error = probe(&*ufs).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    let text = error.to_string();
    assert!(
        text.contains(&format!("cannot connect to {endpoint} (tried for ")),
        "{text}"
    );
    assert!(text.contains("check the option endpoint"), "{text}");
}

#[tokio::test]
async fn wrong_keys_are_denied_and_say_which_option_to_check() {
    let (s3, _) = mount(&[]).await;
    let wrong_secret = "not-the-secret-of-anyone";
    for (key, value, expected) in [
        ("secret_access_key", wrong_secret, "check secret_access_key"),
        ("access_key_id", "AKIANOBODY", "check access_key_id"),
    ] {
        let mut options = s3.options();
        options.insert(key.into(), value.into());
        let ufs = open("s3://lake", &options, UfsContext::detached())
            .await
            .unwrap();
        let error = probe(&*ufs).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
        assert!(error.to_string().contains(expected), "{error}");
        let shown = format!("{error} {error:?} {ufs:?}");
        assert!(!shown.contains(wrong_secret), "{shown}");
        assert!(!shown.contains(s3.secret_key()), "{shown}");
        let error = ufs.stat("f").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
    }
}

#[tokio::test]
async fn a_missing_bucket_is_named() {
    let (s3, _) = mount(&[]).await;
    let ufs = open("s3://nowhere/at/all", &s3.options(), UfsContext::detached())
        .await
        .unwrap();
    for error in [
        probe(&*ufs).await.unwrap_err(),
        ufs.stat("f").await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
        let text = error.to_string();
        assert!(
            text.contains("there is no bucket nowhere at http://"),
            "{text}"
        );
    }
}

#[tokio::test]
async fn a_listing_asks_for_a_page_only_when_it_is_wanted() {
    let (s3, ufs) = mount(&[("page_size", "2")]).await;
    for name in ["a", "b", "c", "d", "e"] {
        s3.put("lake", name, "");
    }
    let mut pages = ufs.list("");
    assert!(pages.next().await.unwrap().unwrap().len() <= 2);
    assert_eq!(s3.counters().lists, 1);
    let rest: Vec<_> = pages.try_collect().await.unwrap();
    assert_eq!(s3.counters().lists, 3);
    assert_eq!(rest.len(), 2);
}

#[tokio::test]
async fn one_listing_tells_what_a_path_is() {
    let (s3, ufs) = mount(&[]).await;
    for key in [
        "d/f", "d/f.txt", "d/f-1", "d/sub/x", "d/sub-1", "d/both", "d/both/x", "d/m/",
    ] {
        s3.put("lake", key, "bytes");
    }
    for index in 0..100 {
        s3.put("lake", &format!("d/many-{index}"), "");
    }
    for key in ["d/many", "d/many/x", "d/other", "d/other-"] {
        s3.put("lake", key, "");
    }
    for (path, expected, lists) in [
        ("d/f", Some(false), 1),
        ("d", Some(true), 1),
        ("d/sub", Some(true), 1),
        ("d/both", Some(true), 1),
        ("d/m", Some(true), 1),
        ("d/none", None, 1),
        ("d/f/below", None, 1),
        ("d/other", Some(false), 1),
        // More names between the two than are asked for at first.
        ("d/many", Some(true), 2),
        ("d/many-", None, 1),
    ] {
        s3.reset_counters();
        let found = ufs.stat(path).await;
        let is_directory = found
            .as_ref()
            .ok()
            .map(millpond_ufs::Metadata::is_directory);
        assert_eq!(is_directory, expected, "{path}: {found:?}");
        let asked = s3.counters();
        assert_eq!((asked.lists, asked.requests), (lists, lists), "{path}");
    }
}

#[tokio::test]
async fn a_store_that_lists_whole_directories_only_is_asked_in_two_ways() {
    let (s3, ufs) = mount(&[]).await;
    s3.put("lake", "d/f", "bytes");
    s3.faults().fail_next_of(Asked::List, 1, 400);
    assert_eq!(ufs.stat("d/f").await.unwrap().size, 5);
    s3.reset_counters();
    assert_eq!(ufs.stat("d/f").await.unwrap().size, 5);
    assert!(ufs.stat("d").await.unwrap().is_directory());
    let error = ufs.stat("d/none").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert_eq!((s3.counters().lists, s3.counters().heads), (3, 3));
}

#[tokio::test]
async fn the_version_is_the_etag_as_the_store_gave_it() {
    let (s3, ufs) = mount(&[]).await;
    let e_tag = s3.put("lake", "f", "bytes");
    assert_eq!(
        version_of(&*ufs, "f").await,
        FileVersion::ETag(e_tag.into())
    );
    assert_eq!(ufs.object_uri("f"), format!("s3+{}/lake/f", s3.endpoint()));
}

#[tokio::test]
async fn requests_and_bytes_are_counted() {
    let (s3, _) = mount(&[]).await;
    let metrics = Arc::new(UfsMetrics::new(&mut Registry::default()));
    let mut context = UfsContext::detached();
    context.metrics = Arc::clone(&metrics);
    let ufs = open("s3://lake", &s3.options(), context).await.unwrap();
    s3.put("lake", "f", "bytes");
    let version = version_of(&*ufs, "f").await;
    read(&*ufs, "f", &version, 5).await.unwrap();
    ufs.stat("none").await.unwrap_err();
    assert_eq!(metrics.read_bytes(), 5);
    assert_eq!(metrics.succeeded(Op::Stat), 1);
    assert_eq!(metrics.succeeded(Op::Read), 1);
    assert_eq!(metrics.failed(Op::Stat, ErrorKind::NotFound), 1);
}

#[tokio::test]
async fn retries_are_not_made_where_they_cannot_help() {
    let (s3, ufs) = mount(&[]).await;
    s3.put("lake", "f", "bytes");
    s3.faults().fail_next_of(Asked::Get, 1, 403);
    let version = version_of(&*ufs, "f").await;
    s3.reset_counters();
    let error = read(&*ufs, "f", &version, 5).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);
    assert_eq!(s3.counters().gets, 1);
}

#[tokio::test]
async fn keys_come_from_the_environment_an_env_file_or_a_profile() {
    let (s3, _) = mount(&[]).await;
    s3.put("lake", "f", "bytes");
    let home = tempfile::tempdir().unwrap();
    let (id, secret) = (s3.access_key(), s3.secret_key());
    let variables = options(&[
        ("AWS_ACCESS_KEY_ID", id),
        ("AWS_SECRET_ACCESS_KEY", secret),
        ("AWS_ENDPOINT_URL", &s3.endpoint()),
    ]);
    let env_file = home.path().join(".env");
    std::fs::write(
        &env_file,
        format!("# keys\nexport AWS_ACCESS_KEY_ID={id}\nAWS_SECRET_ACCESS_KEY='{secret}'\n"),
    )
    .unwrap();
    std::fs::create_dir(home.path().join(".aws")).unwrap();
    std::fs::write(
        home.path().join(".aws/credentials"),
        format!("[lake]\naws_access_key_id={id}\naws_secret_access_key={secret}\n"),
    )
    .unwrap();
    std::fs::write(
        home.path().join(".aws/config"),
        format!("[profile lake]\nendpoint_url = {}\n", s3.endpoint()),
    )
    .unwrap();

    let from_file = options(&[
        ("endpoint", &s3.endpoint()),
        ("env_file", env_file.to_str().unwrap()),
    ]);
    for (given, variables) in [
        (Options::new(), variables),
        (from_file, Options::new()),
        (options(&[("profile", "lake")]), Options::new()),
        (Options::new(), options(&[("AWS_PROFILE", "lake")])),
    ] {
        let ufs = open("s3://lake", &given, context(variables, Some(home.path())))
            .await
            .unwrap();
        assert_eq!(ufs.stat("f").await.unwrap().size, 5, "{given:?}");
    }
}

#[tokio::test]
async fn keys_come_from_instance_metadata() {
    let (s3, _) = mount(&[]).await;
    s3.put("lake", "f", "bytes");
    let document = format!(
        r#"{{"Code":"Success","Type":"AWS-HMAC","AccessKeyId":"{}","SecretAccessKey":"{}",
            "Token":"token","LastUpdated":"2026-01-01T00:00:00Z",
            "Expiration":"2100-01-01T00:00:00Z"}}"#,
        s3.access_key(),
        s3.secret_key()
    );
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let metadata = format!("http://{}", listener.local_addr().unwrap());
    let app = axum::Router::new().fallback(move |request: Request| {
        let document = document.clone();
        async move {
            let roles = "/latest/meta-data/iam/security-credentials/";
            match (request.method(), request.uri().path()) {
                (&Method::PUT, "/latest/api/token") => "session".into_response(),
                (&Method::GET, path) if path == roles => "role".into_response(),
                (&Method::GET, path) if path == format!("{roles}role") => document.into_response(),
                _ => StatusCode::NOT_FOUND.into_response(),
            }
        }
    });
    let tasks = TaskTracker::new();
    let server = tasks.spawn(async move { axum::serve(listener, app).await.unwrap() });

    let given = options(&[("endpoint", &s3.endpoint()), ("credentials", "instance")]);
    let variables = options(&[("AWS_EC2_METADATA_SERVICE_ENDPOINT", &metadata)]);
    let ufs = open("s3://lake", &given, context(variables, None))
        .await
        .unwrap();
    assert_eq!(ufs.stat("f").await.unwrap().size, 5);
    server.abort();
}

#[tokio::test]
async fn without_any_keys_the_error_says_where_they_were_sought() {
    let (s3, _) = mount(&[]).await;
    let given = options(&[("endpoint", &s3.endpoint()), ("timeout", "3s")]);
    let variables = options(&[("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://127.0.0.1:1")]);
    let ufs = open("s3://lake", &given, context(variables, None))
        .await
        .unwrap();
    let error = probe(&*ufs).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
    let text = error.to_string();
    assert!(text.contains("no credentials could be had"), "{text}");
    assert!(text.contains("instance metadata"), "{text}");
}

#[tokio::test]
async fn wrong_settings_are_refused_at_once() {
    for (key, value, expected) in [
        ("endpoint", "localhost:9000", "endpoint"),
        (
            "endpoint",
            "http://user:password@host",
            "credentials do not belong",
        ),
        ("endpont", "http://host", "did you mean endpoint?"),
        ("credentials", "magic", "is not one of auto"),
        ("access_key_id", "A", "secret_access_key: missing"),
        ("env_file", "/does/not/exist", "cannot read /does/not/exist"),
        ("page_size", "0", "a number from 1 to 1000"),
    ] {
        let error = open(
            "s3://lake",
            &options(&[(key, value)]),
            UfsContext::detached(),
        )
        .await
        .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
        assert!(error.to_string().contains(expected), "{error}");
    }
}

async fn mount(extra: &[(&str, &str)]) -> (S3Fixture, Arc<dyn Ufs>) {
    let s3 = S3Fixture::start().await;
    s3.create_bucket("lake");
    let mut all = s3.options();
    all.extend(options(extra));
    let ufs = open("s3://lake", &all, UfsContext::detached())
        .await
        .unwrap();
    (s3, ufs)
}

fn options(pairs: &[(&str, &str)]) -> Options {
    pairs
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}

fn context(variables: Options, home: Option<&Path>) -> UfsContext {
    let mut context = UfsContext::detached();
    context.environment = Arc::new(Environment::new(variables, home.map(Path::to_owned)));
    context
}

async fn version_of(ufs: &dyn Ufs, path: &str) -> FileVersion {
    ufs.stat(path).await.unwrap().version.unwrap()
}

async fn read(
    ufs: &dyn Ufs,
    path: &str,
    version: &FileVersion,
    len: u64,
) -> Result<Bytes, UfsError> {
    read_to_bytes(ufs, path, version, 0..len).await
}

#[tokio::test]
async fn a_small_file_is_written_with_one_request() {
    let (s3, ufs) = mount(&[("posix_attributes", "full")]).await;
    let attributes = Attributes {
        mode: Some(0o600),
        ..Attributes::default()
    };
    let data = || Bytes::from_static(b"data");
    for condition in [Condition::Absent, Condition::Any] {
        s3.reset_counters();
        let put = ufs.put("d/f", data(), &attributes, &condition).await;
        assert!(put.unwrap().version.is_some());
        assert_eq!(s3.counters().requests, 1, "{condition:?}");
    }
    assert_eq!(s3.object("lake", "d/f").unwrap().metadata["mode"], "33152");
    s3.reset_counters();
    let upload = ufs.upload("d/g", &attributes).await.unwrap();
    upload.part(0, 0, data()).await.unwrap();
    upload.complete(4, &Condition::Absent).await.unwrap();
    assert_eq!(s3.counters().requests, 3);
}

/// The last file of a directory costs a marker; the others a look at it.
#[tokio::test]
async fn an_emptied_directory_is_kept_by_a_marker_or_goes_as_the_mount_has_it() {
    for (directories, requests, stays) in [("markers", 4, true), ("implicit", 2, false)] {
        let (s3, ufs) = mount(&[("directories", directories)]).await;
        s3.put("lake", "d/f", "bytes");
        s3.reset_counters();
        ufs.remove("d/f").await.unwrap();
        assert_eq!(s3.counters().requests, requests, "{directories}");
        assert_eq!(ufs.stat("d").await.is_ok(), stays, "{directories}");
        assert_eq!(s3.object("lake", "d/").is_some(), stays);
    }
}

#[tokio::test]
async fn what_is_too_large_for_one_copy_is_copied_in_parts() {
    let (s3, ufs) = mount(&[]).await;
    let size = (5 << 30) + 7;
    s3.put_sparse("lake", "big", size, vec![(size - 3, "end".into())]);
    ufs.copy("big", "copy", &Condition::Any).await.unwrap();
    let copy = s3.object("lake", "copy").unwrap();
    assert_eq!(copy.content.len(), size);
    assert_eq!(copy.content.read(size - 4, 9), "\0end");
    assert_eq!(s3.backend().open_uploads("lake"), Ok(0));
    ufs.rename("copy", "moved", RenameMode::NoReplace)
        .await
        .unwrap();
    assert!(s3.object("lake", "copy").is_none());
    assert_eq!(s3.object("lake", "moved").unwrap().content.len(), size);
}

/// Parts are as large as the store takes, and what it says of wrong ones is told.
#[tokio::test]
async fn parts_that_are_too_small_are_refused_by_the_store() {
    let (s3, ufs) = mount(&[]).await;
    let upload = ufs.upload("f", &Attributes::default()).await.unwrap();
    for number in 0..2 {
        let data = Bytes::from_static(b"data");
        upload
            .part(number, u64::from(number) * 4, data)
            .await
            .unwrap();
    }
    let error = upload.complete(8, &Condition::Any).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    assert!(error.to_string().contains("EntityTooSmall"), "{error}");
    upload.abort().await.unwrap();
    assert!(s3.object("lake", "f").is_none());
    assert_eq!(s3.backend().open_uploads("lake"), Ok(0));
}
