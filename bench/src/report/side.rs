//! Several runs side by side: every figure of all of them.

use maud::{Markup, html};

use super::number;
use super::page::breakable;
use super::view::{Entry, View};
use crate::summary;

/// The table; nothing for a single run.
pub(super) fn section(view: &View<'_>) -> Option<Markup> {
    view.several().then(|| {
        html! {
            p.muted {
                "The figure with its spread, and below it the ratio to the limit of the same run. "
                code { "millpond-bench compare OLD NEW" }
                " says which differences are more than noise."
            }
            div.scroll tabindex="0" role="region" aria-label="Runs side by side" {
                table {
                    thead {
                        tr {
                            th { "case" }
                            th { "figure" }
                            @for run in &view.runs { th.number { (run.label) } }
                        }
                    }
                    tbody {
                        @for (id, runs) in view.by_id() {
                            @let row = runs.iter().flatten().next().map(|entry| entry.row);
                            tr {
                                th scope="row" {
                                    @match row {
                                        Some(row) => { (row.scenario) " " (breakable(&row.case)) }
                                        None => (id),
                                    }
                                }
                                td { @if let Some(row) = row { (row.figure) } }
                                @for entry in runs { td.number { (cell(entry)) } }
                            }
                        }
                    }
                }
            }
        }
    })
}

fn cell(entry: Option<&Entry<'_>>) -> Markup {
    let Some(row) = entry.map(|entry| entry.row) else {
        return html! { "–" };
    };
    html! {
        @match &row.value {
            Some(value) => {
                (number::quantity(value.median, &row.unit)) " "
                span.muted { (number::noise(value)) }
            }
            None => span.muted { (summary::status(row.status)) },
        }
        @if let Some(ratio) = &row.ratio {
            br;
            span.muted { "÷ " (number::ratio(ratio.median)) " " (number::noise(ratio)) }
        }
    }
}
