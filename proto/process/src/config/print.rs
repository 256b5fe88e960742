//! `--print-config`: the settings as TOML that can be read back.

use figment::value::{Dict, Num, Value};
use millpond_proto::mount::is_secret_option;
use serde::Serialize;

use super::{ConfigError, dict_of};

/// `settings` as TOML, sections in order of their names, secret values replaced by `***`,
/// absent ones as comments.
///
/// # Errors
/// [`ConfigError::Value`] for settings that are no table.
pub fn to_toml(settings: &impl Serialize) -> Result<String, ConfigError> {
    let mut out = String::new();
    section(&mut out, "", &dict_of(settings)?);
    Ok(out)
}

/// TOML wants a table's plain keys before its sub-tables.
fn section(out: &mut String, name: &str, dict: &Dict) {
    for (key, value) in dict {
        match value {
            Value::Dict(..) => {}
            Value::Empty(..) => out.push_str(&format!("# {} is not set\n", quoted_key(key))),
            _ if is_secret_option(key) => out.push_str(&format!("{} = \"***\"\n", quoted_key(key))),
            value => out.push_str(&format!("{} = {}\n", quoted_key(key), inline(value))),
        }
    }
    for (key, value) in dict {
        if let Value::Dict(_, below) = value {
            let key = quoted_key(key);
            let name = if name.is_empty() {
                key
            } else {
                format!("{name}.{key}")
            };
            out.push_str(&format!("\n[{name}]\n"));
            section(out, &name, below);
        }
    }
}

fn inline(value: &Value) -> String {
    match value {
        Value::String(_, text) => quoted(text),
        Value::Char(_, c) => quoted(&c.to_string()),
        Value::Bool(_, flag) => flag.to_string(),
        Value::Num(_, Num::F32(n)) => format!("{n:?}"),
        Value::Num(_, Num::F64(n)) => format!("{n:?}"),
        Value::Num(_, n) => match (n.to_u128(), n.to_i128()) {
            (Some(n), _) => n.to_string(),
            (None, Some(n)) => n.to_string(),
            (None, None) => "0".to_owned(),
        },
        Value::Empty(..) => "\"\"".to_owned(),
        Value::Array(_, items) => {
            let items: Vec<_> = items.iter().map(inline).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Dict(_, dict) => {
            let pair = |(key, value): (&String, &Value)| {
                let shown = if is_secret_option(key) {
                    quoted("***")
                } else {
                    inline(value)
                };
                format!("{} = {shown}", quoted_key(key))
            };
            let items: Vec<_> = dict.iter().map(pair).collect();
            format!("{{ {} }}", items.join(", "))
        }
    }
}

fn quoted_key(key: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if !key.is_empty() && key.chars().all(bare) {
        key.to_owned()
    } else {
        quoted(key)
    }
}

/// A TOML basic string.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => out.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
