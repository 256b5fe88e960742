//! What becomes of an insert.

/// What became of an insert. Never an error: a cache may always decline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// At least one tier took the block, or is about to.
    Accepted,
    /// The block was there already.
    Present,
    /// No tier took it.
    Refused(Refusal),
}

/// Why a block was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// It is larger than the whole tier.
    TooLarge,
    /// Too much is being written at the moment.
    Busy,
    /// What is held of its data set leaves no room.
    Held,
    /// The disk failed or is full.
    Disk,
    /// The store is shutting down.
    Closed,
}
