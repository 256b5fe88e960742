//! The clients.

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use millpond_client::{ClientConfig, FileSystem};
use millpond_process::{SharedRegistry, shared_registry};
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use tokio::sync::Barrier;
use tokio::task::JoinSet;

use crate::cluster::{Cluster, UfsUse};
use crate::measure::{CpuMeter, Sample};
use crate::process_cluster::Metrics;
use crate::scenario::Context;

use super::data::Data;
use super::{Mode, elapsed};

/// Of each client: enough for its readahead, and far from the data of a whole run.
const MEMORY: u64 = 32 << 20;
/// Bytes of one read.
const READ: u32 = 1 << 20;

/// Clients that have read nothing yet.
#[derive(Debug)]
pub(super) struct Crowd<'a> {
    context: &'a Context,
    pids: Vec<u32>,
    clients: Vec<(FileSystem, SharedRegistry)>,
}

impl<'a> Crowd<'a> {
    /// Has `clients` clients join.
    ///
    /// # Errors
    /// When one cannot.
    pub(super) fn connect(context: &'a Context, cluster: &Cluster, clients: usize) -> Result<Self> {
        // Each client's directory holds its certificate and may go when it does.
        let dir = tempfile::tempdir_in(context.dir())?;
        let connect = async |number: usize| {
            let config = ClientConfig {
                coordinators: vec![cluster.coordinator().to_owned()],
                state_dir: dir.path().join(number.to_string()),
                memory: MEMORY,
                ..ClientConfig::default()
            };
            let registry = shared_registry();
            let client = FileSystem::connect(config, &registry).await?;
            anyhow::Ok((client, registry))
        };
        let connecting = futures::future::try_join_all((0..clients).map(connect));
        let clients = context
            .runtime
            .block_on(connecting)
            .context("a client of the herd cannot join")?;
        Ok(Self {
            context,
            pids: cluster.pids(),
            clients,
        })
    }

    /// All of them open and read all files of a round, from the same moment on.
    ///
    /// # Errors
    /// When one of them panics. A read that fails or is wrong is counted in the sample.
    pub(super) fn read(&self, data: &Data, round: usize, mode: Mode) -> Result<Sample> {
        let start = Arc::new(Barrier::new(self.clients.len()));
        let cpu = CpuMeter::start(&self.pids);
        let reading = async {
            let mut tasks = JoinSet::new();
            for (number, (client, _)) in self.clients.iter().enumerate() {
                let mut order: Vec<usize> = (0..data.files().len()).collect();
                if mode == Mode::Shuffled {
                    let seed = self.context.seed + (round * 1000 + number) as u64;
                    order.shuffle(&mut StdRng::seed_from_u64(seed));
                }
                let reader = Reader {
                    client: client.clone(),
                    round,
                    order,
                    files: Arc::clone(data.files()),
                };
                tasks.spawn(reader.read(Arc::clone(&start)));
            }
            let mut all = Sample::default();
            let mut clocks = Vec::new();
            while let Some(done) = tasks.join_next().await {
                let (sample, clock) = done.context("a client panicked")?;
                all.merge(sample);
                clocks.push(clock);
            }
            all.elapsed = elapsed(&clocks);
            anyhow::Ok(all)
        };
        let mut sample = self.context.runtime.block_on(reading)?;
        sample.cpu_seconds = cpu.seconds();
        Ok(sample)
    }

    /// Has all of them leave; what they themselves asked of the UFS.
    ///
    /// # Errors
    /// When their metrics cannot be read.
    pub(super) fn finish(self) -> Result<UfsUse> {
        let mut used = UfsUse::default();
        for (_, registry) in &self.clients {
            used += UfsUse::of(&Metrics::of_registry(registry)?);
        }
        let leaving = self.clients.iter().map(|(client, _)| client.shutdown());
        self.context
            .runtime
            .block_on(futures::future::join_all(leaving));
        Ok(used)
    }
}

/// One client's work.
struct Reader {
    client: FileSystem,
    round: usize,
    order: Vec<usize>,
    files: Arc<[Bytes]>,
}

impl Reader {
    async fn read(self, start: Arc<Barrier>) -> (Sample, (Instant, Instant)) {
        start.wait().await;
        let begin = Instant::now();
        let mut sample = Sample::default();
        for number in &self.order {
            let path = format!("/herd/{}", Data::path(self.round, *number));
            if let Err(error) = self.file(&path, &self.files[*number], &mut sample).await {
                sample.fail(format!("{path}: {error:#}"));
            }
        }
        (sample, (begin, Instant::now()))
    }

    async fn file(&self, path: &str, expected: &Bytes, sample: &mut Sample) -> Result<()> {
        let file = open(&self.client, path).await?;
        let mut at = 0;
        while at < expected.len() {
            let begin = Instant::now();
            let bytes = file.read(at as u64, READ).await?;
            sample.latency.record(begin.elapsed());
            sample.ops += 1;
            let right = expected.get(at..at + bytes.len());
            if bytes.is_empty() || right != Some(&bytes[..]) {
                anyhow::bail!("{} bytes at {at} are wrong", bytes.len());
            }
            at += bytes.len();
            sample.bytes += bytes.len() as u64;
        }
        Ok(())
    }
}

/// Opens a file. Metadata is not tried again by the client: an application that means to read
/// from a store that fails at times does that.
async fn open(client: &FileSystem, path: &str) -> Result<Arc<millpond_client::FileHandle>> {
    let mut last = None;
    for _ in 0..OPENS {
        match client.open(path).await {
            Ok(file) => return Ok(file),
            Err(error) if error.kind().try_next_source() => last = Some(error),
            Err(error) => return Err(error.into()),
        }
    }
    Err(last.map_or_else(|| anyhow::anyhow!("it was never tried"), Into::into))
}

/// How often a file is tried.
const OPENS: usize = 20;
