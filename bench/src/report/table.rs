//! Every figure with its limit, its ratio, its proof and what a reader should know.

use maud::{Markup, html};

use super::number;
use super::page::breakable;
use super::view::{Entry, Run};
use crate::record::{KernelCache, Proof, Row};
use crate::summary;

/// One table for each scenario of a run.
pub(super) fn section(run: &Run<'_>) -> Markup {
    let mut scenarios: Vec<&str> = Vec::new();
    for entry in &run.entries {
        if !scenarios.contains(&entry.row.scenario.as_str()) {
            scenarios.push(&entry.row.scenario);
        }
    }
    html! {
        @for scenario in scenarios {
            h4 { (scenario) }
            div.scroll tabindex="0" role="region" aria-label=(format!("Figures of {scenario}")) {
                table {
                    thead {
                        tr {
                            th { "case" }
                            th { "figure" }
                            th.number { "value" }
                            th.number { "limit" }
                            th.number { "ratio" }
                            th.number { "p50" }
                            th.number { "p99" }
                            th.number { "CPU s/GB" }
                            th { "proof" }
                            th { "note" }
                        }
                    }
                    tbody {
                        @for entry in run.entries.iter().filter(|entry| entry.row.scenario == scenario) {
                            (row(entry))
                        }
                    }
                }
            }
        }
    }
}

fn row(entry: &Entry<'_>) -> Markup {
    let row = entry.row;
    let detail = &row.detail;
    let latency = |pick: fn(&crate::record::Latency) -> f64| {
        let words = |latency| number::quantity(pick(latency), "µs");
        detail
            .latency
            .as_ref()
            .map_or_else(|| "–".to_owned(), words)
    };
    html! {
        tr {
            th scope="row" { @if row.case.is_empty() { "all" } @else { (breakable(&row.case)) } }
            td { (row.figure) }
            td.number {
                @match &row.value {
                    Some(value) if entry.is_measured() => {
                        (number::quantity(value.median, &row.unit)) " "
                        span.muted { (number::noise(value)) }
                    }
                    _ => span.status { (summary::status(row.status)) },
                }
            }
            td.number {
                @if let Some(limit) = &row.limit {
                    (number::quantity(limit.value.median, &row.unit)) " "
                    span.muted { (number::noise(&limit.value)) }
                } @else { "–" }
            }
            td.number {
                @match &row.ratio {
                    Some(ratio) => {
                        (number::ratio(ratio.median)) " " span.muted { (number::noise(ratio)) }
                    }
                    None => "–",
                }
            }
            td.number { (latency(|latency| latency.p50)) }
            td.number { (latency(|latency| latency.p99)) }
            td.number {
                (detail.cpu_seconds_per_gb.as_ref().map_or_else(|| "–".to_owned(), |cpu| number::digits(cpu.median)))
            }
            td.note { (proofs(&row.proof).join(", ")) }
            td.note {
                @for remark in remarks(row) { p { (remark) } }
            }
        }
    }
}

/// What was checked, in words.
pub(super) fn proofs(proof: &Proof) -> Vec<String> {
    let mut words = Vec::new();
    if let Some(bytes) = proof.verified_bytes {
        words.push(format!("{} verified", number::byte_size(bytes)));
    }
    match proof.mismatches {
        Some(0) | None => {}
        Some(count) => words.push(format!("{count} WRONG")),
    }
    if let Some(requests) = proof.ufs_requests {
        words.push(format!("{requests} UFS requests"));
    }
    if let Some(bytes) = proof.ufs_bytes.filter(|bytes| *bytes > 0) {
        words.push(format!("{} from the UFS", number::byte_size(bytes)));
    }
    match &proof.kernel_cache {
        None => {}
        Some(KernelCache::Kept { resident }) => {
            words.push(format!(
                "kernel pages kept ({})",
                number::byte_size(*resident)
            ));
        }
        Some(KernelCache::Dropped { before, after }) => words.push(format!(
            "kernel pages dropped ({} to {})",
            number::byte_size(*before),
            number::byte_size(*after)
        )),
        Some(KernelCache::CouldNotDrop { why }) => {
            words.push(format!("kernel pages NOT dropped: {why}"));
        }
    }
    words
}

/// What a reader should know beside the figure.
pub(super) fn remarks(row: &Row) -> Vec<String> {
    let mut remarks = Vec::new();
    if row.detail.errors > 0 {
        let first = row.detail.first_error.as_deref().unwrap_or("unknown");
        remarks.push(format!(
            "{} operations failed, the first: {first}",
            row.detail.errors
        ));
    }
    if let Some(limit) = &row.limit {
        remarks.push(format!("÷ {}", limit.name));
    }
    remarks.extend(row.note.clone());
    if !row.detail.more.is_empty() {
        let more = row.detail.more.iter();
        let more: Vec<String> = more
            .map(|(name, value)| format!("{} {}", name.replace('_', " "), number::tick(*value)))
            .collect();
        remarks.push(more.join(", "));
    }
    remarks
}
