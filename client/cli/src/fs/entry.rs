//! A file or directory as the commands print it.

use std::time::{SystemTime, UNIX_EPOCH};

use millpond_client::{Attr, FileKind};
use serde::Serialize;

/// One line of a listing, one element of its JSON.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    pub(super) path: String,
    pub(super) kind: FileKind,
    pub(super) size: u64,
    /// RFC 3339, UTC.
    pub(super) mtime: Option<String>,
    /// Permission bits in octal.
    pub(super) mode: Option<String>,
    pub(super) uid: Option<u32>,
    pub(super) gid: Option<u32>,
}

impl Row {
    pub(super) fn new(path: impl Into<String>, attr: &Attr) -> Self {
        Self {
            path: path.into(),
            kind: attr.kind,
            size: attr.size,
            mtime: attr.mtime.and_then(time),
            mode: attr.mode.map(|mode| format!("{mode:04o}")),
            uid: attr.uid,
            gid: attr.gid,
        }
    }

    /// The name as `ls` shows it: directories end in `/`, links in `@`.
    pub(super) fn shown(&self) -> String {
        let mark = match self.kind {
            FileKind::Directory if !self.path.ends_with('/') => "/",
            FileKind::Directory | FileKind::File => "",
            FileKind::Symlink => "@",
        };
        format!("{}{mark}", printable(&self.path))
    }

    /// Kind, mode, owner, size, time and name, in columns.
    pub(super) fn long(&self) -> String {
        let owner = |id: Option<u32>| id.map_or_else(|| "-".to_owned(), |id| id.to_string());
        format!(
            "{}{:<4} {:>6} {:>6} {:>14} {:<20} {}",
            letter(self.kind),
            self.mode.as_deref().unwrap_or("-"),
            owner(self.uid),
            owner(self.gid),
            self.size,
            self.mtime.as_deref().unwrap_or("-"),
            self.shown(),
        )
    }
}

/// `d`, `l` or `-`, as `ls -l` has it.
pub(super) fn letter(kind: FileKind) -> char {
    match kind {
        FileKind::File => '-',
        FileKind::Directory => 'd',
        FileKind::Symlink => 'l',
    }
}

/// RFC 3339 in seconds; none before 1970, which the format's library cannot print.
pub(super) fn time(time: SystemTime) -> Option<String> {
    time.duration_since(UNIX_EPOCH).ok()?;
    Some(humantime::format_rfc3339_seconds(time).to_string())
}

/// The name without control characters that could move a terminal's cursor.
pub(super) fn printable(name: &str) -> String {
    name.chars()
        .flat_map(|c| {
            let escaped = c.is_control().then(|| c.escape_default());
            let plain = if c.is_control() { None } else { Some(c) };
            escaped.into_iter().flatten().chain(plain)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn names_cannot_control_the_terminal() {
        assert_eq!(printable("a b é"), "a b é");
        assert_eq!(printable("x\u{1b}[2J\n"), "x\\u{1b}[2J\\n");
    }

    #[test]
    fn times_are_rfc_3339_and_old_ones_are_left_out() {
        assert_eq!(time(UNIX_EPOCH).as_deref(), Some("1970-01-01T00:00:00Z"));
        assert_eq!(time(UNIX_EPOCH - Duration::from_secs(1)), None);
    }
}
