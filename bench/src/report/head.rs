//! What to know first: how many goals are met, and reasons to doubt the figures.

use maud::{Markup, html};

use super::number;
use super::scale::percent;
use super::view::{Run, View};

/// The top of the page.
pub(super) fn head(view: &View<'_>) -> Markup {
    html! {
        header {
            p.over { "millpond-bench" }
            @if let [run] = &view.runs[..] {
                h1 { (headline(run)) }
            } @else {
                h1 { (view.runs.len()) " runs side by side" }
            }
            @for run in &view.runs { (line(view, run)) }
            @let warnings = warnings(view);
            @if !warnings.is_empty() {
                div.warning role="note" {
                    b { "Read with care" }
                    ul { @for warning in &warnings { li { (warning) } } }
                }
            }
        }
    }
}

fn headline(run: &Run<'_>) -> String {
    if run.goals.is_empty() {
        return format!("{} figures, none of them a goal", run.entries.len());
    }
    format!("{} of {} goals met", run.met(), run.goals.len())
}

fn line(view: &View<'_>, run: &Run<'_>) -> Markup {
    let (met, missed, without) = (run.met(), run.missed(), run.without_figure());
    let all = run.goals.len().max(1) as f64;
    let share = |count: usize| percent(count as f64 / all);
    html! {
        @if view.several() { h2.run-name { i class=(view.class(run)) {} (run.label) ": " (headline(run)) } }
        @if !run.goals.is_empty() {
            svg.verdict role="img" aria-label=(format!("{met} met, {missed} missed, {without} without a figure")) {
                rect.met x="0" y="0" height="100%" width=(share(met)) {}
                rect.missed x=(share(met)) y="0" height="100%" width=(share(missed)) {}
                rect.without x=(share(met + missed)) y="0" height="100%" width=(share(without)) {}
            }
            p.legend {
                span { i.met {} (met) " met" }
                span { i.missed {} (missed) " missed" }
                @if without > 0 {
                    span { i.without {} (without) " without a figure, which counts as missed" }
                }
            }
        }
        p.muted {
            @if !view.several() { (run.label) ", " }
            (run.record.started) ", took " (number::duration(run.record.seconds))
        }
    }
}

/// Why the figures may be less than they seem.
pub(super) fn warnings(view: &View<'_>) -> Vec<String> {
    let mut warnings = Vec::new();
    for run in &view.runs {
        let of = if view.several() {
            format!("{}: ", run.label)
        } else {
            String::new()
        };
        let mut warn = |text: String| warnings.push(format!("{of}{text}"));
        let record = run.record;
        if record.noise.noisy {
            warn(format!(
                "the machine was noisy ({}); trust the ratios, or measure again",
                record.noise.why.join("; ")
            ));
        }
        if record.tool.profile != "release" {
            warn(format!(
                "a {} build: the figures say nothing about speed",
                record.tool.profile
            ));
        }
        if record
            .settings
            .get("quick")
            .is_some_and(|quick| quick == "true")
        {
            warn("a quick run: ratios to look at, not to publish".to_owned());
        }
        if record.tool.modified == Some(true) {
            warn("the sources were changed after the commit that is named".to_owned());
        }
        let errors: u64 = run
            .entries
            .iter()
            .map(|entry| entry.row.detail.errors)
            .sum();
        let mismatches = run
            .entries
            .iter()
            .filter_map(|entry| entry.row.proof.mismatches);
        let mismatches: u64 = mismatches.sum();
        if errors + mismatches > 0 {
            warn(format!(
                "{errors} operations failed and {mismatches} results were wrong"
            ));
        }
    }
    let machines = view.runs.iter().map(|run| &run.record.machine);
    if machines.clone().zip(machines.skip(1)).any(|(a, b)| a != b) {
        warnings.push("the runs are of different machines: compare ratios only".to_owned());
    }
    warnings
}
