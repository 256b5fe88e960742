//! What becomes of an insert.

use std::io;

use tokio::sync::oneshot;

/// What became of an insert into one tier. Never an error: a cache may always decline, but it
/// says so, and counts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// The tier took the block: it stays until it is evicted or removed, or turns out to be
    /// damaged.
    Accepted,
    /// The block was there already.
    Present,
    /// The block had to make room for others before it was written.
    Evicted,
    /// The tier did not take it.
    Refused(Refusal),
}

impl Admission {
    /// Whether the tier has the block.
    pub const fn is_in(self) -> bool {
        matches!(self, Self::Accepted | Self::Present)
    }
}

/// Why a block was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Refusal {
    /// It is larger than the whole tier.
    TooLarge,
    /// Too much is being written at the moment.
    Busy,
    /// What is held of its data set leaves no room.
    Held,
    /// The file system is full.
    Full,
    /// Writing it failed.
    Failed,
    /// The disk is sick: writes go round it.
    Out,
    /// The store is shutting down.
    Closed,
}

impl Refusal {
    /// All reasons.
    pub const ALL: [Self; 7] = [
        Self::TooLarge,
        Self::Busy,
        Self::Held,
        Self::Full,
        Self::Failed,
        Self::Out,
        Self::Closed,
    ];

    /// Its name in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::TooLarge => "too_large",
            Self::Busy => "busy",
            Self::Held => "held",
            Self::Full => "full",
            Self::Failed => "failed",
            Self::Out => "out",
            Self::Closed => "closed",
        }
    }

    /// Why a write that failed with `error` is refused.
    pub(crate) fn of(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full,
            _ => Self::Failed,
        }
    }
}

/// What becomes of an insert into a store. Dropping it changes nothing.
#[derive(Debug)]
pub struct Inserted {
    /// What the memory tier did.
    pub memory: Admission,
    pub(crate) disk: OnDisk,
}

#[derive(Debug)]
pub(crate) enum OnDisk {
    /// There is no disk tier, or it answered at once.
    Known(Option<Admission>),
    /// It is being written.
    Later {
        now: Admission,
        outcome: oneshot::Receiver<Admission>,
    },
}

impl Inserted {
    /// What the store did, as far as is known now: `Accepted` if a tier has the block or is
    /// about to.
    pub fn now(&self) -> Admission {
        match self.disk {
            OnDisk::Later { now, .. } => either(self.memory, Some(now)),
            OnDisk::Known(disk) => either(self.memory, disk),
        }
    }

    /// What the disk tier did, once it has done it; none if there is none. `Accepted` and
    /// `Present` mean that the block is there and outlives the process.
    pub async fn on_disk(self) -> Option<Admission> {
        match self.disk {
            OnDisk::Known(disk) => disk,
            OnDisk::Later { outcome, .. } => {
                let closed = Admission::Refused(Refusal::Closed);
                Some(outcome.await.unwrap_or(closed))
            }
        }
    }
}

/// That of the tier which did more.
fn either(memory: Admission, disk: Option<Admission>) -> Admission {
    match (memory, disk) {
        (memory, None) => memory,
        (Admission::Accepted, _) | (_, Some(Admission::Accepted)) => Admission::Accepted,
        (Admission::Present, _) | (_, Some(Admission::Present)) => Admission::Present,
        (_, Some(disk)) => disk,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tier_that_did_more_speaks_for_the_store() {
        let refused = Admission::Refused(Refusal::Out);
        let large = Admission::Refused(Refusal::TooLarge);
        let now = |memory, disk| {
            let disk = OnDisk::Known(disk);
            Inserted { memory, disk }.now()
        };
        assert_eq!(now(large, None), large);
        assert_eq!(now(large, Some(refused)), refused);
        assert_eq!(now(Admission::Accepted, Some(refused)), Admission::Accepted);
        assert_eq!(now(large, Some(Admission::Present)), Admission::Present);
        assert_eq!(
            now(Admission::Present, Some(Admission::Evicted)),
            Admission::Present
        );
    }

    #[test]
    fn a_full_file_system_is_told_from_a_broken_one() {
        for (code, refusal) in [
            (rustix::io::Errno::NOSPC, Refusal::Full),
            (rustix::io::Errno::DQUOT, Refusal::Full),
            (rustix::io::Errno::ROFS, Refusal::Failed),
            (rustix::io::Errno::IO, Refusal::Failed),
        ] {
            assert_eq!(Refusal::of(&code.into()), refusal, "{code}");
        }
    }
}
