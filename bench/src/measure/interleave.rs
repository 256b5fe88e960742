//! Runs of several things in turn: A B, B A, A B.
//!
//! A shared machine drifts: it is faster now than in a minute. Measured one after the other,
//! two things of equal speed differ by that drift; measured in turn, with the order reversed
//! each round, both see the same machine.

use std::fmt;

use anyhow::{Context, Result};

use super::interrupt;
use super::sample::Sample;

/// One thing to measure.
pub struct Arm<'a> {
    name: String,
    run: Box<dyn FnMut(usize) -> Result<Sample> + 'a>,
}

impl<'a> Arm<'a> {
    /// `run` is called once each round, with the number of the round from 0.
    pub fn new(name: impl Into<String>, run: impl FnMut(usize) -> Result<Sample> + 'a) -> Self {
        Self {
            name: name.into(),
            run: Box::new(run),
        }
    }

    /// What it is.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl fmt::Debug for Arm<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Arm").field(&self.name).finish()
    }
}

/// The samples of each arm, in the order of the arms and of the rounds.
///
/// # Errors
/// The first error of an arm, with its name.
pub fn interleave(rounds: usize, arms: &mut [Arm<'_>]) -> Result<Vec<Vec<Sample>>> {
    let mut samples: Vec<Vec<Sample>> = arms.iter().map(|_| Vec::new()).collect();
    for round in 0..rounds {
        let forward = round % 2 == 0;
        for step in 0..arms.len() {
            interrupt::check()?;
            let index = if forward { step } else { arms.len() - 1 - step };
            let arm = &mut arms[index];
            let sample = (arm.run)(round).with_context(|| format!("measuring {}", arm.name))?;
            samples[index].push(sample);
        }
    }
    Ok(samples)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    #[test]
    fn the_order_is_reversed_each_round() {
        let order = RefCell::new(String::new());
        let arm = |name: &'static str| {
            let order = &order;
            Arm::new(name, move |_| {
                order.borrow_mut().push_str(name);
                Ok(Sample::default())
            })
        };
        let samples = interleave(3, &mut [arm("a"), arm("b")]).unwrap();
        assert_eq!(*order.borrow(), "abbaab");
        assert_eq!((samples.len(), samples[1].len()), (2, 3));
    }

    #[test]
    fn an_error_names_its_arm() {
        let mut arms = [Arm::new("the disk", |_| anyhow::bail!("broken"))];
        let error = format!("{:#}", interleave(1, &mut arms).unwrap_err());
        assert!(
            error.contains("the disk") && error.contains("broken"),
            "{error}"
        );
    }
}
