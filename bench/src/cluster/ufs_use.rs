//! What processes of ours asked of the UFS, as they count it themselves.

use std::io;
use std::ops::{AddAssign, Sub};

use anyhow::Result;

use crate::process_cluster::{Metrics, Mount};

/// Requests to the UFS, and bytes from it. The difference of two moments proves "warm".
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct UfsUse {
    /// Requests of any kind; of a listing, its pages.
    pub requests: u64,
    /// Ranged reads.
    pub gets: u64,
    /// Bytes that reads returned.
    pub bytes: u64,
}

impl UfsUse {
    /// Of one process.
    pub fn of(metrics: &Metrics) -> Self {
        let count = |name, labels: &[&str]| metrics.sum(name, labels) as u64;
        Self {
            requests: count("millpond_ufs_requests_total", &[]),
            gets: count("millpond_ufs_requests_total", &["op=\"read\""]),
            bytes: count("millpond_ufs_read_bytes_total", &[]),
        }
    }

    /// Of these mounts together.
    ///
    /// # Errors
    /// When one that runs does not answer.
    pub fn of_mounts(mounts: &[&Mount]) -> Result<Self> {
        let mut sum = Self::default();
        for mount in mounts {
            sum += Self::scraped(mount.admin())?;
        }
        Ok(sum)
    }

    /// Of the process with metrics at `admin`; nothing if nobody listens there any more.
    pub(super) fn scraped(admin: &str) -> Result<Self> {
        match Metrics::scrape(admin) {
            Ok(metrics) => Ok(Self::of(&metrics)),
            Err(error) if is_gone(&error) => Ok(Self::default()),
            Err(error) => Err(error),
        }
    }
}

fn is_gone(error: &anyhow::Error) -> bool {
    let cause = error.downcast_ref::<io::Error>().map(io::Error::kind);
    cause == Some(io::ErrorKind::ConnectionRefused)
}

impl AddAssign for UfsUse {
    fn add_assign(&mut self, other: Self) {
        self.requests += other.requests;
        self.gets += other.gets;
        self.bytes += other.bytes;
    }
}

/// What came to it since `earlier`. A process that ended in between took its counts with it,
/// so that a difference is never less than nothing.
impl Sub for UfsUse {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self {
            requests: self.requests.saturating_sub(earlier.requests),
            gets: self.gets.saturating_sub(earlier.gets),
            bytes: self.bytes.saturating_sub(earlier.bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_gone_counts_for_nothing() {
        // Taken and given back: nobody listens there.
        let addr = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        assert_eq!(
            UfsUse::scraped(&addr.to_string()).unwrap(),
            UfsUse::default()
        );
        assert!(UfsUse::scraped("not an address").is_err());
    }

    #[test]
    fn a_difference_is_what_was_added() {
        let (before, mut after) = (
            UfsUse {
                requests: 3,
                gets: 2,
                bytes: 10,
            },
            UfsUse::default(),
        );
        after += before;
        after.gets += 1;
        assert_eq!((after - before).gets, 1);
        assert_eq!(UfsUse::default() - before, UfsUse::default());
    }
}
