//! The flags of `millpond dev`, checked.

use std::collections::BTreeMap;
use std::path::PathBuf;

use millpond_process::{Size, UsageError};
use millpond_proto::BlockSize;

use crate::options::{option_map, parse_option};

/// Try everything on this machine: starts a coordinator, cache nodes and a mount, reads a
/// dataset and checks every byte.
///
/// Without --ufs a sample dataset is generated in a local directory, which serves as the UFS:
/// 3 files of 128 MiB and 2000 files of 1 byte to 128 KiB, about 512 MiB, the same bytes
/// every time (pseudo-random from a fixed seed).
///
/// Everything is read three times: cold; warm; and while one node is killed. Then the mount,
/// the cluster and their metrics stay up for you to look around until Ctrl-C, which removes
/// all of it. Everything lies in one temporary directory (TMPDIR says where) and takes about
/// twice the dataset's size.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  millpond dev
  millpond dev --once --json
  millpond dev --nodes 5 --block-size 1MiB --mount /mnt/try
  millpond dev --ufs s3://bucket/prefix --option region=eu-central-1")]
pub(crate) struct DevArgs {
    /// End after the report, with exit code 1 if anything was read wrong or not at all
    #[arg(long)]
    once: bool,
    /// Print the report as one JSON object
    #[arg(long)]
    json: bool,
    /// Read this store instead of a sample dataset, and compare with reading it directly
    #[arg(long, value_name = "URI")]
    ufs: Option<String>,
    /// An option of that store's driver; may be repeated
    #[arg(long = "option", value_name = "KEY=VALUE", requires = "ufs", value_parser = parse_option)]
    options: Vec<(String, String)>,
    /// Where to mount: an empty directory [default: a temporary one]
    #[arg(long, value_name = "DIR")]
    mount: Option<PathBuf>,
    /// Do not mount; read through the client library
    #[arg(long, conflicts_with = "mount")]
    no_mount: bool,
    /// Number of cache nodes
    #[arg(long, value_name = "N", default_value_t = 3)]
    nodes: usize,
    /// Size of every block, a power of two from 64KiB to 64MiB
    #[arg(long, value_name = "SIZE", default_value = "4MiB")]
    block_size: Size,
    /// Where the sample dataset is kept: used again if it is there and intact, never removed
    /// [default: made anew in the temporary directory]
    #[arg(long, value_name = "DIR", conflicts_with = "ufs")]
    dataset: Option<PathBuf>,
    /// Keep the dataset, the data directories and the logs, and say where they are
    #[arg(long)]
    keep: bool,
    /// Files that are read at once [default: the number of CPUs, 2 to 8]
    #[arg(long, value_name = "N")]
    readers: Option<usize>,
    /// Memory tier of each node
    #[arg(long, value_name = "SIZE", default_value = "256MiB", hide = true)]
    node_memory: Size,
    /// Disk tier of each node; by default it holds the dataset twice
    #[arg(long, value_name = "SIZE", hide = true)]
    node_disk: Option<Size>,
    /// Memory of the mount: small, so that nodes have something to do
    #[arg(long, value_name = "SIZE", default_value = "64MiB", hide = true)]
    client_memory: Size,
    /// About how large the sample dataset is
    #[arg(long, value_name = "SIZE", default_value = "512MiB", hide = true)]
    dataset_size: Size,
}

/// What is to be done, checked.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) once: bool,
    pub(crate) json: bool,
    pub(crate) keep: bool,
    pub(crate) origin: Origin,
    pub(crate) mount: MountPlan,
    pub(crate) nodes: usize,
    pub(crate) block_size: BlockSize,
    pub(crate) readers: usize,
    pub(crate) node_memory: Size,
    pub(crate) node_disk: Option<Size>,
    pub(crate) client_memory: Size,
}

/// What is read.
#[derive(Debug, Clone)]
pub(crate) enum Origin {
    /// A generated dataset of about this size, kept in `dir` if there is one.
    Sample { size: u64, dir: Option<PathBuf> },
    /// A store of the user's.
    Store {
        uri: String,
        options: BTreeMap<String, String>,
    },
}

/// Where to mount.
#[derive(Debug, Clone)]
pub(crate) enum MountPlan {
    /// Nowhere.
    Not,
    /// At a temporary directory.
    Temporary,
    /// At a directory of the user's.
    At(PathBuf),
}

impl DevArgs {
    /// Checks what types cannot.
    ///
    /// # Errors
    /// [`UsageError`] names the flag and what is wrong.
    pub(crate) fn plan(self) -> Result<Plan, UsageError> {
        if !(1..=64).contains(&self.nodes) {
            return Err(UsageError(format!(
                "--nodes {} is not from 1 to 64",
                self.nodes
            )));
        }
        let readers = self.readers.unwrap_or_else(default_readers);
        if !(1..=256).contains(&readers) {
            return Err(UsageError(format!(
                "--readers {readers} is not from 1 to 256"
            )));
        }
        let block_size = BlockSize::new(self.block_size.bytes())
            .map_err(|error| UsageError(format!("--block-size: {error}")))?;
        let origin = match self.ufs {
            Some(uri) => Origin::Store {
                uri,
                options: option_map(self.options)?,
            },
            None if self.dataset_size < Size(64 << 10) => {
                return Err(UsageError::new("--dataset-size must be at least 64KiB"));
            }
            None => Origin::Sample {
                size: self.dataset_size.bytes(),
                dir: self.dataset,
            },
        };
        let mount = match self.mount {
            _ if self.no_mount => MountPlan::Not,
            Some(dir) => MountPlan::At(dir),
            None => MountPlan::Temporary,
        };
        Ok(Plan {
            once: self.once,
            json: self.json,
            keep: self.keep,
            origin,
            mount,
            nodes: self.nodes,
            block_size,
            readers,
            node_memory: self.node_memory,
            node_disk: self.node_disk,
            client_memory: self.client_memory,
        })
    }
}

fn default_readers() -> usize {
    std::thread::available_parallelism()
        .map_or(2, usize::from)
        .clamp(2, 8)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: DevArgs,
    }

    fn plan(args: &[&str]) -> Result<Plan, UsageError> {
        let args = std::iter::once(&"dev").chain(args);
        Cli::try_parse_from(args).unwrap().args.plan()
    }

    #[test]
    fn the_defaults_are_as_promised() {
        let plan = plan(&[]).unwrap();
        assert_eq!((plan.nodes, plan.block_size), (3, BlockSize::DEFAULT));
        assert!(matches!(plan.origin, Origin::Sample { size, dir: None } if size == 512 << 20));
        assert!(matches!(plan.mount, MountPlan::Temporary));
    }

    #[test]
    fn numbers_without_sense_are_refused_by_name() {
        for (args, name) in [
            (["--nodes", "0"], "--nodes"),
            (["--block-size", "3MiB"], "--block-size"),
            (["--readers", "0"], "--readers"),
            (["--dataset-size", "1"], "--dataset-size"),
        ] {
            let error = plan(&args).unwrap_err().to_string();
            assert!(error.contains(name), "{error}");
        }
    }
}
