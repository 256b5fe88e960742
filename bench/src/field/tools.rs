//! The programs that are run, and what they say.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

use crate::measure::{CpuMeter, Sample};

/// What a user has to install.
const PROGRAMS: [&str; 4] = ["curl", "dd", "fio", "ls"];

/// The programs that are not installed here.
pub(super) fn missing() -> Vec<&'static str> {
    let runs = |program: &&str| {
        let asked = Command::new(program)
            .arg("--version")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        asked.is_ok()
    };
    PROGRAMS.into_iter().filter(|p| !runs(p)).collect()
}

/// Runs all commands at once, to their end. The CPU time of the processes `others` counts.
///
/// # Errors
/// When one cannot be run or fails, with what it said.
pub(super) fn at_once(commands: Vec<Command>, others: &[u32]) -> Result<(Sample, Vec<Output>)> {
    let cpu = CpuMeter::start(others);
    let begun = Instant::now();
    let mut running = Vec::new();
    for mut command in commands {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let program = command.get_program().to_string_lossy().into_owned();
        let child = command
            .spawn()
            .with_context(|| format!("cannot run {program}"))?;
        running.push((program, child));
    }
    let mut outputs = Vec::new();
    for (program, child) in running {
        let output = child.wait_with_output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.success(),
            "{program}: {}: {}",
            output.status,
            said.trim()
        );
        outputs.push(output);
    }
    let sample = Sample {
        elapsed: begun.elapsed(),
        cpu_seconds: cpu.seconds(),
        ops: outputs.len() as u64,
        ..Sample::default()
    };
    Ok((sample, outputs))
}

/// `dd if=FILE of=/dev/null bs=1M` for each file, all at once.
///
/// # Errors
/// As [`at_once`].
pub(super) fn dd(files: &[PathBuf], others: &[u32]) -> Result<Sample> {
    let command = |path: &PathBuf| {
        let mut input = std::ffi::OsString::from("if=");
        input.push(path);
        let mut dd = Command::new("dd");
        dd.arg(input).args(["of=/dev/null", "bs=1M"]);
        dd
    };
    let (mut sample, _) = at_once(files.iter().map(command).collect(), others)?;
    for path in files {
        sample.bytes += path.metadata()?.len();
    }
    Ok(sample)
}

/// `ls -lR DIR`; its lines are counted as operations.
///
/// # Errors
/// As [`at_once`].
pub(super) fn list(dir: &Path, others: &[u32]) -> Result<Sample> {
    let mut ls = Command::new("ls");
    ls.arg("-lR").arg(dir);
    let (mut sample, outputs) = at_once(vec![ls], others)?;
    let lines = outputs
        .iter()
        .map(|out| out.stdout.iter().filter(|byte| **byte == b'\n').count() as u64);
    sample.ops = lines.sum();
    Ok(sample)
}

/// Random reads of one file by `fio`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fio {
    /// As its flag takes it.
    pub(super) block: &'static str,
    pub(super) jobs: u32,
    pub(super) direct: bool,
    pub(super) time: Duration,
}

impl Fio {
    /// Reads the file.
    ///
    /// # Errors
    /// As [`at_once`]; when its report is not understood.
    pub(super) fn run(&self, file: &Path, others: &[u32]) -> Result<Sample> {
        let mut name = std::ffi::OsString::from("--filename=");
        name.push(file);
        let mut fio = Command::new("fio");
        fio.arg("--name=r")
            .arg(name)
            .args(["--rw=randread", "--ioengine=psync", "--thread"])
            .args(["--time_based", "--group_reporting", "--readonly"])
            .args(["--norandommap", "--randrepeat=0", "--invalidate=1"])
            .arg("--output-format=json")
            .arg(format!("--bs={}", self.block))
            .arg(format!("--numjobs={}", self.jobs))
            .arg(format!("--direct={}", u8::from(self.direct)))
            .arg(format!("--runtime={}ms", self.time.as_millis()));
        let (whole, outputs) = at_once(vec![fio], others)?;
        let output = outputs.first().context("one program, one output")?;
        let mut sample = report(&output.stdout)?;
        sample.cpu_seconds = whole.cpu_seconds;
        Ok(sample)
    }
}

#[derive(Debug, Deserialize)]
struct Report {
    jobs: Vec<Job>,
}

#[derive(Debug, Deserialize)]
struct Job {
    error: i64,
    read: Reads,
}

#[derive(Debug, Deserialize)]
struct Reads {
    io_bytes: u64,
    total_ios: u64,
    /// In milliseconds.
    runtime: u64,
    clat_ns: Times,
}

#[derive(Debug, Deserialize)]
struct Times {
    /// Nanoseconds, by percent as text: `"99.500000"`.
    #[serde(default)]
    percentile: std::collections::BTreeMap<String, u64>,
}

/// What fio's report says. Its latencies come as percentiles: as many of each are entered as
/// there are operations up to it from the one below, in thousandths.
fn report(json: &[u8]) -> Result<Sample> {
    // Warnings may come before the document.
    let start = json.iter().position(|byte| *byte == b'{');
    let json = &json[start.context("fio printed no report")?..];
    let report: Report = serde_json::from_slice(json).context("cannot understand fio's report")?;
    let mut sample = Sample::default();
    for job in report.jobs {
        ensure!(job.error == 0, "fio: error {}", job.error);
        sample.bytes += job.read.io_bytes;
        sample.ops += job.read.total_ios;
        let time = Duration::from_millis(job.read.runtime);
        sample.elapsed = sample.elapsed.max(time);
        let mut points = Vec::new();
        for (percent, nanos) in job.read.clat_ns.percentile {
            points.push((percent.parse::<f64>()?, nanos));
        }
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        let mut below = 0.0;
        for (percent, nanos) in points {
            let count = ((percent - below) * 10.0).round() as u64;
            for _ in 0..count {
                sample.latency.record(Duration::from_nanos(nanos));
            }
            below = percent;
        }
    }
    Ok(sample)
}

/// Objects from their URLs by `curl`.
#[derive(Debug)]
pub(super) struct Curl {
    commands: Vec<Command>,
}

impl Curl {
    /// Each whole object by a process of its own, all at once.
    pub(super) fn whole(urls: &[String]) -> Self {
        let command = |url: &String| {
            let mut curl = Self::command();
            curl.arg(url);
            curl
        };
        Self {
            commands: urls.iter().map(command).collect(),
        }
    }

    /// One object of `size` bytes in so many ranges, each by a process of its own, all at once.
    pub(super) fn ranges(url: &str, size: u64, count: u64) -> Self {
        let command = |number: u64| {
            let (from, to) = (size * number / count, size * (number + 1) / count);
            let mut curl = Self::command();
            curl.arg(url).arg("-r").arg(format!("{from}-{}", to - 1));
            curl
        };
        Self {
            commands: (0..count).map(command).collect(),
        }
    }

    /// Many objects by one process, so many at a time, over connections that it keeps. `list`
    /// is a file for their names.
    ///
    /// # Errors
    /// When that cannot be written.
    pub(super) fn many(urls: &[String], at_a_time: usize, list: &Path) -> Result<Self> {
        let lines = urls.iter();
        let lines = lines.map(|url| format!("url = \"{url}\"\noutput = \"/dev/null\"\n"));
        std::fs::write(list, lines.collect::<String>())?;
        let mut curl = Command::new("curl");
        curl.args(["-s", "-f", "-S", "-K"]).arg(list);
        if at_a_time > 1 {
            curl.args(["--parallel", "--parallel-immediate", "--parallel-max"]);
            curl.arg(at_a_time.to_string());
        }
        Ok(Self {
            commands: vec![curl],
        })
    }

    /// Fetches them.
    ///
    /// # Errors
    /// As [`at_once`].
    pub(super) fn run(self) -> Result<Sample> {
        let (sample, _) = at_once(self.commands, &[])?;
        Ok(sample)
    }

    fn command() -> Command {
        let mut curl = Command::new("curl");
        curl.args(["-s", "-f", "-S", "-o", "/dev/null"]);
        curl
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_read() {
        let json = br#"fio: a warning
        {"jobs": [{"error": 0, "read": {"io_bytes": 8192, "total_ios": 2, "runtime": 500,
          "clat_ns": {"percentile": {"50.000000": 15000, "1.000000": 9000, "99.000000": 80000}}}}]}"#;
        let sample = report(json).unwrap();
        assert_eq!((sample.bytes, sample.ops), (8192, 2));
        assert_eq!(sample.elapsed, Duration::from_millis(500));
        let p50 = sample.quantile_us(0.49);
        assert!((14.0..16.0).contains(&p50), "{p50}");
        assert!(report(b"nothing").is_err());
        assert!(report(br#"{"jobs": [{"error": 5}]}"#).is_err());
    }

    #[test]
    fn a_program_that_fails_is_an_error_with_its_words() {
        let dir = tempfile::tempdir().unwrap();
        let error = dd(&[dir.path().join("nothing")], &[]).unwrap_err();
        assert!(format!("{error:#}").contains("nothing"), "{error:#}");
    }
}
