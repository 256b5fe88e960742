//! The environment layer.

use figment::value::{Dict, Value};

/// The layers, in order of their names, of those `variables` that name a known key:
/// `(variable, table with that one key)`.
pub(super) fn layers(
    variables: impl Iterator<Item = (String, String)>,
    prefix: &str,
    known: &Dict,
) -> Vec<(String, Dict)> {
    let mut layers: Vec<_> = variables
        .filter_map(|(name, text)| {
            let key = name.strip_prefix(prefix)?.to_ascii_lowercase();
            let path: Vec<_> = key.split("__").collect();
            let dict = nested(&path, &text, known)?;
            Some((name, dict))
        })
        .collect();
    layers.sort_by(|a, b| a.0.cmp(&b.0));
    layers
}

/// The table that sets the key at `path` to `text`; none if there is no such key.
fn nested(path: &[&str], text: &str, known: &Dict) -> Option<Dict> {
    let (first, rest) = path.split_first()?;
    let value = match (known.get(*first), rest) {
        (Some(Value::Dict(_, below)), [free]) if below.is_empty() => {
            Dict::from([((*free).to_owned(), Value::from(text))]).into()
        }
        (Some(Value::Dict(_, below)), rest) if !rest.is_empty() => {
            nested(rest, text, below)?.into()
        }
        (Some(Value::Dict(..)) | None, _) => return None,
        (Some(expected), []) => typed(text, expected),
        (Some(_), _) => return None,
    };
    Some(Dict::from([((*first).to_owned(), value)]))
}

/// Text stays text where the default is text; elsewhere it is read as TOML would.
fn typed(text: &str, expected: &Value) -> Value {
    match expected {
        Value::String(..) => Value::from(text),
        _ => text.parse().unwrap_or_else(|_| Value::from(text)),
    }
}
