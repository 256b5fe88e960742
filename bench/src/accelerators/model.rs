//! The models, and the work that they are with a data set of some size. Pure.

use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::Accelerator;
use crate::read::layout::FileInfo;
use crate::read::order::Shuffled;

/// A model as MLPerf Storage describes it: `configs/dlio/workload/MODEL_ACCELERATOR.yaml` of
/// <https://github.com/mlcommons/storage>.
#[derive(Debug)]
pub(super) struct Model {
    pub(super) name: &'static str,
    /// `record_length_bytes`.
    sample_bytes: f64,
    /// `record_length_bytes_stdev`.
    deviation: f64,
    /// `num_samples_per_file`.
    samples_per_file: u64,
    /// `batch_size`.
    batch: u64,
    /// `read_threads` of each accelerator.
    pub(super) readers: usize,
    /// `computation_time` of a batch in seconds.
    a100: f64,
    h100: f64,
    /// `au`: the least utilisation.
    pub(super) threshold: f64,
}

/// All of them.
pub(super) const MODELS: [Model; 3] = [
    Model {
        name: "unet3d",
        sample_bytes: 146_600_628.0,
        deviation: 68_341_808.0,
        samples_per_file: 1,
        batch: 7,
        readers: 4,
        a100: 0.636,
        h100: 0.323,
        threshold: 0.90,
    },
    Model {
        name: "resnet50",
        sample_bytes: 114_660.07,
        deviation: 0.0,
        samples_per_file: 1251,
        batch: 400,
        readers: 8,
        a100: 0.435,
        h100: 0.224,
        threshold: 0.90,
    },
    Model {
        name: "cosmoflow",
        sample_bytes: 2_828_486.0,
        deviation: 71_311.0,
        samples_per_file: 1,
        batch: 1,
        readers: 4,
        a100: 0.005_51,
        h100: 0.003_50,
        threshold: 0.70,
    },
];

/// No data set has fewer samples: readers should not meet at one file.
const LEAST_SAMPLES: u64 = 96;
/// Nor fewer files.
const LEAST_FILES: u64 = 16;

/// A model's data set, scaled to fit.
#[derive(Debug)]
pub(super) struct Work {
    /// Its files, in a directory of the model's name.
    pub(super) files: Arc<[FileInfo]>,
    samples: Vec<Place>,
    /// How many times smaller than the model's its samples are.
    pub(super) shrunk: f64,
    /// Mean size of a sample in bytes.
    pub(super) mean_bytes: f64,
    /// Time that an accelerator of full speed takes for a sample of mean size.
    pub(super) sample_seconds: f64,
    batch: u64,
    seed: u64,
}

/// Where a sample lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) file: usize,
    pub(super) offset: u64,
    pub(super) len: usize,
}

impl Work {
    /// As much of `model` as `bytes` hold.
    pub(super) fn new(model: &Model, accelerator: Accelerator, bytes: u64, seed: u64) -> Self {
        let shrunk = (model.sample_bytes * LEAST_SAMPLES as f64 / bytes as f64).max(1.0);
        let mean = model.sample_bytes / shrunk;
        let count = ((bytes as f64 / mean) as u64).max(LEAST_SAMPLES);
        let per_file = model.samples_per_file.min(count / LEAST_FILES).max(1);
        let mut random = StdRng::seed_from_u64(seed);
        let (mut files, mut samples) = (Vec::new(), Vec::new());
        let mut total = 0;
        while (samples.len() as u64) < count {
            let file = files.len();
            let mut size = 0;
            for _ in 0..per_file.min(count - samples.len() as u64) {
                let len = normal(&mut random, mean, model.deviation / shrunk);
                samples.push(Place {
                    file,
                    offset: size,
                    len: len as usize,
                });
                size += len;
            }
            total += size;
            files.push(FileInfo {
                path: format!("{}/{file:05}", model.name),
                size,
            });
        }
        let step = match accelerator {
            Accelerator::A100 => model.a100,
            Accelerator::H100 => model.h100,
        };
        Self {
            files: files.into(),
            mean_bytes: total as f64 / samples.len() as f64,
            samples,
            shrunk,
            sample_seconds: step / model.batch as f64 / shrunk,
            batch: model.batch,
            seed,
        }
    }

    /// Bytes per second that one accelerator of full speed takes.
    pub(super) fn demand(&self) -> f64 {
        self.mean_bytes / self.sample_seconds
    }

    /// Samples of a batch: as many as the model's, fewer if the step of an accelerator that is
    /// slowed down by `slowdown` would be longer than `longest` seconds.
    pub(super) fn batch(&self, slowdown: f64, longest: f64) -> u64 {
        let fit = longest / (self.sample_seconds * slowdown);
        (fit.round() as u64).clamp(1, self.batch)
    }

    /// The sample to read as number `index`: each epoch visits all in another order.
    pub(super) fn place(&self, index: u64) -> Place {
        let len = self.samples.len() as u64;
        let order = Shuffled::new(len, self.seed.wrapping_add(index / len));
        self.samples[order.get(index % len) as usize]
    }
}

/// A whole number of a normal distribution (Box and Muller, 1958), cut to a tenth of the mean
/// at the least and twice the mean at the most.
fn normal(random: &mut StdRng, mean: f64, deviation: f64) -> u64 {
    let (u, v): (f64, f64) = (random.random_range(f64::EPSILON..1.0), random.random());
    let standard = (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos();
    (mean + deviation * standard).clamp(mean / 10.0, mean * 2.0) as u64
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_epoch_visits_every_sample_once() {
        for model in &MODELS {
            let work = Work::new(model, Accelerator::H100, 16 << 20, 1);
            let len = work.samples.len() as u64;
            assert!(
                len >= LEAST_SAMPLES && work.files.len() as u64 >= LEAST_FILES,
                "{work:?}"
            );
            let epoch = |number: u64| -> Vec<(usize, u64)> {
                let places = (number * len..(number + 1) * len).map(|index| work.place(index));
                places.map(|place| (place.file, place.offset)).collect()
            };
            assert_eq!(epoch(0).iter().collect::<HashSet<_>>().len() as u64, len);
            assert_ne!(epoch(0), epoch(1));
        }
    }

    #[test]
    fn files_are_full_of_samples() {
        for model in &MODELS {
            let work = Work::new(model, Accelerator::A100, 32 << 20, 2);
            let mut ends = vec![0; work.files.len()];
            for place in &work.samples {
                assert_eq!(place.offset, ends[place.file]);
                ends[place.file] += place.len as u64;
            }
            let sizes: Vec<u64> = work.files.iter().map(|file| file.size).collect();
            assert_eq!(ends, sizes);
            let total: u64 = sizes.iter().sum();
            assert!(
                (0.7..1.3).contains(&(total as f64 / (32 << 20) as f64)),
                "{total}"
            );
        }
    }

    #[test]
    fn shrinking_samples_leaves_the_demand_as_it_is() {
        // 7 samples of 146.6 MB in 0.323 s.
        let unet = Work::new(&MODELS[0], Accelerator::H100, 64 << 20, 1);
        assert!(
            (unet.demand() / 3.177e9 - 1.0).abs() < 0.15,
            "{}",
            unet.demand()
        );
        let resnet = Work::new(&MODELS[1], Accelerator::H100, 64 << 20, 1);
        assert!(
            (resnet.demand() / 204.75e6 - 1.0).abs() < 0.001,
            "{}",
            resnet.demand()
        );
        assert_eq!(resnet.shrunk, 1.0);
        let slower = Work::new(&MODELS[1], Accelerator::A100, 64 << 20, 1);
        assert!(slower.demand() < resnet.demand());
    }

    #[test]
    fn a_batch_is_cut_to_the_length_of_a_step() {
        let work = Work::new(&MODELS[1], Accelerator::H100, 64 << 20, 1);
        assert_eq!(work.batch(1.0, 1.0), 400);
        assert_eq!(work.batch(1.0, 0.056), 100);
        assert_eq!(work.batch(1.0, 0.0), 1);
    }
}
