//! The environment from which credentials may come, as a value.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

/// Environment variables and the home directory, taken once so that tests can hand in their
/// own and nothing below reads the process's state. Debug output shows names, not values.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Environment {
    variables: BTreeMap<String, String>,
    home: Option<PathBuf>,
}

impl Environment {
    /// The environment of this process: the variables that object stores use (`AWS_`,
    /// `GOOGLE_`, `AZURE_`), and the home directory. Variables that are not UTF-8 are left
    /// out.
    pub fn of_process() -> Self {
        let variables = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .filter(|(name, _)| PREFIXES.iter().any(|prefix| name.starts_with(prefix)))
            .collect();
        Self {
            variables,
            home: std::env::home_dir(),
        }
    }

    /// An environment of exactly these variables and this home directory.
    pub fn new(variables: BTreeMap<String, String>, home: Option<PathBuf>) -> Self {
        Self { variables, home }
    }

    /// The value of the variable `name`, unless it is unset or empty.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.variables
            .get(name)
            .map(String::as_str)
            .filter(|value| !value.is_empty())
    }

    /// The home directory.
    pub fn home(&self) -> Option<&Path> {
        self.home.as_deref()
    }

    /// This environment with the variables of a `.env` file laid over it.
    pub fn overlaid(&self, variables: BTreeMap<String, String>) -> Self {
        let mut all = self.clone();
        all.variables.extend(variables);
        all
    }
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Environment")
            .field("variables", &self.variables.keys())
            .field("home", &self.home)
            .finish()
    }
}

/// Reads the text of a `.env` file: `NAME=value` lines, an optional `export ` before them,
/// `#` comments, and values in single or double quotes (`\"`, `\\` and `\n` are understood
/// in double ones). Nothing is expanded.
///
/// # Errors
/// The number of the first line that is none of these.
pub fn parse_env_file(text: &str) -> Result<BTreeMap<String, String>, usize> {
    let mut variables = BTreeMap::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let line = line.strip_prefix("export ").unwrap_or(line);
        let (name, value) = line.split_once('=').ok_or(index + 1)?;
        let name = name.trim();
        let well_formed = !name.is_empty()
            && name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        if !well_formed {
            return Err(index + 1);
        }
        let value = parse_value(value.trim()).ok_or(index + 1)?;
        variables.insert(name.to_owned(), value);
    }
    Ok(variables)
}

fn parse_value(text: &str) -> Option<String> {
    if let Some(rest) = text.strip_prefix('\'') {
        let (value, after) = rest.split_once('\'')?;
        return only_comment(after).then(|| value.to_owned());
    }
    if let Some(rest) = text.strip_prefix('"') {
        let mut value = String::new();
        let mut chars = rest.chars();
        loop {
            match chars.next()? {
                '"' => return only_comment(chars.as_str()).then_some(value),
                '\\' => match chars.next()? {
                    'n' => value.push('\n'),
                    other => value.push(other),
                },
                other => value.push(other),
            }
        }
    }
    let value = text.split(" #").next().unwrap_or(text);
    Some(value.trim_end().to_owned())
}

fn only_comment(text: &str) -> bool {
    let text = text.trim_start();
    text.is_empty() || text.starts_with('#')
}

const PREFIXES: [&str; 3] = ["AWS_", "GOOGLE_", "AZURE_"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn env_file_takes_quotes_comments_and_export() {
        let text = "# keys\n\nexport AWS_ACCESS_KEY_ID=AKIA # mine\nAWS_SECRET_ACCESS_KEY='a#b'\n\
                    A=\"x \\\"y\\\"\"\nEMPTY=\n";
        let variables = parse_env_file(text).expect("well formed");
        assert_eq!(variables["AWS_ACCESS_KEY_ID"], "AKIA");
        assert_eq!(variables["AWS_SECRET_ACCESS_KEY"], "a#b");
        assert_eq!(variables["A"], "x \"y\"");
        assert_eq!(variables["EMPTY"], "");
    }

    #[test]
    fn env_file_error_gives_the_line() {
        assert_eq!(parse_env_file("A=1\nnonsense\n"), Err(2));
        assert_eq!(parse_env_file("A='open\n"), Err(1));
    }

    #[test]
    fn debug_shows_no_value() {
        let environment = Environment::new(
            BTreeMap::from([("AWS_SECRET_ACCESS_KEY".into(), "hunter2".into())]),
            None,
        );
        assert!(!format!("{environment:?}").contains("hunter2"));
    }
}
