//! `millpond-bench peer`: blocks from the memory of one cache node, beside the bare transport;
//! and from the disk of one on the same host, beside its files.

mod local;
mod node;

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Error, Result};
use clap::Args;
use millpond_client::ClientConfig;
use millpond_process::run::chain;
use millpond_proto::wire::frame::Tier;

use crate::cluster::{Cluster, ClusterSpec, Kind};
use crate::limits::QuinnLimit;
use crate::limits::content::Content;
use crate::limits::files;
use crate::measure::{Arm, Sample, interleave};
use crate::record::{Figure, Proof, Row, Status};
use crate::scenario::{CommonArgs, Context};

use node::{Node, SET};

const SCENARIO: &str = "peer";
/// What the figures are divided by.
const LIMIT: &str = "plain quinn, same settings, same requests in flight";

/// Read blocks from the memory of one cache node, in turn with the same bytes over plain quinn;
/// and from the disk of a node on the same host, in turn with its block files.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub struct PeerArgs {
    #[command(flatten)]
    #[allow(missing_docs, reason = "flags of their own")]
    pub common: CommonArgs,
    /// Run the node and the limit's server as tasks of this process, for a profile of all of it
    #[arg(long)]
    pub in_process: bool,
}

const EXAMPLES: &str = "\
Examples:
  All cases:
    millpond-bench peer
  Latency of small reads, often:
    millpond-bench peer --case quic/4k-1 --runs 20";

impl PeerArgs {
    /// With the defaults of all other flags.
    pub const fn standard(common: CommonArgs) -> Self {
        Self {
            common,
            in_process: false,
        }
    }

    fn duration(&self, context: &Context) -> Duration {
        let usual = || Duration::from_millis(context.pick(1500, 300));
        self.common.duration.unwrap_or_else(usual)
    }
}

/// One way to read.
#[derive(Debug, Clone, Copy)]
struct Case {
    name: &'static str,
    /// Bytes of a request.
    request: u32,
    in_flight: usize,
    figures: &'static [Figure],
}

const CASES: [Case; 3] = [
    Case {
        name: "quic/1m-4",
        request: 1 << 20,
        in_flight: 4,
        figures: &[Figure::Throughput, Figure::CpuPerGb],
    },
    Case {
        name: "quic/128k-4",
        request: 128 << 10,
        in_flight: 4,
        figures: &[Figure::Throughput],
    },
    Case {
        name: "quic/4k-1",
        request: 4 << 10,
        in_flight: 1,
        figures: &[Figure::P50],
    },
];

/// Measures the wanted cases.
///
/// # Errors
/// When interrupted. What fails otherwise becomes a row that says so.
pub fn run(context: &Context, args: &PeerArgs) -> Result<Vec<Row>> {
    let wanted = |case: &&Case| context.wanted.wants(case.name);
    let cases: Vec<Case> = CASES.iter().filter(wanted).copied().collect();
    let mut rows = Vec::new();
    if !cases.is_empty() {
        rows = match Ends::start(context, args) {
            Ok(ends) => ends.measure(context, args, &cases)?,
            Err(error) => cases.iter().flat_map(|case| failed(case, &error)).collect(),
        };
    }
    rows.extend(local::run(context, args)?);
    Ok(rows)
}

/// The two that are compared.
struct Ends {
    // Its connections end before the cluster does.
    node: Node,
    quinn: QuinnLimit,
    cluster: Cluster,
}

impl Ends {
    fn start(context: &Context, args: &PeerArgs) -> Result<Self> {
        let quinn = QuinnLimit::start(&context.runtime, !args.in_process, context.seed)?;
        let content = Content::new(context.seed, SET);
        let data = context.new_dir("peer")?;
        files::create(&data.join("file"), SET, &content)?;
        let cluster = start_cluster(context, &data, kind(args), "0")?;
        context.step("filling the node's memory");
        let config = ClientConfig {
            local_socket: false,
            ..ClientConfig::default()
        };
        let tier = Tier::Memory;
        let node = Node::connect(context, &cluster, "/data/file", content, config, tier)?;
        Ok(Self {
            node,
            quinn,
            cluster,
        })
    }

    fn measure(&self, context: &Context, args: &PeerArgs, cases: &[Case]) -> Result<Vec<Row>> {
        let duration = args.duration(context);
        let mut rows = Vec::new();
        for case in cases {
            match self.case(context, case, duration) {
                Ok(found) => rows.extend(found),
                Err(error) => {
                    crate::measure::interrupt::check()?;
                    rows.extend(failed(case, &error));
                }
            }
        }
        Ok(rows)
    }

    fn case(&self, context: &Context, case: &Case, duration: Duration) -> Result<Vec<Row>> {
        context.step(case.name);
        // All bytes once by requests of this very size: they are right, and they are there.
        let verified = self.node.verify(case.request)?;
        let before = self.cluster.ufs_use(&[])?;
        let mut arms = [
            Arm::new(case.name, |_| {
                self.node.run(case.request, case.in_flight, duration)
            }),
            Arm::new(LIMIT, |_| {
                self.quinn.run(case.request, case.in_flight, duration)
            }),
        ];
        let samples = interleave(context.runs, &mut arms)?;
        drop(arms);
        let during = self.cluster.ufs_use(&[])? - before;
        let [node, quinn] = <[Vec<Sample>; 2]>::try_from(samples)
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
            Row::measured(SCENARIO, case.name, *figure, &node)
                .against(LIMIT, *figure, &quinn)
                .proved(proof.clone())
        };
        Ok(case.figures.iter().map(row).collect())
    }
}

const fn kind(args: &PeerArgs) -> Kind {
    if args.in_process {
        Kind::InProcess
    } else {
        Kind::Processes
    }
}

fn start_cluster(context: &Context, data: &Path, kind: Kind, disk: &str) -> Result<Cluster> {
    let spec = ClusterSpec {
        nodes: 1,
        block_size: "4MiB".to_owned(),
        node_memory: "256MiB".to_owned(),
        node_disk: disk.to_owned(),
        heartbeat: "1s".to_owned(),
        death_timeout: "5s".to_owned(),
        one_host: true,
        ..ClusterSpec::default()
    };
    let cluster = Cluster::start(context, spec, kind)?;
    let uri = format!("file://{}", data.display());
    cluster.add_ufs("/data", &uri, &std::collections::BTreeMap::new())?;
    Ok(cluster)
}

fn failed(case: &Case, error: &Error) -> Vec<Row> {
    let row = |figure: &Figure| {
        let (name, status) = (figure.name(), Status::Failed);
        Row::without(SCENARIO, case.name, name, status, chain(error))
    };
    case.figures.iter().map(row).collect()
}
