//! Blocks on the disk of a node on the same host, read through its Unix socket: beside its block
//! files, which any process may read, and beside the same client without the socket.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use millpond_client::ClientConfig;
use millpond_proto::wire::frame::Tier;

use super::node::{Node, SET};
use super::{SCENARIO, failed, kind, start_cluster};
use crate::cluster::Cluster;
use crate::limits::content::Content;
use crate::limits::files;
use crate::limits::workers::{self, Step};
use crate::measure::{Arm, Sample, interleave, interrupt};
use crate::record::{Figure, Proof, Row};
use crate::scenario::Context;

use super::{Case, PeerArgs};

/// What reads through the socket are divided by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Limit {
    Files,
    Quic,
}

impl Limit {
    const fn name(self) -> &'static str {
        match self {
            Self::Files => "reading the block's file",
            Self::Quic => "the same over QUIC",
        }
    }
}

const CASES: [(Case, Limit); 4] = [
    (
        case("local/1m-4", 1 << 20, 4, Figure::Throughput),
        Limit::Files,
    ),
    (
        case("local/quic-1m-4", 1 << 20, 4, Figure::Throughput),
        Limit::Quic,
    ),
    (
        case("local/quic-128k-4", 128 << 10, 4, Figure::Throughput),
        Limit::Quic,
    ),
    (
        case("local/quic-4k-1", 4 << 10, 1, Figure::P50),
        Limit::Quic,
    ),
];

const fn case(name: &'static str, request: u32, in_flight: usize, figure: Figure) -> Case {
    let figures: &[Figure] = match figure {
        Figure::P50 => &[Figure::P50],
        _ => &[Figure::Throughput],
    };
    Case {
        name,
        request,
        in_flight,
        figures,
    }
}

/// Measures the wanted cases.
///
/// # Errors
/// When interrupted.
pub(super) fn run(context: &Context, args: &PeerArgs) -> Result<Vec<Row>> {
    let wanted = |(case, _): &&(Case, Limit)| context.wanted.wants(case.name);
    let cases: Vec<_> = CASES.iter().filter(wanted).copied().collect();
    if cases.is_empty() {
        return Ok(Vec::new());
    }
    let ends = match Ends::start(context, args) {
        Ok(ends) => ends,
        Err(error) => {
            let rows = cases.iter().flat_map(|(case, _)| failed(case, &error));
            return Ok(rows.collect());
        }
    };
    let duration = args.duration(context);
    let mut rows = Vec::new();
    for (case, limit) in cases {
        match ends.case(context, &case, limit, duration) {
            Ok(found) => rows.extend(found),
            Err(error) => {
                interrupt::check()?;
                rows.extend(failed(&case, &error));
            }
        }
    }
    Ok(rows)
}

/// A node that has all blocks on disk, and who reads them.
struct Ends {
    // Their connections end before the cluster does.
    local: Node,
    quic: Node,
    files: Vec<PathBuf>,
    cluster: Cluster,
}

impl Ends {
    fn start(context: &Context, args: &PeerArgs) -> Result<Self> {
        let content = Content::new(context.seed, SET);
        let data = context.new_dir("peer-local")?;
        files::create(&data.join("file"), SET, &content)?;
        let cluster = start_cluster(context, &data, kind(args), "1GiB")?;
        context.step("filling the node's disk");
        let path = "/data/file";
        let over_quic = ClientConfig {
            local_socket: false,
            ..ClientConfig::default()
        };
        let quic = Node::connect(context, &cluster, path, content, over_quic, Tier::Memory)?;
        let local = ClientConfig::default();
        let local = Node::connect(context, &cluster, path, content, local, Tier::Disk)?;
        // The first reads go over QUIC, from memory, until the client knows of the socket.
        local.wait_for_tier()?;
        let files = block_files(cluster.dir(), &local.name_of_blocks())?;
        let blocks = local.blocks() as usize;
        ensure!(
            files.len() == blocks,
            "{} files of {blocks} blocks",
            files.len()
        );
        Ok(Self {
            local,
            quic,
            files,
            cluster,
        })
    }

    fn case(
        &self,
        context: &Context,
        case: &Case,
        limit: Limit,
        duration: Duration,
    ) -> Result<Vec<Row>> {
        context.step(case.name);
        let verified = self.local.verify(case.request)?;
        let before = self.cluster.ufs_use(&[])?;
        let mut arms = [
            Arm::new(case.name, |_| {
                self.local.run(case.request, case.in_flight, duration)
            }),
            Arm::new(limit.name(), |_| match limit {
                Limit::Files => self.read_files(case, duration),
                Limit::Quic => self.quic.run(case.request, case.in_flight, duration),
            }),
        ];
        let samples = interleave(context.runs, &mut arms)?;
        drop(arms);
        let during = self.cluster.ufs_use(&[])? - before;
        let [local, other] = <[Vec<Sample>; 2]>::try_from(samples)
            .ok()
            .context("two arms have two results")?;
        let proof = Proof {
            verified_bytes: Some(verified),
            mismatches: Some(0),
            ufs_requests: Some(during.requests),
            ufs_bytes: Some(during.bytes),
            ..Proof::default()
        };
        let row = |figure: &Figure| {
            Row::measured(SCENARIO, case.name, *figure, &local)
                .against(limit.name(), *figure, &other)
                .proved(proof.clone())
        };
        Ok(case.figures.iter().map(row).collect())
    }

    /// Reads the node's block files in turn, by as many threads as there are requests in flight.
    fn read_files(&self, case: &Case, duration: Duration) -> Result<Sample> {
        let block = SET / self.files.len() as u64;
        let per_block = block / u64::from(case.request);
        let jobs = case.in_flight as u64;
        let mut steps: Vec<Step<'_>> = Vec::new();
        for job in 0..jobs {
            let open = |path: &PathBuf| File::open(path);
            let files = self.files.iter().map(open).collect::<Result<Vec<_>, _>>()?;
            let mut buffer = vec![0; case.request as usize];
            let mut number = job;
            steps.push(Box::new(move || {
                let file = &files[(number / per_block) as usize % files.len()];
                let offset = number % per_block * buffer.len() as u64;
                file.read_exact_at(&mut buffer, offset)?;
                number += jobs;
                Ok(Some(buffer.len() as u64))
            }));
        }
        workers::threads(steps, Some(duration), &[])
    }
}

/// The files below `dir` whose names begin with `prefix`.
fn block_files(dir: &Path, prefix: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).with_context(|| format!("cannot list {}", dir.display()))? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            found.extend(block_files(&entry.path(), prefix)?);
        } else if entry.file_name().to_string_lossy().starts_with(prefix) {
            found.push(entry.path());
        }
    }
    Ok(found)
}
