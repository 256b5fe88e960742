//! Which build of the harness measured.

use std::path::Path;
use std::process::Command;

use serde::{Deserialize, Serialize};

/// The harness.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tool {
    /// Its version.
    pub version: String,
    /// The commit of the sources beside it, if they are a checkout.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// Whether files of that checkout were changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub modified: Option<bool>,
    /// `release` or `debug`. Figures of a debug build say nothing about speed.
    pub profile: String,
}

impl Tool {
    /// This one. Asks `git` for the commit.
    pub fn this() -> Self {
        let git = |args: &[&str]| {
            let root = Path::new(env!("CARGO_MANIFEST_DIR"));
            let output = Command::new("git")
                .arg("-C")
                .arg(root)
                .args(args)
                .output()
                .ok()?;
            let text = String::from_utf8(output.stdout).ok()?;
            output.status.success().then(|| text.trim().to_owned())
        };
        let profile = if cfg!(debug_assertions) {
            "debug"
        } else {
            "release"
        };
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            commit: git(&["rev-parse", "--short=12", "HEAD"]),
            modified: git(&["status", "--porcelain", "--untracked-files=no"])
                .map(|text| !text.is_empty()),
            profile: profile.to_owned(),
        }
    }
}
