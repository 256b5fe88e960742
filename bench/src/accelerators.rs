//! `millpond-bench accelerators`: how many accelerators the tier keeps busy, beside a local
//! disk.
//!
//! The method of MLPerf Storage: an accelerator that sleeps for the time that a batch would take
//! it to compute, and a loader that reads the next batches meanwhile. It counts as busy while
//! its utilisation is at least what the benchmark demands of the model.
//!
//! | module | holds |
//! |---|---|
//! | `model` | the models, with the figures of the public configurations; scaled to fit |
//! | `utilization` | what share of the time accelerators computed; pure |
//! | `search` | how many of them are busy, in few runs; pure |
//! | `store` | samples in a directory, or behind the client library |
//! | `loader` | accelerators and their readers |
//! | `scene` | data, a cluster that has them all in memory, and a mount |

mod loader;
mod model;
mod scene;
mod search;
mod store;
mod utilization;

use anyhow::Result;
use clap::{Args, ValueEnum};
use millpond_process::{Size, UsageError};

use crate::measure::interrupt;
use crate::read::gaps;
use crate::record::{Row, Status};
use crate::scenario::{CommonArgs, Context};

use model::MODELS;
use scene::Scene;

const SCENARIO: &str = "accelerators";
const FIGURE: &str = "accelerators";

/// Feed simulated accelerators by MLPerf Storage's method.
///
/// Sample and batch sizes, step times and reader threads are those of the configurations of
/// MLPerf Storage; an accelerator is busy if it computes for at least 90 % of the time (70 % for
/// CosmoFlow). It is the method, not a submission: the data set is small, so that samples are
/// made smaller where too few would be left, step times with them; and accelerators are slowed
/// down until about 16 of them load the machine, so that a difference of a few percent shows.
/// The figure is told in accelerators of full speed. The kernel's pages of a sample are dropped
/// after each read, on the mount and on the local disk alike: data sets of real trainings do
/// not fit into memory.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  millpond-bench accelerators
  millpond-bench accelerators --case resnet50 --accelerator a100
  millpond-bench accelerators --case unet3d --size 2GiB --slowdown 8")]
pub struct AcceleratorsArgs {
    /// Whose step times
    #[arg(long, value_enum, default_value_t = Accelerator::H100)]
    pub accelerator: Accelerator,
    /// Slow accelerators down by this factor [default: so much that about 16 are busy]
    #[arg(long, value_name = "FACTOR")]
    pub slowdown: Option<f64>,
    /// Size of each model's data set [default: 192MiB, with --quick 48MiB]
    #[arg(long, value_name = "SIZE")]
    pub size: Option<Size>,
    /// Read through the client library even where a mount is possible
    #[arg(long)]
    pub library: bool,
    #[command(flatten)]
    #[allow(missing_docs, reason = "flags of their own")]
    pub common: CommonArgs,
}

/// A kind of accelerator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Accelerator {
    /// NVIDIA A100.
    A100,
    /// NVIDIA H100.
    H100,
}

impl AcceleratorsArgs {
    /// What `all` and `check` measure.
    pub const fn standard(common: CommonArgs) -> Self {
        Self {
            accelerator: Accelerator::H100,
            slowdown: None,
            size: None,
            library: false,
            common,
        }
    }

    fn validate(&self) -> Result<(), UsageError> {
        if self
            .slowdown
            .is_some_and(|factor| !factor.is_finite() || factor <= 0.0)
        {
            return Err(UsageError::new("--slowdown takes a factor above 0"));
        }
        if self.size.is_some_and(|size| size.bytes() < 8 << 20) {
            return Err(UsageError::new("--size takes at least 8MiB"));
        }
        Ok(())
    }
}

/// Measures the wanted cases. What fails leaves rows that say so.
///
/// # Errors
/// [`UsageError`] for flags without sense; after Ctrl-C.
pub fn run(context: &Context, args: &AcceleratorsArgs) -> Result<Vec<Row>> {
    args.validate()?;
    let models: Vec<_> = MODELS
        .iter()
        .filter(|model| context.wanted.wants(model.name))
        .collect();
    if models.is_empty() {
        return Ok(Vec::new());
    }
    let mut rows = Vec::new();
    let why = match Scene::start(context, args, &models) {
        Err(error) => format!("{error:#}"),
        Ok(scene) => {
            for model in models {
                interrupt::check()?;
                match scene.measure(model) {
                    Ok(row) => rows.push(row),
                    Err(error) => {
                        let error = format!("{error:#}");
                        rows.push(Row::without(
                            SCENARIO,
                            model.name,
                            FIGURE,
                            Status::Failed,
                            error,
                        ));
                    }
                }
            }
            String::new()
        }
    };
    interrupt::check()?;
    let cases = MODELS.map(|model| (model.name, FIGURE));
    gaps::fill(context, SCENARIO, &cases, &mut rows, Status::Failed, &why);
    Ok(rows)
}
