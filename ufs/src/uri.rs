//! The URIs that name an under-store.

use std::fmt;

use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};

use crate::name;

/// The kinds of store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// S3 and everything that speaks its protocol.
    S3,
    /// Google Cloud Storage.
    Gcs,
    /// Azure Blob Storage.
    Azure,
    /// A directory of this machine.
    File,
    /// Memory of this process, for tests.
    Memory,
    /// A web server, read-only and without listings.
    Http,
}

/// A parsed URI. Prints as its canonical text, which parses to the same value.
///
/// | form | means |
/// |---|---|
/// | `s3://bucket/prefix`, `s3a://…` | S3; the rest is the key prefix as it is, not percent-decoded |
/// | `gs://bucket/prefix`, `gcs://…` | Google Cloud Storage, likewise |
/// | `az://container/prefix`, `azure://…` | Azure Blob, account from the options |
/// | `abfs[s]://container@account.dfs.core.windows.net/prefix` | Azure Blob, account in the URI |
/// | `/absolute/dir` | a local directory, the text as it is |
/// | `file:///absolute/dir` | a local directory, percent-decoded |
/// | `memory:///name/prefix` | the memory store `name` of this process |
/// | `http[s]://host[:port]/base` | a web server |
///
/// Invariants: `root` has no `/` at either end (except that of `File`, which is an absolute
/// path without one at its end, or `/`), no empty component, no `.` or `..`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct UfsUri {
    scheme: Scheme,
    authority: String,
    account: Option<String>,
    root: String,
}

/// The text is not the URI of an under-store; the message says why and what is expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ParseUriError(String);

impl UfsUri {
    /// Parses any of the forms above.
    ///
    /// # Errors
    /// The text is none of them. The message does not repeat the text.
    pub fn parse(text: &str) -> Result<Self, ParseUriError> {
        if text.starts_with('/') {
            return Self::file(text);
        }
        let Some((scheme, rest)) = text.split_once("://") else {
            return Err(wrong(
                "neither a URI nor an absolute path; expected s3://, gs://, az://, file://, \
                 memory://, http(s):// or a path that starts with /",
            ));
        };
        match scheme.to_ascii_lowercase().as_str() {
            "s3" | "s3a" => Self::bucket(Scheme::S3, rest),
            "gs" | "gcs" => Self::bucket(Scheme::Gcs, rest),
            "az" | "azure" | "abfs" | "abfss" => Self::bucket(Scheme::Azure, rest),
            "file" => Self::file_uri(rest),
            "memory" => Self::memory(rest),
            scheme @ ("http" | "https") => Self::http(scheme, rest),
            other => Err(wrong(&format!(
                "unknown scheme {other:?}; expected s3, gs, az, abfs, file, memory, http or https"
            ))),
        }
    }

    /// The kind of store.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// The bucket, container, memory store, or `scheme://host:port` of a web server; empty
    /// for a local directory.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// The Azure account, if the URI names it.
    pub fn account(&self) -> Option<&str> {
        self.account.as_deref()
    }

    /// The key prefix, directory or base path; see the invariants of the type.
    pub fn root(&self) -> &str {
        &self.root
    }

    fn bucket(scheme: Scheme, rest: &str) -> Result<Self, ParseUriError> {
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let (bucket, account) = match bucket.split_once('@') {
            Some((container, host)) if scheme == Scheme::Azure => {
                let account = host.split('.').next().unwrap_or(host);
                (container, Some(account.to_owned()))
            }
            Some(_) => {
                return Err(wrong(
                    "credentials do not belong in the URI; give them as options",
                ));
            }
            None => (bucket, None),
        };
        if bucket.is_empty() {
            return Err(wrong("the bucket name is missing"));
        }
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        if !bucket.chars().all(plain) || account.as_deref().is_some_and(|a| !a.chars().all(plain)) {
            return Err(wrong(
                "a bucket name has only letters, digits, dots, hyphens and underscores",
            ));
        }
        Ok(Self {
            scheme,
            authority: bucket.to_owned(),
            account,
            root: prefix_of(prefix)?,
        })
    }

    fn memory(rest: &str) -> Result<Self, ParseUriError> {
        let rest = rest
            .strip_prefix('/')
            .ok_or_else(|| wrong("expected memory:///name or memory:///name/prefix"))?;
        let (name, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        if name.is_empty() {
            return Err(wrong(
                "the store's name is missing; expected memory:///name",
            ));
        }
        Ok(Self {
            scheme: Scheme::Memory,
            authority: name.to_owned(),
            account: None,
            root: prefix_of(prefix)?,
        })
    }

    fn file_uri(rest: &str) -> Result<Self, ParseUriError> {
        let path = rest.strip_prefix("localhost").unwrap_or(rest);
        if !path.starts_with('/') {
            return Err(wrong("expected file:///absolute/directory"));
        }
        let path = percent_decode_str(path)
            .decode_utf8()
            .map_err(|_| wrong("the path is not UTF-8"))?;
        Self::file(&path)
    }

    fn file(path: &str) -> Result<Self, ParseUriError> {
        let mut root = String::with_capacity(path.len());
        for component in path.split('/').filter(|c| !c.is_empty() && *c != ".") {
            if component == ".." {
                return Err(wrong(
                    "the path of the directory must not have .. components",
                ));
            }
            if component.contains('\0') {
                return Err(wrong("the path holds a NUL character"));
            }
            root.push('/');
            root.push_str(component);
        }
        if root.is_empty() {
            root.push('/');
        }
        Ok(Self {
            scheme: Scheme::File,
            authority: String::new(),
            account: None,
            root,
        })
    }

    fn http(scheme: &str, rest: &str) -> Result<Self, ParseUriError> {
        let url = url::Url::parse(&format!("{scheme}://{rest}"))
            .map_err(|error| wrong(&format!("not a well-formed URL: {error}")))?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(wrong(
                "credentials do not belong in the URI; give them as the options username and \
                 password, or bearer_token",
            ));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(wrong(
                "a query or fragment cannot be the root of a file tree; write ? and # as %3F \
                 and %23",
            ));
        }
        let path = percent_decode_str(url.path())
            .decode_utf8()
            .map_err(|_| wrong("the path is not UTF-8"))?;
        Ok(Self {
            scheme: Scheme::Http,
            authority: url.origin().ascii_serialization(),
            account: None,
            root: prefix_of(path.trim_start_matches('/'))?,
        })
    }
}

impl fmt::Display for UfsUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            scheme,
            authority,
            account,
            root,
        } = self;
        match (scheme, account) {
            (Scheme::S3, _) => write!(f, "s3://{authority}")?,
            (Scheme::Gcs, _) => write!(f, "gs://{authority}")?,
            (Scheme::Azure, None) => write!(f, "az://{authority}")?,
            (Scheme::Azure, Some(account)) => write!(f, "abfs://{authority}@{account}")?,
            (Scheme::File, _) => return write!(f, "file://{}", encode_path(root)),
            (Scheme::Memory, _) => write!(f, "memory:///{authority}")?,
            (Scheme::Http, _) => write!(f, "{authority}")?,
        }
        if root.is_empty() {
            return Ok(());
        }
        match scheme {
            Scheme::Http => write!(f, "/{}", encode_path(root)),
            _ => write!(f, "/{root}"),
        }
    }
}

/// `path` with what has a meaning in a URL encoded, and nothing else.
pub(crate) fn encode_path(path: &str) -> impl fmt::Display + '_ {
    utf8_percent_encode(path, PATH)
}

/// A key prefix without the slashes at its ends, if the rest is one that can be reached.
fn prefix_of(text: &str) -> Result<String, ParseUriError> {
    let prefix = text.strip_suffix('/').unwrap_or(text);
    if prefix.is_empty() {
        return Ok(String::new());
    }
    for component in prefix.split('/') {
        if let Some(fault) = name::fault(component) {
            return Err(wrong(&format!(
                "the prefix has a component that {fault}; such keys cannot be reached"
            )));
        }
    }
    Ok(prefix.to_owned())
}

fn wrong(message: &str) -> ParseUriError {
    ParseUriError(message.to_owned())
}

/// What must not stand for itself in the path of a URL.
const PATH: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'%')
    .add(b'<')
    .add(b'>')
    .add(b'?')
    .add(b'[')
    .add(b'\\')
    .add(b']')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}');

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn canonical(text: &str) -> String {
        match UfsUri::parse(text) {
            Ok(uri) => uri.to_string(),
            Err(error) => format!("error: {error}"),
        }
    }

    #[test]
    fn every_form_has_one_canonical_text() {
        for (text, expected) in [
            ("s3://b", "s3://b"),
            ("s3a://b/", "s3://b"),
            ("S3://b/p/q/", "s3://b/p/q"),
            ("s3://b/a%20b c", "s3://b/a%20b c"),
            ("gcs://b/p", "gs://b/p"),
            ("az://c/p", "az://c/p"),
            ("abfss://c@acct.dfs.core.windows.net/p", "abfs://c@acct/p"),
            ("/data//x/./y/", "file:///data/x/y"),
            ("file:///a%20b", "file:///a%20b"),
            ("/a b", "file:///a%20b"),
            ("file://localhost/x", "file:///x"),
            ("/", "file:///"),
            ("memory:///n/p", "memory:///n/p"),
            ("http://h:80/base/", "http://h/base"),
            ("https://h/a%20b", "https://h/a%20b"),
        ] {
            assert_eq!(canonical(text), expected, "{text}");
        }
    }

    #[test]
    fn wrong_texts_are_refused_without_repeating_secrets() {
        for text in [
            "",
            "data",
            "ftp://x/y",
            "s3://",
            "s3:///key",
            "s3://b/a//b",
            "s3://b/../x",
            "s3://key:hunter2@b/x",
            "https://user:hunter2@h/x",
            "https://h/x?token=hunter2",
            "memory://n",
            "memory:///",
            "file://host/x",
            "file://x",
            "/a/../b",
        ] {
            let error = UfsUri::parse(text).expect_err(text);
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn canonical_text_parses_to_the_same(path in "[a-zA-Z0-9 %#?é☃._-]{1,12}(/[a-z%# ?]{1,5}){0,3}") {
            for scheme in ["s3://bucket/", "gs://bucket/", "az://c/", "memory:///n/", "/"] {
                if let Ok(uri) = UfsUri::parse(&format!("{scheme}{path}")) {
                    prop_assert_eq!(UfsUri::parse(&uri.to_string()), Ok(uri));
                }
            }
        }
    }
}
