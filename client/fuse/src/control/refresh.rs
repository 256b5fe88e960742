//! Paths that are written to `refresh`: what is known of them is forgotten.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

use crate::shared::Shared;

/// What became of the paths written to `refresh`. All counters only grow.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RefreshStats {
    /// Paths taken, those that failed included. One is counted when its effect is complete.
    pub paths: u64,
    /// Lines that are no paths.
    pub bad_lines: u64,
    /// Cache nodes that did not answer: they and others may give old answers until these run
    /// out.
    pub silent_nodes: u64,
}

/// The counters behind [`RefreshStats`].
#[derive(Debug, Default)]
pub(crate) struct RefreshCounts {
    paths: AtomicU64,
    bad_lines: AtomicU64,
    silent_nodes: AtomicU64,
}

impl RefreshCounts {
    pub(super) fn stats(&self) -> RefreshStats {
        // The paths first: whoever sees one counted sees what became of it.
        let paths = self.paths.load(Ordering::Acquire);
        RefreshStats {
            paths,
            bad_lines: self.bad_lines.load(Ordering::Acquire),
            silent_nodes: self.silent_nodes.load(Ordering::Acquire),
        }
    }
}

/// Takes the lines of `text` in order.
pub(super) async fn take(shared: &Shared, text: &[u8]) {
    let counts = &shared.control.inbox.refreshed;
    let text = String::from_utf8_lossy(text);
    let inside = shared.control.dir.to_string_lossy();
    let root = shared.inodes.lock().root().to_owned();
    for line in text.lines().filter(|line| !line.is_empty()) {
        let (path, recursive) = parse(line, &root, &inside);
        match shared.fs.refresh(&path, recursive).await {
            Ok(refreshed) => {
                for node in &refreshed.silent {
                    tracing::warn!(%node, path, "a node did not hear that a path is refreshed");
                }
                let silent = refreshed.silent.len() as u64;
                counts.silent_nodes.fetch_add(silent, Ordering::Release);
            }
            Err(error) => {
                tracing::warn!(%error, line, "a line written to refresh is no path");
                counts.bad_lines.fetch_add(1, Ordering::Release);
            }
        }
        counts.paths.fetch_add(1, Ordering::Release);
    }
}

/// The path of the namespace that `line` means on a mount of `root` at the directory `dir` of
/// this host, and whether all below it is meant, too.
fn parse(line: &str, root: &str, dir: &str) -> (String, bool) {
    let recursive = line.ends_with('/');
    let path = line.trim_end_matches('/');
    let within = path
        .strip_prefix(dir)
        .filter(|rest| rest.is_empty() || rest.starts_with('/'));
    let path = within.unwrap_or(path);
    let path = path.strip_prefix("./").unwrap_or(path);
    let path = match path.trim_start_matches('/') {
        "" | "." => root.to_owned(),
        path => format!("{root}/{path}"),
    };
    let path = if path.is_empty() {
        "/".to_owned()
    } else {
        path
    };
    (path, recursive)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slash_behind_a_path_means_all_below() {
        for (line, path, recursive) in [
            ("d/f", "/r/d/f", false),
            ("d/", "/r/d", true),
            ("./d//", "/r/d", true),
            ("/d", "/r/d", false),
            ("/mnt/x/d", "/r/d", false),
            ("/mnt/x/mnt/x/d/", "/r/mnt/x/d", true),
            ("/mnt/xd", "/r/mnt/xd", false),
            ("/mnt/x", "/r", false),
            ("/mnt/x/", "/r", true),
            ("/", "/r", true),
            (".", "/r", false),
            (" d ", "/r/ d ", false),
        ] {
            let expected = (path.to_owned(), recursive);
            assert_eq!(parse(line, "/r", "/mnt/x"), expected, "{line:?}");
        }
        assert_eq!(parse("/mnt/x", "", "/mnt/x"), ("/".to_owned(), false));
        assert_eq!(parse("f", "", "/mnt/x"), ("/f".to_owned(), false));
    }
}
