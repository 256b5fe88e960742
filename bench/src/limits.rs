//! `millpond-bench limits`: what this machine can do at best, and the parts of which other
//! scenarios make the limits that they divide by.
//!
//! | module | holds |
//! |---|---|
//! | [`null_fuse`] | [`NullFuse`]: a FUSE file system that has nothing to do |
//! | [`quinn`] | [`QuinnLimit`]: blocks over plain quinn |
//! | [`streams`] | [`StreamLimit`]: blocks over TCP and Unix sockets |
//! | [`files`] | [`Reads`](files::Reads) of a file, wherever it lies |
//! | [`pages`] | the kernel's pages of a file |
//! | [`content`] | [`Content`](content::Content): bytes that can be checked |
//! | [`workers`] | many at once for a while |
//! | [`child`] | what runs in a process of its own |
//! | `group` | cases that share a set-up |
//! | `memory`, `local`, `fuse`, `net`, `ufs` | the cases |

pub mod child;
pub mod content;
pub mod files;
mod fuse;
mod group;
mod local;
mod memory;
mod net;
pub mod null_fuse;
pub mod pages;
pub mod quinn;
pub mod streams;
mod ufs;
pub mod workers;

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;
use clap::Args;
use millpond_process::config::Size;

use crate::record::Row;
use crate::scenario::{CommonArgs, Context};

use fuse::{Null, Through};
use group::Plan;
use local::{How, Local};
use memory::Memory;
use net::{Quinn, Streams};
use ufs::{Gets, Store};

pub use null_fuse::{NullFuse, NullFuseSettings, PassthroughFuse};
pub use quinn::QuinnLimit;
pub use streams::StreamLimit;

const SCENARIO: &str = "limits";

/// Measure what this machine can do at best: memory, page cache, disk, FUSE, loopback, and the
/// UFS asked directly.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub struct LimitsArgs {
    #[command(flatten)]
    #[allow(missing_docs, reason = "flags of their own")]
    pub common: CommonArgs,
    /// Store for direct ranged GETs [default: an S3 server in this process]
    #[arg(long, value_name = "URI")]
    pub uri: Option<String>,
    /// Option of that store; may be repeated
    #[arg(long = "option", value_name = "KEY=VALUE", requires = "uri", value_parser = key_value)]
    pub options: Vec<(String, String)>,
    /// Object to get, below the URI [default: the largest at its root]
    #[arg(long, value_name = "PATH", requires = "uri")]
    pub path: Option<String>,
    /// Bytes of one GET
    #[arg(long, value_name = "SIZE", default_value_t = PART)]
    pub part: Size,
}

/// A block of the usual size.
const PART: Size = Size(4 << 20);

const EXAMPLES: &str = "\
Examples:
  Everything, and a look at it:
    millpond-bench limits --quick
  FUSE alone, on the disk that caches will lie on:
    millpond-bench limits --case fuse --work-dir /var/cache
  A bucket, by 1, 8 and 32 GETs at a time:
    millpond-bench limits --case ufs --uri s3://bucket/prefix --option region=eu-central-1";

impl LimitsArgs {
    /// With the defaults of all other flags.
    pub const fn standard(common: CommonArgs) -> Self {
        Self {
            common,
            uri: None,
            options: Vec::new(),
            path: None,
            part: PART,
        }
    }
}

fn key_value(text: &str) -> Result<(String, String), String> {
    let (key, value) = text
        .split_once('=')
        .ok_or_else(|| format!("{text} is not KEY=VALUE"))?;
    Ok((key.to_owned(), value.to_owned()))
}

/// Measures the wanted cases. There are many, so each is run for half as long, and less often,
/// than elsewhere unless the flags say how long and how often.
///
/// # Errors
/// When interrupted, or no directory can be made. What fails otherwise becomes a row that says
/// so.
pub fn run(context: &Context, args: &LimitsArgs) -> Result<Vec<Row>> {
    let seed = context.seed;
    let plan = Plan {
        context,
        rounds: args.common.runs.unwrap_or_else(|| context.pick(3, 2)),
        duration: args.common.duration.unwrap_or_else(|| {
            let millis = context.pick(900, 180);
            Duration::from_millis(millis)
        }),
    };
    let dir = context.new_dir("limits")?;
    let (memory, size) = context.pick((256 << 20, 1 << 30), (64 << 20, 256 << 20));
    // Of blocks of the usual size twice as many as are ever asked for at once.
    let object = 256 << 20;
    let (cached, cold) = (dir.join("cached"), dir.join("cold"));
    let local = |path, how| move || Local::new(path, size, how, seed);
    let store = Store {
        uri: args.uri.clone(),
        options: args.options.iter().cloned().collect::<BTreeMap<_, _>>(),
        path: args.path.clone(),
        part: args.part.0,
        size: object,
        seed,
    };

    let mut rows = plan.group("memory", memory::CASES, || Memory::new(memory, seed))?;
    rows.extend(plan.group("page-cache", local::PAGE_CACHE, local(&cached, How::Cached))?);
    rows.extend(plan.group("disk/buffered", local::DISK, local(&cold, How::Buffered))?);
    rows.extend(plan.group("disk/direct", local::DISK, local(&cold, How::Direct))?);
    rows.extend(plan.group("fuse/null", fuse::NULL, || {
        Null::new(&dir.join("null"), size, seed)
    })?);
    rows.extend(plan.group("fuse/passthrough", fuse::PASSTHROUGH, || {
        Through::new(&dir.join("through"), &cached, size, seed)
    })?);
    rows.extend(plan.group("net", net::STREAMS, || Streams::new(&dir, seed))?);
    rows.extend(plan.group("net", net::QUINN, || Quinn::new(&context.runtime, seed))?);
    rows.extend(plan.group("ufs", ufs::CASES, || Gets::new(&context.runtime, &store))?);
    Ok(rows)
}
