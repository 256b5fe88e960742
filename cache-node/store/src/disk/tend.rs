//! The background work that a disk tier needs: it finds out that a disk hangs when nobody
//! waits for it any more, and tries a sick one out.

use std::time::{Duration, Instant};

use tokio::task::spawn_blocking;
use tokio::time::{sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::DiskTier;
use super::device::Access;
use super::probe::Probed;

/// How often operations that hang are looked for, at least.
const LOOK: Duration = Duration::from_millis(500);

impl DiskTier {
    /// Does the background work until `stop` is cancelled. To be run once for each directory,
    /// for as long as it is open.
    pub async fn tend(&self, stop: CancellationToken) {
        let work = async {
            tokio::join!(self.watch(), self.probe_when_sick());
        };
        stop.run_until_cancelled(work).await;
    }

    /// Looks for operations that hang.
    async fn watch(&self) {
        let blocks = &self.inner.blocks;
        let limits = Access::ALL.map(|access| blocks.device.limit(access) / 2);
        let every = limits.into_iter().fold(LOOK, Duration::min);
        loop {
            sleep(every.max(Duration::from_millis(1))).await;
            blocks.device.look(Instant::now(), &blocks.counters);
        }
    }

    /// Tries the disk out whenever that is due.
    async fn probe_when_sick(&self) {
        let device = &self.inner.blocks.device;
        loop {
            let Some(at) = device.probe_at() else {
                device.sick().await;
                continue;
            };
            if at > Instant::now() {
                // The other kind of access may become due before.
                tokio::select! {
                    () = sleep_until(at.into()) => {}
                    () = device.sick() => {}
                }
                continue;
            }
            self.probe().await;
        }
    }

    /// One probe. One that hangs is waited for: never more than one thread hangs here.
    async fn probe(&self) {
        let blocks = &self.inner.blocks;
        let limit = blocks.device.limit(Access::Write);
        let due = blocks.device.due(Instant::now());
        let this = self.clone();
        let mut probe = spawn_blocking(move || this.inner.blocks.probe());
        match timeout(limit, &mut probe).await {
            Ok(Ok(probed)) => blocks.probed(&due, &probed),
            Ok(Err(panic)) => blocks.probed(&due, &Probed::failed(&panic.to_string())),
            Err(_) => {
                let why = format!("a probe is not done after {limit:?}");
                blocks.probed(&due, &Probed::failed(&why));
                // What it found is not news any more when it ends.
                let _ = probe.await;
            }
        }
    }
}
