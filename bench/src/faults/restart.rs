//! How soon a node with many blocks on disk answers again: from the start of its process to
//! the first bytes of a block from its disk.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use millpond_client::ClientConfig;
use millpond_net::block_client::{BlockClient, BlockClientConfig, Peer};
use millpond_net::control::ControlClient;
use millpond_net::metrics::{ClientMetrics, Component};
use millpond_net::quic;
use millpond_net::tls::{Identity, KeyRequest};
use millpond_proto::wire::frame::{Op, Request, Tier};
use millpond_proto::{BlockId, ClusterId, Epoch, FileId};
use millpond_s3_fixture::{S3Fixture, pattern};
use millpond_store::{Admission, Block, DiskConfig, DiskTier};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::time::{Instant as AsyncInstant, sleep};

use super::{FaultsArgs, SCENARIO};
use crate::cluster::{Cluster, ClusterSpec, Kind};
use crate::measure::{Spread, interrupt};
use crate::process_cluster::wait_until;
use crate::record::{Better, Proof, Row, Status};
use crate::scenario::Context;

pub(super) const CASE: &str = "restart";
const FIGURE: &str = "seconds";
/// The smallest block size of a cluster: only the number of blocks is to count.
const BLOCK: u64 = 64 << 10;
/// The bytes of all other blocks on the disk.
const FILLER: usize = 64;
/// Blocks of one file, which share a directory: 128 MiB in blocks of the usual 4 MiB.
const BLOCKS_OF_A_FILE: u64 = 32;
/// How long a quick run may write blocks: on a slow disk it makes do with fewer, and says so.
const QUICK_WRITES: Duration = Duration::from_secs(10);
const SEED: u64 = 77;
const BUCKET: &str = "lake";
/// How long the node has to answer.
const PATIENCE: Duration = Duration::from_secs(120);
/// How far apart it is asked, each time on a new connection, because one that was begun while
/// nobody listened tries again too late.
const ASK: Duration = Duration::from_millis(25);
/// How long one connection tries.
const TRY: Duration = Duration::from_secs(1);

/// The row.
pub(super) fn run(context: &Context, args: &FaultsArgs) -> Row {
    match measure(context, args) {
        Ok(row) => row,
        Err(error) => {
            let why = format!("{error:#}");
            Row::without(SCENARIO, CASE, FIGURE, Status::Failed, why)
        }
    }
}

fn measure(context: &Context, args: &FaultsArgs) -> Result<Row> {
    let s3 = context.runtime.block_on(S3Fixture::start());
    s3.create_bucket(BUCKET);
    s3.put_generated(BUCKET, "file", BLOCK, SEED);
    let spec = ClusterSpec {
        nodes: 1,
        block_size: "64KiB".to_owned(),
        node_memory: "128MiB".to_owned(),
        node_disk: "64GiB".to_owned(),
        heartbeat: "1s".to_owned(),
        death_timeout: "5s".to_owned(),
        log_level: "warn".to_owned(),
        one_host: false,
    };
    let mut cluster = Cluster::start(context, spec, Kind::Processes)?;
    cluster.add_ufs("/data", &format!("s3://{BUCKET}"), &s3.options())?;
    let asked = AskedBlock::store(context, &cluster)?;
    cluster.node(0).kill9();
    context.step(format!("restart: writing {} blocks", args.blocks));
    let dir = cluster.dir().join("node-0").join("blocks");
    let wrote = Instant::now();
    let end = context.quick.then(|| wrote + QUICK_WRITES);
    let filled = 1 + fill(&dir, asked.cluster, args.blocks - 1, context.seed, end)?;
    let wrote = wrote.elapsed();

    let requests = s3.counters().requests;
    let mut seconds = Vec::new();
    for run in 0..context.runs {
        interrupt::check()?;
        context.step(format!("restart: start {} of {}", run + 1, context.runs));
        if args.drop_caches {
            rustix::fs::sync();
            std::fs::write("/proc/sys/vm/drop_caches", "3")
                .context("cannot drop the page cache")?;
        }
        seconds.push(start_and_ask(context, &mut cluster, &asked)?);
    }
    let used = cluster.node_metrics(0)?;
    let blocks = used.sum("millpond_node_cached_blocks", &["tier=\"disk\""]);
    ensure!(
        blocks == filled as f64,
        "the node found {blocks} of {filled} blocks"
    );
    let cache = if args.drop_caches {
        "the page cache was dropped before each start"
    } else {
        "directories and inodes were in the kernel's memory (--drop-caches would drop them)"
    };
    let value = Spread::of(seconds).context("no start was timed")?;
    let fewer = if filled < args.blocks {
        format!(
            " (not {}: this disk took no more in {QUICK_WRITES:?})",
            args.blocks
        )
    } else {
        String::new()
    };
    let note = format!(
        "{filled} blocks{fewer}, {BLOCKS_OF_A_FILE} of each file; from the start of the process, \
         killed before by SIGKILL, to the first block from its disk; {cache}"
    );
    Ok(Row::of(SCENARIO, CASE, FIGURE, "s", Better::Lower, value)
        .with("blocks", filled as f64)
        .with("seconds_to_write_them", wrote.as_secs_f64())
        .proved(Proof {
            verified_bytes: Some(BLOCK * context.runs as u64),
            mismatches: Some(0),
            ufs_requests: Some(s3.counters().requests - requests),
            ..Proof::default()
        })
        .noted(note))
}

/// A block that the node is known to have, and who asks for it.
struct AskedBlock {
    cluster: ClusterId,
    peer: Peer,
    request: Request,
    identity: Identity,
}

impl AskedBlock {
    /// Has the node fetch it, and waits until it is on its disk.
    fn store(context: &Context, cluster: &Cluster) -> Result<Self> {
        let fs = cluster.client(ClientConfig::default())?;
        let runtime = &context.runtime;
        let file = runtime.block_on(fs.open("/data/file"))?;
        let bytes = runtime.block_on(file.read(0, BLOCK as u32))?;
        ensure!(bytes == pattern(SEED, 0, BLOCK as usize), "wrong bytes");
        wait_until(PATIENCE, || {
            let metrics = cluster.node_metrics(0);
            metrics.is_ok_and(|m| m.sum("millpond_node_cached_blocks", &["tier=\"disk\""]) > 0.0)
        })
        .context("the node does not write its block to disk")?;
        let view = fs.view();
        let member = view.serving().next().context("there is no node")?;
        let identity = async {
            let control = ControlClient::new(vec![cluster.coordinator().to_owned()])?;
            let key = KeyRequest::generate()?;
            let certified = control.certify(&key.csr_pem).await?;
            Ok::<_, anyhow::Error>(key.certified(certified.ca_pem, certified.cert_pem))
        };
        Ok(Self {
            cluster: view.cluster,
            peer: Peer {
                id: member.id,
                addr: member.addr.clone(),
            },
            request: Request {
                op: Op::Peek,
                epoch: Epoch(0),
                block: BlockId::new(file.file_id(), 0),
                offset: 0,
                len: BLOCK as u32,
                file_size: BLOCK,
                deadline_ms: 0,
                source: None,
                query: None,
            },
            identity: runtime.block_on(identity)?,
        })
    }

    /// Asks on a new connection.
    async fn ask(&self, endpoint: quinn::Endpoint, metrics: Arc<ClientMetrics>) -> Result<Tier> {
        let config = BlockClientConfig {
            connect_timeout: TRY,
            ..BlockClientConfig::default()
        };
        let client = BlockClient::new(endpoint, config, metrics);
        let deadline = AsyncInstant::now() + PATIENCE;
        let response = client.request(&self.peer, &self.request, deadline).await?;
        let tier = response.head.tier;
        let data = response.read_data().await?;
        ensure!(
            data.bytes == pattern(SEED, 0, BLOCK as usize),
            "wrong bytes"
        );
        Ok(tier)
    }

    /// When the first block came.
    async fn first(&self) -> Result<Instant> {
        let endpoint = quic::client_endpoint(&self.identity)?;
        let registry = millpond_process::shared_registry();
        let metrics = Arc::new(ClientMetrics::new(&mut registry.lock(), Component::Client));
        let mut asking = FuturesUnordered::new();
        let deadline = AsyncInstant::now() + PATIENCE;
        let mut last = anyhow!("it was not asked");
        while AsyncInstant::now() < deadline {
            asking.push(self.ask(endpoint.clone(), Arc::clone(&metrics)));
            let tick = sleep(ASK);
            tokio::pin!(tick);
            loop {
                tokio::select! {
                    Some(answer) = asking.next() => match answer {
                        Ok(tier) => {
                            ensure!(tier == Tier::Disk, "the block came from {tier:?}");
                            return Ok(Instant::now());
                        }
                        Err(error) => last = error,
                    },
                    () = &mut tick => break,
                }
            }
        }
        Err(last.context(format!("the node did not answer within {PATIENCE:?}")))
    }
}

/// Seconds from the start of the node's process to its first block.
fn start_and_ask(context: &Context, cluster: &mut Cluster, asked: &AskedBlock) -> Result<f64> {
    cluster.node(0).kill9();
    std::thread::scope(|scope| {
        let first = scope.spawn(|| context.runtime.block_on(asked.first()));
        let start = Instant::now();
        let started = cluster.node(0).restart();
        let first = first.join().map_err(|_| anyhow!("asking panicked"))?;
        started?;
        Ok(first?.duration_since(start).as_secs_f64())
    })
}

/// Writes `count` blocks into the directory of a node that is down, or fewer if the time is up
/// before; how many.
fn fill(
    dir: &Path,
    cluster: ClusterId,
    count: u64,
    seed: u64,
    end: Option<Instant>,
) -> Result<u64> {
    let config = DiskConfig::new(dir.to_owned(), 64 << 30, Some(cluster));
    let tier = DiskTier::open(config)?;
    let block = Block::new(vec![7; FILLER].into());
    let next = AtomicU64::new(0);
    let write = || -> Result<u64> {
        let mut written = 0;
        loop {
            interrupt::check()?;
            let first = next.fetch_add(BLOCKS_OF_A_FILE, Ordering::Relaxed);
            if first >= count || end.is_some_and(|end| Instant::now() > end) {
                return Ok(written);
            }
            let file = FileId(StdRng::seed_from_u64(seed ^ first).random());
            for index in 0..BLOCKS_OF_A_FILE.min(count - first) {
                let admission = tier.write_blocking(BlockId::new(file, index), &block);
                ensure!(admission == Admission::Accepted, "a block: {admission:?}");
                written += 1;
            }
        }
    };
    std::thread::scope(|scope| {
        let other = scope.spawn(write);
        let mine = write()?;
        let theirs = other.join().map_err(|_| anyhow!("writing panicked"))??;
        Ok(mine + theirs)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_filled_in_is_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let cluster = ClusterId([3; 16]);
        let filled = fill(dir.path(), cluster, 1001, 1, None).unwrap();
        let config = DiskConfig::new(dir.path().to_owned(), 1 << 30, Some(cluster));
        assert_eq!(
            (filled, DiskTier::open(config).unwrap().blocks()),
            (1001, 1001)
        );
    }

    #[test]
    fn without_time_fewer_are_written_and_counted() {
        let dir = tempfile::tempdir().unwrap();
        let cluster = ClusterId([3; 16]);
        let filled = fill(dir.path(), cluster, 1001, 1, Some(Instant::now())).unwrap();
        assert!(filled < 1001, "{filled}");
    }
}
