//! The comparison as a table.

use std::fmt::Write as _;

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};

use super::differ::{Comparison, Difference};
use super::rule::{Basis, Verdict};
use crate::measure::Spread;
use crate::summary;

/// The words of a verdict.
const fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Worse => "WORSE",
        Verdict::Same => "same",
        Verdict::Better => "better",
        Verdict::OnlyOld => "gone",
        Verdict::OnlyNew => "new",
        Verdict::Neither => "in neither",
    }
}

/// The table, what makes the runs hard to compare, and how many figures are what.
pub(super) fn table(comparison: &Comparison) -> String {
    let mut table = Table::new();
    table
        .load_style(presets::UTF8_BORDERS_ONLY)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_header([
            "verdict",
            "figure",
            &format!("old: {}", comparison.old),
            &format!("new: {}", comparison.new),
            "change",
            "",
        ]);
    for row in &comparison.rows {
        table.add_row([
            word(row.verdict).to_owned(),
            row.id.clone(),
            value(row, row.old.as_ref()),
            value(row, row.new.as_ref()),
            row.change.map_or_else(String::new, change),
            row.note.clone(),
        ]);
    }
    for index in 2..=4 {
        if let Some(column) = table.column_mut(index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let mut text = format!("{table}\n");
    for warning in &comparison.warnings {
        let _ = writeln!(text, "warning: {warning}");
    }
    let count = |verdict| {
        comparison
            .rows
            .iter()
            .filter(|row| row.verdict == verdict)
            .count()
    };
    let all = [
        Verdict::Worse,
        Verdict::Better,
        Verdict::Same,
        Verdict::OnlyOld,
        Verdict::OnlyNew,
        Verdict::Neither,
    ];
    let counts = all.map(|verdict| format!("{} {}", count(verdict), word(verdict)));
    let _ = writeln!(text, "{}", counts.join(", "));
    text
}

fn value(row: &Difference, spread: Option<&Spread>) -> String {
    let Some(spread) = spread else {
        return "-".to_owned();
    };
    let number = match row.basis {
        Some(Basis::Ratio) => format!("÷ {:.3}", spread.median),
        _ if row.unit == "ratio" => format!("{:.3}", spread.median),
        _ => format!("{} {}", summary::number(spread.median), row.unit),
    };
    format!("{number} ±{:.0}%", spread.noise() * 100.0)
}

fn change(change: f64) -> String {
    if change.is_infinite() {
        return if change > 0.0 { "+∞" } else { "-∞" }.to_owned();
    }
    format!("{:+.1} %", change * 100.0)
}
