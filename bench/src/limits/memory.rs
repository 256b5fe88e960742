//! Copying memory: what nothing that copies can exceed.

use std::hint::black_box;
use std::time::Duration;

use anyhow::{Result, ensure};

use super::content::Content;
use super::group::{BYTES, Bench, Case, Measured};
use super::workers::{self, Step};
use crate::record::Proof;

/// What is measured: each job copies the same source into a destination of its own.
pub(super) const CASES: &[Case] = &[("copy", BYTES), ("copy-4jobs", BYTES)];

/// Bytes of one copy: a block. The destination is always the same.
const BLOCK: usize = 4 << 20;

pub(super) struct Memory {
    source: Vec<u8>,
}

impl Memory {
    /// Copies `size` bytes in turn.
    pub(super) fn new(size: u64, seed: u64) -> Result<Self> {
        let content = Content::new(seed, size);
        let memory = Self {
            source: content.bytes(0, size as usize),
        };
        let mut copy = vec![1; BLOCK];
        for (index, block) in memory.blocks().enumerate() {
            copy.copy_from_slice(block);
            let wrong = content.mismatches((index * BLOCK) as u64, &copy);
            ensure!(wrong == 0, "{wrong} bytes of memory are wrong");
        }
        Ok(memory)
    }

    fn blocks(&self) -> impl Iterator<Item = &[u8]> + Clone + Send {
        self.source.chunks_exact(BLOCK)
    }
}

impl Bench for Memory {
    fn measure(&self, case: &str, duration: Duration) -> Result<Measured> {
        let jobs = if case == "copy" { 1 } else { 4 };
        let steps = (0..jobs).map(|_| {
            let mut blocks = self.blocks().cycle();
            let mut copy = vec![1; BLOCK];
            Box::new(move || {
                let Some(block) = blocks.next() else {
                    return Ok(None);
                };
                copy.copy_from_slice(black_box(block));
                black_box(&mut copy);
                Ok(Some(BLOCK as u64))
            }) as Step<'_>
        });
        Ok(workers::threads(steps.collect(), Some(duration), &[])?.into())
    }

    fn proof(&self) -> Proof {
        Proof {
            verified_bytes: Some(self.source.len() as u64),
            mismatches: Some(0),
            ..Proof::default()
        }
    }
}
