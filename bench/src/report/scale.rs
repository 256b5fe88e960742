//! Values to places between 0 and 1.

/// An axis: where values lie between its two ends. What is outside lies at an end.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Scale {
    low: f64,
    high: f64,
    logarithmic: bool,
}

impl Scale {
    /// From 0 to at least `high`.
    pub(super) fn from_zero(high: f64) -> Self {
        let high = if high.is_finite() && high > 0.0 {
            high
        } else {
            1.0
        };
        Self {
            low: 0.0,
            high,
            logarithmic: false,
        }
    }

    /// In whole powers of ten around `low` and `high`.
    pub(super) fn powers(low: f64, high: f64) -> Self {
        let positive = |value: f64| {
            if value.is_finite() && value > 0.0 {
                value
            } else {
                1.0
            }
        };
        let (low, high) = (positive(low), positive(high));
        let (least, most) = (low.min(high), low.max(high));
        let low = 10f64.powf(least.log10().floor());
        let high = 10f64.powf(most.log10().ceil()).max(low * 10.0);
        Self {
            low,
            high,
            logarithmic: true,
        }
    }

    /// From 0 at the lower to 1 at the upper end.
    pub(super) fn at(&self, value: f64) -> f64 {
        let place = if self.logarithmic {
            (value.max(self.low) / self.low).ln() / (self.high / self.low).ln()
        } else {
            (value - self.low) / (self.high - self.low)
        };
        if place.is_nan() {
            0.0
        } else {
            place.clamp(0.0, 1.0)
        }
    }

    /// `62.5%`.
    pub(super) fn percent(&self, value: f64) -> String {
        percent(self.at(value))
    }

    /// Round values on the axis, at most about `count`: multiples of 1, 2, 2.5 or 5, or
    /// powers of ten.
    pub(super) fn ticks(&self, count: usize) -> Vec<f64> {
        let count = count.max(2);
        if self.logarithmic {
            let decades = (self.high / self.low).log10().round() as usize;
            let step = decades.div_ceil(count).max(1);
            let tick = |power: usize| self.low * 10f64.powi(power as i32);
            return (0..=decades).step_by(step).map(tick).collect();
        }
        let rough = (self.high - self.low) / count as f64;
        let unit = 10f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 2.5, 5.0, 10.0].map(|times| times * unit);
        let step = step
            .into_iter()
            .find(|step| *step >= rough * 0.999)
            .unwrap_or(unit * 10.0);
        let last = ((self.high - self.low) / step * 1.000_001).floor() as usize;
        (0..=last)
            .map(|index| self.low + step * index as f64)
            .collect()
    }
}

/// A share as CSS and SVG write it.
pub(super) fn percent(share: f64) -> String {
    format!("{:.2}%", share * 100.0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn scale() -> impl Strategy<Value = Scale> {
        prop_oneof![
            (-9.0..12.0f64).prop_map(|power| Scale::from_zero(10f64.powf(power))),
            (-9.0..9.0f64, -9.0..9.0f64)
                .prop_map(|(a, b)| Scale::powers(10f64.powf(a), 10f64.powf(b))),
        ]
    }

    proptest! {
        #[test]
        fn places_are_on_the_axis_and_in_order(scale in scale(), a in any::<f64>(), b in any::<f64>()) {
            let (low, high) = if a <= b { (a, b) } else { (b, a) };
            let (at_low, at_high) = (scale.at(low), scale.at(high));
            prop_assert!((0.0..=1.0).contains(&at_low) && (0.0..=1.0).contains(&at_high));
            if a.is_finite() && b.is_finite() {
                prop_assert!(at_low <= at_high);
            }
        }

        #[test]
        fn the_ends_are_the_ends(scale in scale()) {
            prop_assert!(scale.at(scale.low) == 0.0);
            prop_assert!((scale.at(scale.high) - 1.0).abs() < 1e-9);
        }

        #[test]
        fn ticks_are_few_evenly_spaced_and_on_the_axis(scale in scale(), count in 2usize..10) {
            let ticks = scale.ticks(count);
            prop_assert!(ticks.len() >= 2 && ticks.len() <= count + 2, "{ticks:?}");
            let places: Vec<f64> = ticks.iter().map(|tick| scale.at(*tick)).collect();
            let step = places[1] - places[0];
            prop_assert!(step > 0.0);
            for pair in places.windows(2) {
                prop_assert!((pair[1] - pair[0] - step).abs() < 1e-6, "{ticks:?} {places:?}");
            }
        }

        #[test]
        fn the_data_lie_between_the_powers(a in 1e-6..1e9f64, b in 1e-6..1e9f64) {
            let scale = Scale::powers(a, b);
            prop_assert!(scale.low <= a.min(b) * 1.000_001 && scale.high >= a.max(b) * 0.999_999);
        }
    }

    #[test]
    fn nonsense_gives_an_axis_all_the_same() {
        for value in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert_eq!(Scale::from_zero(value).high, 1.0);
            assert!(Scale::powers(value, value).ticks(4).len() >= 2);
        }
        assert_eq!(Scale::from_zero(1.0).percent(0.625), "62.50%");
        assert_eq!(Scale::from_zero(1.0).ticks(4), [0.0, 0.25, 0.5, 0.75, 1.0]);
    }
}
