//! Every request that would change something.

use fuser::Errno;

use crate::metrics::{Op, Outcome};
use crate::shared::Shared;

/// Answers EROFS. The kernel refuses most of these itself, because the mount is read-only;
/// this holds also where it was remounted writable.
pub(super) fn refuse(shared: &Shared, reply: impl FnOnce(Errno)) {
    shared.metrics.start(Op::Write).finish(Outcome::ReadOnly);
    reply(Errno::EROFS);
}
