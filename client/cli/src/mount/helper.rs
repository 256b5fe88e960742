//! `mount.fuse.millpond`: what mount(8) calls for `mount -t fuse.millpond SOURCE DIR`, for
//! fstab and for systemd. The program of this name is a link to `millpond`.
//!
//! The call is translated into one of `millpond mount --background`, which this process
//! becomes. Options of mounts in general that our mounts have anyway, or that are
//! for other programs, are passed over; all else must be a flag of `millpond mount`.

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, ExitCode};

use clap::Args as _;
use millpond_fuse::{dead, mountinfo};
use millpond_process::UsageError;

use super::MountArgs;
use crate::mounted::source_of;

/// The names that the program is called by.
const NAMES: [&str; 2] = ["mount.fuse.millpond", "mount.millpond"];

/// What is true of every mount of ours, or for others to read.
const PASSED_OVER: [&str; 21] = [
    "rw",
    "defaults",
    "nosuid",
    "nodev",
    "noatime",
    "nodiratime",
    "relatime",
    "norelatime",
    "exec",
    "async",
    "auto",
    "noauto",
    "nofail",
    "nouser",
    "owner",
    "group",
    "_netdev",
    "silent",
    "loud",
    "nostrictatime",
    "nolazytime",
];

/// The same for options that take anything behind their first letters.
const PASSED_OVER_PREFIXES: [&str; 5] = ["x-", "X-", "comment=", "user=", "uhelper="];

/// Flags of `millpond mount` that make no sense in a table of mounts.
const NOT_OPTIONS: [&str; 8] = [
    "background",
    "detached",
    "supervised",
    "supervised-again",
    "print-config",
    "coordinator",
    "option",
    "help",
];

/// Whether `program` is a name of the helper.
pub(crate) fn is_helper(program: Option<&OsString>) -> bool {
    let name = program.and_then(|program| Path::new(program).file_name());
    name.is_some_and(|name| NAMES.iter().any(|known| name == *known))
}

/// Becomes the mount that `args` (without the program's name) ask for.
pub(crate) fn run(args: impl Iterator<Item = OsString>) -> ExitCode {
    match translate(args).and_then(mount) {
        Ok(code) => code,
        Err(error) => {
            crate::output::notice(format!("mount.fuse.millpond: {error}"));
            // What mount(8) calls "incorrect invocation".
            ExitCode::from(1)
        }
    }
}

/// What a call comes to.
#[derive(Debug, PartialEq, Eq)]
struct Call {
    source: OsString,
    dir: OsString,
    flags: Vec<OsString>,
    /// `-f`: only check.
    is_fake: bool,
}

fn mount(call: Call) -> Result<ExitCode, UsageError> {
    if call.is_fake || is_there(&call) {
        return Ok(ExitCode::SUCCESS);
    }
    let program = std::env::current_exe()
        .map_err(|error| UsageError(format!("cannot find the millpond program: {error}")))?;
    let error = Command::new(program)
        .arg("mount")
        .args([call.source, call.dir])
        .args(call.flags)
        .arg("--background")
        .exec();
    Err(UsageError(format!("cannot start millpond: {error}")))
}

/// Whether just this is mounted there and alive: `mount -a` may be called at any time.
fn is_there(call: &Call) -> bool {
    let dir = mountinfo::locate(Path::new(&call.dir)).ok();
    let entry = dir.and_then(|dir| mountinfo::mount_at(&dir).ok().flatten());
    let source = call.source.to_string_lossy();
    let is_root = |name: &str| name == source || name.trim_end_matches('/') == source;
    let is_mounted = entry.is_some_and(|entry| source_of(&entry).is_some_and(is_root));
    is_mounted && matches!(dead::dead_mount(Path::new(&call.dir)), Ok(None))
}

fn translate(args: impl Iterator<Item = OsString>) -> Result<Call, UsageError> {
    let (mut places, mut options) = (Vec::new(), String::new());
    let (mut is_fake, mut is_sloppy) = (false, false);
    let mut args = args;
    while let Some(arg) = args.next() {
        let text = arg.to_string_lossy().into_owned();
        let Some(letters) = text.strip_prefix('-').filter(|letters| !letters.is_empty()) else {
            places.push(arg);
            continue;
        };
        let mut letters = letters.chars();
        while let Some(letter) = letters.next() {
            match letter {
                'n' | 'v' | 'w' => {}
                'r' => options.push_str("ro,"),
                'f' => is_fake = true,
                's' => is_sloppy = true,
                'o' | 't' => {
                    let attached: String = letters.by_ref().collect();
                    let value = if attached.is_empty() {
                        args.next().and_then(|value| value.into_string().ok())
                    } else {
                        Some(attached)
                    };
                    let value =
                        value.ok_or_else(|| UsageError(format!("-{letter} needs a value")))?;
                    if letter == 'o' {
                        options.push_str(&value);
                        options.push(',');
                    }
                }
                other => return Err(UsageError(format!("-{other} is not supported"))),
            }
        }
    }
    let [source, dir] = <[OsString; 2]>::try_from(places)
        .map_err(|_| UsageError("usage: mount.fuse.millpond SOURCE DIR [-o OPTIONS]".to_owned()))?;
    let known = Known::of_mount();
    let mut flags = Vec::new();
    for option in split(&options) {
        match known.flags(option) {
            Ok(more) => {
                // `-r` and `ro` say the same.
                let more = more.into_iter().filter(|flag| !flags.contains(flag));
                let more: Vec<OsString> = more.collect();
                flags.extend(more);
            }
            Err(_) if is_sloppy => {}
            Err(error) => return Err(error),
        }
    }
    // mount(8) strips what a path must not look like, but a source may look like a flag.
    if source.as_encoded_bytes().starts_with(b"-") {
        return Err(UsageError("SOURCE must not begin with -".to_owned()));
    }
    Ok(Call {
        source,
        dir,
        flags,
        is_fake,
    })
}

/// Options are separated by commas, except within double quotes.
fn split(options: &str) -> impl Iterator<Item = &str> {
    let mut quoted = false;
    let parts = options.split(move |c| {
        quoted ^= c == '"';
        c == ',' && !quoted
    });
    parts
        .map(|part| part.trim_matches('"'))
        .filter(|part| !part.is_empty())
}

/// The flags of `millpond mount`.
struct Known(clap::Command);

impl Known {
    fn of_mount() -> Self {
        Self(MountArgs::augment_args(clap::Command::new("mount")))
    }

    /// The flags that say the same as `option`.
    fn flags(&self, option: &str) -> Result<Vec<OsString>, UsageError> {
        if option == "ro" {
            return Ok(vec!["--read-only".into()]);
        }
        let passed_over = PASSED_OVER.contains(&option)
            || PASSED_OVER_PREFIXES
                .iter()
                .any(|prefix| option.starts_with(prefix));
        if passed_over {
            return Ok(Vec::new());
        }
        let (key, value) = match option.split_once('=') {
            Some((key, value)) => (key, Some(value.trim_matches('"'))),
            None => (option, None),
        };
        if let (Some(name), Some(value)) = (key.strip_prefix("option."), value) {
            return Ok(vec![format!("--option={name}={value}").into()]);
        }
        let flag = key.replace('_', "-");
        let long = self
            .0
            .get_arguments()
            .find(|arg| arg.get_long() == Some(&flag) && !NOT_OPTIONS.contains(&flag.as_str()));
        match (long.map(|arg| arg.get_action().takes_values()), value) {
            (Some(true), Some(value)) => Ok(vec![format!("--{flag}={value}").into()]),
            (Some(false), None) => Ok(vec![format!("--{flag}").into()]),
            (Some(true), None) => Err(UsageError(format!("option {key} needs a value: {key}=…"))),
            (Some(false), Some(_)) => Err(UsageError(format!("option {key} takes no value"))),
            (None, _) => Err(UsageError(format!(
                "unknown option {key}: it is neither one that all mounts have nor a flag of \
                 `millpond mount` (with _ for -); options of a store are written option.KEY=VALUE"
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use super::*;

    fn call(line: &[&str]) -> Result<Call, UsageError> {
        translate(line.iter().map(OsString::from))
    }

    fn flags(options: &str) -> Vec<String> {
        let call = call(&["coord:7000/data", "/mnt", "-o", options]).unwrap();
        call.flags
            .into_iter()
            .map(|flag| flag.into_string().unwrap())
            .collect()
    }

    #[test]
    fn the_helper_is_known_by_its_name() {
        let is = |name: &str| is_helper(Some(&OsString::from(name)));
        assert!(is("/sbin/mount.fuse.millpond") && is("mount.millpond"));
        assert!(!is("/usr/bin/millpond") && !is_helper(None));
    }

    #[test]
    fn options_become_flags() {
        let options = "rw,noauto,_netdev,x-systemd.automount,allow_other,metadata_ttl=5s,\
                       cache_dir=/c,option.region=eu-1,option.sas=a=b";
        let expected = [
            "--allow-other",
            "--metadata-ttl=5s",
            "--cache-dir=/c",
            "--option=region=eu-1",
            "--option=sas=a=b",
        ];
        assert_eq!(flags(options), expected);
        assert_eq!(
            flags("state_dir=\"/a,b\",ro,ro"),
            ["--state-dir=/a,b", "--read-only"]
        );
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for (options, word) in [
            ("metadata_tll=1s", "metadata_tll"),
            ("allow_other=1", "no value"),
            ("cache_dir", "needs a value"),
            ("background", "background"),
            ("noexec", "noexec"),
            ("option=a", "option"),
        ] {
            let error = call(&["s3://b", "/mnt", "-o", options]).unwrap_err();
            assert!(error.to_string().contains(word), "{error}");
        }
        assert!(call(&["s3://b"]).is_err() && call(&["s3://b", "/m", "-Z"]).is_err());
        assert!(call(&["-s", "s3://b", "/m", "-o", "unheard_of"]).is_ok());
    }

    #[test]
    fn letters_may_stand_together() {
        let call = call(&[
            "s3://b/p",
            "/mnt",
            "-nfvo",
            "umask=022",
            "-t",
            "fuse.millpond",
        ])
        .unwrap();
        assert_eq!(
            (call.source.as_os_str(), call.dir.as_os_str()),
            (OsStr::new("s3://b/p"), OsStr::new("/mnt"))
        );
        assert!(call.is_fake);
        assert_eq!(call.flags, ["--umask=022"]);
    }
}
