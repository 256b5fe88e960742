//! The file of goals.

use std::collections::HashSet;

use anyhow::{Context, Result, ensure};
use millpond_process::UsageError;
use serde::Deserialize;

/// The goals that the harness was built with.
const BUILT_IN: &str = include_str!("../../goals.toml");

/// One goal.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Goal {
    /// Its name, like `fuse.kernel_warm.seq_1m`.
    pub id: String,
    /// The subcommand that measures it.
    pub scenario: String,
    /// The case of that scenario.
    pub case: String,
    /// The figure of that case.
    pub figure: String,
    /// What the figure is divided by; `None` if the goal is about the figure itself.
    #[serde(default)]
    pub divided_by: Option<String>,
    /// Which side of the value is good.
    pub comparison: Comparison,
    /// The goal.
    pub value: f64,
}

/// Which side of a goal's value is good; the value itself always is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum Comparison {
    /// The more the better.
    #[serde(rename = ">=")]
    AtLeast,
    /// The less the better.
    #[serde(rename = "<=")]
    AtMost,
}

/// All goals, in the order of the file.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Goals {
    #[serde(rename = "goal")]
    goals: Vec<Goal>,
}

impl Comparison {
    /// As it is written.
    pub const fn sign(self) -> &'static str {
        match self {
            Self::AtLeast => ">=",
            Self::AtMost => "<=",
        }
    }

    /// Whether `figure` is good.
    pub fn holds(self, figure: f64, value: f64) -> bool {
        match self {
            Self::AtLeast => figure >= value,
            Self::AtMost => figure <= value,
        }
    }

    /// How good `figure` is: 1 just meets the goal, less misses it, more exceeds it. Where
    /// the goal is zero: 1 for zero and 0 for more.
    pub fn score(self, figure: f64, value: f64) -> f64 {
        let (good, bad) = match self {
            Self::AtLeast => (figure, value),
            Self::AtMost => (value, figure),
        };
        if good == bad {
            1.0
        } else if bad == 0.0 {
            f64::INFINITY
        } else {
            good / bad
        }
    }
}

impl Goals {
    /// Those that the harness was built with.
    ///
    /// # Errors
    /// When the file in the sources is wrong, which a test forbids.
    pub fn built_in() -> Result<Self> {
        Self::parse(BUILT_IN).context("bench/goals.toml")
    }

    /// The goals of a file.
    ///
    /// # Errors
    /// When it is not TOML of this form, or a name comes twice.
    pub fn parse(text: &str) -> Result<Self> {
        let goals: Self = toml::from_str(text)?;
        let mut ids = HashSet::new();
        for goal in &goals.goals {
            ensure!(ids.insert(&goal.id), "the goal {} is there twice", goal.id);
        }
        Ok(goals)
    }

    /// All of them.
    pub fn all(&self) -> &[Goal] {
        &self.goals
    }

    /// Those with these names, or whose names begin with one of these and a dot
    /// (`fuse.cold`); all of them if there is none.
    ///
    /// # Errors
    /// [`UsageError`] for a name that no goal has, with the nearest one that there is.
    pub fn select(&self, ids: &[String]) -> Result<Vec<Goal>, UsageError> {
        let chosen = |goal: &Goal, id: &str| {
            let rest = goal.id.strip_prefix(id);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        for id in ids {
            if !self.goals.iter().any(|goal| chosen(goal, id)) {
                let near = self.nearest(id);
                return Err(UsageError::new(format!(
                    "there is no goal {id:?}; did you mean {near}? `millpond-bench check --list` \
                     shows all"
                )));
            }
        }
        let wanted = |goal: &&Goal| ids.is_empty() || ids.iter().any(|id| chosen(goal, id));
        Ok(self.goals.iter().filter(wanted).cloned().collect())
    }

    fn nearest(&self, id: &str) -> &str {
        let by_likeness = |a: &&Goal, b: &&Goal| {
            strsim::jaro_winkler(&a.id, id).total_cmp(&strsim::jaro_winkler(&b.id, id))
        };
        self.goals
            .iter()
            .max_by(by_likeness)
            .map_or("", |goal| &goal.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_goals_of_the_sources_are_well_formed() {
        let goals = Goals::built_in().unwrap();
        assert_eq!(goals.all().len(), 58);
        for goal in goals.all() {
            assert!(goal.value.is_finite() && goal.value >= 0.0, "{goal:?}");
            assert!(!goal.case.starts_with('/'), "{goal:?}");
        }
    }

    #[test]
    fn names_choose_one_goal_or_a_family() {
        let goals = Goals::built_in().unwrap();
        let ids = |names: &[&str]| -> Vec<String> {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            goals
                .select(&names)
                .unwrap()
                .into_iter()
                .map(|goal| goal.id)
                .collect()
        };
        assert_eq!(ids(&["herd.bytes"]), ["herd.bytes"]);
        assert_eq!(ids(&["herd"]), ["herd.bytes", "herd.gets", "herd.time"]);
        assert_eq!(ids(&[]).len(), goals.all().len());
        let error = goals
            .select(&["herd.byte".to_owned()])
            .unwrap_err()
            .to_string();
        assert!(error.contains("herd.bytes"), "{error}");
    }

    #[test]
    fn a_name_that_comes_twice_or_an_unknown_key_is_refused() {
        let goal = "[[goal]]\nid = \"a\"\nscenario = \"s\"\ncase = \"c\"\nfigure = \"f\"\n\
                    comparison = \"<=\"\nvalue = 1\n";
        assert!(Goals::parse(goal).is_ok());
        assert!(Goals::parse(&format!("{goal}{goal}")).is_err());
        assert!(Goals::parse(&format!("{goal}colour = 1\n")).is_err());
    }

    #[test]
    fn a_score_is_one_at_the_goal_and_less_below() {
        use Comparison::{AtLeast, AtMost};
        assert_eq!(AtLeast.score(0.9, 0.9), 1.0);
        assert_eq!(AtLeast.score(0.45, 0.9), 0.5);
        assert_eq!(AtMost.score(2.0, 1.0), 0.5);
        assert_eq!(AtMost.score(0.0, 0.0), 1.0);
        assert_eq!(AtMost.score(3.0, 0.0), 0.0);
        assert!(AtMost.holds(1.0, 1.0) && !AtLeast.holds(0.8, 0.9));
    }
}
