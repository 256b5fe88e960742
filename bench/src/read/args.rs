//! The flags of `millpond-bench read`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use millpond_process::{Size, UsageError};

use super::shape::Shape;
use crate::scenario::CommonArgs;

/// The most threads that read.
const MAX_JOBS: usize = 1024;
/// The largest single read.
const MAX_BLOCK: u64 = 1 << 30;

const EXAMPLES: &str = "\
Examples:
  All that the goals ask for, on clusters and mounts of its own:
    millpond-bench read
  Another product's mount, in three orders by one reader and by four:
    millpond-bench read --dir /mnt/other --pattern sequential,random,strided --jobs 1,4
  The same cold, every byte compared with the source:
    millpond-bench read --dir /mnt/other --cold --verify-against /srv/source
  A store through the client library, without a mount:
    millpond-bench read --uri s3://bucket/prefix --option region=eu-central-1
  A running cluster, through a mount of its own:
    millpond-bench read --coordinator coord:7000 --path /data --mount";

/// Read a directory, a store or a cluster and say how fast, beside the same reads of local
/// files; without a target, all cases that the goals name, beside their own limits.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub struct ReadArgs {
    #[command(flatten)]
    #[allow(missing_docs, reason = "flags of their own")]
    pub common: CommonArgs,
    /// Directory to read: any mount, ours or another's, or a local one
    #[arg(long, value_name = "DIR", conflicts_with_all = ["uri", "coordinator"])]
    pub dir: Option<PathBuf>,
    /// Store to read through the client library, without a mount
    #[arg(long, value_name = "URI", conflicts_with = "coordinator")]
    pub uri: Option<String>,
    /// Option of the store; may be repeated
    #[arg(long = "option", value_name = "KEY=VALUE", requires = "uri", value_parser = key_value)]
    pub options: Vec<(String, String)>,
    /// Running cluster to read through the client library
    #[arg(long, value_name = "HOST:PORT,…", value_delimiter = ',')]
    pub coordinator: Vec<String>,
    /// Where in the cluster's namespace [default: /]
    #[arg(long, value_name = "PATH", requires = "coordinator")]
    pub path: Option<String>,
    /// Read the cluster through a mount of its own in place of the library
    #[arg(long, requires = "coordinator")]
    pub mount: bool,
    /// Memory of the client library or of the mount [default: 256MiB]
    #[arg(long, value_name = "SIZE")]
    pub memory: Option<Size>,
    /// In which order; several are measured one after the other [default: sequential]
    #[arg(long, value_enum, value_name = "ORDER,…", value_delimiter = ',')]
    pub pattern: Vec<Pattern>,
    /// Bytes of one read; several are measured one after the other [default: 1MiB]
    #[arg(long, value_name = "SIZE,…", value_delimiter = ',')]
    pub block_size: Vec<Size>,
    /// Threads that read at once; several are measured one after the other [default: 1]
    #[arg(long, value_name = "N,…", value_delimiter = ',')]
    pub jobs: Vec<usize>,
    /// Blocks from one strided read to the next [default: 16]
    #[arg(long, value_name = "N")]
    pub stride: Option<u64>,
    /// Copy from mappings of the files in place of reading them; an error of the file system
    /// then ends this program with SIGBUS
    #[arg(long)]
    pub mmap: bool,
    /// Drop caches before each run, which is one pass over the data
    #[arg(long, conflicts_with = "warm")]
    pub cold: bool,
    /// Read everything once before the runs [the default]
    #[arg(long)]
    pub warm: bool,
    /// With --cold: also drop the whole machine's page cache (root only)
    #[arg(long, requires = "cold")]
    pub drop_caches: bool,
    /// A run is one pass over the data, however long that takes [default with --cold]
    #[arg(long)]
    pub pass: bool,
    /// Compare every byte with the files of this directory, after the runs
    #[arg(long, value_name = "DIR")]
    pub verify_against: Option<PathBuf>,
    /// Without a target: size of the file that is read [default: 256MiB, with --quick 64MiB]
    #[arg(long, value_name = "SIZE", conflicts_with_all = ["dir", "uri", "coordinator"])]
    pub size: Option<Size>,
}

/// The order of reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Pattern {
    /// Each job reads one stretch of the data from its start to its end.
    Sequential,
    /// Each block once, in a random order over all files.
    Random,
    /// Each block once: every 16th from the first on, then every 16th from the second on.
    Strided,
}

/// What is read, where the user said so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TargetKind {
    Dir,
    Uri,
    Cluster,
}

impl ReadArgs {
    /// All flags but the common ones at their defaults.
    pub const fn standard(common: CommonArgs) -> Self {
        Self {
            common,
            dir: None,
            uri: None,
            options: Vec::new(),
            coordinator: Vec::new(),
            path: None,
            mount: false,
            memory: None,
            pattern: Vec::new(),
            block_size: Vec::new(),
            jobs: Vec::new(),
            stride: None,
            mmap: false,
            cold: false,
            warm: false,
            drop_caches: false,
            pass: false,
            verify_against: None,
            size: None,
        }
    }

    /// What the user wants read; none for the standard cases.
    pub(super) const fn target(&self) -> Option<TargetKind> {
        if self.dir.is_some() {
            Some(TargetKind::Dir)
        } else if self.uri.is_some() {
            Some(TargetKind::Uri)
        } else if !self.coordinator.is_empty() {
            Some(TargetKind::Cluster)
        } else {
            None
        }
    }

    /// Checks what the parser cannot.
    ///
    /// # Errors
    /// [`UsageError`] that names the flag.
    pub(super) fn validate(&self) -> Result<(), UsageError> {
        let wrong = |message: String| Err(UsageError::new(message));
        if self.target().is_none()
            && let Some(flag) = self.flag_for_a_target()
        {
            return wrong(format!(
                "{flag} is about a target; name one with --dir, --uri or --coordinator"
            ));
        }
        for size in &self.block_size {
            if !(1..=MAX_BLOCK).contains(&size.bytes()) {
                return wrong(format!("--block-size {size} is not in 1B..=1GiB"));
            }
        }
        if let Some(jobs) = self.jobs.iter().find(|jobs| !(1..=MAX_JOBS).contains(jobs)) {
            return wrong(format!("--jobs {jobs} is not in 1..={MAX_JOBS}"));
        }
        if self.stride == Some(0) {
            return wrong("--stride 0 goes nowhere".to_owned());
        }
        if self.size.is_some_and(|size| size.bytes() < 1 << 20) {
            return wrong("--size is less than 1MiB".to_owned());
        }
        if self.mmap && !(self.dir.is_some() || self.mount) {
            return wrong(
                "--mmap needs files to map; read a directory with --dir, or a cluster with --mount"
                    .to_owned(),
            );
        }
        if self.drop_caches && !nix::unistd::geteuid().is_root() {
            return wrong(
                "--drop-caches needs root; without it --cold drops the pages of the files that \
                 are read"
                    .to_owned(),
            );
        }
        // The parser waives what a flag needs when that conflicts with another.
        if self.uri.is_none() && !self.options.is_empty() {
            return wrong("--option is for the store of --uri".to_owned());
        }
        if self.coordinator.is_empty() && (self.path.is_some() || self.mount) {
            return wrong("--path and --mount are for the cluster of --coordinator".to_owned());
        }
        for dir in [&self.dir, &self.verify_against].into_iter().flatten() {
            if !dir.is_dir() {
                return wrong(format!("{} is not a directory", dir.display()));
            }
        }
        Ok(())
    }

    /// A flag that says how to read a target.
    fn flag_for_a_target(&self) -> Option<&'static str> {
        [
            ("--option", !self.options.is_empty()),
            ("--memory", self.memory.is_some()),
            ("--pattern", !self.pattern.is_empty()),
            ("--block-size", !self.block_size.is_empty()),
            ("--jobs", !self.jobs.is_empty()),
            ("--stride", self.stride.is_some()),
            ("--mmap", self.mmap),
            ("--cold", self.cold),
            ("--warm", self.warm),
            ("--pass", self.pass),
            ("--verify-against", self.verify_against.is_some()),
        ]
        .into_iter()
        .find_map(|(flag, given)| given.then_some(flag))
    }

    /// All combinations of orders, sizes and jobs.
    pub(super) fn shapes(&self) -> Vec<Shape> {
        let or = |given: &[Pattern]| match given {
            [] => vec![Pattern::Sequential],
            given => given.to_vec(),
        };
        let blocks: Vec<u64> = match &*self.block_size {
            [] => vec![1 << 20],
            given => given.iter().map(|size| size.bytes()).collect(),
        };
        let jobs: &[usize] = match &*self.jobs {
            [] => &[1],
            given => given,
        };
        let mut shapes = Vec::new();
        for pattern in or(&self.pattern) {
            for block in &blocks {
                for jobs in jobs {
                    shapes.push(Shape {
                        pattern,
                        block: *block,
                        jobs: *jobs,
                        mmap: self.mmap,
                    });
                }
            }
        }
        shapes
    }

    pub(super) fn ufs_options(&self) -> BTreeMap<String, String> {
        self.options.iter().cloned().collect()
    }

    pub(super) fn memory(&self) -> Size {
        self.memory.unwrap_or(Size::mib(256))
    }
}

fn key_value(text: &str) -> Result<(String, String), String> {
    text.split_once('=')
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .ok_or_else(|| format!("{text:?} is not KEY=VALUE"))
}
