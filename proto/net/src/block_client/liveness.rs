//! Tells a slow peer from a dead one: a live peer acknowledges packets, whatever it is busy
//! with.

use std::pin::pin;
use std::time::Duration;

use quinn::Connection;
use tokio::time::{Instant, timeout_at};

use crate::quic::KEEP_ALIVE;

/// A wait that ends so much too late says that this process gets no CPU: what arrived meanwhile
/// may not have been looked at.
const STARVED: Duration = Duration::from_millis(100);

/// How often a peer is given more time for that reason.
const EXCUSES: u32 = 3;

/// Watches one connection while an answer is awaited.
#[derive(Debug)]
pub(super) struct Liveness {
    connection: Connection,
    /// Datagrams received when last looked at.
    seen: u64,
    silence: Duration,
    /// How long nothing may arrive from now on.
    patience: Duration,
}

/// Why waiting ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Waited {
    /// The deadline passed.
    Deadline,
    /// Nothing at all arrived for so long.
    Silent(Duration),
}

impl Liveness {
    /// Begins to watch while nothing is under way that the peer must acknowledge but the
    /// keep-alives.
    pub(super) fn new(connection: Connection, silence: Duration) -> Self {
        let seen = connection.stats().udp_rx.datagrams;
        Self {
            connection,
            seen,
            silence,
            patience: KEEP_ALIVE + silence,
        }
    }

    /// Something is about to be sent that the peer must acknowledge.
    pub(super) fn sending(&mut self) {
        self.seen = self.connection.stats().udp_rx.datagrams;
        self.patience = self.silence;
    }

    /// Waits for `future` until `deadline`, or until the peer is silent for too long.
    ///
    /// Once the first acknowledgement is here, only keep-alives show that the peer lives,
    /// so their interval is granted on top.
    pub(super) async fn watch<T>(
        &mut self,
        future: impl Future<Output = T>,
        deadline: Instant,
    ) -> Result<T, Waited> {
        let mut future = pin!(future);
        let mut excuses = EXCUSES;
        loop {
            let until = deadline.min(Instant::now() + self.patience);
            if let Ok(done) = timeout_at(until, &mut future).await {
                return Ok(done);
            }
            let received = self.connection.stats().udp_rx.datagrams;
            if Instant::now() >= deadline {
                return Err(Waited::Deadline);
            }
            if received == self.seen {
                if until.elapsed() > STARVED && excuses > 0 {
                    excuses -= 1;
                    continue;
                }
                return Err(Waited::Silent(self.patience));
            }
            self.seen = received;
            self.patience = KEEP_ALIVE + self.silence;
        }
    }
}
