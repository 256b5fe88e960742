//! The programs that a cluster consists of: this very program, or what was built beside a
//! test, once per test process.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, ensure};

use super::{AS_MILLPOND, env};

/// Where the programs are.
#[derive(Debug, Clone)]
pub struct Binaries {
    place: Place,
}

#[derive(Debug, Clone)]
enum Place {
    /// One file each.
    Dir(PathBuf),
    /// This very program, which becomes each of them by [`AS_MILLPOND`].
    This(PathBuf),
}

/// Whether this program can be all of them, whatever its file is called.
static CAN_BE_ALL: AtomicBool = AtomicBool::new(false);

/// Said by a `main` that understands [`AS_MILLPOND`]: clusters are then made of this program.
pub fn can_be_millpond() {
    CAN_BE_ALL.store(true, Ordering::Relaxed);
}

/// Programs that must be there.
const PROGRAMS: [&str; 3] = ["coordinator", "cache-node", "millpond"];

/// This program, if it [can be all of them](can_be_millpond).
///
/// # Errors
/// When the system cannot say where it is.
pub fn this_program() -> Result<Option<PathBuf>> {
    if !CAN_BE_ALL.load(Ordering::Relaxed) {
        return Ok(None);
    }
    std::env::current_exe()
        .map(Some)
        .context("cannot find this program")
}

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

    /// This very program if it [can be them](can_be_millpond); for any other, such as a
    /// test, what [`build`](Self::build) makes.
    ///
    /// # Errors
    /// When the build fails.
    pub fn here() -> Result<Self> {
        match this_program()? {
            Some(exe) => Ok(Self {
                place: Place::This(exe),
            }),
            None => Self::build(),
        }
    }

    /// A command for one of the programs.
    pub fn command(&self, program: &str) -> Command {
        let exe = match &self.place {
            Place::Dir(dir) => return Command::new(dir.join(program)),
            Place::This(exe) => exe,
        };
        let mut command = Command::new(exe);
        command.arg(AS_MILLPOND);
        match program {
            "coordinator" => command.arg("dev-coordinator"),
            "cache-node" => command.arg("dev-node"),
            _ => &mut command,
        };
        command
    }
}

fn build() -> Result<Binaries> {
    if let Some(dir) = env::switch("MILLPOND_BIN_DIR") {
        return check(dir.into());
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
    check(profile_dir.to_owned())
}

fn check(dir: PathBuf) -> Result<Binaries> {
    for program in PROGRAMS {
        let path = dir.join(program);
        ensure!(path.is_file(), "there is no program {}", path.display());
    }
    let place = Place::Dir(dir);
    Ok(Binaries { place })
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
