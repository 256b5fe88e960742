//! The programs that a test starts: built once per test process, beside the test itself.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, Result, ensure};

use super::env;

/// Where the programs are.
#[derive(Debug, Clone)]
pub struct Binaries {
    dir: PathBuf,
}

/// Programs that must be there.
const PROGRAMS: [&str; 3] = ["coordinator", "cache-node", "millpond"];

impl Binaries {
    /// Builds all programs of the workspace into the target directory and profile of the
    /// running test; next to nothing is done when they are fresh. With `MILLPOND_BIN_DIR`
    /// the programs there are taken as they are.
    ///
    /// # Errors
    /// When the build fails.
    pub fn build() -> Result<Self> {
        static BUILT: OnceLock<Result<Binaries, String>> = OnceLock::new();
        BUILT
            .get_or_init(|| build().map_err(|error| format!("{error:#}")))
            .clone()
            .map_err(anyhow::Error::msg)
    }

    /// A command for one of the programs.
    pub fn command(&self, program: &str) -> Command {
        Command::new(self.path(program))
    }

    /// Where one of the programs is.
    pub fn path(&self, program: &str) -> PathBuf {
        self.dir.join(program)
    }
}

fn build() -> Result<Binaries> {
    if let Some(dir) = env::switch("MILLPOND_BIN_DIR") {
        return check(Binaries { dir: dir.into() });
    }
    let exe = std::env::current_exe()?;
    let (target, profile_dir) = layout(&exe).context("the test is not in a target directory")?;
    let profile: &[&str] = match profile_dir.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => &[],
        Some(name) => &["--profile", name],
    };
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .context("no workspace")?;
    // The very command that `cargo test --workspace` is, so that its artifacts are fresh:
    // a build of the programs alone would select other features of the dependencies.
    let mut cargo = Command::new(env!("CARGO"));
    for name in env::of_test_runner() {
        cargo.env_remove(name);
    }
    let output = cargo
        .args(["test", "--workspace", "--no-run"])
        .args(profile)
        .current_dir(workspace)
        .env("CARGO_TARGET_DIR", target)
        .output()
        .context("cannot run cargo to build the programs")?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "the programs do not build:\n{stderr}"
    );
    check(Binaries {
        dir: profile_dir.to_owned(),
    })
}

fn check(binaries: Binaries) -> Result<Binaries> {
    for program in PROGRAMS {
        let path = binaries.path(program);
        ensure!(path.is_file(), "there is no program {}", path.display());
    }
    Ok(binaries)
}

/// The target directory and the profile's directory of `target/debug/deps/test-0123`.
fn layout(exe: &Path) -> Option<(&Path, &Path)> {
    let dir = exe.parent()?;
    let profile = if dir.ends_with("deps") {
        dir.parent()?
    } else {
        dir
    };
    Some((profile.parent()?, profile))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_lie_beside_the_deps_folder() {
        let tests = layout(Path::new("/t/debug/deps/x-1")).unwrap();
        assert_eq!(tests, (Path::new("/t"), Path::new("/t/debug")));
        let program = layout(Path::new("/t/release/millpond-bench")).unwrap();
        assert_eq!(program, (Path::new("/t"), Path::new("/t/release")));
    }
}
