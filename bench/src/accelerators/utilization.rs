//! What share of the time accelerators computed. Pure.
//!
//! MLPerf Storage's accelerator utilisation (AU) is the time that the steps should take to
//! compute over the time that passed. The load of the first step is left out there; here all
//! that happens before a window begins is, because runs are short and the readers begin with
//! empty queues.

/// The steps of one accelerator, and the window in which they count; seconds from any moment.
#[derive(Debug, Clone, Default)]
pub(super) struct Steps {
    /// When each began to compute, ascending.
    pub(super) starts: Vec<f64>,
}

/// From when to when.
#[derive(Debug, Clone, Copy)]
pub(super) struct Window {
    pub(super) from: f64,
    pub(super) to: f64,
}

impl Steps {
    /// Seconds in the window in which the accelerator computed, if a step takes `compute`.
    /// What it overslept counts as waiting.
    fn busy(&self, compute: f64, window: Window) -> f64 {
        let within = |start: &f64| {
            let (from, to) = (start.max(window.from), (start + compute).min(window.to));
            (to - from).max(0.0)
        };
        self.starts.iter().map(within).sum()
    }
}

/// The mean utilisation of all accelerators, from 0 to 1; 0 without any.
pub(super) fn utilization(accelerators: &[Steps], compute: f64, window: Window) -> f64 {
    let length = window.to - window.from;
    if accelerators.is_empty() || length <= 0.0 {
        return 0.0;
    }
    let busy: f64 = accelerators
        .iter()
        .map(|steps| steps.busy(compute, window))
        .sum();
    (busy / (length * accelerators.len() as f64)).min(1.0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WINDOW: Window = Window {
        from: 1.0,
        to: 11.0,
    };

    fn steps(starts: impl IntoIterator<Item = f64>) -> Steps {
        Steps {
            starts: starts.into_iter().collect(),
        }
    }

    #[test]
    fn steps_count_as_far_as_they_lie_in_the_window() {
        let au = |starts: &[f64]| utilization(&[steps(starts.iter().copied())], 2.0, WINDOW);
        let near = |found: f64, expected: f64| assert!((found - expected).abs() < 1e-12, "{found}");
        near(au(&[]), 0.0);
        near(au(&[4.0]), 0.2);
        near(au(&[0.0]), 0.1);
        near(au(&[10.5]), 0.05);
        near(au(&[-5.0, 12.0]), 0.0);
        near(au(&[0.0, 2.0, 4.0, 6.0, 8.0, 10.0]), 1.0);
        near(utilization(&[], 1.0, WINDOW), 0.0);
        near(
            utilization(&[steps([1.0])], 1.0, Window { from: 2.0, to: 2.0 }),
            0.0,
        );
    }

    proptest! {
        #[test]
        fn steady_steps_give_compute_over_period(
            compute in 0.01..1.0f64, wait in 0.0..1.0f64, accelerators in 1usize..5,
        ) {
            let period = compute + wait;
            let count = (WINDOW.to / period) as usize + 1;
            let one = steps((0..=count).map(|step| step as f64 * period));
            let found = utilization(&vec![one; accelerators], compute, WINDOW);
            // To within one step at each end.
            let edge = 2.0 * period / (WINDOW.to - WINDOW.from);
            prop_assert!((found - compute / period).abs() <= edge, "{found}");
        }

        #[test]
        fn it_is_a_share(
            starts in proptest::collection::vec(-5.0..20.0f64, 0..50), compute in 0.0..5.0f64,
        ) {
            let found = utilization(&[steps(starts)], compute, WINDOW);
            prop_assert!((0.0..=1.0).contains(&found));
        }

        #[test]
        fn an_idle_accelerator_halves_it(wait in 0.0..1.0f64) {
            let one = steps((0..40).map(|step| f64::from(step) * (0.5 + wait)));
            let alone = utilization(std::slice::from_ref(&one), 0.5, WINDOW);
            let beside = utilization(&[one, Steps::default()], 0.5, WINDOW);
            prop_assert!((beside - alone / 2.0).abs() < 1e-12);
        }
    }
}
