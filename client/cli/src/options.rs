//! `--option key=value`: what a UFS driver is told.

use std::collections::BTreeMap;

use millpond_process::UsageError;

/// `key=value` as a pair; the value may hold further `=`.
pub(crate) fn parse_option(text: &str) -> Result<(String, String), UsageError> {
    match text.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => {
            Ok((key.trim().to_owned(), value.to_owned()))
        }
        // The text is not repeated: it may be a secret.
        _ => Err(UsageError::new(
            "an option is written key=value, like endpoint=http://localhost:9000",
        )),
    }
}

/// The pairs as a map.
///
/// # Errors
/// [`UsageError`] for a key that comes twice.
pub(crate) fn option_map(
    pairs: Vec<(String, String)>,
) -> Result<BTreeMap<String, String>, UsageError> {
    let mut map = BTreeMap::new();
    for (key, value) in pairs {
        if map.insert(key.clone(), value).is_some() {
            return Err(UsageError(format!("option {key} is given twice")));
        }
    }
    Ok(map)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_key_and_value() {
        let pair = |k: &str, v: &str| Ok((k.to_owned(), v.to_owned()));
        assert_eq!(parse_option("region=eu-1"), pair("region", "eu-1"));
        assert_eq!(parse_option("sas_token=a=b="), pair("sas_token", "a=b="));
        assert_eq!(parse_option("empty="), pair("empty", ""));
        for bad in ["region", "=x", ""] {
            assert!(parse_option(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_repeated_option_is_refused() {
        let pair = |v: &str| ("region".to_owned(), v.to_owned());
        let error = option_map(vec![pair("a"), pair("b")]).unwrap_err();
        assert!(error.to_string().contains("region"), "{error}");
    }
}
