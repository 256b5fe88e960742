//! Files on their way to being whole: synced, verified, and completed, in the background.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;

use super::cached::{CachedFile, ReadError};
use super::metrics::Failure;
use super::{LocalDisk, pages};
use crate::core::Core;
use crate::fetch::{How, OpenFile};

/// Files of at least this size are synced and verified as soon as they are complete, or
/// read. Smaller ones when they are opened again: a sync of each would cost more than it
/// gains.
const LARGE: u64 = 4 << 20;

/// A file that is written and read at the same time is synced this often.
const SYNC_EVERY: Duration = Duration::from_secs(5);

/// How far ahead of where it is a file is completed.
const AHEAD: u64 = 8 << 20;

impl LocalDisk {
    /// Has a file that is used again made whole: one that is complete is verified, one of
    /// which at least half is here is completed.
    pub(super) fn make_whole(
        &self,
        core: &Arc<Core>,
        file: &Arc<OpenFile>,
        cached: &Arc<CachedFile>,
    ) {
        let missing = cached.missing();
        if missing == 0 {
            self.settle(cached);
        } else if missing <= pages::count(cached.size) / 2 {
            self.complete(core, file, cached);
        }
    }

    /// Has a large file synced and verified, unless it was a moment ago.
    pub(super) fn settle_if_large(&self, file: &Arc<CachedFile>) {
        let due = file.missing() == 0 || !file.synced_within(SYNC_EVERY);
        if file.size >= LARGE && due {
            self.settle(file);
        }
    }

    /// Has a file synced and, if it is complete, verified.
    fn settle(&self, file: &Arc<CachedFile>) {
        if file.is_whole() || file.settling.swap(true, Ordering::AcqRel) {
            return;
        }
        let (this, file) = (self.clone(), Arc::clone(file));
        self.inner.tasks.start(async move {
            // The semaphore is never closed.
            let Ok(permit) = Arc::clone(&this.inner.settling).acquire_owned().await else {
                return;
            };
            let settling = tokio::task::spawn_blocking(move || {
                this.settle_now(&file);
                file.settling.store(false, Ordering::Release);
                drop(permit);
            });
            let _ = settling.await;
        });
    }

    fn settle_now(&self, file: &CachedFile) {
        let inner = &self.inner;
        if let Err(error) = file.sync() {
            inner.metrics.count_failure(Failure::Sync);
            tracing::warn!(
                file = %file.id,
                %error,
                "the disk lost writes to a cached file, which is removed"
            );
            if !file.is_gone() {
                inner.remove(file.id);
            }
            return;
        }
        if file.missing() > 0 {
            return;
        }
        match file.verify(|| inner.is_closed()) {
            Ok(0) => {}
            Ok(pages) => inner.count(file, &ReadError::Damaged(pages)),
            Err(error) => inner.count(file, &error),
        }
    }

    /// Has what is missing of a file fetched, one file at a time: when another one is being
    /// completed, this one is left for when it is opened next.
    fn complete(&self, core: &Arc<Core>, file: &Arc<OpenFile>, cached: &Arc<CachedFile>) {
        if cached.completing.swap(true, Ordering::AcqRel) {
            return;
        }
        let Ok(permit) = Arc::clone(&self.inner.completing).try_acquire_owned() else {
            cached.completing.store(false, Ordering::Release);
            return;
        };
        let (this, core) = (self.clone(), Arc::clone(core));
        let (file, cached) = (Arc::clone(file), Arc::clone(cached));
        self.inner.tasks.start(async move {
            this.fetch_missing(&core, &file, &cached).await;
            cached.completing.store(false, Ordering::Release);
            drop(permit);
        });
    }

    async fn fetch_missing(&self, core: &Arc<Core>, file: &Arc<OpenFile>, cached: &CachedFile) {
        let mut at = 0;
        while let Some(missing) = cached.first_missing(at) {
            if cached.is_gone() {
                return;
            }
            let piece = core.layout.piece_at(file.id, file.size, missing.start);
            let ahead = missing.start..missing.end.min(missing.start + AHEAD);
            core.fetch_ahead(file, ahead, How::default());
            let deadline = Instant::now() + core.config.deadline;
            match core.piece(file, piece, deadline).await {
                Ok(fetched) => {
                    self.put(&core.budget, file, piece.start, &fetched.unread())
                        .await;
                }
                Err(error) => {
                    tracing::debug!(
                        file = %file.id,
                        error = &error as &dyn std::error::Error,
                        "a cached file is not completed"
                    );
                    return;
                }
            }
            at = piece.range().end;
        }
    }
}
