//! The cases that the goals name, on mounts of our own.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use millpond_fuse::preflight;
use millpond_process::Size;
use millpond_ufs::UfsContext;

use super::given::{Beside, limit_name, named, warm};
use super::work::{Task, Work};
use super::{SCENARIO, SmallFilesArgs, tree};
use crate::cluster::{Cluster, ClusterSpec, Kind, UfsUse, standalone_mount};
use crate::measure::{Sample, Spread, interrupt};
use crate::process_cluster::{Mount, limit_for};
use crate::read::dataset::Dataset;
use crate::read::source::Source;
use crate::read::{gaps, kernel, verify};
use crate::record::{Better, Figure, Proof, Row, Status};
use crate::scenario::Context;
use crate::ufs_reads::{UfsFile, parallel_reads};

const LONG_TTL: [&str; 2] = ["--metadata-ttl", "1h"];
/// The shape of the store for first reads.
const PRESET: (&str, &str) = ("shape", "s3-same-region");
/// Readers of a cold pass.
const COLD_WORKERS: usize = 32;

/// What the store is mounted by.
#[derive(Debug)]
struct Mounted {
    mount: Mount,
    /// The files, in the mount.
    root: PathBuf,
    // After the mount: what it reads from.
    cluster: Option<Cluster>,
}

impl Mounted {
    fn start(
        context: &Context,
        args: &SmallFilesArgs,
        data: &Dataset,
        options: &BTreeMap<String, String>,
    ) -> Result<Self> {
        let uri = format!("file://{}", data.dir().display());
        let bytes: u64 = data.files().iter().map(|info| info.size).sum();
        let memory = Size::mib(bytes / (512 << 10) + 64);
        let limit = limit_for(memory);
        let memory = memory.to_string();
        let flags = [&LONG_TTL[..], &["--memory-limit", &limit]].concat();
        if args.nodes == 0 {
            let options: Vec<String> = options
                .iter()
                .map(|(key, value)| format!("--option={key}={value}"))
                .collect();
            let options = options.iter().map(String::as_str);
            let flags: Vec<&str> = flags.into_iter().chain(options).collect();
            let mount = standalone_mount(context, &uri, &flags)?;
            return Ok(Self {
                root: mount.path().to_owned(),
                mount,
                cluster: None,
            });
        }
        let spec = ClusterSpec {
            nodes: args.nodes,
            block_size: "4MiB".to_owned(),
            node_memory: memory.clone(),
            node_disk: "0".to_owned(),
            log_level: "warn".to_owned(),
            ..ClusterSpec::default()
        };
        let cluster = Cluster::start(context, spec, Kind::Processes)?;
        cluster.add_ufs("/data", &uri, options)?;
        let mount = cluster.mount(&flags)?;
        Ok(Self {
            root: mount.path().join("data"),
            mount,
            cluster: Some(cluster),
        })
    }

    fn pids(&self) -> Vec<u32> {
        let mut pids = self.cluster.as_ref().map(Cluster::pids).unwrap_or_default();
        pids.push(self.mount.pid());
        pids
    }

    fn ufs_use(&self) -> Result<UfsUse> {
        match &self.cluster {
            Some(cluster) => cluster.ufs_use(&[&self.mount]),
            None => UfsUse::of_mounts(&[&self.mount]),
        }
    }
}

/// Measures the wanted ones of all cases. What fails leaves rows that say so.
///
/// # Errors
/// When the files cannot be written; after Ctrl-C.
pub(super) fn run(context: &Context, args: &SmallFilesArgs) -> Result<Vec<Row>> {
    let prefix = if args.nodes == 0 { "fuse" } else { "cluster" };
    let cases = Cases { prefix, args };
    let mut rows = Vec::new();
    if !context.wanted.wants_any(prefix) {
        return Ok(rows);
    }
    if let Err(why) = preflight::check_right() {
        cases.fill(context, &mut rows, Status::Impossible, &why.to_string());
        return Ok(rows);
    }
    let count = args.files.unwrap_or_else(|| context.pick(2000, 600));
    let dirs = args.dirs.unwrap_or_else(|| count.div_ceil(100));
    let files = tree::files(count, args.size.bytes(), dirs);
    context.step(format!("writing {count} files"));
    let data = Dataset::write(&context.new_dir("small")?, files, context.seed)?;
    for measure in [Cases::cached, Cases::cold] {
        let why = match measure(&cases, context, &data, &mut rows) {
            Ok(()) => continue,
            Err(error) => format!("{error:#}"),
        };
        interrupt::check()?;
        cases.fill(context, &mut rows, Status::Failed, &why);
    }
    Ok(rows)
}

/// All cases, and what they are called.
#[derive(Debug)]
struct Cases<'a> {
    prefix: &'static str,
    args: &'a SmallFilesArgs,
}

impl Cases<'_> {
    fn name(&self, rest: &str) -> String {
        format!("{}/{rest}", self.prefix)
    }

    /// The cases that a goal may ask for, so that none is ever silently absent.
    fn fill(&self, context: &Context, rows: &mut Vec<Row>, status: Status, why: &str) {
        const GOALS: [gaps::Case; 4] = [
            ("fuse/stat-cached", "rate"),
            ("fuse/ls-l-cached", "rate"),
            ("fuse/warm/shuffled-8workers", "rate"),
            ("fuse/cold/ufs-requests", "requests-per-file"),
        ];
        let goals: &[gaps::Case] = if self.prefix == "fuse" { &GOALS } else { &[] };
        gaps::fill(context, SCENARIO, goals, rows, status, why);
    }

    fn reads(&self, context: &Context) -> Vec<(String, usize, bool)> {
        let mut reads = Vec::new();
        for workers in self.args.workers() {
            for (order, shuffled) in [("in-order", false), ("shuffled", true)] {
                let case = self.name(&format!("warm/{order}-{}", named(*workers)));
                // Unless they are asked for, one in-order case is enough.
                let asked = !self.args.workers.is_empty() || !context.wanted.cases().is_empty();
                let enough = shuffled || *workers == 1;
                if context.wanted.wants(&case) && (asked || enough) {
                    reads.push((case, *workers, shuffled));
                }
            }
        }
        reads
    }

    /// What kernel and client know already.
    fn cached(&self, context: &Context, data: &Dataset, rows: &mut Vec<Row>) -> Result<()> {
        let (stat, list) = (self.name("stat-cached"), self.name("ls-l-cached"));
        let reads = self.reads(context);
        let wants = |case: &str| context.wanted.wants(case);
        if reads.is_empty() && !wants(&stat) && !wants(&list) {
            return Ok(());
        }
        let mounted = Mounted::start(context, self.args, data, &BTreeMap::new())?;
        let (root, pids) = (&mounted.root, mounted.pids());
        for dir in [root.as_path(), data.dir()] {
            fail_on_errors(&warm(context, dir, data.files())?)?;
        }
        let beside = Beside {
            context,
            ours: root,
            pids: &pids,
            local: data,
            limit: limit_name(data.dir()),
        };
        let mut measured = Vec::new();
        let mut case = |case: &str, unit, workers, shuffled, task| -> Result<()> {
            let before = mounted.ufs_use()?;
            let work = Work::new(task, beside.ours, data.files(), context.seed);
            if let Some(row) = beside.case(case, unit, workers, shuffled, task, work)? {
                let used = mounted.ufs_use()? - before;
                measured.push(row.proved(Proof {
                    ufs_requests: Some(used.requests),
                    ufs_bytes: Some(used.bytes),
                    ..Proof::default()
                }));
            }
            Ok(())
        };
        case(&stat, "stats/s", 1, false, Task::Stat)?;
        case(&list, "entries/s", 1, false, Task::LongList)?;
        for (name, workers, shuffled) in &reads {
            case(name, "files/s", *workers, *shuffled, Task::Read)?;
        }
        let kept = kernel::kept(root, data.files())?;
        context.step("comparing every byte");
        let verified = verify::against_dataset(&Source::Dir(root.clone()), data);
        for row in &mut measured {
            if row.case.contains("/warm/") {
                row.proof.kernel_cache = Some(kept.clone());
            }
        }
        verify::enter(&verified, &mut measured);
        rows.extend(measured);
        Ok(())
    }

    /// The first look at everything: all directories listed, all files read once.
    fn cold(&self, context: &Context, data: &Dataset, rows: &mut Vec<Row>) -> Result<()> {
        let requests = self.name("cold/ufs-requests");
        let reads = self.name(&format!("cold/in-order-{}", named(COLD_WORKERS)));
        if !context.wanted.wants(&requests) && !context.wanted.wants(&reads) {
            return Ok(());
        }
        let options = BTreeMap::from([(PRESET.0.to_owned(), PRESET.1.to_owned())]);
        let mounted = Mounted::start(context, self.args, data, &options)?;
        let count = data.files().len();
        let before = mounted.ufs_use()?;
        context.step(&*requests);
        let found = list_all(&mounted.root, data)?;
        ensure!(
            found == count,
            "{found} files were listed in place of {count}"
        );
        let work = Work::new(Task::Read, &mounted.root, data.files(), context.seed);
        let cold = work.workers(COLD_WORKERS).run(None, &mounted.pids())?;
        let used = mounted.ufs_use()? - before;
        context.step("comparing every byte");
        let verified = verify::against_dataset(&Source::Dir(mounted.root.clone()), data);
        let proof = Proof {
            ufs_requests: Some(used.requests),
            ufs_bytes: Some(used.bytes),
            ..Proof::default()
        };
        let mut measured = Vec::new();
        if context.wanted.wants(&requests) {
            let value = Spread::once(used.requests as f64 / count as f64);
            let (figure, unit) = ("requests-per-file", "requests/file");
            let row = Row::of(SCENARIO, requests, figure, unit, Better::Lower, value);
            let mut row = row
                .noted(format!(
                    "requests to the store while the tree of {count} files was walked from its \
                     root and each file read once, by number of files"
                ))
                .proved(proof.clone());
            row.detail.errors = cold.errors;
            row.detail.first_error.clone_from(&cold.first_error);
            row.detail.ops = cold.ops;
            row.detail.bytes = cold.bytes;
            measured.push(row);
        }
        if context.wanted.wants(&reads) {
            const LIMIT: &str = "32 parallel GETs of the same store";
            let unit = Figure::Ops("files/s");
            let limit = gets(context, data, &options)?;
            let note = format!("store in the shape {}; one pass", PRESET.1);
            let row = Row::measured(SCENARIO, reads, unit, &[cold]);
            let row = row.against(LIMIT, unit, &[limit]);
            measured.push(row.noted(note).proved(proof));
        }
        verify::enter(&verified, &mut measured);
        rows.extend(measured);
        Ok(())
    }
}

/// Lists the directories of all files as `ls` does, and counts what it finds.
fn list_all(root: &Path, data: &Dataset) -> Result<usize> {
    // As one who walks the tree gets to know its directories.
    let mut found = list(root)?;
    let below = tree::dirs(data.files());
    for dir in below.iter().filter(|dir| !dir.is_empty()) {
        found += list(&root.join(dir))?;
    }
    Ok(found)
}

/// Lists the directory; how many files it has.
fn list(dir: &Path) -> Result<usize> {
    let listing = std::fs::read_dir(dir);
    let listing = listing.with_context(|| format!("cannot list {}", dir.display()))?;
    let mut files = 0;
    for entry in listing {
        files += usize::from(entry?.file_type()?.is_file());
    }
    Ok(files)
}

/// All files from the store itself, one GET each.
fn gets(context: &Context, data: &Dataset, options: &BTreeMap<String, String>) -> Result<Sample> {
    let uri = format!("file://{}", data.dir().display());
    let reading = async {
        let store = millpond_ufs::open(&uri, options, UfsContext::detached()).await?;
        // The versions come from the same directory without a shape, at no cost.
        let plain = millpond_ufs::open(&uri, &BTreeMap::new(), UfsContext::detached()).await?;
        let mut files = Vec::new();
        let mut largest = 1;
        for info in &**data.files() {
            let version = plain.stat(&info.path).await?.version;
            largest = largest.max(info.size);
            files.push(UfsFile {
                path: info.path.clone(),
                version: version.context("a file without a version")?,
                size: info.size,
            });
        }
        anyhow::Ok(parallel_reads(&store, &files, largest, COLD_WORKERS, None).await)
    };
    let sample = context.runtime.block_on(reading)?;
    fail_on_errors(&sample)?;
    Ok(sample)
}

fn fail_on_errors(sample: &Sample) -> Result<()> {
    match &sample.first_error {
        Some(first) => anyhow::bail!("{} files failed; the first: {first}", sample.errors),
        None => Ok(()),
    }
}
