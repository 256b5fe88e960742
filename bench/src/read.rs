//! `millpond-bench read`: reads a directory or a UFS and says how fast, beside the limit of
//! the machine measured in the same run.

mod args;
mod cache;
mod job;
mod layout;
mod limit;
mod report;
mod source;
mod verify;

use anyhow::{Result, ensure};
use millpond_process::UsageError;

pub use args::ReadArgs;
pub use report::{CacheReport, LimitReport, Report, RunReport, VerifyReport};

use cache::CacheState;
use job::Workload;
use layout::Layout;
use source::Source;

/// Measures what `args` ask for. Blocks; a client of a UFS is served by the runtime that
/// this is called in.
///
/// # Errors
/// [`UsageError`] for arguments without sense; the source's error when it cannot be listed
/// or opened. Errors of single reads are counted in the report instead.
pub fn measure(args: &ReadArgs) -> Result<Report> {
    args.validate()?;
    let mut source = Source::open(args)?;
    let layout = Layout::new(source.files()?, args.block_size.bytes());
    if layout.bytes() == 0 {
        let what = args.target();
        return Err(UsageError::new(format!("{what} holds no bytes to read")).into());
    }
    let workload = Workload {
        layout: &layout,
        pattern: args.pattern,
        jobs: args.jobs,
        seed: args.seed,
        duration: args.duration,
    };
    let limit = limit::measure(&workload)?;
    let mut cache = CacheState::new(args);
    if !args.cold {
        cache.warm(&source, &workload)?;
    }
    let mut runs = Vec::new();
    for run in 0..args.runs {
        if args.cold {
            cache.drop(&mut source, &layout)?;
        }
        let label = format!("run {} of {}", run + 1, args.runs);
        runs.push(RunReport::new(&workload.run(&source, &label)?));
    }
    let verified = match &args.verify_against {
        Some(dir) => Some(verify::verify(&source, &layout, dir)?),
        None => None,
    };
    source.close();
    Ok(Report::new(
        args,
        &layout,
        cache.report(),
        runs,
        limit,
        verified,
    ))
}

/// Fails when a report holds errors or wrong bytes, so that scripts notice.
///
/// # Errors
/// With the counts.
pub fn judge(report: &Report) -> Result<()> {
    let errors: u64 = report.runs.iter().map(|run| run.errors).sum();
    ensure!(
        errors == 0,
        "{errors} reads failed; the first: {}",
        report.first_error()
    );
    if let Some(verified) = &report.verified {
        ensure!(
            verified.mismatches == 0,
            "{} of {} files differ; the first: {}",
            verified.mismatches,
            verified.files,
            verified.first.as_deref().unwrap_or("unknown")
        );
    }
    Ok(())
}
