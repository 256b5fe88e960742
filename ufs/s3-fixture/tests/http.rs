//! The server over real HTTP.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::expect_used,
    reason = "a test that cannot go on should fail"
)]

#[path = "support/http.rs"]
mod http;

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Reply, request, send, sign};
use millpond_s3_fixture::{FixtureConfig, MIN_PART, Op, S3Fixture, pattern};

async fn get(s3: &S3Fixture, path: &str, headers: &[(&str, &str)]) -> Reply {
    request(s3, "GET", path, "", headers, b"").await
}

#[tokio::test]
async fn only_requests_signed_with_the_secret_are_served() {
    let s3 = S3Fixture::start().await;
    s3.put("bkt", "k", "content");
    assert_eq!(send(&s3, "GET", "/bkt/k", "", &[], b"").await.status, 403);
    let wrong = sign(&s3, "GET", "/bkt/k", "", &[], "another secret");
    let wrong: Vec<_> = wrong
        .iter()
        .map(|(n, v)| (n.as_str(), v.as_str()))
        .collect();
    let refused = send(&s3, "GET", "/bkt/k", "", &wrong, b"").await;
    assert_eq!(refused.status, 403);
    assert!(refused.text().contains("SignatureDoesNotMatch"));
    assert_eq!(s3.counters().requests, 0);
    let served = get(&s3, "/bkt/k", &[]).await;
    assert_eq!((served.status, served.text()), (200, "content"));

    let open = S3Fixture::start_with(FixtureConfig { anonymous: true }).await;
    open.put("bkt", "k", "content");
    assert_eq!(send(&open, "GET", "/bkt/k", "", &[], b"").await.status, 200);
    open.shutdown().await;
    s3.shutdown().await;
}

#[tokio::test]
async fn ranges_and_conditions_follow_rfc_9110() {
    let s3 = S3Fixture::start().await;
    let etag = s3.put("bkt", "k", "0123456789");
    s3.put("bkt", "empty", "");
    type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], u16, &'a str);
    let cases: [Case<'_>; 11] = [
        ("/bkt/k", &[], 200, "0123456789"),
        ("/bkt/k", &[("range", "bytes=2-4")], 206, "234"),
        ("/bkt/k", &[("range", "bytes=8-100")], 206, "89"),
        ("/bkt/k", &[("range", "bytes=-3")], 206, "789"),
        ("/bkt/k", &[("range", "bytes=10-11")], 416, ""),
        ("/bkt/empty", &[], 200, ""),
        ("/bkt/empty", &[("range", "bytes=0-0")], 416, ""),
        ("/bkt/k", &[("if-match", &etag)], 200, "0123456789"),
        ("/bkt/k", &[("if-match", "\"other\"")], 412, ""),
        ("/bkt/k", &[("if-none-match", &etag)], 304, ""),
        ("/bkt/nil", &[], 404, ""),
    ];
    for (path, headers, status, body) in cases {
        let reply = get(&s3, path, headers).await;
        assert_eq!(reply.status, status, "{path} {headers:?}");
        if status < 300 {
            assert_eq!(reply.text(), body);
            assert_eq!(
                reply.header("content-length").unwrap(),
                body.len().to_string()
            );
        }
    }
    let reply = get(&s3, "/bkt/k", &[("range", "bytes=2-4")]).await;
    assert_eq!(reply.header("content-range"), Some("bytes 2-4/10"));
    assert_eq!(reply.header("etag"), Some(etag.as_str()));
    assert_eq!(get(&s3, "/nil/k", &[]).await.status, 404);
    s3.shutdown().await;
}

#[tokio::test]
async fn head_tells_size_etag_and_metadata_without_a_body() {
    let s3 = S3Fixture::start().await;
    let put = request(&s3, "PUT", "/bkt", "", &[], b"").await;
    assert_eq!(put.status, 200);
    let headers = [("x-amz-meta-mode", "33188")];
    let put = request(&s3, "PUT", "/bkt/k", "", &headers, b"hello").await;
    assert_eq!(
        put.header("etag"),
        Some("\"5d41402abc4b2a76b9719d911017c592\"")
    );
    let head = request(&s3, "HEAD", "/bkt/k", "", &[], b"").await;
    assert_eq!(head.status, 200);
    assert_eq!(head.header("content-length"), Some("5"));
    assert_eq!(head.header("etag"), put.header("etag"));
    assert_eq!(head.header("x-amz-meta-mode"), Some("33188"));
    assert!(head.body.is_empty());
    assert_eq!(
        request(&s3, "HEAD", "/bkt/nil", "", &[], b"").await.status,
        404
    );
    assert_eq!(request(&s3, "HEAD", "/bkt", "", &[], b"").await.status, 200);
    assert_eq!(request(&s3, "HEAD", "/nil", "", &[], b"").await.status, 404);
    assert_eq!(s3.counters().heads, 4);
    s3.shutdown().await;
}

#[tokio::test]
async fn odd_keys_are_kept_as_they_are() {
    let s3 = S3Fixture::start().await;
    let keys = [
        ("a//b", "a//b"),
        ("/lead", "/lead"),
        ("k", "k"),
        ("k/x", "k/x"),
        ("dir/", "dir/"),
        ("100%", "100%25"),
        ("sp ace", "sp%20ace"),
        ("ünï", "%C3%BCn%C3%AF"),
        ("a+b&c=d", "a%2Bb%26c%3Dd"),
        ("a%2Fb", "a%252Fb"),
    ];
    for (key, encoded) in keys {
        let path = format!("/bkt/{encoded}");
        s3.create_bucket("bkt");
        let put = request(&s3, "PUT", &path, "", &[], key.as_bytes()).await;
        assert_eq!(put.status, 200, "{key}");
        assert!(s3.object("bkt", key).is_some(), "{key}");
        assert_eq!(get(&s3, &path, &[]).await.text(), key);
    }
    let list = request(&s3, "GET", "/bkt", "list-type=2", &[], b"").await;
    assert_eq!(list.text().matches("<Key>").count(), keys.len());
    assert!(list.text().contains("<Key>a//b</Key>"));
    assert!(list.text().contains("<Key>/lead</Key>"));
    let deleted = request(&s3, "DELETE", "/bkt/k", "", &[], b"").await;
    assert_eq!(deleted.status, 204);
    assert_eq!(get(&s3, "/bkt/k", &[]).await.status, 404);
    assert_eq!(get(&s3, "/bkt/k/x", &[]).await.text(), "k/x");
    s3.shutdown().await;
}

#[tokio::test]
async fn listings_page_through_and_carry_etags() {
    let s3 = S3Fixture::start().await;
    for n in 0..5 {
        s3.put("bkt", &format!("d/{n}"), vec![b'x'; n]);
    }
    s3.put("bkt", "top", "x");
    let page = request(
        &s3,
        "GET",
        "/bkt",
        "delimiter=%2F&list-type=2&max-keys=1",
        &[],
        b"",
    )
    .await;
    assert!(
        page.text()
            .contains("<CommonPrefixes><Prefix>d/</Prefix></CommonPrefixes>")
    );
    assert!(page.text().contains("<IsTruncated>true</IsTruncated>"));
    let token = between(page.text(), "<NextContinuationToken>", "<");
    let query = format!("continuation-token={token}&delimiter=%2F&list-type=2&max-keys=1");
    let page = request(&s3, "GET", "/bkt", &query, &[], b"").await;
    assert_eq!(between(page.text(), "<Key>", "<"), "top");
    assert!(page.text().contains("<IsTruncated>false</IsTruncated>"));
    assert!(
        page.text().contains("9dd4e461268c8034f5c8564e155c67a6"),
        "{}",
        page.text()
    );
    let query = "list-type=2&prefix=d%2F&start-after=d%2F2";
    let page = request(&s3, "GET", "/bkt", query, &[], b"").await;
    assert_eq!(page.text().matches("<Key>").count(), 2);
    assert_eq!(s3.counters().lists, 3);
    s3.shutdown().await;
}

#[tokio::test]
async fn of_many_conditional_puts_exactly_one_wins() {
    let s3 = S3Fixture::start().await;
    s3.create_bucket("bkt");
    let put = |n: usize| {
        let s3 = &s3;
        async move {
            let body = n.to_string();
            request(
                s3,
                "PUT",
                "/bkt/k",
                "",
                &[("if-none-match", "*")],
                body.as_bytes(),
            )
            .await
            .status
        }
    };
    let statuses = futures::future::join_all((0..8).map(put)).await;
    assert_eq!(
        statuses.iter().filter(|status| **status == 200).count(),
        1,
        "{statuses:?}"
    );
    assert_eq!(
        statuses.iter().filter(|status| **status == 412).count(),
        7,
        "{statuses:?}"
    );
    s3.shutdown().await;
}

#[tokio::test]
async fn multipart_uploads_and_copies_make_objects() {
    let s3 = S3Fixture::start().await;
    let size = MIN_PART + 10;
    s3.put_sparse("bkt", "source", size, vec![(0, "0123456789".into())]);
    let begun = request(&s3, "POST", "/bkt/k", "uploads=", &[], b"").await;
    let id = between(begun.text(), "<UploadId>", "<").to_owned();
    let part = request(
        &s3,
        "PUT",
        "/bkt/k",
        &format!("partNumber=2&uploadId={id}"),
        &[],
        b"abc",
    )
    .await;
    let second = part.header("etag").unwrap().to_owned();
    let range = format!("bytes=2-{}", MIN_PART + 1);
    let headers = [
        ("x-amz-copy-source", "/bkt/source"),
        ("x-amz-copy-source-range", range.as_str()),
    ];
    let part = request(
        &s3,
        "PUT",
        "/bkt/k",
        &format!("partNumber=1&uploadId={id}"),
        &headers,
        b"",
    )
    .await;
    let first = between(part.text(), "<ETag>", "</ETag>").replace("&quot;", "\"");
    let xml = format!(
        "<CompleteMultipartUpload>\
         <Part><ETag>{first}</ETag><PartNumber>1</PartNumber></Part>\
         <Part><ETag>{second}</ETag><PartNumber>2</PartNumber></Part>\
         </CompleteMultipartUpload>"
    );
    assert!(s3.object("bkt", "k").is_none());
    let query = format!("uploadId={id}");
    let done = request(&s3, "POST", "/bkt/k", &query, &[], xml.as_bytes()).await;
    assert_eq!(done.status, 200, "{}", done.text());
    let made = |key: &str| {
        let content = s3.object("bkt", key).unwrap().content.clone();
        (content.read(0, 9), content.read(MIN_PART - 1, 9))
    };
    assert_eq!(made("k"), ("23456789\0".into(), "\0abc".into()));
    let copied = request(
        &s3,
        "PUT",
        "/bkt/copy",
        "",
        &[("x-amz-copy-source", "/bkt/k")],
        b"",
    )
    .await;
    assert_eq!(copied.status, 200);
    assert_eq!(made("copy"), made("k"));
    let itself = [("x-amz-copy-source", "/bkt/k")];
    let refused = request(&s3, "PUT", "/bkt/k", "", &itself, b"").await;
    assert_eq!(refused.status, 400);
    let sums = [("x-amz-checksum-crc32c", "AAAAAA==")];
    let refused = request(&s3, "PUT", "/bkt/sum", "", &sums, b"abc").await;
    assert_eq!(refused.status, 400, "{}", refused.text());
    assert!(refused.text().contains("BadDigest"));
    let begun = request(&s3, "POST", "/bkt/k2", "uploads=", &[], b"").await;
    let query = format!("uploadId={}", between(begun.text(), "<UploadId>", "<"));
    assert_eq!(s3.backend().open_uploads("bkt"), Ok(1));
    let open = request(&s3, "GET", "/bkt", "prefix=k&uploads=", &[], b"").await;
    assert_eq!(between(open.text(), "<Key>", "<"), "k2");
    assert_eq!(
        request(&s3, "DELETE", "/bkt/k2", &query, &[], b"")
            .await
            .status,
        204
    );
    assert_eq!(s3.backend().open_uploads("bkt"), Ok(0));
    s3.shutdown().await;
}

#[tokio::test]
async fn large_objects_are_served_without_being_held() {
    let s3 = S3Fixture::start().await;
    s3.put_sparse(
        "bkt",
        "sparse",
        1 << 30,
        vec![(1 << 29, Bytes::from_static(b"middle"))],
    );
    s3.put_generated("bkt", "generated", 1 << 40, 7);
    let range = format!("bytes={}-{}", (1 << 29) - 3, (1 << 29) + 8);
    let reply = get(&s3, "/bkt/sparse", &[("range", &range)]).await;
    assert_eq!(reply.body, b"\0\0\0middle\0\0\0");
    let range = format!("bytes={}-{}", (1u64 << 39) + 5, (1u64 << 39) + 5 + 999_999);
    let reply = get(&s3, "/bkt/generated", &[("range", &range)]).await;
    assert_eq!(reply.body, pattern(7, (1 << 39) + 5, 1_000_000));
    assert_eq!(s3.counters().get_bytes, 12 + 1_000_000);
    s3.shutdown().await;
}

#[tokio::test]
async fn faults_do_what_they_say() {
    let s3 = S3Fixture::start().await;
    s3.put("bkt", "k", vec![b'x'; 1000]);
    let faults = s3.faults();

    faults.fail_next_of(Op::Get, 2, 503);
    assert_eq!(get(&s3, "/bkt/k", &[]).await.status, 503);
    assert_eq!(
        request(&s3, "HEAD", "/bkt/k", "", &[], b"").await.status,
        200
    );
    assert_eq!(get(&s3, "/bkt/k", &[]).await.status, 503);
    assert_eq!(get(&s3, "/bkt/k", &[]).await.status, 200);

    faults.cut_next(1, 300);
    let cut = get(&s3, "/bkt/k", &[]).await;
    assert_eq!(
        (cut.status, cut.header("content-length")),
        (200, Some("1000"))
    );
    assert_eq!(cut.body.len(), 300);
    assert_eq!(get(&s3, "/bkt/k", &[]).await.body.len(), 1000);

    let honest = get(&s3, "/bkt/k", &[]).await;
    faults.wrong_etag_next(1);
    assert_ne!(
        get(&s3, "/bkt/k", &[]).await.header("etag"),
        honest.header("etag")
    );
    assert_eq!(
        get(&s3, "/bkt/k", &[]).await.header("etag"),
        honest.header("etag")
    );

    faults.set_ignore_preconditions(true);
    assert_eq!(
        get(&s3, "/bkt/k", &[("if-match", "\"other\"")])
            .await
            .status,
        200
    );
    faults.clear();
    assert_eq!(
        get(&s3, "/bkt/k", &[("if-match", "\"other\"")])
            .await
            .status,
        412
    );
    assert_eq!(s3.counters().errors_injected, 4);

    s3.reset_counters();
    faults.set_bandwidth(Some(5000));
    let start = Instant::now();
    assert_eq!(get(&s3, "/bkt/k", &[]).await.body.len(), 1000);
    assert!(
        start.elapsed() >= Duration::from_millis(190),
        "{:?}",
        start.elapsed()
    );
    faults.clear();
    faults.set_latency(Duration::from_millis(50));
    let start = Instant::now();
    get(&s3, "/bkt/k", &[]).await;
    assert!(start.elapsed() >= Duration::from_millis(50));
    faults.clear();

    let gate = faults.hold(Some(Op::Get));
    let mut held = Box::pin(get(&s3, "/bkt/k", &[]));
    while gate.waiting() == 0 {
        assert!(futures::poll!(held.as_mut()).is_pending());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    gate.release();
    assert_eq!(held.await.status, 200);
    s3.shutdown().await;
}

fn between<'a>(text: &'a str, start: &str, end: &str) -> &'a str {
    let from = text
        .find(start)
        .unwrap_or_else(|| panic!("{start} in {text}"))
        + start.len();
    &text[from..from + text[from..].find(end).unwrap()]
}
