//! How something is read, and what that is called.

use super::args::Pattern;
use crate::record::Figure;

/// Below this size what counts is how many reads there are, not how many bytes.
const LARGE: u64 = 64 << 10;

/// Order, size and number of reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) pattern: Pattern,
    /// Bytes of one read, at least 1.
    pub(super) block: u64,
    /// Threads, at least 1.
    pub(super) jobs: usize,
    /// From a mapping.
    pub(super) mmap: bool,
}

impl Shape {
    /// Reads by calls.
    pub(super) const fn new(pattern: Pattern, block: u64, jobs: usize) -> Self {
        Self {
            pattern,
            block,
            jobs,
            mmap: false,
        }
    }

    /// One thread from front to back.
    pub(super) const SEQUENTIAL: Self = Self::new(Pattern::Sequential, 1 << 20, 1);

    /// One copy from a mapping from front to back.
    pub(super) const MAPPED: Self = Self {
        pattern: Pattern::Sequential,
        block: 1 << 20,
        jobs: 1,
        mmap: true,
    };

    /// The last part of a case: `seq-1m-4jobs`, `rand-4k-1job`, `mmap-1job`.
    pub(super) fn name(&self) -> String {
        let plural = if self.jobs == 1 { "" } else { "s" };
        format!("{}-{}job{plural}", self.reads(), self.jobs)
    }

    /// The same without the jobs.
    pub(super) fn reads(&self) -> String {
        if *self
            == (Self {
                jobs: self.jobs,
                ..Self::MAPPED
            })
        {
            return "mmap".to_owned();
        }
        let mapped = if self.mmap { "mmap-" } else { "" };
        let pattern = match self.pattern {
            Pattern::Sequential => "seq",
            Pattern::Random => "rand",
            Pattern::Strided => "strided",
        };
        format!("{mapped}{pattern}-{}", short(self.block))
    }

    /// What is held against the limit.
    pub(super) const fn figure(&self) -> Figure {
        match self.pattern {
            Pattern::Random | Pattern::Strided if self.block < LARGE => Figure::Ops("reads/s"),
            _ => Figure::Throughput,
        }
    }
}

fn short(bytes: u64) -> String {
    let units = [(30, "g"), (20, "m"), (10, "k")];
    let fits = |(shift, _): &(u32, _)| bytes > 0 && bytes.is_multiple_of(1 << shift);
    match units.into_iter().find(fits) {
        Some((shift, unit)) => format!("{}{unit}", bytes >> shift),
        None => format!("{bytes}b"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_goals() {
        let name = |pattern, block, jobs| Shape::new(pattern, block, jobs).name();
        assert_eq!(name(Pattern::Sequential, 1 << 20, 1), "seq-1m-1job");
        assert_eq!(name(Pattern::Sequential, 128 << 10, 32), "seq-128k-32jobs");
        assert_eq!(name(Pattern::Random, 4096, 4), "rand-4k-4jobs");
        assert_eq!(name(Pattern::Strided, 1000, 1), "strided-1000b-1job");
        assert_eq!(Shape::MAPPED.name(), "mmap-1job");
        let mapped = Shape {
            mmap: true,
            ..Shape::new(Pattern::Random, 4096, 2)
        };
        assert_eq!(mapped.name(), "mmap-rand-4k-2jobs");
    }

    #[test]
    fn small_reads_are_counted_and_large_ones_weighed() {
        let figure = |pattern, block| Shape::new(pattern, block, 1).figure();
        assert_eq!(figure(Pattern::Random, 4096), Figure::Ops("reads/s"));
        assert_eq!(figure(Pattern::Random, 256 << 10), Figure::Throughput);
        assert_eq!(figure(Pattern::Sequential, 4096), Figure::Throughput);
    }
}
