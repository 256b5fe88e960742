//! `--option key=value`: what a UFS driver is told, and the flags that say some of it.

use std::collections::BTreeMap;

use millpond_process::UsageError;

/// What a store may cost: options of its driver that have flags of their own.
#[derive(Debug, Default, Clone, clap::Args)]
pub(crate) struct BudgetArgs {
    /// Bytes per second that each process, node or client, may read from the store, like
    /// 1GB/s, or unlimited
    #[arg(long, value_name = "BYTES/s")]
    ufs_bandwidth: Option<String>,
    /// Requests per second that each process may send to the store, or unlimited
    #[arg(long, value_name = "N")]
    ufs_requests: Option<String>,
}

impl BudgetArgs {
    /// `options` and what these flags say.
    pub(crate) fn and(&self, options: &[(String, String)]) -> Vec<(String, String)> {
        let flags = [
            ("ufs_bandwidth", &self.ufs_bandwidth),
            ("ufs_requests", &self.ufs_requests),
        ];
        let flags = flags.into_iter().filter_map(|(key, value)| {
            let value = value.as_ref()?;
            Some((key.to_owned(), value.clone()))
        });
        options.iter().cloned().chain(flags).collect()
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.ufs_bandwidth.is_none() && self.ufs_requests.is_none()
    }
}

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
    fn a_flag_is_an_option_by_another_name() {
        let budget = BudgetArgs {
            ufs_bandwidth: Some("1GB/s".to_owned()),
            ufs_requests: None,
        };
        let region = ("region".to_owned(), "eu-1".to_owned());
        let map = option_map(budget.and(&[region])).unwrap();
        assert_eq!((map.len(), map["ufs_bandwidth"].as_str()), (2, "1GB/s"));
        let twice = ("ufs_bandwidth".to_owned(), "2GB/s".to_owned());
        let error = option_map(budget.and(&[twice])).unwrap_err();
        assert!(error.to_string().contains("ufs_bandwidth"), "{error}");
        assert!(!budget.is_empty() && BudgetArgs::default().is_empty());
    }

    #[test]
    fn a_repeated_option_is_refused() {
        let pair = |v: &str| ("region".to_owned(), v.to_owned());
        let error = option_map(vec![pair("a"), pair("b")]).unwrap_err();
        assert!(error.to_string().contains("region"), "{error}");
    }
}
