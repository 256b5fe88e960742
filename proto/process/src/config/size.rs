//! Sizes as people write them.

use std::fmt;
use std::str::FromStr;

use millpond_proto::ErrorKind;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A number of bytes, written `4MiB`, `20GiB`, `1.5GB`, `65536`.
///
/// - Binary units `KiB MiB GiB TiB PiB` (or `K M G T P`) and decimal ones `kB MB GB TB PB`,
///   upper or lower case, a space before the unit allowed.
/// - Exact: a size that is not a whole number of bytes, or needs more than 64 bits, is refused.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Size(pub u64);

impl Size {
    /// `n` mebibytes.
    pub const fn mib(n: u64) -> Self {
        Self(n << 20)
    }

    /// `n` gibibytes.
    pub const fn gib(n: u64) -> Self {
        Self(n << 30)
    }

    /// The number of bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

/// The text is not a size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a size: {why}; write a number with a unit, like 64MiB, 1GiB or 500MB")]
pub struct BadSize {
    text: String,
    why: &'static str,
}

impl BadSize {
    /// Always [`ErrorKind::Invalid`].
    pub const fn kind(&self) -> ErrorKind {
        ErrorKind::Invalid
    }
}

impl FromStr for Size {
    type Err = BadSize;

    fn from_str(text: &str) -> Result<Self, BadSize> {
        parse(text.trim()).map(Self).map_err(|why| BadSize {
            text: text.to_owned(),
            why,
        })
    }
}

fn parse(text: &str) -> Result<u64, &'static str> {
    if text.starts_with('-') {
        return Err("it is negative");
    }
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let scale = u128::from(scale(unit.trim()).ok_or("the unit is unknown")?);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() || (fraction.is_empty() && number.contains('.')) {
        return Err("it has no number");
    }
    if whole.len() > 20 || fraction.len() > 12 || fraction.contains('.') {
        return Err("the number is too long");
    }
    let whole: u128 = whole.parse().map_err(|_| "the number is malformed")?;
    let numerator: u128 = format!("0{fraction}")
        .parse()
        .map_err(|_| "the number is malformed")?;
    let denominator = 10u128.pow(fraction.len() as u32);
    let part = numerator * scale;
    if !part.is_multiple_of(denominator) {
        return Err("it is not a whole number of bytes");
    }
    u64::try_from(whole * scale + part / denominator).map_err(|_| "it is larger than 16 EiB")
}

fn scale(unit: &str) -> Option<u64> {
    Some(match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "ki" | "kib" => 1 << 10,
        "m" | "mi" | "mib" => 1 << 20,
        "g" | "gi" | "gib" => 1 << 30,
        "t" | "ti" | "tib" => 1 << 40,
        "p" | "pi" | "pib" => 1 << 50,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        "pb" => 1_000_000_000_000_000,
        _ => return None,
    })
}

/// The shortest text that reads back as the same size: in the largest binary unit that
/// divides it.
impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(&str, u32); 5] = [
            ("PiB", 50),
            ("TiB", 40),
            ("GiB", 30),
            ("MiB", 20),
            ("KiB", 10),
        ];
        let bytes = self.0;
        let unit = UNITS
            .iter()
            .find(|(_, bits)| bytes != 0 && bytes.trailing_zeros() >= *bits);
        match unit {
            Some((name, bits)) => write!(f, "{}{name}", bytes >> bits),
            None => write!(f, "{bytes}"),
        }
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SizeVisitor)
    }
}

struct SizeVisitor;

impl serde::de::Visitor<'_> for SizeVisitor {
    type Value = Size;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a size like 64MiB or a number of bytes")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Size, E> {
        text.parse().map_err(E::custom)
    }

    fn visit_u64<E: serde::de::Error>(self, bytes: u64) -> Result<Size, E> {
        Ok(Size(bytes))
    }

    fn visit_i64<E: serde::de::Error>(self, bytes: i64) -> Result<Size, E> {
        bytes.to_string().parse().map_err(E::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_exactly() {
        let cases = [
            ("0", 0),
            ("65536", 65536),
            ("4MiB", 4 << 20),
            ("4 mib", 4 << 20),
            ("4M", 4 << 20),
            ("1.5GiB", 3 << 29),
            ("1.5kB", 1500),
            ("20GB", 20_000_000_000),
            ("9007199254740993", 9_007_199_254_740_993),
            ("18446744073709551615", u64::MAX),
        ];
        for (text, bytes) in cases {
            assert_eq!(text.parse(), Ok(Size(bytes)), "{text}");
        }
    }

    #[test]
    fn nonsense_is_refused_with_the_reason() {
        let cases = [
            ("", "no number"),
            ("MiB", "no number"),
            ("-1MiB", "negative"),
            ("4 elephants", "unit"),
            ("1.MiB", "no number"),
            ("0.3B", "whole number"),
            ("1e9", "unit"),
            ("1.2.3", "too long"),
            ("17179869184GiB", "16 EiB"),
        ];
        for (text, why) in cases {
            let error = text.parse::<Size>().unwrap_err().to_string();
            assert!(
                error.contains(why) && error.contains("64MiB"),
                "{text}: {error}"
            );
        }
    }

    #[test]
    fn printed_sizes_read_back() {
        for bytes in [
            0,
            1,
            1023,
            1024,
            1536,
            4 << 20,
            3 << 29,
            20 << 30,
            u64::MAX,
            1 << 63,
        ] {
            let printed = Size(bytes).to_string();
            assert_eq!(printed.parse(), Ok(Size(bytes)), "{printed}");
        }
        assert_eq!(Size::mib(4).to_string(), "4MiB");
        assert_eq!(Size::gib(20).to_string(), "20GiB");
    }

    #[test]
    fn sizes_are_strings_or_numbers_in_files() {
        assert_eq!(
            serde_json::from_str::<Size>("\"1GiB\"").unwrap(),
            Size::gib(1)
        );
        assert_eq!(serde_json::from_str::<Size>("12").unwrap(), Size(12));
        assert!(serde_json::from_str::<Size>("-12").is_err());
        assert_eq!(serde_json::to_string(&Size::mib(8)).unwrap(), "\"8MiB\"");
    }
}
