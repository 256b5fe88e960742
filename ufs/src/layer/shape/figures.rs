//! The figures of a shape.

use std::time::Duration;

use crate::error::UfsError;
use crate::options::OptionSet;

use super::preset;

/// How slow, narrow and unreliable a store is. `None` is without a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Shape {
    /// Half of all requests have their first byte after no longer than this.
    pub(crate) latency: Duration,
    /// 99 of 100 do; not less than `latency`.
    pub(crate) latency_p99: Duration,
    /// Bytes per second of each read, above 0.
    pub(crate) stream_bandwidth: Option<u64>,
    /// Bytes per second of all reads together, above 0.
    pub(crate) total_bandwidth: Option<u64>,
    /// Requests per second, above 0.
    pub(crate) request_rate: Option<u32>,
    /// So many of a million requests fail.
    pub(crate) failing_ppm: u32,
    /// Chooses latencies and failures.
    pub(crate) seed: u64,
}

impl Shape {
    /// A store without any limit.
    pub(crate) const NONE: Self = Self {
        latency: Duration::ZERO,
        latency_p99: Duration::ZERO,
        stream_bandwidth: None,
        total_bandwidth: None,
        request_rate: None,
        failing_ppm: 0,
        seed: 1,
    };

    /// The shape that `options` ask for: the preset of the option `shape`, changed by the
    /// options `shape.…`. `None` where they ask for nothing.
    ///
    /// # Errors
    /// `Invalid` for a preset that does not exist and for a value that is none.
    pub(crate) fn of(options: &OptionSet<'_>) -> Result<Option<Self>, UfsError> {
        let preset = match options.text("shape") {
            None => Self::NONE,
            Some(name) => preset::named(name).ok_or_else(|| {
                let known = preset::names().collect::<Vec<_>>().join(", ");
                options.wrong("shape", format_args!("{name:?} is not one of {known}"))
            })?,
        };
        let (latency, latency_p99) = latencies(options, preset)?;
        let rate = options.number(
            "shape.error_rate",
            f64::from(preset.failing_ppm) / 1e6,
            0.0,
            1.0,
        )?;
        let shape = Self {
            latency,
            latency_p99,
            stream_bandwidth: options
                .bandwidth("shape.stream_bandwidth", preset.stream_bandwidth)?,
            total_bandwidth: options.bandwidth("shape.total_bandwidth", preset.total_bandwidth)?,
            request_rate: options.request_rate("shape.request_rate", preset.request_rate)?,
            failing_ppm: (rate * 1e6).round() as u32,
            seed: options.number("shape.seed", preset.seed, 0, u64::MAX)?,
        };
        let idle = Self {
            seed: shape.seed,
            ..Self::NONE
        };
        Ok((shape != idle).then_some(shape))
    }
}

/// A median that is given moves the tail by the same factor, unless that is given too.
fn latencies(options: &OptionSet<'_>, preset: Shape) -> Result<(Duration, Duration), UfsError> {
    let parse = |key, default| {
        options.parsed(key, default, "a duration such as 30ms", |text| {
            humantime::parse_duration(text).ok()
        })
    };
    let median = parse("shape.latency", preset.latency)?;
    let tail = match preset.latency.is_zero() {
        true => median,
        false => median.mul_f64(preset.latency_p99.as_secs_f64() / preset.latency.as_secs_f64()),
    };
    let p99 = parse("shape.latency_p99", tail)?;
    if p99 < median {
        return Err(options.wrong(
            "shape.latency_p99",
            format_args!("{p99:?} is less than the median {median:?}"),
        ));
    }
    // A logarithm of zero is no tail.
    if median.is_zero() && !p99.is_zero() {
        return Err(options.wrong("shape.latency_p99", "it needs shape.latency above zero"));
    }
    Ok((median, p99))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::uri::Scheme;

    fn shape(pairs: &[(&str, &str)]) -> Result<Option<Shape>, String> {
        let values: BTreeMap<String, String> = pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        let set = OptionSet::new("file:///d".into(), Scheme::File, &values).unwrap();
        Shape::of(&set).map_err(|error| error.to_string())
    }

    #[test]
    fn options_change_a_preset() {
        assert_eq!(shape(&[]), Ok(None));
        assert_eq!(shape(&[("shape", "none"), ("shape.seed", "7")]), Ok(None));
        let preset = preset::named("s3-same-region").unwrap();
        assert_eq!(shape(&[("shape", "s3-same-region")]), Ok(Some(preset)));
        let changed = shape(&[
            ("shape", "s3-same-region"),
            ("shape.latency", "60ms"),
            ("shape.total_bandwidth", "32MB/s"),
            ("shape.stream_bandwidth", "unlimited"),
            ("shape.request_rate", "unlimited"),
            ("shape.error_rate", "0.01"),
            ("shape.seed", "9"),
        ]);
        let expected = Shape {
            latency: preset.latency * 2,
            latency_p99: preset.latency_p99 * 2,
            stream_bandwidth: None,
            total_bandwidth: Some(32_000_000),
            request_rate: None,
            failing_ppm: 10_000,
            seed: 9,
        };
        assert_eq!(changed, Ok(Some(expected)));
    }

    #[test]
    fn options_alone_make_a_shape() {
        let only = shape(&[("shape.latency", "5ms"), ("shape.total_bandwidth", "1MiB")]);
        let expected = Shape {
            latency: Duration::from_millis(5),
            latency_p99: Duration::from_millis(5),
            total_bandwidth: Some(1 << 20),
            ..Shape::NONE
        };
        assert_eq!(only, Ok(Some(expected)));
    }

    #[test]
    fn wrong_values_say_what_is_expected() {
        for (key, value, expected) in [
            ("shape", "floppy", "s3-cross-region"),
            ("shape.latency", "soon", "a duration such as 30ms"),
            ("shape.stream_bandwidth", "0", "85MB/s"),
            ("shape.total_bandwidth", "fast", "unlimited"),
            ("shape.request_rate", "0", "above zero"),
            ("shape.error_rate", "2", "a number from 0 to 1"),
            ("shape.error_rate", "nan", "a number from 0 to 1"),
            ("shape.latency_p99", "1s", "shape.latency above zero"),
        ] {
            let error = shape(&[(key, value)]).unwrap_err();
            assert!(
                error.contains(key) && error.contains(expected),
                "{key}={value}: {error}"
            );
        }
        let error = shape(&[("shape.latency", "2s"), ("shape.latency_p99", "1s")]).unwrap_err();
        assert!(error.contains("less than the median"), "{error}");
    }
}
