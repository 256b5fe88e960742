//! Which keys exist.

use std::path::Path;

use figment::value::{Dict, Value};

use super::ConfigError;

/// How alike two keys must be (Jaro-Winkler, 0 to 1) for one to be offered for the other.
const ALIKE: f64 = 0.7;

/// Refuses the first key of `given` that `known` lacks. An empty table in `known` is a free
/// map and takes any key.
pub(super) fn check(given: &Dict, known: &Dict, file: &Path) -> Result<(), ConfigError> {
    check_below(given, known, file, "")
}

fn check_below(given: &Dict, known: &Dict, file: &Path, section: &str) -> Result<(), ConfigError> {
    for (name, value) in given {
        let key = join(section, name);
        let Some(expected) = known.get(name) else {
            let siblings = nearest(name, known.keys().map(String::as_str));
            return Err(ConfigError::UnknownKey {
                path: file.to_owned(),
                key,
                nearest: siblings.map(|sibling| join(section, &sibling)),
            });
        };
        if let (Value::Dict(_, below), Value::Dict(_, expected)) = (value, expected)
            && !expected.is_empty()
        {
            check_below(below, expected, file, &key)?;
        }
    }
    Ok(())
}

/// The member of `known` that looks most like `name`, if any looks like it at all.
pub(super) fn nearest<'k>(name: &str, known: impl Iterator<Item = &'k str>) -> Option<String> {
    known
        .map(|candidate| (strsim::jaro_winkler(name, candidate), candidate))
        .filter(|(alike, _)| *alike >= ALIKE)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate.to_owned())
}

/// `dict` without the values that are `None`, at any depth.
pub(super) fn without_empty(dict: Dict) -> Dict {
    dict.into_iter()
        .filter_map(|(key, value)| match value {
            Value::Empty(..) => None,
            Value::Dict(tag, below) => Some((key, Value::Dict(tag, without_empty(below)))),
            other => Some((key, other)),
        })
        .collect()
}

fn join(section: &str, key: &str) -> String {
    if section.is_empty() {
        key.to_owned()
    } else {
        format!("{section}.{key}")
    }
}
