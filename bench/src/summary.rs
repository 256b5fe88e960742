//! A record as tables for people.

use std::fmt::Write as _;

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};

use crate::goals::Goals;
use crate::record::{GoalRow, Row, RunRecord, Status};

/// The figures, then the goals that they decide, the worst first, then how far to trust both.
pub fn tables(record: &RunRecord) -> String {
    let mut text = String::new();
    if !record.figures.is_empty() {
        let _ = writeln!(text, "{}", figures(&record.figures));
    }
    if !record.goals.is_empty() {
        let met = record.goals.iter().filter(|goal| goal.met).count();
        let _ = writeln!(text, "{}", goals(&record.goals));
        let _ = writeln!(text, "{met} of {} goals met", record.goals.len());
    }
    text.push_str(&trust(record));
    text
}

fn figures(rows: &[Row]) -> Table {
    let mut table = table(&[
        "case", "figure", "value", "limit", "ratio", "p50 µs", "p99 µs", "CPU s/GB", "",
    ]);
    for row in rows {
        let detail = &row.detail;
        let latency = |pick: fn(&crate::record::Latency) -> f64| {
            detail
                .latency
                .as_ref()
                .map_or_else(String::new, |latency| number(pick(latency)))
        };
        let value = row.value.as_ref().map_or_else(
            || status(row.status).to_owned(),
            |value| {
                format!(
                    "{} {} ±{:.0}%",
                    number(value.median),
                    row.unit,
                    value.noise() * 100.0
                )
            },
        );
        let limit = row.limit.as_ref();
        let limit = limit.map_or_else(String::new, |limit| number(limit.value.median));
        let ratio = row.ratio.as_ref();
        let ratio = ratio.map_or_else(String::new, |ratio| format!("{:.3}", ratio.median));
        let cpu = detail.cpu_seconds_per_gb.as_ref();
        let cpu = cpu.map_or_else(String::new, |cpu| format!("{:.2}", cpu.median));
        table.add_row([
            format!("{}/{}", row.scenario, row.case),
            row.figure.clone(),
            value,
            limit,
            ratio,
            latency(|latency| latency.p50),
            latency(|latency| latency.p99),
            cpu,
            remark(row),
        ]);
    }
    align(table, 2..=7)
}

/// What is divided, what went wrong, what else there is to know.
fn remark(row: &Row) -> String {
    let mut parts = Vec::new();
    if row.detail.errors > 0 {
        let first = row.detail.first_error.as_deref().unwrap_or("unknown");
        parts.push(format!("{} ERRORS, the first: {first}", row.detail.errors));
    }
    if let Some(mismatches) = row.proof.mismatches.filter(|count| *count > 0) {
        parts.push(format!("{mismatches} MISMATCHES"));
    }
    if let Some(limit) = &row.limit {
        parts.push(format!("÷ {}", limit.name));
    }
    parts.extend(row.note.clone());
    parts.join("; ")
}

fn goals(rows: &[GoalRow]) -> Table {
    let mut table = table(&["goal", "value", "limit", "ratio", "goal", "", "note"]);
    for row in worst_first(rows) {
        let optional = |value: Option<f64>| value.map_or_else(String::new, number);
        table.add_row([
            row.id.clone(),
            format!("{} {}", optional(row.value), row.unit),
            optional(row.limit),
            row.ratio
                .map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.3}")),
            row.goal.clone(),
            if row.met { "met" } else { "MISSED" }.to_owned(),
            row.note.clone(),
        ]);
    }
    align(table, 1..=3)
}

/// Missed before met, and the further from its goal the earlier; what has no figure last of
/// the missed.
fn worst_first(rows: &[GoalRow]) -> Vec<&GoalRow> {
    let known = Goals::built_in().ok();
    let score = |row: &GoalRow| {
        let goals = known.as_ref()?.all();
        let goal = goals.iter().find(|goal| goal.id == row.id)?;
        Some(goal.comparison.score(row.ratio?, goal.value))
    };
    let mut sorted: Vec<_> = rows.iter().map(|row| (row, score(row))).collect();
    sorted.sort_by(|(a, a_score), (b, b_score)| {
        let key = |score: &Option<f64>| score.unwrap_or(f64::MAX);
        a.met
            .cmp(&b.met)
            .then(key(a_score).total_cmp(&key(b_score)))
    });
    sorted.into_iter().map(|(row, _)| row).collect()
}

/// On what, by what, how disturbed.
fn trust(record: &RunRecord) -> String {
    let RunRecord {
        machine,
        tool,
        noise,
        ..
    } = record;
    let commit = tool.commit.as_deref().unwrap_or("unknown commit");
    let mut text = format!(
        "{} CPUs ({}), {:.1} GiB, Linux {}; millpond-bench {} ({commit}{}, {}), {:.0} s\n",
        machine.cpus,
        machine.cpu,
        machine.memory as f64 / (1u64 << 30) as f64,
        machine.kernel,
        tool.version,
        if tool.modified == Some(true) {
            ", modified"
        } else {
            ""
        },
        tool.profile,
        record.seconds,
    );
    if tool.profile == "debug" {
        text.push_str("a debug build: the figures say nothing about speed\n");
    }
    if noise.noisy {
        let _ = writeln!(
            text,
            "NOISY: {}; trust the ratios, or measure again",
            noise.why.join("; ")
        );
    }
    text
}

/// The word for a row without a figure.
pub const fn status(status: Status) -> &'static str {
    match status {
        Status::Measured => "measured",
        Status::NotBuilt => "not built",
        Status::Impossible => "impossible here",
        Status::Failed => "FAILED",
    }
}

/// Three significant digits or all digits before the point.
pub fn number(value: f64) -> String {
    let digits = match value.abs() {
        size if size >= 100.0 || size == 0.0 => 0,
        size if size >= 10.0 => 1,
        size if size >= 1.0 => 2,
        size if size >= 0.1 => 3,
        _ => 4,
    };
    format!("{value:.digits$}")
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::UTF8_BORDERS_ONLY)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_header(header);
    table
}

fn align(mut table: Table, columns: std::ops::RangeInclusive<usize>) -> Table {
    for index in columns {
        if let Some(column) = table.column_mut(index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn goal(id: &str, ratio: Option<f64>, met: bool) -> GoalRow {
        GoalRow {
            id: id.to_owned(),
            value: ratio,
            unit: "GB/s".to_owned(),
            limit: None,
            ratio,
            goal: ">= 0.90".to_owned(),
            met,
            note: String::new(),
        }
    }

    #[test]
    fn the_worst_goal_comes_first_and_those_without_a_figure_before_the_met() {
        let rows = [
            goal("ring.moved", Some(1.0), true),
            goal("fuse.cold.seq", Some(0.6), false),
            goal("write.seq", None, false),
            goal("fuse.kernel_warm.mmap", Some(0.3), false),
        ];
        let order: Vec<_> = worst_first(&rows)
            .iter()
            .map(|row| row.id.as_str())
            .collect();
        assert_eq!(
            order,
            [
                "fuse.kernel_warm.mmap",
                "fuse.cold.seq",
                "write.seq",
                "ring.moved"
            ]
        );
    }

    #[test]
    fn numbers_keep_three_digits() {
        for (value, text) in [
            (0.0, "0"),
            (0.01234, "0.0123"),
            (0.5, "0.500"),
            (1.5, "1.50"),
            (12.34, "12.3"),
            (1234.5, "1234"),
        ] {
            assert_eq!(number(value), text);
        }
    }

    #[test]
    fn errors_and_mismatches_are_shown() {
        let mut row = Row::without("s", "c", "f", Status::Failed, "broken");
        row.detail.errors = 2;
        row.proof.mismatches = Some(3);
        let text = figures(&[row]).to_string();
        assert!(text.contains("FAILED") && text.contains('3'), "{text}");
    }
}
