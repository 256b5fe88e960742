//! Latency percentiles of each case, on one axis for all.

use std::collections::HashSet;

use maud::{Markup, html};

use super::number;
use super::page::breakable;
use super::scale::Scale;
use super::view::{Entry, View};
use crate::record::Latency;

/// A percentile's name, and where it stands.
type Percentile = (&'static str, fn(&Latency) -> f64);

/// Percentiles in the order in which they are shown.
const SHOWN: [Percentile; 5] = [
    ("p50", |latency| latency.p50),
    ("p90", |latency| latency.p90),
    ("p99", |latency| latency.p99),
    ("p99.9", |latency| latency.p999),
    ("max", |latency| latency.max),
];

/// A case with the latencies of each run, and of the limit where there is one run.
struct Case<'a> {
    name: String,
    strips: Vec<Strip<'a>>,
}

struct Strip<'a> {
    class: String,
    name: &'a str,
    latency: Latency,
}

/// The strips and the numbers; nothing where no run recorded latencies.
pub(super) fn section(view: &View<'_>) -> Option<Markup> {
    let mut seen = HashSet::new();
    let by_id = view.by_id();
    let cases: Vec<Case<'_>> = by_id
        .iter()
        .filter_map(|(_, runs)| {
            let first = runs
                .iter()
                .flatten()
                .find(|entry| entry.row.detail.latency.is_some())?;
            let name = format!("{} {}", first.row.scenario, first.row.case);
            seen.insert(name.clone()).then(|| Case {
                name,
                strips: strips(view, runs),
            })
        })
        .collect();
    let all = || {
        cases
            .iter()
            .flat_map(|case| &case.strips)
            .map(|strip| &strip.latency)
    };
    let least = all()
        .map(|latency| latency.p50)
        .fold(f64::INFINITY, f64::min);
    let most = all().map(|latency| latency.max).fold(0.0, f64::max);
    let scale = Scale::powers(least, most);
    (!cases.is_empty()).then(|| {
        html! {
            p.muted {
                "From the median over p90 and p99 (thick) to p99.9 and the slowest (thin), on a "
                "logarithmic axis."
                @if !view.several() { " The grey strip below is the limit." }
            }
            (strips_of(&cases, &scale))
            details {
                summary { "The same as numbers" }
                (numbers(&cases))
            }
        }
    })
}

fn strips<'a>(view: &'a View<'_>, runs: &[Option<&'a Entry<'_>>]) -> Vec<Strip<'a>> {
    let mut strips = Vec::new();
    for (number, entry) in runs.iter().enumerate() {
        let Some(row) = entry.map(|entry| entry.row) else {
            continue;
        };
        if let Some(latency) = row.detail.latency {
            let class = format!("run-{}", number % super::page::COLOURS);
            strips.push(Strip {
                class,
                name: &view.runs[number].label,
                latency,
            });
        }
        if !view.several()
            && let Some(limit) = &row.limit
            && let Some(latency) = limit.detail.latency
        {
            strips.push(Strip {
                class: "limit".to_owned(),
                name: &limit.name,
                latency,
            });
        }
    }
    strips
}

fn strips_of(cases: &[Case<'_>], scale: &Scale) -> Markup {
    html! {
        div.axis aria-hidden="true" {
            div.track {
                @for tick in scale.ticks(6) {
                    span style=(format!("left:{}", scale.percent(tick))) { (short(tick)) }
                }
            }
        }
        ul.bars.latency {
            @for case in cases {
                li style=(format!("--strips:{}", case.strips.len())) {
                    div.what { span.case { (case.name) } }
                    @for strip in &case.strips { (strip.draw(scale)) }
                }
            }
        }
    }
}

impl Strip<'_> {
    fn draw(&self, scale: &Scale) -> Markup {
        let Self {
            class,
            name,
            latency,
        } = self;
        let values = SHOWN
            .map(|(name, of)| format!("{name} {}", words(of(latency))))
            .join(", ");
        let words_of_all = format!("{name}: {values}");
        let x = |value: f64| scale.percent(value);
        html! {
            svg class=(format!("track {class}")) role="img" aria-label=(words_of_all) {
                title { (words_of_all) }
                @for tick in scale.ticks(6) {
                    line.grid x1=(x(tick)) x2=(x(tick)) y1="0" y2="100%" {}
                }
                line.thin x1=(x(latency.p50)) x2=(x(latency.max)) y1="50%" y2="50%" {}
                line.thick x1=(x(latency.p50)) x2=(x(latency.p99)) y1="50%" y2="50%" {}
                line.end x1=(x(latency.max)) x2=(x(latency.max)) y1="25%" y2="75%" {}
                line.end x1=(x(latency.p999)) x2=(x(latency.p999)) y1="32%" y2="68%" {}
                line.end x1=(x(latency.p90)) x2=(x(latency.p90)) y1="25%" y2="75%" {}
                circle cx=(x(latency.p50)) cy="50%" r="4.5" {}
            }
            div.figure {
                b { (words(latency.p50)) }
                " " span.muted { "p99 " (words(latency.p99)) }
                span.run { (name) }
            }
        }
    }
}

fn numbers(cases: &[Case<'_>]) -> Markup {
    html! {
        div.scroll tabindex="0" role="region" aria-label="Latency percentiles" {
            table {
                thead {
                    tr {
                        th { "case" }
                        th { "of" }
                        @for (name, _) in SHOWN { th.number { (name) } }
                    }
                }
                tbody {
                    @for case in cases {
                        @for strip in &case.strips {
                            tr {
                                th scope="row" { (breakable(&case.name)) }
                                td { (strip.name) }
                                @for (_, of) in SHOWN {
                                    td.number { (words(of(&strip.latency))) }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn words(micros: f64) -> String {
    number::quantity(micros, "µs")
}

/// `1 ms` rather than `1.00 ms`: ticks are powers of ten.
fn short(micros: f64) -> String {
    let words = words(micros);
    match words.split_once(' ') {
        Some((number, unit)) if number.contains('.') => {
            format!(
                "{} {unit}",
                number.trim_end_matches('0').trim_end_matches('.')
            )
        }
        _ => words,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_short() {
        let ticks = [0.1, 1.0, 10.0, 100.0, 1000.0, 1e6].map(short);
        assert_eq!(ticks, ["100 ns", "1 µs", "10 µs", "100 µs", "1 ms", "1 s"]);
    }
}
