#![allow(clippy::unwrap_used, reason = "a test that cannot go on should fail")]
//! Web servers that do less than the one of the conformance suite.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures::StreamExt;
use millpond_proto::{ErrorKind, FileVersion};
use millpond_ufs::{FileKind, Ufs, UfsContext, open, probe, read_to_bytes};
use tokio::net::TcpListener;
use tokio_util::task::TaskTracker;

const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

#[tokio::test]
async fn a_server_without_etags_has_dates_as_versions() {
    let uri = serve(|_| ([(header::LAST_MODIFIED, DATE)], "bytes").into_response()).await;
    let ufs = mount(&uri, &[]).await;
    let metadata = ufs.stat("f").await.unwrap();
    let version = FileVersion::Modified(784_111_777_000_000_000);
    assert_eq!(metadata.version, Some(version.clone()));
    assert_eq!(metadata.size, 5);
    let bytes = read_to_bytes(&*ufs, "f", &version, 0..5).await.unwrap();
    assert_eq!(bytes, "bytes");
    let other = FileVersion::Modified(0);
    let error = read_to_bytes(&*ufs, "f", &other, 0..5).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Stale);
}

#[tokio::test]
async fn a_server_without_ranges_can_only_be_read_whole() {
    let uri = serve(|_| ([(header::ETAG, "\"a\"")], "bytes").into_response()).await;
    let ufs = mount(&uri, &[]).await;
    let version = ufs.stat("f").await.unwrap().version.unwrap();
    assert_eq!(
        read_to_bytes(&*ufs, "f", &version, 0..5).await.unwrap(),
        "bytes"
    );
    let error = read_to_bytes(&*ufs, "f", &version, 1..3).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
}

#[tokio::test]
async fn without_any_validator_a_file_is_unsupported() {
    let uri = serve(|_| "bytes".into_response()).await;
    let ufs = mount(&uri, &[]).await;
    let error = ufs.stat("f").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    assert!(error.to_string().contains("ETag or Last-Modified"));
}

#[tokio::test]
async fn directories_exist_but_are_not_listed() {
    let uri = serve(|request| match request.uri().path() {
        "/base/dir/" => "index".into_response(),
        "/base/moved" => (
            StatusCode::MOVED_PERMANENTLY,
            [(header::LOCATION, "/base/dir/")],
        )
            .into_response(),
        _ => StatusCode::NOT_FOUND.into_response(),
    })
    .await;
    let ufs = mount(&format!("{uri}/base"), &[]).await;
    for path in ["", "dir", "moved"] {
        let metadata = ufs.stat(path).await.unwrap();
        assert_eq!(metadata.kind, FileKind::Directory, "{path:?}");
    }
    let error = ufs.stat("none").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    let error = ufs.list("").next().await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    probe(&*ufs).await.unwrap();
}

#[tokio::test]
async fn credentials_are_sent_and_their_lack_is_denied() {
    let uri = serve(|request| {
        match request
            .headers()
            .get(header::AUTHORIZATION)
            .map(|v| v.to_str().unwrap())
        {
            Some("Basic dXNlcjpodW50ZXIy" | "Bearer hunter2") => {
                ([(header::ETAG, "\"a\"")], "bytes").into_response()
            }
            _ => StatusCode::UNAUTHORIZED.into_response(),
        }
    })
    .await;
    for options in [
        &[("username", "user"), ("password", "hunter2")][..],
        &[("bearer_token", "hunter2")][..],
    ] {
        let ufs = mount(&uri, options).await;
        assert_eq!(ufs.stat("f").await.unwrap().size, 5);
        assert!(!format!("{ufs:?}").contains("hunter2"));
    }
    let error = mount(&uri, &[]).await.stat("f").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);
    assert!(error.to_string().contains("check username"), "{error}");
}

#[tokio::test]
async fn bytes_of_whole_objects_have_the_sum_that_the_store_sent() {
    let anonymous = [("credentials", "anonymous")];
    for (scheme, name, sum) in [
        ("http", "content-md5", "JfnnlDI7RTiF9RgfG2JNCw=="),
        ("s3://b", "x-amz-checksum-crc32c", "4waSgw=="),
        ("gs://b", "x-goog-hash", "crc32c=4waSgw=="),
    ] {
        // The sum is that of the bytes 123456789.
        let uri = serve(move |request| {
            let is_right = request.uri().path().ends_with("right");
            let data = if is_right { "123456789" } else { "123456780" };
            let headers = request.headers();
            let range = headers.get(header::RANGE).unwrap().to_str().unwrap();
            let range = range
                .strip_prefix("bytes=")
                .unwrap()
                .split_once('-')
                .unwrap();
            let (first, last): (usize, usize) =
                (range.0.parse().unwrap(), range.1.parse().unwrap());
            let head = [
                (header::ETAG.as_str(), "\"a\"".to_owned()),
                (header::LAST_MODIFIED.as_str(), DATE.to_owned()),
                (
                    header::CONTENT_RANGE.as_str(),
                    format!("bytes {first}-{last}/9"),
                ),
                (name, sum.to_owned()),
            ];
            (StatusCode::PARTIAL_CONTENT, head, &data[first..=last]).into_response()
        })
        .await;
        let ufs = match scheme {
            "http" => mount(&uri, &[]).await,
            store => {
                let endpoint = [("endpoint", uri.as_str()), ("allow_http", "true")];
                mount(store, &[&endpoint[..], &anonymous[..]].concat()).await
            }
        };
        let version = FileVersion::ETag("\"a\"".into());
        let read = async |path: &str, len| read_to_bytes(&*ufs, path, &version, 0..len).await;
        assert_eq!(read("right", 9).await.unwrap(), "123456789", "{scheme}");
        let error = read("wrong", 9).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{scheme}: {error}");
        // The sum says nothing of a part.
        assert_eq!(read("wrong", 5).await.unwrap(), "12345", "{scheme}");
    }
}

#[tokio::test]
async fn passing_failures_are_tried_again() {
    let asked = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&asked);
    let uri = serve(move |_| match count.fetch_add(1, Ordering::SeqCst) {
        0 | 1 => StatusCode::SERVICE_UNAVAILABLE.into_response(),
        _ => ([(header::ETAG, "\"a\"")], "bytes").into_response(),
    })
    .await;
    let ufs = mount(&uri, &[]).await;
    assert_eq!(ufs.stat("f").await.unwrap().size, 5);
    assert_eq!(asked.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn a_weak_etag_is_compared_with_the_answer() {
    let uri = serve(|request| {
        let conditions: &HeaderMap = request.headers();
        if conditions.contains_key(header::IF_MATCH) {
            return StatusCode::PRECONDITION_FAILED.into_response();
        }
        ([(header::ETAG, "W/\"a\"")], "bytes").into_response()
    })
    .await;
    let ufs = mount(&uri, &[]).await;
    let version = ufs.stat("f").await.unwrap().version.unwrap();
    assert_eq!(
        read_to_bytes(&*ufs, "f", &version, 0..5).await.unwrap(),
        "bytes"
    );
    let other = FileVersion::ETag("W/\"b\"".into());
    let error = read_to_bytes(&*ufs, "f", &other, 0..5).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Stale);
}

/// A server that lives as long as the test's runtime.
async fn serve(answer: impl Fn(Request) -> Response + Clone + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let uri = format!("http://{}", listener.local_addr().unwrap());
    let app = axum::Router::new().fallback(move |request: Request| {
        let answer = answer.clone();
        async move { answer(request) }
    });
    TaskTracker::new().spawn(async move { axum::serve(listener, app).await });
    uri
}

async fn mount(uri: &str, options: &[(&str, &str)]) -> Arc<dyn Ufs> {
    let options: BTreeMap<String, String> = options
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect();
    open(uri, &options, UfsContext::detached()).await.unwrap()
}
