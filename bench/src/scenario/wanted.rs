//! Which cases of a scenario to measure.

/// Cases chosen by their leading parts: `fuse` is all of `fuse/…`, `fuse/tier-warm/seq-1m-4jobs`
/// just that one. Nothing chosen is all of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    cases: Vec<String>,
}

impl Wanted {
    /// All cases.
    pub const fn all() -> Self {
        Self { cases: Vec::new() }
    }

    /// The cases that begin with one of these; all if there is none.
    pub fn of(cases: impl IntoIterator<Item = impl Into<String>>) -> Self {
        let cases = cases
            .into_iter()
            .map(|case| case.into().trim_matches('/').to_owned());
        Self {
            cases: cases.collect(),
        }
    }

    /// Whether `case` is to be measured.
    pub fn wants(&self, case: &str) -> bool {
        self.cases.is_empty() || self.cases.iter().any(|chosen| is_below(case, chosen))
    }

    /// Whether any case below `group` is to be measured: what is expensive to set up is set
    /// up only then.
    pub fn wants_any(&self, group: &str) -> bool {
        self.wants(group) || self.cases.iter().any(|chosen| is_below(chosen, group))
    }

    /// The chosen ones.
    pub fn cases(&self) -> &[String] {
        &self.cases
    }
}

fn is_below(case: &str, group: &str) -> bool {
    case.strip_prefix(group)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_parts_are_compared() {
        let wanted = Wanted::of(["fuse/cold", "ring"]);
        for (case, wants) in [
            ("fuse/cold", true),
            ("fuse/cold/seq", true),
            ("fuse/colder", false),
            ("fuse", false),
            ("ring/10", true),
            ("library", false),
        ] {
            assert_eq!(wanted.wants(case), wants, "{case}");
        }
        assert!(wanted.wants_any("fuse") && wanted.wants_any("fuse/cold/seq"));
        assert!(!wanted.wants_any("library"));
        assert!(Wanted::all().wants("anything"));
    }
}
