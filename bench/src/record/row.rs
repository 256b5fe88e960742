//! One figure beside its limit.

use serde::{Deserialize, Serialize};

use super::proof::Proof;
use crate::measure::{Sample, Series, Spread};

/// Which way is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Better {
    /// Throughput, hit ratios.
    Higher,
    /// Latency, CPU time, bytes that should not have been fetched.
    Lower,
}

/// Whether a row holds a figure.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// It was measured.
    #[default]
    Measured,
    /// The feature that it measures does not exist yet.
    NotBuilt,
    /// This machine or user cannot: no `/dev/fuse`, no root. The note says what is missing.
    Impossible,
    /// The measurement failed. The note says how.
    Failed,
}

/// What a figure is made of a sample's parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Figure {
    /// Bytes per second.
    Throughput,
    /// Operations per second, which are called so in the unit: `files/s`.
    Ops(&'static str),
    /// The latency that half of the operations did not exceed.
    P50,
    /// The latency that 99 of 100 operations did not exceed.
    P99,
    /// The length of the run.
    Seconds,
    /// CPU time of all processes that took part, for 10⁹ bytes.
    CpuPerGb,
}

/// One figure. Its [`id`](Self::id) is unique within a run and the same in every run, so that
/// runs can be compared.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Row {
    /// The subcommand that measures it: `read`.
    pub scenario: String,
    /// What was done, parts separated by `/`, the general before the special:
    /// `fuse/tier-warm/seq-1m-4jobs`.
    pub case: String,
    /// Which figure of the case: `throughput`, `p50`, `amplification`.
    pub figure: String,
    /// Unit of value and limit: `GB/s` (10⁹ bytes), `files/s`, `µs`, `s`, `ratio`.
    pub unit: String,
    /// Which way is better.
    pub better: Better,
    /// Whether there is a figure at all.
    #[serde(default)]
    pub status: Status,
    /// The figure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<Spread>,
    /// What it is held against.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<Limit>,
    /// Value over limit, run by run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ratio: Option<Spread>,
    /// More about the runs.
    #[serde(default)]
    pub detail: Detail,
    /// Why to believe it.
    #[serde(default)]
    pub proof: Proof,
    /// What a reader should know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// What a figure is held against, measured in the same run, in turn with it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Limit {
    /// What it is: `null FUSE filesystem, same settings`.
    pub name: String,
    /// Its figure, in the row's unit.
    pub value: Spread,
    /// More about its runs.
    #[serde(default)]
    pub detail: Detail,
}

/// What the runs did, beside the figure. Of the last run where it does not say otherwise.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Detail {
    /// Bytes of all runs.
    pub bytes: u64,
    /// Operations of all runs.
    pub ops: u64,
    /// Failed operations of all runs.
    pub errors: u64,
    /// What the first of them said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_error: Option<String>,
    /// GB/s of each run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gb_per_second: Option<Spread>,
    /// CPU seconds per 10⁹ bytes of each run, all processes that took part.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_seconds_per_gb: Option<Spread>,
    /// Latencies of all runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency: Option<Latency>,
    /// Throughput over time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub series: Option<Series>,
    /// Other figures of the same runs, by name with unit: `max_over_mean`, `stall_seconds`.
    #[serde(default, skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    pub more: std::collections::BTreeMap<String, f64>,
}

/// Latency percentiles in µs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// Half took no longer.
    pub p50: f64,
    /// 90 of 100.
    pub p90: f64,
    /// 99 of 100.
    pub p99: f64,
    /// 999 of 1000.
    pub p999: f64,
    /// The slowest.
    pub max: f64,
}

impl Figure {
    /// The name in [`Row::figure`].
    pub const fn name(self) -> &'static str {
        match self {
            Self::Throughput => "throughput",
            Self::Ops(_) => "rate",
            Self::P50 => "p50",
            Self::P99 => "p99",
            Self::Seconds => "seconds",
            Self::CpuPerGb => "cpu",
        }
    }

    /// The unit.
    pub const fn unit(self) -> &'static str {
        match self {
            Self::Throughput => "GB/s",
            Self::Ops(unit) => unit,
            Self::P50 | Self::P99 => "µs",
            Self::Seconds => "s",
            Self::CpuPerGb => "CPU s/GB",
        }
    }

    const fn better(self) -> Better {
        match self {
            Self::Throughput | Self::Ops(_) => Better::Higher,
            Self::P50 | Self::P99 | Self::Seconds | Self::CpuPerGb => Better::Lower,
        }
    }

    /// The figure of one sample.
    pub fn of(self, sample: &Sample) -> f64 {
        match self {
            Self::Throughput => sample.gb_per_second(),
            Self::Ops(_) => sample.ops_per_second(),
            Self::P50 => sample.quantile_us(0.5),
            Self::P99 => sample.quantile_us(0.99),
            Self::Seconds => sample.seconds(),
            Self::CpuPerGb => sample.cpu_seconds_per_gb(),
        }
    }
}

impl Row {
    /// A figure that was counted or computed, in a unit of its own.
    pub fn of(
        scenario: &str,
        case: impl Into<String>,
        figure: &str,
        unit: &str,
        better: Better,
        value: Spread,
    ) -> Self {
        Self {
            value: Some(value),
            ..Self::empty(scenario, case.into(), figure, unit, better)
        }
    }

    /// A figure of timed runs.
    pub fn measured(
        scenario: &str,
        case: impl Into<String>,
        figure: Figure,
        samples: &[Sample],
    ) -> Self {
        let (name, unit) = (figure.name(), figure.unit());
        let mut row = Self::empty(scenario, case.into(), name, unit, figure.better());
        row.value = Spread::of(samples.iter().map(|sample| figure.of(sample)));
        row.detail = Detail::of(samples);
        row
    }

    /// A row of a figure that could not be taken.
    pub fn without(
        scenario: &str,
        case: impl Into<String>,
        figure: &str,
        status: Status,
        note: impl Into<String>,
    ) -> Self {
        Self {
            status,
            note: Some(note.into()),
            ..Self::empty(scenario, case.into(), figure, "", Better::Higher)
        }
    }

    /// Holds the same figure of other runs against it.
    #[must_use]
    pub fn against(mut self, name: &str, figure: Figure, samples: &[Sample]) -> Self {
        let detail = Detail::of(samples);
        if let Some(value) = Spread::of(samples.iter().map(|sample| figure.of(sample))) {
            self = self.against_value(name, value);
            if let Some(limit) = &mut self.limit {
                limit.detail = detail;
            }
        }
        self
    }

    /// Holds a number against it.
    #[must_use]
    pub fn against_value(mut self, name: &str, limit: Spread) -> Self {
        self.ratio = self.value.as_ref().and_then(|value| {
            Spread::ratio(value, &limit).or_else(|| Spread::of([value.median / limit.median]))
        });
        self.limit = Some(Limit {
            name: name.to_owned(),
            value: limit,
            detail: Detail::default(),
        });
        self
    }

    /// With a proof.
    #[must_use]
    pub fn proved(mut self, proof: Proof) -> Self {
        self.proof = proof;
        self
    }

    /// With a note.
    #[must_use]
    pub fn noted(mut self, note: impl Into<String>) -> Self {
        self.note = Some(note.into());
        self
    }

    /// With one more figure of the same runs.
    #[must_use]
    pub fn with(mut self, name: &str, value: f64) -> Self {
        if value.is_finite() {
            self.detail.more.insert(name.to_owned(), value);
        }
        self
    }

    /// `scenario/case/figure`.
    pub fn id(&self) -> String {
        format!("{}/{}/{}", self.scenario, self.case, self.figure)
    }

    fn empty(scenario: &str, case: String, figure: &str, unit: &str, better: Better) -> Self {
        Self {
            scenario: scenario.to_owned(),
            case,
            figure: figure.to_owned(),
            unit: unit.to_owned(),
            better,
            status: Status::Measured,
            value: None,
            limit: None,
            ratio: None,
            detail: Detail::default(),
            proof: Proof::default(),
            note: None,
        }
    }
}

impl Detail {
    /// Of some runs of one thing.
    pub fn of(samples: &[Sample]) -> Self {
        let mut all = Sample::default();
        for sample in samples {
            all.merge(Sample {
                series: None,
                ..sample.clone()
            });
        }
        let latency = (all.latency.max() > std::time::Duration::ZERO).then(|| Latency::of(&all));
        let per_run = |figure: Figure| Spread::of(samples.iter().map(|sample| figure.of(sample)));
        let has_bytes = all.bytes > 0;
        Self {
            bytes: all.bytes,
            ops: all.ops,
            errors: all.errors,
            first_error: all.first_error,
            gb_per_second: has_bytes.then(|| per_run(Figure::Throughput)).flatten(),
            cpu_seconds_per_gb: has_bytes.then(|| per_run(Figure::CpuPerGb)).flatten(),
            latency,
            series: samples
                .iter()
                .rev()
                .find_map(|sample| sample.series.clone()),
            more: std::collections::BTreeMap::new(),
        }
    }
}

impl Latency {
    /// Of a sample's operations.
    pub fn of(sample: &Sample) -> Self {
        let quantile = |fraction| sample.quantile_us(fraction);
        Self {
            p50: quantile(0.5),
            p90: quantile(0.9),
            p99: quantile(0.99),
            p999: quantile(0.999),
            max: quantile(1.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn samples(seconds: &[u64]) -> Vec<Sample> {
        let sample = |seconds: &u64| Sample {
            elapsed: Duration::from_secs(*seconds),
            bytes: 1_000_000_000,
            ops: 10,
            ..Sample::default()
        };
        seconds.iter().map(sample).collect()
    }

    #[test]
    fn a_ratio_is_taken_run_by_run() {
        let row = Row::measured("read", "a", Figure::Throughput, &samples(&[2, 4])).against(
            "limit",
            Figure::Throughput,
            &samples(&[1, 1]),
        );
        assert_eq!(row.ratio.unwrap().values, [0.5, 0.25]);
        assert_eq!(row.value.unwrap().values, [0.5, 0.25]);
        assert_eq!(row.detail.bytes, 2_000_000_000);
        assert_eq!(row.detail.latency, None);
    }

    #[test]
    fn a_row_without_a_figure_says_why_and_survives_json() {
        let row = Row::without(
            "write",
            "seq",
            "throughput",
            Status::NotBuilt,
            "no writing yet",
        );
        let text = serde_json::to_string(&row).unwrap();
        let back: Row = serde_json::from_str(&text).unwrap();
        assert_eq!(back.status, Status::NotBuilt);
        assert_eq!(back.id(), "write/seq/throughput");
        assert!(back.value.is_none() && back.ratio.is_none());
    }
}
