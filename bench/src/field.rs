//! `millpond-bench field`: the mount as others are measured, with the tools that others use.
//!
//! The other scenarios hold a part against its own limit. This one asks what a user of any
//! product asks, with `dd`, `fio`, `ls`, `curl` and a reader of small files: how fast is the
//! mount beside a local directory with the same files, and beside the store itself?
//!
//! | module | holds |
//! |---|---|
//! | `scene` | the files, local and in a store, and the mounts of them |
//! | `tools` | the programs that are run, and what they say |
//! | `baseline` | the same done to the local directory and to the store |
//! | `course` | what is done to each mount, in which order |

mod baseline;
mod course;
mod scene;
mod tools;

use std::collections::BTreeMap;

use anyhow::Result;
use clap::{Args, ValueEnum};
use millpond_fuse::preflight;
use millpond_process::{Size, UsageError};

use crate::measure::{Sample, Spread, interrupt};
use crate::read::verify;
use crate::record::{Better, Figure, Row, Status};
use crate::scenario::{CommonArgs, Context};

use baseline::Baseline;
use scene::Scene;

const SCENARIO: &str = "field";
const MIB: u64 = 1 << 20;

/// Run the tools that users compare mounts with on our own mounts, a local directory and the
/// store.
///
/// The data is 4 large files and many of 128 KiB in 20 directories, in an S3 server of this
/// program without any latency, and in a local directory. Large files are read by dd, at
/// random by fio with O_DIRECT, four at once by four dd; small ones by 1 and 8 threads that
/// open, read and close; everything is listed by ls -lR. Each is done cold (a fresh mount
/// and cluster), with everything in the tier but not in the kernel, and again with the
/// kernel's pages. What is cold is divided by curl, the rest by the local directory.
///
/// --duration is that of one run of fio.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  millpond-bench field --quick
  millpond-bench field --setup memory,cluster --runs 3
  millpond-bench field --case disk/warm --json")]
pub struct FieldArgs {
    #[command(flatten)]
    #[allow(missing_docs, reason = "flags of their own")]
    pub common: CommonArgs,
    /// Size of each of the 4 large files [default: 256MiB, with --quick 64MiB]
    #[arg(long, value_name = "SIZE")]
    pub size: Option<Size>,
    /// Number of small files [default: 2000, with --quick 400]
    #[arg(long, value_name = "N")]
    pub files: Option<usize>,
    /// Which mounts
    #[arg(
        long,
        value_enum,
        value_name = "SETUP,…",
        value_delimiter = ',',
        default_values_t = Setup::ALL
    )]
    pub setup: Vec<Setup>,
}

/// A kind of mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Setup {
    /// A mount of the store without a cluster, with memory for all data.
    Memory,
    /// The same with 256 MiB of memory and a local disk tier.
    Disk,
    /// A cluster of three nodes with memory for all data, and a mount with 256 MiB.
    Cluster,
}

impl Setup {
    const ALL: [Self; 3] = [Self::Memory, Self::Disk, Self::Cluster];

    const fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Disk => "disk",
            Self::Cluster => "cluster",
        }
    }
}

impl FieldArgs {
    /// The flags' defaults.
    pub fn standard(common: CommonArgs) -> Self {
        Self {
            common,
            size: None,
            files: None,
            setup: Setup::ALL.to_vec(),
        }
    }

    fn validate(&self) -> Result<(), UsageError> {
        if self.size.is_some_and(|size| size < Size::mib(1)) {
            return Err(UsageError::new("--size must be at least 1MiB"));
        }
        if self.files == Some(0) {
            return Err(UsageError::new("--files must be at least 1"));
        }
        Ok(())
    }
}

/// What is measured: what it is called, which figure of it counts, and beside what.
#[derive(Debug, Clone, Copy)]
struct Measured {
    case: &'static str,
    figure: Figure,
    /// Each setup may be held against another thing: what comes from a disk, a disk.
    beside: fn(Setup) -> Baseline,
}

const FILES: Figure = Figure::Ops("files/s");
const READS: Figure = Figure::Ops("reads/s");

const CASES: [Measured; 21] = [
    Measured::new("cold/ls-lR", Figure::Seconds, |_| Baseline::List),
    Measured::new("warm/ls-lR", Figure::Seconds, |_| Baseline::List),
    Measured::new("cold/dd", Figure::Throughput, |_| Baseline::Get),
    Measured::new("warm/dd", Figure::Throughput, |setup| match setup {
        Setup::Disk => Baseline::DdDropped,
        Setup::Memory | Setup::Cluster => Baseline::Dd,
    }),
    Measured::new("reread/dd", Figure::Throughput, |_| Baseline::Dd),
    Measured::new("warm/fio-4k-1job", READS, |_| Baseline::Fio("4k", 1)),
    Measured::new("warm/fio-4k-1job", Figure::P50, |_| Baseline::Fio("4k", 1)),
    Measured::new("warm/fio-4k-4jobs", READS, |_| Baseline::Fio("4k", 4)),
    Measured::new("warm/fio-128k-1job", READS, |_| Baseline::Fio("128k", 1)),
    Measured::new("warm/fio-128k-4jobs", READS, |_| Baseline::Fio("128k", 4)),
    Measured::new("warm/fio-4k-buffered", READS, |_| Baseline::FioBuffered),
    Measured::new("cold/4-dd", Figure::Throughput, |_| Baseline::Get4),
    Measured::new("warm/4-dd", Figure::Throughput, |_| Baseline::Dd4Dropped),
    Measured::new("reread/4-dd", Figure::Throughput, |_| Baseline::Dd4),
    Measured::new("cold/small-1", FILES, |_| Baseline::GetSmall(1)),
    Measured::new("cold/small-8", FILES, |_| Baseline::GetSmall(8)),
    Measured::new("warm/small-1", FILES, |_| Baseline::SmallDropped(1)),
    Measured::new("warm/small-8", FILES, |_| Baseline::SmallDropped(8)),
    Measured::new("reread/small-1", FILES, |_| Baseline::Small(1)),
    Measured::new("reread/small-8", FILES, |_| Baseline::Small(8)),
    // Beside the many ranges that a store gives more for than for one.
    Measured::new("cold/dd-of-ranges", Figure::Throughput, |_| {
        Baseline::GetRanges
    }),
];

impl Measured {
    const fn new(case: &'static str, figure: Figure, beside: fn(Setup) -> Baseline) -> Self {
        Self {
            case,
            figure,
            beside,
        }
    }
}

/// What was measured of one thing, round by round.
type Samples<K> = BTreeMap<K, Vec<Sample>>;

/// Measures the wanted cases.
///
/// # Errors
/// [`UsageError`] for flags without sense; when the data cannot be written; when interrupted.
/// What fails while others can go on is a row.
pub fn run(context: &Context, args: &FieldArgs) -> Result<Vec<Row>> {
    args.validate()?;
    let mut rows = Vec::new();
    let setups = args.setup.iter().copied();
    let setups: Vec<Setup> = setups.filter(|setup| wants_any(context, *setup)).collect();
    if setups.is_empty() {
        return Ok(rows);
    }
    if let Some((status, why)) = missing() {
        fill(context, &setups, &mut rows, status, &why);
        return Ok(rows);
    }
    let scene = Scene::new(context, args)?;
    let mut limits: Samples<Baseline> = BTreeMap::new();
    let mut found: BTreeMap<Setup, Result<Found>> =
        setups.iter().map(|s| (*s, Ok(Found::default()))).collect();
    for round in 0..context.runs {
        let wanted = CASES.iter().flat_map(|measured| {
            let of = setups.iter().map(move |setup| (*setup, measured));
            of.filter(|(setup, measured)| context.wanted.wants(&name(*setup, measured.case)))
        });
        let mut beside: Vec<_> = wanted.map(|(s, measured)| (measured.beside)(s)).collect();
        beside.sort_unstable();
        beside.dedup();
        if round % 2 == 0 {
            baseline::run(&scene, &beside, &mut limits)?;
        }
        for (setup, found) in &mut found {
            interrupt::check()?;
            if let Ok(so_far) = found
                && let Err(error) = course::run(&scene, *setup, so_far)
            {
                *found = Err(error);
            }
        }
        if round % 2 == 1 {
            baseline::run(&scene, &beside, &mut limits)?;
        }
    }
    for (setup, found) in found {
        interrupt::check()?;
        match found {
            Ok(found) => rows.extend(found.rows(&scene, setup, &limits)),
            Err(error) => {
                let why = format!("{error:#}");
                fill(context, &[setup], &mut rows, Status::Failed, &why);
            }
        }
    }
    Ok(rows)
}

/// What was found of one kind of mount.
#[derive(Debug, Default)]
struct Found {
    samples: Samples<&'static str>,
    verified: verify::Verified,
    /// The most resident memory of the mount's process over what its limit allows, each round.
    memory: Vec<f64>,
}

impl Found {
    fn add(&mut self, case: &'static str, sample: Sample) {
        self.samples.entry(case).or_default().push(sample);
    }

    fn rows(&self, scene: &Scene<'_>, setup: Setup, limits: &Samples<Baseline>) -> Vec<Row> {
        let mut rows = Vec::new();
        for measured in &CASES {
            let Some(samples) = self.samples.get(measured.case) else {
                continue;
            };
            let beside = (measured.beside)(setup);
            let case = name(setup, measured.case);
            let mut row = Row::measured(SCENARIO, case, measured.figure, samples);
            if let Some(limit) = limits.get(&beside) {
                row = row.against(beside.name(), measured.figure, limit);
            }
            if let Some(dropped) = scene.could_not_drop() {
                row = row.noted(dropped);
            }
            rows.push(row);
        }
        if let Some(memory) = Spread::of(self.memory.iter().copied()) {
            let (case, better) = (name(setup, "memory"), Better::Lower);
            let row = Row::of(SCENARIO, case, "rss", "ratio", better, memory);
            rows.push(row.noted("peak of resident memory of the mount, by its limit and 64 MiB"));
        }
        verify::enter(&self.verified, &mut rows);
        rows
    }
}

fn name(setup: Setup, case: &str) -> String {
    format!("{}/{case}", setup.name())
}

fn wants_any(context: &Context, setup: Setup) -> bool {
    let cases = CASES.iter().map(|measured| measured.case).chain(["memory"]);
    cases
        .into_iter()
        .any(|case| context.wanted.wants(&name(setup, case)))
}

/// What cannot be done without.
fn missing() -> Option<(Status, String)> {
    if let Err(why) = preflight::check_right() {
        return Some((Status::Impossible, why.to_string()));
    }
    let missing: Vec<&str> = tools::missing();
    (!missing.is_empty()).then(|| {
        let why = format!("not installed here: {}", missing.join(", "));
        (Status::Impossible, why)
    })
}

fn fill(context: &Context, setups: &[Setup], rows: &mut Vec<Row>, status: Status, why: &str) {
    for setup in setups {
        for measured in &CASES {
            let case = name(*setup, measured.case);
            if context.wanted.wants(&case) {
                let figure = measured.figure.name();
                rows.push(Row::without(SCENARIO, case, figure, status, why));
            }
        }
    }
}
