//! When a difference is more than noise.

use serde::Serialize;

use crate::measure::Spread;
use crate::record::{Better, Row, Status};

/// What a later figure is, beside an earlier one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Worse by more than noise, or it failed only now.
    Worse,
    /// Not told from noise.
    Same,
    /// Better by more than noise, or it failed before only.
    Better,
    /// The later run has no such figure.
    OnlyOld,
    /// The earlier run has no such figure.
    OnlyNew,
    /// Neither run could take it.
    Neither,
}

/// What was compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Basis {
    /// The ratios to the limits.
    Ratio,
    /// The figures themselves: one of the runs, or both, have no limit.
    Value,
}

/// The verdict on medians, and the change for the better: 0.1 is 10 % better, -0.1 is 10 %
/// worse, where a latency that falls from 10 to 9 is 10 % better. From or to zero it is
/// infinite.
///
/// The rule: it is better or worse if the change is more than `tolerance` and more than the
/// noise of both together ([`Spread::noise`]).
pub fn difference(old: &Spread, new: &Spread, better: Better, tolerance: f64) -> (Verdict, f64) {
    let change = new.median - old.median;
    let change = if better == Better::Higher {
        change
    } else {
        -change
    };
    let relative = match (change, old.median.abs()) {
        (0.0, _) => 0.0,
        (change, 0.0) => change.signum() * f64::INFINITY,
        (change, old) => change / old,
    };
    // The noise of the later run is told in the earlier one's measure, as the change is.
    let scale = if old.median == 0.0 {
        1.0
    } else {
        (new.median / old.median).abs()
    };
    let threshold = tolerance.max(old.noise() + new.noise() * scale);
    let verdict = if relative < -threshold {
        Verdict::Worse
    } else if relative > threshold {
        Verdict::Better
    } else {
        Verdict::Same
    };
    (verdict, relative)
}

/// Whether a row's figure counts: it is there, and nothing failed or was wrong.
pub(super) fn is_sound(row: &Row) -> bool {
    row.status == Status::Measured
        && row.value.is_some()
        && row.detail.errors == 0
        && row.proof.mismatches.unwrap_or(0) == 0
}

/// Whether a row says that something went wrong, rather than that it could not be measured.
pub(super) fn is_broken(row: &Row) -> bool {
    row.status == Status::Failed || (row.status == Status::Measured && !is_sound(row))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn spread(values: &[f64]) -> Spread {
        Spread::of(values.iter().copied()).unwrap()
    }

    fn verdict(old: &[f64], new: &[f64], better: Better) -> Verdict {
        difference(&spread(old), &spread(new), better, 0.05).0
    }

    #[test]
    fn a_change_counts_beyond_tolerance_and_noise() {
        use Better::{Higher, Lower};
        assert_eq!(verdict(&[1.0], &[0.96], Higher), Verdict::Same);
        assert_eq!(verdict(&[1.0], &[0.94], Higher), Verdict::Worse);
        assert_eq!(verdict(&[1.0], &[1.06], Higher), Verdict::Better);
        assert_eq!(verdict(&[1.0], &[1.06], Lower), Verdict::Worse);
        // 20 % less, but the runs lie 15 % and 10 % apart.
        let noisy = [0.85, 1.0, 1.15];
        assert_eq!(verdict(&noisy, &[0.72, 0.8, 0.88], Higher), Verdict::Same);
        assert_eq!(verdict(&noisy, &[0.5, 0.5, 0.5], Higher), Verdict::Worse);
    }

    #[test]
    fn from_and_to_zero() {
        use Better::Lower;
        assert_eq!(verdict(&[0.0], &[0.0], Lower), Verdict::Same);
        assert_eq!(verdict(&[0.0], &[1.0], Lower), Verdict::Worse);
        assert_eq!(verdict(&[1.0], &[0.0], Lower), Verdict::Better);
    }

    fn values() -> impl Strategy<Value = Spread> {
        proptest::collection::vec(1e-3..1e6f64, 1..6).prop_map(|values| Spread::of(values).unwrap())
    }

    fn better() -> impl Strategy<Value = Better> {
        prop_oneof![Just(Better::Higher), Just(Better::Lower)]
    }

    proptest! {
        #[test]
        fn a_run_is_the_same_as_itself(run in values(), better in better()) {
            prop_assert_eq!(difference(&run, &run, better, 0.0), (Verdict::Same, 0.0));
        }

        #[test]
        fn what_is_better_one_way_is_not_better_the_other_way(old in values(), new in values()) {
            let (higher, change) = difference(&old, &new, Better::Higher, 0.05);
            let (lower, opposite) = difference(&old, &new, Better::Lower, 0.05);
            prop_assert_eq!(change, -opposite);
            match higher {
                Verdict::Better => prop_assert_eq!(lower, Verdict::Worse),
                Verdict::Worse => prop_assert_eq!(lower, Verdict::Better),
                other => prop_assert_eq!(lower, other),
            }
        }

        #[test]
        fn a_verdict_is_beyond_tolerance_and_both_noises(
            old in values(), new in values(), better in better(), tolerance in 0.0..0.5f64,
        ) {
            let (verdict, change) = difference(&old, &new, better, tolerance);
            if verdict != Verdict::Same {
                prop_assert!(change.abs() > tolerance);
                // In absolute terms: the medians lie further apart than both half ranges.
                let apart = (new.median - old.median).abs();
                let half = |run: &Spread| (run.max - run.min) / 2.0;
                prop_assert!(apart > (half(&old) + half(&new)) * 0.999_999);
            }
        }

        #[test]
        fn the_unit_does_not_matter(
            old in values(), new in values(), better in better(), times in 1e-3..1e3f64,
        ) {
            let scaled = |run: &Spread| Spread::of(run.values.iter().map(|v| v * times)).unwrap();
            let (_, one) = difference(&old, &new, better, 0.05);
            let (_, other) = difference(&scaled(&old), &scaled(&new), better, 0.05);
            prop_assert!((one - other).abs() <= 1e-9 * one.abs().max(1.0));
        }
    }
}
