//! All figures of two runs.

use serde::{Serialize, Serializer};

use super::rule::{Basis, Verdict, difference, is_broken, is_sound};
use crate::measure::Spread;
use crate::record::{Row, RunRecord};
use crate::summary;

/// Two runs, figure by figure.
#[derive(Debug, Serialize)]
pub struct Comparison {
    /// The earlier run.
    pub old: String,
    /// The later run.
    pub new: String,
    /// The share by which a figure must change to be better or worse.
    pub tolerance: f64,
    /// What makes the two hard to compare.
    pub warnings: Vec<String>,
    /// The figures: the worse first, the most changed of them first.
    pub rows: Vec<Difference>,
}

/// One figure in both runs.
#[derive(Debug, Serialize)]
pub struct Difference {
    /// `scenario/case/figure`.
    pub id: String,
    /// What the change is.
    pub verdict: Verdict,
    /// What was compared; `None` if only one run has it.
    pub basis: Option<Basis>,
    /// The unit of what was compared; `ratio` for ratios.
    pub unit: String,
    /// The earlier figure.
    pub old: Option<Spread>,
    /// The later one.
    pub new: Option<Spread>,
    /// By which share it is better, negative if it is worse; a string if infinite.
    #[serde(serialize_with = "finite_or_text")]
    pub change: Option<f64>,
    /// What failed, or is not there.
    pub note: String,
}

impl Comparison {
    /// Holds `new` against `old`.
    pub fn of(old: &RunRecord, new: &RunRecord, tolerance: f64) -> Self {
        let find = |rows: &'_ [Row], id: &str| rows.iter().position(|row| row.id() == id);
        let mut rows: Vec<Difference> = Vec::new();
        for row in &old.figures {
            let later = find(&new.figures, &row.id()).map(|index| &new.figures[index]);
            rows.push(compare(Some(row), later, tolerance));
        }
        for row in &new.figures {
            if find(&old.figures, &row.id()).is_none() {
                rows.push(compare(None, Some(row), tolerance));
            }
        }
        rows.sort_by(|a, b| {
            let key = |row: &Difference| row.change.unwrap_or(0.0);
            rank(a.verdict)
                .cmp(&rank(b.verdict))
                .then(key(a).total_cmp(&key(b)))
        });
        Self {
            old: old.label.clone(),
            new: new.label.clone(),
            tolerance,
            warnings: warnings(old, new),
            rows,
        }
    }

    /// The figures that are worse.
    pub fn worse(&self) -> impl Iterator<Item = &Difference> {
        self.rows.iter().filter(|row| row.verdict == Verdict::Worse)
    }
}

const fn rank(verdict: Verdict) -> u8 {
    match verdict {
        Verdict::Worse => 0,
        Verdict::OnlyOld => 1,
        Verdict::Better => 2,
        Verdict::Same => 3,
        Verdict::OnlyNew => 4,
        Verdict::Neither => 5,
    }
}

fn compare(old: Option<&Row>, new: Option<&Row>, tolerance: f64) -> Difference {
    let id = old.or(new).map_or_else(String::new, Row::id);
    let (sound_old, sound_new) = (
        old.filter(|row| is_sound(row)),
        new.filter(|row| is_sound(row)),
    );
    let (basis, unit, old_value, new_value) = basis(sound_old, sound_new);
    let (verdict, change) = match (&old_value, &new_value) {
        (Some(before), Some(after)) => {
            let better = sound_new.or(sound_old).map(|row| row.better);
            let better = better.unwrap_or(crate::record::Better::Higher);
            let (verdict, change) = difference(before, after, better, tolerance);
            (verdict, Some(change))
        }
        (Some(_), None) if new.is_some_and(is_broken) => (Verdict::Worse, None),
        (None, Some(_)) if old.is_some_and(is_broken) => (Verdict::Better, None),
        (Some(_), None) => (Verdict::OnlyOld, None),
        (None, Some(_)) => (Verdict::OnlyNew, None),
        // A whole scenario that failed has a row without a figure, which the earlier run lacks.
        (None, None) if new.is_some_and(is_broken) && !old.is_some_and(is_broken) => {
            (Verdict::Worse, None)
        }
        (None, None) => (Verdict::Neither, None),
    };
    let both = change.is_some();
    let note = [("before", old), ("now", new)]
        .into_iter()
        .filter_map(|(when, row)| {
            let row = row?;
            (!is_sound(row)).then(|| format!("{when}: {}", why(row)))
        });
    Difference {
        id,
        verdict,
        basis: both.then_some(basis),
        unit,
        old: old_value,
        new: new_value,
        change,
        note: note.collect::<Vec<_>>().join("; "),
    }
}

/// Ratios if both runs have one, or the one run that has the figure.
fn basis(old: Option<&Row>, new: Option<&Row>) -> (Basis, String, Option<Spread>, Option<Spread>) {
    let all_have_ratios = [old, new]
        .into_iter()
        .flatten()
        .all(|row| row.ratio.is_some());
    let unit = old.or(new).map_or_else(String::new, |row| row.unit.clone());
    let of = |row: Option<&Row>, pick: fn(&Row) -> Option<Spread>| row.and_then(pick);
    if all_have_ratios && old.or(new).is_some() {
        let ratio = |row: &Row| row.ratio.clone();
        (
            Basis::Ratio,
            "ratio".to_owned(),
            of(old, ratio),
            of(new, ratio),
        )
    } else {
        let value = |row: &Row| row.value.clone();
        (Basis::Value, unit, of(old, value), of(new, value))
    }
}

fn why(row: &Row) -> String {
    if row.detail.errors > 0 {
        return format!("{} operations failed", row.detail.errors);
    }
    if let Some(count) = row.proof.mismatches.filter(|count| *count > 0) {
        return format!("{count} results were wrong");
    }
    let status = summary::status(row.status);
    row.note
        .as_ref()
        .map_or_else(|| status.to_owned(), |note| format!("{status}, {note}"))
}

fn warnings(old: &RunRecord, new: &RunRecord) -> Vec<String> {
    let mut warnings = Vec::new();
    let mut differ = |what: &str, old: &str, new: &str| {
        if old != new {
            warnings.push(format!("{what} differs: {old} before, {new} now"));
        }
    };
    let cpus = |run: &RunRecord| format!("{} CPUs ({})", run.machine.cpus, run.machine.cpu);
    let memory = |run: &RunRecord| format!("{:.1} GiB", run.machine.memory as f64 / GIB);
    differ("the processor", &cpus(old), &cpus(new));
    differ("the memory", &memory(old), &memory(new));
    differ("the kernel", &old.machine.kernel, &new.machine.kernel);
    differ("the build", &old.tool.profile, &new.tool.profile);
    let mut names: Vec<&String> = old.settings.keys().chain(new.settings.keys()).collect();
    names.sort_unstable();
    names.dedup();
    for name in names {
        let of = |run: &RunRecord| {
            run.settings
                .get(name)
                .cloned()
                .unwrap_or_else(|| "nothing".to_owned())
        };
        differ(&format!("the setting {name}"), &of(old), &of(new));
    }
    for (when, run) in [("before", old), ("now", new)] {
        if run.noise.noisy {
            warnings.push(format!(
                "the machine was noisy {when}: {}",
                run.noise.why.join("; ")
            ));
        }
    }
    warnings
}

const GIB: f64 = (1u64 << 30) as f64;

/// JSON has no infinity.
fn finite_or_text<S: Serializer>(change: &Option<f64>, serializer: S) -> Result<S::Ok, S::Error> {
    match change {
        Some(change) if change.is_infinite() => serializer.serialize_str(&change.to_string()),
        other => other.serialize(serializer),
    }
}
