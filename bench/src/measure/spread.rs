//! The median of some runs, and how far they lie apart.

use serde::{Deserialize, Serialize};

/// Median, least and most of some values.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// The middle value; the mean of the two middle ones if their number is even.
    pub median: f64,
    /// The least.
    pub min: f64,
    /// The most.
    pub max: f64,
    /// All of them, in the order of the runs.
    pub values: Vec<f64>,
}

impl Spread {
    /// Of `values`; `None` if there is none, or one of them is not a finite number.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let values: Vec<f64> = values.into_iter().collect();
        if values.is_empty() || values.iter().any(|value| !value.is_finite()) {
            return None;
        }
        let mut sorted = values.clone();
        sorted.sort_by(f64::total_cmp);
        let (low, high) = (sorted[(sorted.len() - 1) / 2], sorted[sorted.len() / 2]);
        Some(Self {
            median: f64::midpoint(low, high),
            min: sorted[0],
            max: sorted[sorted.len() - 1],
            values,
        })
    }

    /// Of one value that was not repeated.
    pub fn once(value: f64) -> Self {
        Self {
            median: value,
            min: value,
            max: value,
            values: vec![value],
        }
    }

    /// The quotients of the runs of the same number, `None` when a divisor is zero or the
    /// numbers of runs differ. Paired, because what disturbs one run disturbs its neighbour.
    pub fn ratio(value: &Self, limit: &Self) -> Option<Self> {
        if value.values.len() != limit.values.len() {
            return None;
        }
        Self::of(value.values.iter().zip(&limit.values).map(|(a, b)| a / b))
    }

    /// Half the distance between least and most over the median: 0.05 reads "± 5 %". Zero
    /// for a median of zero.
    pub fn noise(&self) -> f64 {
        if self.median == 0.0 {
            return 0.0;
        }
        ((self.max - self.min) / 2.0 / self.median).abs()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        let odd = Spread::of([3.0, 1.0, 2.0]).unwrap();
        assert_eq!((odd.median, odd.min, odd.max), (2.0, 1.0, 3.0));
        assert_eq!(odd.values, [3.0, 1.0, 2.0]);
        assert_eq!(Spread::of([1.0, 2.0]).unwrap().median, 1.5);
        assert_eq!(Spread::of([]), None);
        assert_eq!(Spread::of([1.0, f64::NAN]), None);
    }

    #[test]
    fn ratios_pair_the_runs() {
        let (a, b) = (
            Spread::of([2.0, 8.0]).unwrap(),
            Spread::of([4.0, 8.0]).unwrap(),
        );
        assert_eq!(Spread::ratio(&a, &b).unwrap().values, [0.5, 1.0]);
        assert_eq!(Spread::ratio(&a, &Spread::once(1.0)), None);
        assert_eq!(Spread::ratio(&Spread::once(1.0), &Spread::once(0.0)), None);
    }

    #[test]
    fn noise_is_half_the_range_over_the_median() {
        assert_eq!(Spread::of([9.0, 10.0, 11.0]).unwrap().noise(), 0.1);
        assert_eq!(Spread::once(0.0).noise(), 0.0);
    }
}
