//! How much memory a process uses and used.

use anyhow::{Context, Result};
use millpond_process::Size;

/// The largest resident set of a process so far, in bytes (`VmHWM`).
///
/// # Errors
/// When there is no such process.
pub fn peak_rss(pid: u32) -> Result<u64> {
    status_field(pid, "VmHWM:")
}

/// The present resident set of a process, in bytes (`VmRSS`).
///
/// # Errors
/// When there is no such process.
pub fn rss(pid: u32) -> Result<u64> {
    status_field(pid, "VmRSS:")
}

fn status_field(pid: u32, field: &str) -> Result<u64> {
    let path = format!("/proc/{pid}/status");
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(field));
    let kib: u64 = line
        .and_then(|line| line.trim().strip_suffix(" kB"))
        .with_context(|| format!("{path} has no {field}"))?
        .parse()?;
    Ok(kib * 1024)
}

/// The `--memory-limit` of a mount that leaves `data` for data.
pub fn limit_for(data: Size) -> String {
    Size(data.bytes() + millpond::MEMORY_BESIDE_DATA.bytes()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peak_is_at_least_the_present() {
        let pid = std::process::id();
        let now = rss(pid).unwrap();
        assert!(now > 1 << 20);
        assert!(peak_rss(pid).unwrap() + (16 << 20) >= now);
        assert!(rss(u32::MAX).is_err());
    }
}
