//! The same done to the local directory and to the store.

use anyhow::Result;

use super::scene::Scene;
use super::tools::{self, Curl};
use super::{Samples, course};
use crate::measure::{Sample, interrupt};

/// What a figure is divided by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Baseline {
    // First what needs no pages of the kernel, then what drops them, last what has them.
    Get,
    GetRanges,
    Get4,
    GetSmall(usize),
    Fio(&'static str, u32),
    FioBuffered,
    DdDropped,
    Dd4Dropped,
    SmallDropped(usize),
    Dd,
    Dd4,
    Small(usize),
    List,
}

impl Baseline {
    /// What it is called.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Get => "curl, one connection",
            Self::GetRanges => "curl, 8 ranges at once",
            Self::Get4 => "curl, 4 objects at once",
            Self::GetSmall(1) => "curl, one object after the other",
            Self::GetSmall(_) => "curl, 8 objects at a time",
            Self::Fio(..) => "a local directory, O_DIRECT",
            Self::FioBuffered | Self::DdDropped | Self::Dd4Dropped | Self::SmallDropped(_) => {
                "a local directory, page cache dropped"
            }
            Self::Dd | Self::Dd4 | Self::Small(_) | Self::List => "a local directory",
        }
    }

    fn measure(self, scene: &Scene<'_>) -> Result<Sample> {
        let local = scene.data.dir();
        let large = scene.large(local);
        let urls = || scene.large_urls();
        let sizes = || -> Result<u64> { Ok(large[0].metadata()?.len()) };
        let bytes = |mut sample: Sample, bytes: u64| {
            sample.bytes = bytes;
            sample
        };
        match self {
            Self::Get => Ok(bytes(Curl::whole(&urls()[..1]).run()?, sizes()?)),
            Self::GetRanges => {
                let size = sizes()?;
                Ok(bytes(Curl::ranges(&urls()[0], size, 8).run()?, size))
            }
            Self::Get4 => Ok(bytes(Curl::whole(&urls()).run()?, 4 * sizes()?)),
            Self::GetSmall(at_a_time) => {
                let (small, urls) = (scene.small(), scene.small_urls());
                let list = scene.context.dir().join("urls");
                let mut sample = Curl::many(&urls, at_a_time, &list)?.run()?;
                sample.ops = small.len() as u64;
                Ok(bytes(sample, small.iter().map(|info| info.size).sum()))
            }
            Self::Fio(block, jobs) => course::fio(scene, block, jobs, true).run(&large[0], &[]),
            Self::FioBuffered => {
                scene.drop_caches();
                course::fio(scene, "4k", 1, false).run(&large[0], &[])
            }
            Self::DdDropped => {
                scene.drop_caches();
                tools::dd(&large[..1], &[])
            }
            Self::Dd4Dropped => {
                scene.drop_caches();
                tools::dd(&large, &[])
            }
            Self::SmallDropped(workers) => {
                scene.drop_caches();
                course::small(scene, local, workers, &[])
            }
            Self::Dd => {
                tools::dd(&large[..1], &[])?;
                tools::dd(&large[..1], &[])
            }
            Self::Dd4 => {
                tools::dd(&large, &[])?;
                tools::dd(&large, &[])
            }
            Self::Small(workers) => {
                course::small(scene, local, workers, &[])?;
                course::small(scene, local, workers, &[])
            }
            Self::List => {
                tools::list(local, &[])?;
                tools::list(local, &[])
            }
        }
    }
}

/// Measures each of `wanted` once.
///
/// # Errors
/// When one fails, or after Ctrl-C.
pub(super) fn run(
    scene: &Scene<'_>,
    wanted: &[Baseline],
    samples: &mut Samples<Baseline>,
) -> Result<()> {
    for baseline in wanted {
        interrupt::check()?;
        scene.context.step(baseline.name());
        let sample = baseline.measure(scene)?;
        samples.entry(*baseline).or_default().push(sample);
    }
    Ok(())
}
