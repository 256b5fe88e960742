//! Keeps secrets out of texts that a person will see.

use std::fmt;

/// Replaces the secrets that it was given, and signatures in URLs, by `***`. Its own Debug
/// output shows only how many it holds.
#[derive(Clone, Default)]
pub(crate) struct Redactor {
    secrets: Vec<String>,
}

impl Redactor {
    pub(crate) fn new(secrets: impl IntoIterator<Item = String>) -> Self {
        let mut secrets: Vec<String> = secrets
            .into_iter()
            .filter(|secret| secret.len() >= SHORTEST)
            .collect();
        // Longer ones first, so that one that contains another goes as a whole.
        secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        Self { secrets }
    }

    pub(crate) fn scrub(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for secret in &self.secrets {
            if text.contains(secret.as_str()) {
                text = text.replace(secret.as_str(), "***");
            }
        }
        for parameter in SIGNED_PARAMETERS {
            text = blank_parameter(&text, parameter);
        }
        text
    }
}

impl fmt::Debug for Redactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Redactor({} secrets)", self.secrets.len())
    }
}

fn blank_parameter(text: &str, parameter: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(parameter) {
        let value = at + parameter.len();
        let end = rest[value..]
            .find(|c: char| c == '&' || c.is_whitespace() || matches!(c, ')' | '"' | '\''))
            .map_or(rest.len(), |len| value + len);
        out.push_str(&rest[..value]);
        out.push_str("***");
        rest = &rest[end..];
    }
    out.push_str(rest);
    out
}

/// Shorter texts would blank out parts of ordinary words; no store issues such secrets.
const SHORTEST: usize = 6;

const SIGNED_PARAMETERS: [&str; 4] = [
    "sig=",
    "X-Amz-Signature=",
    "X-Amz-Security-Token=",
    "X-Goog-Signature=",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_and_signatures_go() {
        let redactor = Redactor::new(["hunter2hunter2".into(), "hunter2".into()]);
        assert_eq!(
            redactor.scrub("key hunter2hunter2 and hunter2, https://h/x?sv=1&sig=abc%3D&y=2 end"),
            "key *** and ***, https://h/x?sv=1&sig=***&y=2 end"
        );
        assert!(!format!("{redactor:?}").contains("hunter2"));
    }
}
