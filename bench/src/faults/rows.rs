//! Rows of what faults did.

use super::scene::{Fault, Measured};
use crate::measure::{Histogram, Sample, Spread};
use crate::record::{Better, Detail, Latency, Proof, Row};

const SCENARIO: &str = "faults";
/// The figures of each case.
pub(super) const FIGURES: [&str; 4] = ["errors", "stall", "p99", "recover"];

/// The runs of one fault.
#[derive(Debug)]
pub(super) struct Runs {
    pub(super) fault: Fault,
    pub(super) runs: Vec<Measured>,
    /// What was read, for the notes.
    pub(super) what: String,
}

impl Runs {
    /// Its rows.
    pub(super) fn rows(&self) -> Vec<Row> {
        let case = self.fault.name();
        vec![
            self.errors(case, &[self]),
            self.stall(case),
            self.p99(case),
            self.recover(case),
        ]
    }

    fn errors(&self, case: &str, all: &[&Self]) -> Row {
        let errors = all.iter().flat_map(|runs| &runs.runs);
        let total: u64 = errors.map(|run| run.outcome.errors).sum();
        let row = Row::of(
            SCENARIO,
            case,
            "errors",
            "reads",
            Better::Lower,
            Spread::once(total as f64),
        );
        let mut row = row.proved(proof(all)).noted(self.what.clone());
        row.detail = detail(all);
        row
    }

    fn stall(&self, case: &str) -> Row {
        let stalls = self.runs.iter().map(|run| run.timeline.stall());
        let mut row = Row::of(
            SCENARIO,
            case,
            "stall",
            "s",
            Better::Lower,
            spread(stalls.map(|stall| stall.as_secs_f64())),
        );
        row.detail = detail(&[self]);
        let last = self.runs.last();
        row.detail.series = last.map(|run| run.timeline.series());
        let row = row.proved(proof(&[self])).noted(self.what.clone());
        let Some(last) = last else { return row };
        let kept = last.timeline.throughput_kept();
        row.with("fault_at_seconds", last.at.0)
            .with("healed_at_seconds", last.at.1)
            .with("throughput_during_over_before", kept)
            .with("ufs_requests_before", last.ufs_requests_before as f64)
            .with("ufs_requests_from_fault_on", last.ufs_requests_after as f64)
            .with("ufs_bytes_from_fault_on", last.ufs_bytes_after as f64)
    }

    fn p99(&self, case: &str) -> Row {
        let during = self.runs.iter().map(|run| p99(&run.timeline.during()));
        let before = self.runs.iter().map(|run| p99(&run.timeline.before()));
        let mut row = Row::of(SCENARIO, case, "p99", "µs", Better::Lower, spread(during));
        row.detail = detail(&[self]);
        let mut row = row
            .against_value("the p99 of the same reads before the fault", spread(before))
            .proved(proof(&[self]))
            .noted(self.what.clone());
        if let Some(limit) = &mut row.limit {
            let before = merged(&self.runs, |run| run.timeline.before());
            limit.detail.latency = Some(latency(before));
        }
        row
    }

    fn recover(&self, case: &str) -> Row {
        let seconds = |run: &Measured| {
            let recovered = run.timeline.recovered_after();
            recovered
                .unwrap_or_else(|| run.timeline.watched())
                .as_secs_f64()
        };
        let never = |run: &Measured| run.timeline.recovered_after().is_none();
        let mut note = "from the fault to the first second with throughput and p99 within 1.2x of \
                        the worst second before it"
            .to_owned();
        if self.runs.iter().any(never) {
            note.push_str("; AT LEAST this long: no second was so good while it was watched");
        }
        let value = spread(self.runs.iter().map(seconds));
        let row = Row::of(SCENARIO, case, "recover", "s", Better::Lower, value).noted(note);
        let healed = self.runs.last();
        match healed.and_then(|run| run.timeline.recovered_after_heal()) {
            Some(healed) => row.with("after_heal_seconds", healed.as_secs_f64()),
            None => row,
        }
    }
}

/// The rows of several faults together: all errors, the longest stall, the worst p99.
pub(super) fn together(case: &str, all: &[&Runs]) -> Vec<Row> {
    let worst = |figure: fn(&Runs, &str) -> Row, key: fn(&Row) -> f64| {
        let rows = all.iter().map(|runs| (runs, figure(runs, case)));
        let worst = rows.max_by(|a, b| key(&a.1).total_cmp(&key(&b.1)));
        worst.map(|(runs, row)| {
            let note = format!("worst of the faults: {}; {}", runs.fault.name(), runs.what);
            row.noted(note).proved(proof(all))
        })
    };
    let errors = all.first().map(|first| first.errors(case, all));
    let stall = worst(Runs::stall, |row| of(row.value.as_ref()));
    let p99 = worst(Runs::p99, |row| of(row.ratio.as_ref()));
    [errors, stall, p99].into_iter().flatten().collect()
}

fn of(spread: Option<&Spread>) -> f64 {
    spread.map_or(0.0, |spread| spread.median)
}

fn spread(values: impl IntoIterator<Item = f64>) -> Spread {
    Spread::of(values).unwrap_or_default()
}

fn p99(histogram: &Histogram) -> f64 {
    histogram.quantile(0.99).as_nanos() as f64 / 1e3
}

fn merged(runs: &[Measured], part: impl Fn(&Measured) -> Histogram) -> Histogram {
    let mut all = Histogram::new();
    for run in runs {
        all.merge(&part(run));
    }
    all
}

fn latency(histogram: Histogram) -> Latency {
    Latency::of(&Sample {
        latency: histogram,
        ..Sample::default()
    })
}

/// What was read in all runs; latencies are those while the fault lasted.
fn detail(all: &[&Runs]) -> Detail {
    let runs = || all.iter().flat_map(|runs| &runs.runs);
    let mut during = Histogram::new();
    for run in runs() {
        during.merge(&run.timeline.during());
    }
    let sum = |figure: fn(&Measured) -> u64| runs().map(figure).sum();
    Detail {
        bytes: sum(|run| run.outcome.verified),
        ops: sum(|run| run.outcome.reads.len() as u64),
        errors: sum(|run| run.outcome.errors),
        first_error: runs().find_map(|run| run.outcome.first_error.clone()),
        latency: Some(latency(during)),
        ..Detail::default()
    }
}

fn proof(all: &[&Runs]) -> Proof {
    let runs = || all.iter().flat_map(|runs| &runs.runs);
    Proof {
        verified_bytes: Some(runs().map(|run| run.outcome.verified).sum()),
        mismatches: Some(runs().map(|run| run.outcome.mismatches).sum()),
        ..Proof::default()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::load::Outcome;
    use super::super::timeline::{Read, Timeline};
    use super::*;

    fn runs(fault: Fault, hang_ms: u64, errors: u64) -> Runs {
        let ms = Duration::from_millis;
        let read = |end, took| Read {
            end: ms(end),
            took: ms(took),
            bytes: 1024,
        };
        let mut reads: Vec<Read> = (1..=200).map(|n| read(n * 10, 10)).collect();
        reads.push(read(2000 + hang_ms, hang_ms));
        let outcome = Outcome {
            reads: reads.clone(),
            verified: 1024 * 201,
            errors,
            ..Outcome::default()
        };
        Runs {
            fault,
            runs: vec![Measured {
                timeline: Timeline::new(reads, ms(2001), ms(4000), ms(6000)),
                outcome,
                ufs_requests_before: 0,
                ufs_requests_after: 3,
                ufs_bytes_after: 9,
                at: (2.0, 4.0),
            }],
            what: "x".to_owned(),
        }
    }

    #[test]
    fn together_errors_add_up_and_the_worst_counts() {
        let (kill, stop) = (runs(Fault::Kill, 500, 2), runs(Fault::Stop, 1500, 1));
        let rows = together("kill-stop-cut", &[&kill, &stop]);
        let figures: Vec<&str> = rows.iter().map(|row| row.figure.as_str()).collect();
        assert_eq!(figures, ["errors", "stall", "p99"]);
        assert_eq!(rows[0].value.as_ref().unwrap().median, 3.0);
        assert_eq!(rows[1].value.as_ref().unwrap().median, 1.5);
        assert!(rows[1].note.as_ref().unwrap().contains("stop"));
        let ratio = rows[2].ratio.as_ref().unwrap().median;
        assert!((ratio - 150.0).abs() < 5.0, "{ratio}");
        assert_eq!(rows[2].proof.verified_bytes, Some(2 * 1024 * 201));
    }

    #[test]
    fn a_fault_has_a_row_for_each_figure_even_if_it_never_ended() {
        let rows = runs(Fault::Kill, 500, 0).rows();
        let figures: Vec<&str> = rows.iter().map(|row| row.figure.as_str()).collect();
        assert_eq!(figures, FIGURES);
        assert_eq!(rows[3].value.as_ref().unwrap().median, 3.999);
        assert!(rows[3].note.as_ref().unwrap().contains("AT LEAST"));
        assert!(rows[1].detail.series.is_some());
    }
}
