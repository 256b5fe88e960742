//! A slow pass over all blocks that finds damage before a reader does.

use std::io;
use std::sync::atomic::Ordering;
use std::time::Duration;

use millpond_proto::BlockId;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::stats::Count;

use super::DiskTier;
use super::blocks::Blocks;
use super::device::Access;
use super::files::Files;
use super::format::{self, ReadError};
use super::scan;

/// How long a scrub steps aside for readers before each block, at most, and how often it looks
/// whether they are done.
const MANNERS: Duration = Duration::from_secs(1);
const LOOK: Duration = Duration::from_millis(20);

/// How long it waits for a sick disk before it looks again.
const SICK: Duration = Duration::from_secs(1);

/// How a disk tier is scrubbed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scrub {
    /// Bytes a second, at most; 0 for no scrub.
    pub rate: u64,
    /// How long after the start the first pass begins.
    pub first: Duration,
    /// How long after the start of a pass the next begins, at least.
    pub every: Duration,
}

impl Scrub {
    /// No scrub.
    pub const OFF: Self = Self::at(0);

    /// At most `rate` bytes a second, a pass each day.
    pub const fn at(rate: u64) -> Self {
        Self {
            rate,
            first: Duration::from_secs(300),
            every: Duration::from_secs(24 * 3600),
        }
    }
}

impl DiskTier {
    /// Verifies every block again and again, slowly, until `stop` is cancelled. A damaged one
    /// is dropped, counted and named; who asks for it next gets it from elsewhere.
    ///
    /// A block that the kernel has in memory is verified there, as readers see it.
    pub async fn scrub(&self, how: Scrub, stop: CancellationToken) {
        if how.rate == 0 {
            return;
        }
        let passes = async {
            sleep(how.first).await;
            loop {
                let next = Instant::now() + how.every;
                self.pass(how.rate).await;
                sleep_until(next).await;
            }
        };
        stop.run_until_cancelled(passes).await;
    }

    async fn pass(&self, rate: u64) {
        let counters = self.counters();
        let before = (counters.scrubbed_bytes.value(), counters.scrub_bad.value());
        // When the bytes read so far were due.
        let mut due = Instant::now();
        for first in 0..=u8::MAX {
            let done = u64::from(first) * 1000 / 256;
            counters.scrub_permille.store(done, Ordering::Relaxed);
            for id in self.on_thread(move |blocks| blocks.list(first)).await {
                sleep_until(due).await;
                self.step_aside().await;
                let read = self.on_thread(move |blocks| blocks.verify(&id)).await;
                counters.scrubbed_bytes.add(read);
                let time = Duration::from_secs_f64(read as f64 / rate as f64);
                due = due.max(Instant::now()) + time;
            }
        }
        counters.scrub_permille.store(0, Ordering::Relaxed);
        counters.scrub_passes.inc();
        info!(
            dir = %self.dir().display(),
            bytes = counters.scrubbed_bytes.value() - before.0,
            bad_blocks = counters.scrub_bad.value() - before.1,
            "scrubbed"
        );
    }

    /// Waits until the disk is well, and for a moment until nobody reads from it.
    async fn step_aside(&self) {
        let end = Instant::now() + MANNERS;
        loop {
            if !self.admits(Access::Read) {
                sleep(SICK).await;
                continue;
            }
            let idle = self.inner.reads.available_permits() == self.inner.readers;
            if idle || Instant::now() >= end {
                return;
            }
            sleep(LOOK).await;
        }
    }

    /// What `work` returns, done on a thread of its own: never more than one at a time.
    async fn on_thread<T: Default + Send + 'static>(
        &self,
        work: impl FnOnce(&Blocks) -> T + Send + 'static,
    ) -> T {
        let this = self.clone();
        let work = spawn_blocking(move || work(&this.inner.blocks));
        work.await.unwrap_or_else(|panic| {
            warn!(%panic, "the scrub leaves something out");
            T::default()
        })
    }
}

impl Blocks {
    /// The blocks whose files are in this directory of the fan.
    fn list(&self, first: u8) -> Vec<BlockId> {
        let running = self.device.begin(Access::Read);
        match scan::ids(&self.layout.dir().fan(first)) {
            // No success that forgives failed reads: the kernel has names in memory.
            Ok(ids) => ids,
            Err(error) => {
                self.counters.errors.inc();
                running.failed(&error);
                Vec::new()
            }
        }
    }

    /// Verifies a block; returns the bytes that were read. Does not count as a use.
    fn verify(&self, id: &BlockId) -> u64 {
        if !self.contains(id) {
            return 0;
        }
        let running = self.device.begin(Access::Read);
        let read = Count::default();
        let error = match self.verify_file(id, &read) {
            Ok(()) => {
                running.succeeded();
                return read.value();
            }
            Err(error) => error,
        };
        // One that was evicted meanwhile has no file, or a new one.
        let gone = matches!(&error, ReadError::Io(e) if e.kind() == io::ErrorKind::NotFound);
        let evicted = gone && !(self.contains(id) && Files::is_gone(&self.layout.block(id)));
        if !evicted && self.is_lost(id, error, running) {
            self.counters.scrub_bad.inc();
            self.drop_block(id, None);
        }
        read.value()
    }

    fn verify_file(&self, id: &BlockId, read: &Count) -> Result<(), ReadError> {
        let path = self.layout.block(id);
        let file = self.files.open(&path)?;
        let hot = file.is_in_memory();
        let verified = format::verify(&file, id, read);
        if !hot {
            // Readers did not want it there.
            file.forget();
        }
        verified
    }
}
