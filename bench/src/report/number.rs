//! Values to words, the same everywhere: three significant digits, and a unit that keeps them
//! short.

use crate::measure::Spread;

/// `12.3 GB/s`, `1.23 ms`, `456 k files/s`. What has no unit (`ratio`) has none here.
pub(super) fn quantity(value: f64, unit: &str) -> String {
    let (value, unit) = match unit {
        "µs" => time(value / 1e6),
        "s" => time(value),
        "bytes" => bytes(value),
        "ratio" | "" => return ratio(value),
        _ => {
            let (value, prefix) = thousands(value);
            return format!("{} {prefix}{unit}", digits(value));
        }
    };
    format!("{} {unit}", digits(value))
}

/// Three decimals: ratios are compared with each other.
pub(super) fn ratio(value: f64) -> String {
    if value.abs() >= 100.0 {
        digits(value)
    } else {
        format!("{value:.3}")
    }
}

/// `± 3 %`; nothing for a figure that was taken once.
pub(super) fn noise(spread: &Spread) -> String {
    match spread.values.len() {
        0 | 1 => String::new(),
        _ => format!("± {}", percent(spread.noise())),
    }
}

/// `3 %`, `0.4 %`.
pub(super) fn percent(share: f64) -> String {
    let percent = share * 100.0;
    let decimals = usize::from((0.05..0.95).contains(&percent.abs()));
    format!("{percent:.decimals$} %")
}

/// `512 MiB`.
pub(super) fn byte_size(bytes: u64) -> String {
    quantity(bytes as f64, "bytes")
}

/// `4 min 12 s`.
pub(super) fn duration(seconds: f64) -> String {
    let whole = seconds.round().max(0.0) as u64;
    match (whole / 60, whole % 60) {
        (0, _) => quantity(seconds, "s"),
        (minutes, 0) => format!("{minutes} min"),
        (minutes, seconds) => format!("{minutes} min {seconds} s"),
    }
}

/// Three significant digits, and all before the point.
pub(super) fn digits(value: f64) -> String {
    let size = value.abs();
    let decimals = match size {
        _ if size == 0.0 || size >= 99.95 => 0,
        _ if size >= 9.995 => 1,
        _ if size >= 0.9995 => 2,
        _ if size >= 0.09995 => 3,
        _ => 4,
    };
    let text = format!("{value:.decimals$}");
    if decimals == 0 { grouped(&text) } else { text }
}

/// The value at a tick, no longer than it must be: `0.5`, `20`.
pub(super) fn tick(value: f64) -> String {
    let text = digits(value);
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        text
    }
}

/// Groups of three digits, from five digits on, apart by a narrow space.
fn grouped(text: &str) -> String {
    let (sign, number) = text
        .strip_prefix('-')
        .map_or(("", text), |rest| ("-", rest));
    if number.len() < 5 {
        return text.to_owned();
    }
    let mut grouped = sign.to_owned();
    for (index, digit) in number.chars().enumerate() {
        if index > 0 && (number.len() - index) % 3 == 0 {
            grouped.push('\u{202f}');
        }
        grouped.push(digit);
    }
    grouped
}

fn time(seconds: f64) -> (f64, &'static str) {
    match seconds.abs() {
        size if size == 0.0 || size >= 1.0 => (seconds, "s"),
        size if size >= 1e-3 => (seconds * 1e3, "ms"),
        size if size >= 1e-6 => (seconds * 1e6, "µs"),
        _ => (seconds * 1e9, "ns"),
    }
}

fn bytes(value: f64) -> (f64, &'static str) {
    match value.abs() {
        size if size >= (1u64 << 30) as f64 => (value / (1u64 << 30) as f64, "GiB"),
        size if size >= (1u64 << 20) as f64 => (value / (1u64 << 20) as f64, "MiB"),
        size if size >= 1024.0 => (value / 1024.0, "KiB"),
        _ => (value, "B"),
    }
}

fn thousands(value: f64) -> (f64, &'static str) {
    match value.abs() {
        size if size >= 1e7 => (value / 1e6, "M "),
        size if size >= 1e4 => (value / 1e3, "k "),
        _ => (value, ""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_keep_numbers_short() {
        for (value, unit, text) in [
            (0.0, "µs", "0 s"),
            (1.5, "µs", "1.50 µs"),
            (12_345.0, "µs", "12.3 ms"),
            (0.25, "µs", "250 ns"),
            (2.0, "s", "2.00 s"),
            (13.14, "GB/s", "13.1 GB/s"),
            (614_400.0, "files/s", "614 k files/s"),
            (9_876.0, "files/s", "9876 files/s"),
            (12_500_000.0, "lookups/s", "12.5 M lookups/s"),
            (1.5 * 1048576.0, "bytes", "1.50 MiB"),
            (0.85, "ratio", "0.850"),
            (0.004_56, "CPU s/GB", "0.0046 CPU s/GB"),
        ] {
            assert_eq!(quantity(value, unit), text);
        }
    }

    #[test]
    fn spreads_and_lengths_read_well() {
        assert_eq!(noise(&Spread::once(1.0)), "");
        assert_eq!(noise(&Spread::of([9.0, 10.0, 11.0]).unwrap()), "± 10 %");
        assert_eq!(noise(&Spread::of([1.0, 1.0]).unwrap()), "± 0 %");
        assert_eq!(
            [0.004, 0.000_01, 0.03].map(percent),
            ["0.4 %", "0 %", "3 %"]
        );
        assert_eq!(duration(252.0), "4 min 12 s");
        assert_eq!(duration(0.5), "500 ms");
        assert_eq!(
            [0.0, 0.25, 0.5, 1.0, 20.0, 0.001].map(tick),
            ["0", "0.25", "0.5", "1", "20", "0.001"]
        );
        assert_eq!(digits(1_234_567.0), "1\u{202f}234\u{202f}567");
    }
}
