//! How many accelerators stay busy, found in few runs. Pure.

/// More accelerators are not tried.
pub(super) const MOST: usize = 64;

/// A run with so many accelerators, and their utilisation.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Trial {
    accelerators: usize,
    utilization: f64,
}

/// The bracket: so many were busy, so many were not.
#[derive(Debug, Clone)]
pub(super) struct Search {
    threshold: f64,
    guess: usize,
    busy: Option<Trial>,
    idle: Option<Trial>,
}

impl Search {
    /// For the largest count whose utilisation is at least `threshold`, from `guess` on.
    pub(super) fn new(threshold: f64, guess: usize) -> Self {
        Self {
            threshold,
            guess: guess.clamp(1, MOST),
            busy: None,
            idle: None,
        }
    }

    /// The count to try next; `None` once the answer is known.
    pub(super) fn next(&self) -> Option<usize> {
        let low = self.busy.map_or(0, |trial| trial.accelerators);
        match (self.busy, self.idle) {
            (None, None) => Some(self.guess),
            (_, Some(idle)) if idle.accelerators == low + 1 => None,
            (_, Some(idle)) => {
                let count = self.fed(idle).floor() as usize;
                Some(count.clamp(low + 1, idle.accelerators - 1))
            }
            (Some(_), None) if low >= MOST => None,
            (Some(_), None) => Some((low + (low / 2).max(1)).min(MOST)),
        }
    }

    /// What a run with `accelerators` of them found.
    pub(super) fn record(&mut self, accelerators: usize, utilization: f64) {
        let trial = Some(Trial {
            accelerators,
            utilization,
        });
        if utilization >= self.threshold {
            self.busy = trial;
        } else {
            self.idle = trial;
        }
    }

    /// How many stay busy: the whole part was tried; the fraction tells how near one more came,
    /// by the batches that all together got while it was tried.
    pub(super) fn sustained(&self) -> f64 {
        let low = self.busy.map_or(0, |trial| trial.accelerators) as f64;
        match self.idle {
            Some(idle) => self.fed(idle).clamp(low, idle.accelerators as f64),
            None => low,
        }
    }

    /// How many accelerators the batches of a run would have kept just busy enough.
    fn fed(&self, trial: Trial) -> f64 {
        trial.accelerators as f64 * trial.utilization / self.threshold
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A store that feeds `capacity` accelerators fully, and all fewer.
    fn search(capacity: f64, threshold: f64, guess: usize) -> (Search, usize) {
        let mut search = Search::new(threshold, guess);
        let mut runs = 0;
        while let Some(count) = search.next() {
            search.record(count, (capacity / count as f64).min(1.0));
            runs += 1;
            assert!(runs < 100, "{search:?}");
        }
        (search, runs)
    }

    proptest! {
        #[test]
        fn the_answer_is_what_the_store_feeds(
            capacity in 0.1..50.0f64, threshold in 0.5..0.95f64, guess in 1usize..80,
        ) {
            let (search, runs) = search(capacity, threshold, guess);
            let expected = (capacity / threshold).min(MOST as f64);
            prop_assert!((search.sustained() - expected).abs() < 1e-6, "{search:?}");
            prop_assert!(runs <= 14, "{runs}");
        }

        #[test]
        fn it_ends_whatever_runs_find(
            threshold in 0.5..0.95f64, guess in 1usize..80,
            found in proptest::collection::vec(0.0..1.0f64, 100),
        ) {
            let mut search = Search::new(threshold, guess);
            let mut found = found.into_iter();
            while let Some(count) = search.next() {
                prop_assert!((1..=MOST).contains(&count));
                let Some(utilization) = found.next() else {
                    return Err(TestCaseError::fail("it does not end"));
                };
                search.record(count, utilization);
            }
            prop_assert!((0.0..=MOST as f64).contains(&search.sustained()));
        }
    }

    #[test]
    fn a_good_guess_needs_few_runs() {
        let (found, runs) = search(14.85, 0.9, 17);
        assert!((found.sustained() - 16.5).abs() < 1e-9);
        assert_eq!(runs, 2, "one that is too many, one that is not");
        assert!(search(14.85, 0.9, 30).1 <= 3);
    }
}
