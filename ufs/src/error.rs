//! What can go wrong with the under-store, and what to do about it.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use millpond_proto::{ErrorKind, Refusal};

/// A failure of the under-store: what was being done, to which URI, why it failed, how long
/// it was tried, and what to do. Cheap to clone, so that all who wait for one fill get it.
///
/// The text never holds a secret: causes are scrubbed when the error is made.
#[derive(Debug, Clone)]
pub struct UfsError(Arc<Detail>);

#[derive(Debug)]
struct Detail {
    kind: ErrorKind,
    refusal: Option<Refusal>,
    op: Op,
    uri: String,
    cause: String,
    tried: Option<Duration>,
    hint: Option<String>,
    source: Option<Cause>,
}

/// What was being done when a [`UfsError`] happened; the label of the request metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Op {
    /// Parsing the URI and options and building the driver.
    Open,
    /// [`Ufs::stat`](crate::Ufs::stat).
    Stat,
    /// [`Ufs::list`](crate::Ufs::list).
    List,
    /// [`Ufs::read`](crate::Ufs::read).
    Read,
    /// [`Ufs::read_link`](crate::Ufs::read_link).
    ReadLink,
    /// [`Ufs::put`](crate::Ufs::put).
    Put,
    /// [`Ufs::upload`](crate::Ufs::upload), and each part of one.
    Upload,
    /// [`Ufs::copy`](crate::Ufs::copy).
    Copy,
    /// [`Ufs::rename`](crate::Ufs::rename).
    Rename,
    /// [`Ufs::remove`](crate::Ufs::remove).
    Remove,
    /// [`Ufs::create_dir`](crate::Ufs::create_dir).
    CreateDir,
    /// [`Ufs::remove_dir`](crate::Ufs::remove_dir).
    RemoveDir,
    /// [`Ufs::symlink`](crate::Ufs::symlink) and [`Ufs::hard_link`](crate::Ufs::hard_link).
    Link,
    /// [`Ufs::attributes`](crate::Ufs::attributes).
    GetAttributes,
    /// [`Ufs::set_attributes`](crate::Ufs::set_attributes).
    SetAttributes,
}

impl Op {
    /// Whether it changes something.
    pub const fn changes(self) -> bool {
        match self {
            Self::Open
            | Self::Stat
            | Self::List
            | Self::Read
            | Self::ReadLink
            | Self::GetAttributes => false,
            Self::Put
            | Self::Upload
            | Self::Copy
            | Self::Rename
            | Self::Remove
            | Self::CreateDir
            | Self::RemoveDir
            | Self::Link
            | Self::SetAttributes => true,
        }
    }
}

impl UfsError {
    /// An error of `kind` while doing `op` to `uri`, because of `cause` (lower case, no full
    /// stop, no secret).
    pub fn new(kind: ErrorKind, op: Op, uri: impl Into<String>, cause: impl Into<String>) -> Self {
        Self(Arc::new(Detail {
            kind,
            refusal: None,
            op,
            uri: uri.into(),
            cause: cause.into(),
            tried: None,
            hint: None,
            source: None,
        }))
    }

    /// A change that is refused while doing `op` to `uri`, because of `cause` (as of
    /// [`new`](Self::new)).
    pub fn refused(
        refusal: Refusal,
        op: Op,
        uri: impl Into<String>,
        cause: impl Into<String>,
    ) -> Self {
        Self::new(refusal.kind(), op, uri, cause).edit(|detail| detail.refusal = Some(refusal))
    }

    /// The same error with what the user can do about it.
    pub fn with_hint(self, hint: impl Into<String>) -> Self {
        self.edit(|detail| detail.hint = Some(hint.into()))
    }

    /// The same error with how long it was tried.
    pub fn with_tried(self, tried: Duration) -> Self {
        self.edit(|detail| detail.tried = Some(tried))
    }

    /// The same error with the text of what lay beneath it, outermost first, already free of
    /// secrets. The chain is kept as text because foreign errors print URLs and headers.
    pub fn with_source(self, chain: Vec<String>) -> Self {
        let source = chain.into_iter().rev().fold(None, |inner, text| {
            Some(Cause {
                text,
                inner: inner.map(Box::new),
            })
        });
        self.edit(|detail| detail.source = source)
    }

    /// What the caller should do.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Why a change was refused, where that is what happened.
    pub fn refusal(&self) -> Option<Refusal> {
        self.0.refusal
    }

    /// What was being done.
    pub fn op(&self) -> Op {
        self.0.op
    }

    /// The URI it was done to.
    pub fn uri(&self) -> &str {
        &self.0.uri
    }

    /// What the user can do about it, where something is known.
    pub fn hint(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }

    fn edit(self, change: impl FnOnce(&mut Detail)) -> Self {
        let mut detail = Arc::try_unwrap(self.0).unwrap_or_else(|shared| Detail {
            kind: shared.kind,
            refusal: shared.refusal,
            op: shared.op,
            uri: shared.uri.clone(),
            cause: shared.cause.clone(),
            tried: shared.tried,
            hint: shared.hint.clone(),
            source: shared.source.clone(),
        });
        change(&mut detail);
        Self(Arc::new(detail))
    }
}

impl fmt::Display for UfsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Detail {
            op,
            uri,
            cause,
            tried,
            hint,
            ..
        } = &*self.0;
        write!(f, "cannot {op} {uri}: {cause}")?;
        if let Some(tried) = tried {
            write!(f, " (tried for {:.1} s)", tried.as_secs_f64())?;
        }
        if let Some(hint) = hint {
            write!(f, "; {hint}")?;
        }
        Ok(())
    }
}

impl Error for UfsError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source.as_ref().map(|s| s as &(dyn Error + 'static))
    }
}

/// One link of a foreign error's chain, as scrubbed text.
#[derive(Debug, Clone)]
struct Cause {
    text: String,
    inner: Option<Box<Self>>,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Error for Cause {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.inner.as_deref().map(|s| s as &(dyn Error + 'static))
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Open => "open",
            Self::Stat => "stat",
            Self::List => "list",
            Self::Read => "read",
            Self::ReadLink => "read the link",
            Self::Put => "write",
            Self::Upload => "upload",
            Self::Copy => "copy",
            Self::Rename => "rename",
            Self::Remove => "remove",
            Self::CreateDir => "create the directory",
            Self::RemoveDir => "remove the directory",
            Self::Link => "create the link",
            Self::GetAttributes => "read the attributes of",
            Self::SetAttributes => "set the attributes of",
        })
    }
}

/// The texts of `error` and everything beneath it, outermost first, each through `scrub`.
/// A link that only repeats what its parent already says is left out.
pub(crate) fn chain(error: &dyn Error, scrub: impl Fn(&str) -> String) -> Vec<String> {
    let mut texts: Vec<String> = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let text = scrub(&error.to_string());
        if !texts.last().is_some_and(|last| last.contains(&text)) {
            texts.push(text);
        }
        next = error.source();
    }
    texts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_says_what_to_what_why_how_long_and_what_to_do() {
        let error = UfsError::new(
            ErrorKind::Unavailable,
            Op::Stat,
            "s3://bucket/key",
            "no answer",
        )
        .with_tried(Duration::from_millis(10_240))
        .with_hint("check endpoint");
        assert_eq!(
            error.to_string(),
            "cannot stat s3://bucket/key: no answer (tried for 10.2 s); check endpoint"
        );
        assert_eq!(error.kind(), ErrorKind::Unavailable);
    }

    #[test]
    fn sources_come_outermost_first() {
        let error = UfsError::new(ErrorKind::Internal, Op::Read, "u", "c")
            .with_source(vec!["outer".into(), "inner".into()]);
        let outer = error.source().expect("first link");
        assert_eq!(outer.to_string(), "outer");
        assert_eq!(outer.source().expect("second link").to_string(), "inner");
    }
}
