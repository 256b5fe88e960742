//! The tables for `docs/BENCHMARKS.md`, in GitHub's Markdown.

use std::fmt::Write as _;

use super::head::warnings;
use super::view::{Judged, Run, View};
use super::{about, goals, number, table};
use crate::measure::Spread;
use crate::summary;

/// Goals, figures and settings of each run; all runs side by side if there are several.
pub(super) fn tables(view: &View<'_>) -> String {
    let mut text = String::new();
    for warning in warnings(view) {
        let _ = writeln!(text, "> **Read with care**: {}\n", escape(&warning));
    }
    if view.several() {
        text.push_str(&side_by_side(view));
    }
    for run in &view.runs {
        text.push_str(&of_run(run));
    }
    text
}

fn of_run(run: &Run<'_>) -> String {
    let mut text = format!("## {}\n\n", escape(&run.label));
    let facts = about::facts().map(|(name, words)| vec![name.to_owned(), words(run.record)]);
    text.push_str(&rows(&["", ""], &[], facts));
    let _ = writeln!(
        text,
        "```console\n$ {}\n```\n",
        run.record.command.join(" ")
    );
    if !run.goals.is_empty() {
        let _ = writeln!(
            text,
            "### Goals: {} of {} met\n",
            run.met(),
            run.goals.len()
        );
        text.push_str(&goals_of(&run.goals));
    }
    let mut scenarios: Vec<&str> = Vec::new();
    for entry in &run.entries {
        if !scenarios.contains(&entry.row.scenario.as_str()) {
            scenarios.push(&entry.row.scenario);
        }
    }
    for scenario in scenarios {
        let _ = writeln!(text, "### `{}`\n", scenario.replace('`', "'"));
        text.push_str(&figures(run, scenario));
    }
    text
}

fn goals_of(goals: &[Judged]) -> String {
    let header = [
        "goal", "ratio", "demanded", "verdict", "figure", "limit", "note",
    ];
    let lines = goals.iter().map(|Judged { row, .. }| {
        let verdict = if row.met {
            "met"
        } else if row.ratio.is_some() {
            "**missed**"
        } else {
            "no figure"
        };
        vec![
            format!("`{}`", row.id),
            goals::ratio(row),
            goals::demanded(row),
            verdict.to_owned(),
            goals::optional(row.value, &row.unit),
            goals::optional(row.limit, &row.unit),
            row.note.clone(),
        ]
    });
    rows(&header, &[1, 2, 4, 5], lines)
}

fn figures(run: &Run<'_>, scenario: &str) -> String {
    let header = [
        "case", "figure", "value", "limit", "ratio", "p50", "p99", "CPU s/GB", "proof", "note",
    ];
    let of_scenario = run
        .entries
        .iter()
        .filter(|entry| entry.row.scenario == scenario);
    let lines = of_scenario.map(|entry| {
        let row = entry.row;
        let detail = &row.detail;
        let latency = |pick: fn(&crate::record::Latency) -> f64| {
            let words = |latency| number::quantity(pick(latency), "µs");
            detail.latency.as_ref().map_or_else(String::new, words)
        };
        vec![
            row.case.clone(),
            row.figure.clone(),
            row.value.as_ref().map_or_else(
                || summary::status(row.status).to_owned(),
                |value| spread(value, number::quantity(value.median, &row.unit)),
            ),
            row.limit.as_ref().map_or_else(String::new, |limit| {
                number::quantity(limit.value.median, &row.unit)
            }),
            row.ratio.as_ref().map_or_else(String::new, |ratio| {
                spread(ratio, number::ratio(ratio.median))
            }),
            latency(|latency| latency.p50),
            latency(|latency| latency.p99),
            detail
                .cpu_seconds_per_gb
                .as_ref()
                .map_or_else(String::new, |cpu| number::digits(cpu.median)),
            table::proofs(&row.proof).join(", "),
            table::remarks(row).join("; "),
        ]
    });
    rows(&header, &[2, 3, 4, 5, 6, 7], lines)
}

fn side_by_side(view: &View<'_>) -> String {
    let labels: Vec<&str> = view.runs.iter().map(|run| run.label.as_str()).collect();
    let header: Vec<&str> = ["figure"].into_iter().chain(labels).collect();
    let lines = view.by_id().into_iter().map(|(id, runs)| {
        let cell = |entry: Option<&super::view::Entry<'_>>| {
            let Some(row) = entry.map(|entry| entry.row) else {
                return String::new();
            };
            let Some(value) = &row.value else {
                return summary::status(row.status).to_owned();
            };
            let value = spread(value, number::quantity(value.median, &row.unit));
            match &row.ratio {
                Some(ratio) => format!("{value}, ÷ {}", number::ratio(ratio.median)),
                None => value,
            }
        };
        [id].into_iter().chain(runs.into_iter().map(cell)).collect()
    });
    let right: Vec<usize> = (1..header.len()).collect();
    format!("## Side by side\n\n{}", rows(&header, &right, lines))
}

fn spread(spread: &Spread, words: String) -> String {
    match number::noise(spread) {
        noise if noise.is_empty() => words,
        noise => format!("{words} {noise}"),
    }
}

/// A table; the columns `right` are aligned to the right.
fn rows(header: &[&str], right: &[usize], lines: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut text = line(header.iter().map(|cell| escape(cell)));
    let sides = (0..header.len()).map(|column| match right.contains(&column) {
        true => "---:".to_owned(),
        false => "---".to_owned(),
    });
    text.push_str(&line(sides));
    for cells in lines {
        text.push_str(&line(cells.iter().map(|cell| escape(cell))));
    }
    text.push('\n');
    text
}

fn line(cells: impl Iterator<Item = String>) -> String {
    format!("| {} |\n", cells.collect::<Vec<_>>().join(" | "))
}

/// What ends a cell or begins HTML is written so that it does not.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '|' => escaped.push_str("\\|"),
            '<' => escaped.push_str("&lt;"),
            '\n' | '\r' => escaped.push(' '),
            letter => escaped.push(letter),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_cannot_end_its_row() {
        let text = rows(
            &["a", "b"],
            &[1],
            [vec!["x|y\nz".to_owned(), "<b>".to_owned()]],
        );
        assert_eq!(text, "| a | b |\n| --- | ---: |\n| x\\|y z | &lt;b> |\n\n");
    }
}
