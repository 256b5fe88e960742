//! Throughput over time.

use std::collections::HashSet;

use maud::{Markup, html};

use super::number;
use super::plot::{Axis, Line, Plot};
use super::scale::Scale;
use super::view::{Entry, View};
use crate::measure::Series;

/// One plot for each case that recorded it; nothing if none did.
pub(super) fn section(view: &View<'_>) -> Option<Markup> {
    // All figures of a case are of the same runs.
    let mut seen = HashSet::new();
    let plots: Vec<Markup> = view
        .by_id()
        .into_iter()
        .filter_map(|(_, runs)| {
            let first = runs
                .iter()
                .flatten()
                .find(|entry| entry.row.detail.series.is_some())?;
            let (scenario, case) = (&first.row.scenario, &first.row.case);
            seen.insert((scenario.clone(), case.clone()))
                .then(|| plot(view, &runs, first))
        })
        .collect();
    (!plots.is_empty()).then(|| {
        html! {
            p.muted {
                "The last run of each case. What came in an interval, per second; the last "
                "interval, which was not over, is left out."
            }
            div.cards { @for plot in plots { (plot) } }
        }
    })
}

fn plot(view: &View<'_>, runs: &[Option<&Entry<'_>>], first: &Entry<'_>) -> Markup {
    let row = first.row;
    let mut lines = Vec::new();
    for (number, entry) in runs.iter().enumerate() {
        let Some(series) = entry.and_then(|entry| entry.row.detail.series.as_ref()) else {
            continue;
        };
        lines.push(Line {
            class: format!("run-{}", number % super::page::COLOURS),
            name: view.runs[number].label.clone(),
            points: points(series),
        });
    }
    let limit = row.limit.as_ref().filter(|_| !view.several());
    if let Some(limit) = limit
        && let Some(series) = &limit.detail.series
    {
        let (class, name) = ("limit".to_owned(), limit.name.clone());
        lines.push(Line {
            class,
            name,
            points: points(series),
        });
    }
    let all = || lines.iter().flat_map(|line| &line.points);
    let most = |pick: fn(&(f64, f64)) -> f64| all().map(pick).fold(0.0, f64::max);
    let (seconds, speed) = (most(|point| point.0), most(|point| point.1));
    let description = format!(
        "throughput over {}, at most {}",
        number::duration(seconds),
        number::quantity(speed, "GB/s"),
    );
    let title = format!("{} {}", row.scenario, row.case);
    let plot = Plot {
        title: &title,
        description: &description,
        x: Axis {
            scale: Scale::from_zero(seconds),
            words: |x| format!("{} s", number::tick(x)),
        },
        y: Axis {
            scale: Scale::from_zero(speed * 1.05),
            words: number::tick,
        },
    };
    html! {
        figure.card {
            figcaption {
                span.case { (title) }
                span.of { "GB/s" }
            }
            (plot.lines(&lines))
            @if lines.len() > 1 {
                p.legend {
                    @for line in &lines {
                        span { i class=(line.class) {} (line.name) }
                    }
                }
            }
        }
    }
}

/// The middle of each interval, and GB/s in it.
fn points(series: &Series) -> Vec<(f64, f64)> {
    let whole = series.bytes.len().saturating_sub(1).max(1);
    let slots = series.bytes.iter().take(whole).enumerate();
    slots
        .map(|(slot, &bytes)| {
            let middle = (slot as f64 + 0.5) * series.slot_seconds;
            (middle, bytes as f64 / 1e9 / series.slot_seconds)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unfinished_interval_is_left_out() {
        let series = |bytes: &[u64]| Series {
            slot_seconds: 0.5,
            bytes: bytes.to_vec(),
        };
        let points = points(&series(&[1_000_000_000, 500_000_000, 7]));
        assert_eq!(points, [(0.25, 2.0), (0.75, 1.0)]);
        assert_eq!(super::points(&series(&[500_000_000])), [(0.25, 1.0)]);
        assert_eq!(super::points(&series(&[])), []);
    }
}
