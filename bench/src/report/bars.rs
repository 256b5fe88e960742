//! Ratios as bars, the worst first, with the goal and the limit marked.

use maud::{Markup, html};

use super::number;
use super::scale::Scale;
use super::view::{Entry, View};

/// Bars of a better figure end here: what is several times its limit would squash the others.
const MOST_OF_HIGHER: f64 = 1.5;
/// The same where less is better.
const MOST_OF_LOWER: f64 = 4.0;

/// Both groups of bars.
pub(super) fn section(view: &View<'_>) -> Markup {
    let (higher, lower): (Vec<_>, Vec<_>) = cases(view)
        .into_iter()
        .partition(|case| case.iter().flatten().any(|entry| entry.higher_is_better()));
    html! {
        @if higher.is_empty() && lower.is_empty() {
            p.muted { "No figure of these runs has something to be divided by." }
        }
        @if !higher.is_empty() {
            h3 { "Share of the limit" }
            p.muted { "More is better. At 1 the figure is as good as what bounds it." }
            (groups(view, higher, MOST_OF_HIGHER))
        }
        @if !lower.is_empty() {
            h3 { "Times the limit" }
            p.muted { "Less is better: time, bytes and requests beyond what had to be." }
            (groups(view, lower, MOST_OF_LOWER))
        }
    }
}

/// A figure in each run.
type Case<'v, 'a> = Vec<Option<&'v Entry<'a>>>;

/// The figures that have a ratio, one list of runs for each; the worst first.
fn cases<'v, 'a>(view: &'v View<'a>) -> Vec<Case<'v, 'a>> {
    let worst = |case: &Case<'_, '_>| {
        let scores = case.iter().flatten().filter_map(|entry| entry.score());
        scores.fold(f64::INFINITY, f64::min)
    };
    let mut cases: Vec<_> = view.by_id().into_iter().map(|(_, runs)| runs).collect();
    cases.retain(|case| case.iter().flatten().any(|entry| entry.ratio().is_some()));
    cases.sort_by(|a, b| worst(a).total_cmp(&worst(b)));
    cases
}

/// What decides a goal, and behind a fold what does not.
fn groups(view: &View<'_>, cases: Vec<Case<'_, '_>>, most: f64) -> Markup {
    let has_goal = |case: &Case<'_, '_>| {
        case.iter()
            .flatten()
            .any(|entry| entry.goal_value().is_some())
    };
    let (goals, others): (Vec<_>, Vec<_>) = cases.into_iter().partition(has_goal);
    html! {
        @if goals.is_empty() {
            (group(view, &others, most))
        } @else {
            (group(view, &goals, most))
            @if !others.is_empty() {
                details {
                    summary { (others.len()) " more without a goal" }
                    (group(view, &others, most))
                }
            }
        }
    }
}

fn group(view: &View<'_>, cases: &[Case<'_, '_>], most: f64) -> Markup {
    let entries = || cases.iter().flatten().flatten();
    let longest = entries()
        .filter_map(|entry| Some(entry.ratio()?.median))
        .fold(1.0, f64::max);
    let goal = entries()
        .filter_map(|entry| entry.goal_value())
        .fold(1.0, f64::max);
    let scale = Scale::from_zero((longest.min(most) * 1.04).max(goal * 1.1));
    html! {
        div.axis aria-hidden="true" {
            div.track {
                @for tick in scale.ticks(5) {
                    span style=(format!("left:{}", scale.percent(tick))) { (number::tick(tick)) }
                }
            }
        }
        ul.bars {
            @for case in cases {
                li style=(format!("--strips:{}", case.iter().flatten().count())) {
                    @if let Some(entry) = case.iter().flatten().next() { (name(entry)) }
                    @for (run, entry) in case.iter().enumerate() {
                        @if let Some(entry) = entry { (bar(view, run, entry, &scale)) }
                    }
                }
            }
        }
    }
}

fn name(entry: &Entry<'_>) -> Markup {
    let row = entry.row;
    html! {
        div.what {
            span.case { (row.scenario) " " (row.case) }
            span.of {
                (row.figure)
                @if let Some(limit) = entry.limit_name() { " ÷ " (limit) }
            }
        }
    }
}

fn bar(view: &View<'_>, run: usize, entry: &Entry<'_>, scale: &Scale) -> Markup {
    let Some(ratio) = entry.ratio() else {
        return html! {};
    };
    let verdict = verdict(entry);
    let class = match (view.several(), entry.met()) {
        (true, _) => format!("run-{}", run % super::page::COLOURS),
        (false, Some(true)) => "met".to_owned(),
        (false, Some(false)) => "missed".to_owned(),
        (false, None) => "plain".to_owned(),
    };
    let label = &view.runs[run].label;
    let words = format!(
        "{label}, {} {}: {} {}{}",
        entry.row.case,
        entry.row.figure,
        number::ratio(ratio.median),
        number::noise(ratio),
        verdict
            .as_ref()
            .map_or_else(String::new, |verdict| format!(", {}", verdict.words)),
    );
    html! {
        svg.track role="img" aria-label=(words) {
            title { (words) }
            @for tick in scale.ticks(5) {
                @let x = scale.percent(tick);
                line.grid x1=(x) x2=(x) y1="0" y2="100%" {}
            }
            rect class=(format!("bar {class}")) x="0" y="20%" height="60%" rx="2"
                width=(scale.percent(ratio.median)) {}
            @if ratio.values.len() > 1 {
                line.spread x1=(scale.percent(ratio.min)) x2=(scale.percent(ratio.max))
                    y1="50%" y2="50%" {}
            }
            @if scale.at(ratio.median) >= 1.0 {
                // Longer than there is room for.
                line.beyond x1="96%" x2="98%" y1="90%" y2="10%" {}
            }
            line.limit x1=(scale.percent(1.0)) x2=(scale.percent(1.0)) y1="0" y2="100%" {}
            @if let Some(goal) = entry.goal_value() {
                line.goal x1=(scale.percent(goal)) x2=(scale.percent(goal)) y1="0" y2="100%" {}
            }
        }
        div.figure {
            b { (number::ratio(ratio.median)) }
            @if let Some(verdict) = verdict {
                " " span class=(verdict.class) { (verdict.mark) " " (verdict.goal) }
            }
            @if view.several() { span.run { (label) } }
        }
    }
}

struct Verdict {
    class: &'static str,
    mark: &'static str,
    goal: String,
    words: String,
}

fn verdict(entry: &Entry<'_>) -> Option<Verdict> {
    let (met, value) = (entry.met()?, entry.goal_value()?);
    let sign = if entry.higher_is_better() {
        "≥"
    } else {
        "≤"
    };
    let goal = format!("{sign} {value:.2}");
    let (class, mark, word) = if met {
        ("met", "✓", "meets")
    } else {
        ("missed", "✗", "misses")
    };
    Some(Verdict {
        class,
        mark,
        words: format!("{word} the goal {goal}"),
        goal,
    })
}
