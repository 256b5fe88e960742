//! A small web server: files with ETags, ranges and conditions, and Azure's listing.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode, Uri, header};
use axum::response::Response;
use bytes::Bytes;
use parking_lot::Mutex;
use percent_encoding::percent_decode_str;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

/// The running server. Keys are decoded paths without the leading slash.
pub(crate) struct Web {
    addr: SocketAddr,
    files: Arc<Files>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

#[derive(Default)]
struct Files {
    by_key: Mutex<BTreeMap<String, (Bytes, String)>>,
    puts: AtomicU64,
}

impl Web {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let files = Arc::new(Files::default());
        let app = axum::Router::new()
            .fallback(serve)
            .with_state(Arc::clone(&files));
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let stopped = stop.clone().cancelled_owned();
        tasks.spawn(async move {
            axum::serve(listener, app)
                .with_graceful_shutdown(stopped)
                .await
                .unwrap();
        });
        Self {
            addr,
            files,
            stop,
            tasks,
        }
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.addr)
    }

    pub(crate) fn put(&self, key: &str, data: &[u8]) {
        let number = self.files.puts.fetch_add(1, Ordering::Relaxed);
        let file = (Bytes::copy_from_slice(data), format!("\"tag-{number}\""));
        self.files.by_key.lock().insert(key.to_owned(), file);
    }

    pub(crate) fn delete(&self, key: &str) {
        assert!(self.files.by_key.lock().remove(key).is_some());
    }

    pub(crate) fn shutdown(&self) {
        self.stop.cancel();
        self.tasks.close();
    }
}

async fn serve(State(files): State<Arc<Files>>, request: Request) -> Response {
    let query = query_of(request.uri());
    let key = percent_decode_str(request.uri().path())
        .decode_utf8()
        .unwrap()
        .trim_start_matches('/')
        .to_owned();
    if query.get("comp").is_some_and(|comp| comp == "list") {
        return listing(&files, &format!("{}/", key.trim_end_matches('/')), &query);
    }
    let header = |name: header::HeaderName| {
        let value = request.headers().get(name)?;
        Some(value.to_str().unwrap().to_owned())
    };
    let Some((data, tag)) = files.by_key.lock().get(&key).cloned() else {
        return respond(StatusCode::NOT_FOUND);
    };
    if header(header::IF_MATCH).is_some_and(|wanted| wanted != tag) {
        return respond(StatusCode::PRECONDITION_FAILED);
    }
    let base = Response::builder()
        .header(header::ETAG, tag)
        .header(header::LAST_MODIFIED, DATE);
    if *request.method() == Method::HEAD {
        let head = base.header(header::CONTENT_LENGTH, data.len());
        return head.body(Body::empty()).unwrap();
    }
    // Azure's client sends its own header beside the standard one.
    let range =
        header(header::RANGE).or_else(|| header(header::HeaderName::from_static("x-ms-range")));
    let Some(range) = range else {
        return base.body(Body::from(data)).unwrap();
    };
    let (start, end) = range
        .strip_prefix("bytes=")
        .unwrap()
        .split_once('-')
        .unwrap();
    let (start, end): (usize, usize) = (start.parse().unwrap(), end.parse().unwrap());
    if start >= data.len() {
        return respond(StatusCode::RANGE_NOT_SATISFIABLE);
    }
    let end = (end + 1).min(data.len());
    base.status(StatusCode::PARTIAL_CONTENT)
        .header(
            header::CONTENT_RANGE,
            format!("bytes {start}-{}/{}", end - 1, data.len()),
        )
        .body(Body::from(data.slice(start..end)))
        .unwrap()
}

/// One page of the blobs below `container/`.
fn listing(files: &Files, container: &str, query: &BTreeMap<String, String>) -> Response {
    let prefix = format!(
        "{container}{}",
        query.get("prefix").map_or("", String::as_str)
    );
    let max: usize = query
        .get("maxresults")
        .map_or(5000, |max| max.parse().unwrap());
    let mut from = match query.get("marker") {
        Some(marker) => Bound::Included(format!("{container}{marker}")),
        None => Bound::Included(prefix.clone()),
    };
    let files = files.by_key.lock();
    let (mut body, mut count, mut next) = (String::new(), 0, String::new());
    while let Some((key, (data, tag))) = files
        .range::<str, _>((from.as_ref().map(String::as_str), Bound::Unbounded))
        .next()
        .filter(|(key, _)| key.starts_with(&prefix))
    {
        if count == max {
            key[container.len()..].clone_into(&mut next);
            break;
        }
        count += 1;
        from = match key[prefix.len()..].split_once('/') {
            Some((name, _)) => {
                let shown = escape(&format!("{}{name}/", &prefix[container.len()..]));
                write!(body, "<BlobPrefix><Name>{shown}</Name></BlobPrefix>").unwrap();
                Bound::Included(format!("{prefix}{name}0"))
            }
            None => {
                let shown = escape(&key[container.len()..]);
                write!(
                    body,
                    "<Blob><Name>{shown}</Name><Properties><Last-Modified>{DATE}</Last-Modified>\
                     <Etag>{}</Etag><Content-Type>text/plain</Content-Type><Content-Length>{}</Content-Length></Properties></Blob>",
                    tag.trim_matches('"'),
                    data.len()
                )
                .unwrap();
                Bound::Excluded(key.clone())
            }
        };
    }
    let document = format!(
        "<?xml version=\"1.0\" encoding=\"utf-8\"?><EnumerationResults><Blobs>{body}</Blobs>\
         <NextMarker>{}</NextMarker></EnumerationResults>",
        escape(&next)
    );
    Response::new(Body::from(document))
}

fn escape(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '&' | '<' | '>' | '"' | '\'' | '\u{0}'..='\u{1f}' => {
                write!(out, "&#{};", u32::from(c)).unwrap();
            }
            c => out.push(c),
        }
    }
    out
}

fn query_of(uri: &Uri) -> BTreeMap<String, String> {
    let pairs = uri.query().unwrap_or_default().split('&');
    pairs
        .filter_map(|pair| {
            let (name, value) = pair.split_once('=')?;
            let value = value.replace('+', " ");
            let value = percent_decode_str(&value).decode_utf8().unwrap();
            Some((name.to_owned(), value.into_owned()))
        })
        .collect()
}

fn respond(status: StatusCode) -> Response {
    Response::builder()
        .status(status)
        .body(Body::empty())
        .unwrap()
}
