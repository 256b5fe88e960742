//! The page: one file, in which everything is.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::view::{Run, View};
use super::{about, bars, goals, head, latency, series, side, table};

/// Colours for runs, `run-0` to `run-5` in the style; then they begin anew.
pub(super) const COLOURS: usize = 6;

const STYLE: &str = include_str!("page.css");
/// Nothing may be fetched, whatever a label or a note holds.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'";

impl View<'_> {
    /// The colour of a run.
    pub(super) fn class(&self, run: &Run<'_>) -> String {
        let number = self.runs.iter().position(|other| std::ptr::eq(other, run));
        format!("run-{}", number.unwrap_or_default() % COLOURS)
    }
}

/// The whole document.
pub(super) fn page(view: &View<'_>) -> Markup {
    let labels: Vec<&str> = view.runs.iter().map(|run| run.label.as_str()).collect();
    let has_goals = view.runs.iter().any(|run| !run.goals.is_empty());
    let sections = [
        (
            "goals",
            "Goals, the worst first",
            has_goals.then(|| goals::section(view)),
        ),
        (
            "ratios",
            "Ratios to the limit, the worst first",
            Some(ratios(view)),
        ),
        ("time", "Throughput over time", series::section(view)),
        ("latency", "Latency", latency::section(view)),
        ("side", "Side by side", side::section(view)),
        ("figures", "Every figure", Some(figures(view))),
        ("about", "Machine and settings", Some(about::section(view))),
    ];
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta http-equiv="Content-Security-Policy" content=(POLICY);
                title { "millpond-bench: " (labels.join(", ")) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                (head::head(view))
                nav aria-label="Sections" {
                    @for (id, title, content) in &sections {
                        @if content.is_some() { a href=(format!("#{id}")) { (short(title)) } }
                    }
                }
                main {
                    @for (id, title, content) in &sections {
                        @if let Some(content) = content {
                            section id=(id) { h2 { (title) } (content) }
                        }
                    }
                }
                footer {
                    "Written by millpond-bench " (env!("CARGO_PKG_VERSION"))
                    ". A ratio is taken between runs in turn on the same machine; figures are "
                    "medians, ± is half the distance between the least and the most."
                }
            }
        }
    }
}

/// Names break after `/`, `.` and `_`, where a line is too short for them.
pub(super) fn breakable(name: &str) -> Markup {
    html! {
        @for (index, part) in name.split_inclusive(['/', '.', '_']).enumerate() {
            @if index > 0 { wbr; }
            (part)
        }
    }
}

fn short(title: &str) -> &str {
    title.split(',').next().unwrap_or(title)
}

fn ratios(view: &View<'_>) -> Markup {
    html! {
        p.legend {
            @if view.several() {
                @for run in &view.runs { span { i class=(view.class(run)) {} (run.label) } }
            } @else {
                span { i.met {} "meets its goal" }
                span { i.missed {} "misses its goal" }
                span { i.plain {} "has no goal" }
            }
            span { i.mark-goal {} "goal" }
            span { i.mark-limit {} "limit" }
            span { i.mark-spread {} "least to most" }
        }
        (bars::section(view))
    }
}

fn figures(view: &View<'_>) -> Markup {
    html! {
        @for run in &view.runs {
            @if view.several() {
                details { summary { (run.label) } (table::section(run)) }
            } @else {
                (table::section(run))
            }
        }
    }
}
