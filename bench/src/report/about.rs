//! On what, by what, with which settings the figures were taken, and what disturbed.

use std::collections::BTreeSet;

use maud::{Markup, html};

use super::number;
use super::view::View;
use crate::record::RunRecord;

/// One column for each run.
pub(super) fn section(view: &View<'_>) -> Markup {
    let settings: BTreeSet<&String> = view
        .runs
        .iter()
        .flat_map(|run| run.record.settings.keys())
        .collect();
    html! {
        div.scroll tabindex="0" role="region" aria-label="Machine and settings" {
            table.about {
                @if view.several() {
                    thead { tr { th { "" } @for run in &view.runs { th { (run.label) } } } }
                }
                tbody {
                    @for (name, words) in facts() {
                        tr {
                            th scope="row" { (name) }
                            @for run in &view.runs { td { (words(run.record)) } }
                        }
                    }
                    @for name in settings {
                        tr {
                            th scope="row" { "setting " (name) }
                            @for run in &view.runs {
                                td { (run.record.settings.get(name).map_or("–", String::as_str)) }
                            }
                        }
                    }
                }
            }
        }
        @for run in &view.runs {
            p.muted { "Command of " (run.label) }
            pre { code { (run.record.command.join(" ")) } }
        }
    }
}

type Fact = (&'static str, fn(&RunRecord) -> String);

/// What a run says about itself, by name.
pub(super) const fn facts() -> [Fact; 10] {
    [
        ("measured", |run| {
            format!("{}, {}", run.started, number::duration(run.seconds))
        }),
        ("processor", |run| {
            format!("{} CPUs, {}", run.machine.cpus, run.machine.cpu)
        }),
        ("memory", |run| number::byte_size(run.machine.memory)),
        ("kernel", |run| format!("Linux {}", run.machine.kernel)),
        ("harness", |run| {
            format!(
                "millpond-bench {}, {} build",
                run.tool.version, run.tool.profile
            )
        }),
        ("commit", |run| {
            let commit = run.tool.commit.as_deref().unwrap_or("unknown");
            let modified = if run.tool.modified == Some(true) {
                ", modified"
            } else {
                ""
            };
            format!("{commit}{modified}")
        }),
        ("load before and after", |run| {
            format!("{:.2}, {:.2}", run.noise.load_before, run.noise.load_after)
        }),
        ("CPU used by others", |run| {
            number::percent(run.noise.foreign_cpu)
        }),
        ("CPU taken by the hypervisor", |run| {
            number::percent(run.noise.stolen_cpu)
        }),
        ("verdict on noise", |run| {
            if run.noise.noisy {
                run.noise.why.join("; ")
            } else {
                "quiet".to_owned()
            }
        }),
    ]
}
