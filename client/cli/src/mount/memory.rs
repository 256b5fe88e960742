//! How much memory a mount may use, and what of it is for data.

use std::fs::read_to_string;
use std::path::{Path, PathBuf};

use millpond_process::{Size, UsageError};

/// The least default limit.
const LEAST_DEFAULT: Size = Size::mib(256);

/// What of the limit is not for data: attributes, connections, buffers, the program itself.
/// The rest of what a process needs fits into the 64 MiB that it may use beyond its limit.
pub const BESIDE_DATA: Size = Size::mib(32);

/// A quarter of the memory that this process may use, at least [`LEAST_DEFAULT`].
pub(super) fn default_limit() -> Size {
    default_of(available())
}

fn default_of(available: Option<u64>) -> Size {
    let quarter = available.map_or(0, |bytes| bytes / 4);
    // Whole MiB, so that it is readable.
    Size((quarter >> 20) << 20).max(LEAST_DEFAULT)
}

/// What of a limit is for data.
///
/// # Errors
/// [`UsageError`] that names the smallest limit that would do.
pub(super) fn for_data(limit: Size) -> Result<u64, UsageError> {
    let least = Size(BESIDE_DATA.bytes() + millpond_client::ClientConfig::MIN_MEMORY);
    if limit < least {
        return Err(UsageError(format!(
            "memory_limit of {limit} is too little: it must be at least {least}"
        )));
    }
    Ok(limit.bytes() - BESIDE_DATA.bytes())
}

/// The smaller of the host's memory and the limits of the control groups.
fn available() -> Option<u64> {
    let host = read_to_string("/proc/meminfo").ok();
    let groups = read_to_string("/proc/self/cgroup").ok();
    let host = host.as_deref().and_then(total);
    let group = groups.and_then(|text| group_limit(Path::new("/sys/fs/cgroup"), &text));
    host.into_iter().chain(group).min()
}

fn total(meminfo: &str) -> Option<u64> {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib << 10)
}

/// The smallest limit of the groups that `membership` (`/proc/self/cgroup`) names and those
/// above them, of either version of control groups below `root`.
///
/// In a container the path may be one of the host's that is not there; the root is then the
/// container's own group.
fn group_limit(root: &Path, membership: &str) -> Option<u64> {
    let limits = membership.lines().filter_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, path) = (fields.next()?, fields.next()?);
        let (top, file) = match controllers {
            "" => (root.to_owned(), "memory.max"),
            list if list.split(',').any(|c| c == "memory") => {
                (root.join("memory"), "memory.limit_in_bytes")
            }
            _ => return None,
        };
        smallest(&top, path, file)
    });
    limits.min()
}

fn smallest(top: &Path, path: &str, file: &str) -> Option<u64> {
    let mut dir: PathBuf = top.join(path.trim_start_matches('/'));
    let mut least = None;
    while dir.starts_with(top) {
        let limit = read_to_string(dir.join(file)).ok();
        // "max" is no limit.
        let limit: Option<u64> = limit.and_then(|text| text.trim().parse().ok());
        least = least.into_iter().chain(limit).min();
        if !dir.pop() {
            break;
        }
    }
    least
}

#[cfg(test)]
mod tests {
    use std::fs::{create_dir_all, write};

    use super::*;

    #[test]
    fn the_smallest_limit_on_the_way_up_counts() {
        let root = tempfile::tempdir().unwrap();
        let put = |path: &str, text: &str| {
            let file = root.path().join(path);
            create_dir_all(file.parent().unwrap()).unwrap();
            write(file, text).unwrap();
        };
        put("a/memory.max", "2000\n");
        put("a/b/memory.max", "max\n");
        put("memory/memory.limit_in_bytes", "9223372036854771712\n");
        put("memory/x/memory.limit_in_bytes", "3000\n");
        let limit = |text: &str| group_limit(root.path(), text);
        assert_eq!(limit("0::/a/b\n"), Some(2000));
        assert_eq!(limit("0::/a\n4:memory:/x\n"), Some(2000));
        assert_eq!(limit("7:cpu:/\n4:blkio,memory:/x/not/here\n"), Some(3000));
        assert_eq!(limit("0::/\n"), None);
        assert_eq!(limit(""), None);
    }

    #[test]
    fn the_host_tells_its_memory_in_kib() {
        assert_eq!(
            total("MemFree: 1 kB\nMemTotal:       24105 kB\n"),
            Some(24105 << 10)
        );
        assert_eq!(total("nothing"), None);
        assert!(default_limit() >= LEAST_DEFAULT);
    }

    #[test]
    fn the_default_is_a_quarter_and_not_too_little() {
        assert_eq!(default_of(Some(16 << 30)), Size(4 << 30));
        assert_eq!(default_of(Some((8 << 30) + 5)), Size(2 << 30));
        assert_eq!(default_of(Some(512 << 20)), LEAST_DEFAULT);
        assert_eq!(default_of(None), LEAST_DEFAULT);
    }

    #[test]
    fn data_gets_what_is_left() {
        assert_eq!(for_data(Size::mib(256)).unwrap(), 224 << 20);
        let error = for_data(Size::mib(39)).unwrap_err().to_string();
        assert!(error.contains("40MiB"), "{error}");
    }
}
