//! What a process shows that has no certificate yet.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use crate::{NetError, file};

/// A token: its name, its secret, and the fingerprint of the authority that it is good for.
///
/// As text: `millpond.ID.SECRET.FINGERPRINT`, each part hexadecimal. Whoever has it may ask for a
/// certificate of the role that it was made for. Prints without its secret.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    /// Its name.
    pub id: String,
    /// Its secret: 32 hexadecimal digits.
    pub secret: String,
    /// The SHA-256 of the authority's certificate.
    pub fingerprint: [u8; 32],
}

const SCHEME: &str = "millpond";

impl JoinToken {
    /// Reads the token in the file `path`.
    ///
    /// # Errors
    /// When the file cannot be read, or `Invalid` when it holds no token.
    pub fn read(path: &Path) -> Result<Self, NetError> {
        let damaged = |why: String| NetError::Damaged {
            path: path.to_owned(),
            why,
        };
        let text = file::read(path)?.ok_or_else(|| damaged("there is no such file".to_owned()))?;
        text.trim().parse().map_err(damaged)
    }

    /// The token as it is given to a process.
    pub fn text(&self) -> String {
        let Self {
            id,
            secret,
            fingerprint,
        } = self;
        let fingerprint: String = fingerprint.iter().map(|b| format!("{b:02x}")).collect();
        format!("{SCHEME}.{id}.{secret}.{fingerprint}")
    }

    /// What is sent to a coordinator, over TLS alone.
    pub fn bearer(&self) -> String {
        format!("Bearer {}.{}", self.id, self.secret)
    }

    /// The name and the secret in what was sent.
    pub fn from_bearer(text: &str) -> Option<(&str, &str)> {
        text.strip_prefix("Bearer ")?.split_once('.')
    }
}

impl FromStr for JoinToken {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            "it is no token: millpond token create makes one, millpond.ID.SECRET.FINGERPRINT"
                .to_owned()
        };
        let parts: Vec<_> = text.split('.').collect();
        let [SCHEME, id, secret, fingerprint] = parts.as_slice() else {
            return Err(wrong());
        };
        let is_hex = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_hexdigit());
        if !is_hex(id) || !is_hex(secret) || !is_hex(fingerprint) || fingerprint.len() != 64 {
            return Err(wrong());
        }
        let mut sum = [0; 32];
        for (i, byte) in sum.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&fingerprint[2 * i..2 * i + 2], 16).map_err(|_| wrong())?;
        }
        Ok(Self {
            id: (*id).to_owned(),
            secret: (*secret).to_owned(),
            fingerprint: sum,
        })
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinToken")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_survives_its_text_and_prints_without_its_secret() {
        let token = JoinToken {
            id: "0a1b".into(),
            secret: "c0ffee".repeat(5),
            fingerprint: [0xab; 32],
        };
        let text = token.text();
        assert_eq!(text.parse::<JoinToken>().unwrap(), token);
        assert!(!format!("{token:?}").contains("c0ffee"));
        let bearer = token.bearer();
        assert_eq!(
            JoinToken::from_bearer(&bearer),
            Some(("0a1b", &*token.secret))
        );
        let short = &text[..text.len() - 1];
        for wrong in [
            "",
            "millpond.a.b",
            "other.0a.0b.0c",
            short,
            &text.replace("0a1b", "é"),
        ] {
            assert!(wrong.parse::<JoinToken>().is_err(), "{wrong}");
        }
    }
}
