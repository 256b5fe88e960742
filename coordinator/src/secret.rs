//! The secret that the coordinators of one group share.
//!
//! Three things are derived from it (HKDF-SHA256, RFC 5869), each under its own label, so that
//! none tells anything of another:
//! - the key that seals the log and its snapshots on disk;
//! - the authority whose certificates the coordinators show each other;
//! - nothing else: nodes and clients never see it.

use std::fmt;
use std::fs::OpenOptions;
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use millpond_proto::ErrorKind;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hkdf::{HKDF_SHA256, KeyType, Prk, Salt};

/// The fewest characters of a secret. A generated one has 64, of 256 random bits.
pub const MIN_CHARS: usize = 32;

/// The most bytes of a secret's file.
const MAX_BYTES: u64 = 4096;

/// The name of the file in the data directory of a coordinator that was given none.
const FILE: &str = "group.secret";

/// What the coordinators of one group share. Prints as nothing.
#[derive(Clone)]
pub struct GroupSecret {
    key: Prk,
}

impl GroupSecret {
    /// Reads the secret in the file `path`.
    ///
    /// # Errors
    /// [`SecretError`]: the file cannot be read, can be read by others, or is too short.
    pub fn read(path: &Path) -> Result<Self, SecretError> {
        let failed = |source| SecretError::Io {
            path: path.to_owned(),
            source,
        };
        let file = OpenOptions::new().read(true).open(path).map_err(failed)?;
        let mode = file.metadata().map_err(failed)?.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(SecretError::Open {
                path: path.to_owned(),
                mode,
            });
        }
        let mut text = String::new();
        file.take(MAX_BYTES)
            .read_to_string(&mut text)
            .map_err(failed)?;
        let text = text.trim();
        if text.chars().count() < MIN_CHARS {
            return Err(SecretError::Short {
                path: path.to_owned(),
            });
        }
        Ok(Self::of(text.as_bytes()))
    }

    /// Reads the secret kept in the data directory `dir`, or draws one and keeps it there,
    /// readable by its owner alone.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn read_or_draw(dir: &Path) -> Result<Self, SecretError> {
        let path = dir.join(FILE);
        if !path.exists() {
            let text = format!("{}\n", hex::encode(rand::random::<[u8; 32]>()));
            draw(&path, &text).map_err(|source| SecretError::Io {
                path: path.clone(),
                source,
            })?;
            tracing::info!(path = %path.display(), "new secret of the group of coordinators");
        }
        Self::read(&path)
    }

    fn of(text: &[u8]) -> Self {
        Self {
            key: Salt::new(HKDF_SHA256, b"millpond coordinators").extract(text),
        }
    }

    /// Seals what is kept on disk.
    pub fn sealer(&self) -> Sealer {
        Sealer {
            key: LessSafeKey::new(UnboundKey::from(
                self.key
                    .expand(&[b"at rest"], &AES_256_GCM)
                    .unwrap_or_else(|_| unreachable!("the length is that of a key")),
            )),
        }
    }

    /// The seed of the key with which the coordinators' own certificates are signed.
    pub fn authority_seed(&self) -> [u8; 32] {
        let mut seed = [0; 32];
        self.key
            .expand(&[b"authority"], Seed)
            .and_then(|okm| okm.fill(&mut seed))
            .unwrap_or_else(|_| unreachable!("32 bytes can be drawn from SHA-256"));
        seed
    }
}

/// Written aside and renamed: a crash leaves the whole secret or none.
fn draw(path: &Path, text: &str) -> io::Result<()> {
    let aside = path.with_extension("new");
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&aside)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&aside, path)
}

struct Seed;

impl KeyType for Seed {
    fn len(&self) -> usize {
        32
    }
}

impl fmt::Debug for GroupSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("GroupSecret")
    }
}

/// Seals values that are kept on disk: AES-256-GCM with a random nonce each, which is safe for
/// 2³² values (NIST SP 800-38D, 8.3), more than any log will have.
#[derive(Clone)]
pub struct Sealer {
    key: LessSafeKey,
}

/// The first byte of a sealed value. JSON, as earlier releases wrote it, never begins so.
const SEALED: u8 = 1;

impl Sealer {
    /// `plain`, sealed.
    pub fn seal(&self, plain: &[u8]) -> Vec<u8> {
        let nonce: [u8; NONCE_LEN] = rand::random();
        let mut body = plain.to_vec();
        self.key
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::empty(), &mut body)
            .unwrap_or_else(|_| unreachable!("values are far shorter than 64 GiB"));
        let mut sealed = Vec::with_capacity(1 + NONCE_LEN + body.len());
        sealed.push(SEALED);
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(&body);
        sealed
    }

    /// What was sealed; a value of an earlier release, which did not seal, as it is. None if it
    /// was sealed with another secret, or damaged.
    pub fn open(&self, stored: &[u8]) -> Option<Vec<u8>> {
        let Some((&SEALED, sealed)) = stored.split_first() else {
            return Some(stored.to_vec());
        };
        let (nonce, body) = sealed.split_at_checked(NONCE_LEN)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut body = body.to_vec();
        let plain = self
            .key
            .open_in_place(nonce, Aad::empty(), &mut body)
            .ok()?;
        let len = plain.len();
        body.truncate(len);
        Some(body)
    }
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sealer")
    }
}

/// The group's secret cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The file cannot be read or made.
    #[error("cannot use the group's secret in {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Others can read it.
    #[error(
        "the group's secret in {} can be read by others (mode {mode:o}); chmod 600 it, and draw a \
         new one if somebody may have seen it",
        path.display()
    )]
    Open {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It is too easily guessed.
    #[error(
        "the group's secret in {} has fewer than {MIN_CHARS} characters; make one with: openssl \
         rand -hex 32",
        path.display()
    )]
    Short {
        /// The file.
        path: PathBuf,
    },
}

impl SecretError {
    /// What the caller should do.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Io { source, .. } => match source.kind() {
                io::ErrorKind::PermissionDenied => ErrorKind::Denied,
                io::ErrorKind::NotFound => ErrorKind::NotFound,
                _ => ErrorKind::Unavailable,
            },
            Self::Open { .. } => ErrorKind::Denied,
            Self::Short { .. } => ErrorKind::Invalid,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &str) -> GroupSecret {
        GroupSecret::of(text.as_bytes())
    }

    #[test]
    fn only_the_same_secret_opens_what_was_sealed() {
        let sealed = secret("a").sealer().seal(b"{\"plain\":1}");
        assert!(!sealed.windows(5).any(|w| w == b"plain"));
        let open = |text: &str, bytes: &[u8]| secret(text).sealer().open(bytes);
        assert_eq!(open("a", &sealed).unwrap(), b"{\"plain\":1}");
        assert_eq!(open("b", &sealed), None);
        for at in 1..sealed.len() {
            let mut damaged = sealed.clone();
            damaged[at] ^= 1;
            assert_eq!(open("a", &damaged), None, "byte {at}");
        }
        assert_eq!(open("a", &sealed[..5]), None);
        assert_eq!(open("a", b"{}").unwrap(), b"{}", "of an earlier release");
    }

    #[test]
    fn the_same_secret_gives_the_same_authority_and_another_another() {
        assert_eq!(secret("a").authority_seed(), secret("a").authority_seed());
        assert_ne!(secret("a").authority_seed(), secret("b").authority_seed());
    }

    #[test]
    fn a_drawn_secret_is_kept_and_private_and_an_open_or_short_one_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let drawn = GroupSecret::read_or_draw(dir.path()).unwrap();
        let again = GroupSecret::read_or_draw(dir.path()).unwrap();
        assert_eq!(drawn.authority_seed(), again.authority_seed());
        let path = dir.path().join(FILE);
        let set_mode = |mode| {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        set_mode(0o640);
        let error = GroupSecret::read(&path).unwrap_err();
        assert!(error.to_string().contains("chmod 600"), "{error}");
        set_mode(0o600);
        std::fs::write(&path, "short").unwrap();
        let error = GroupSecret::read(&path).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        let missing = GroupSecret::read(&dir.path().join("none")).unwrap_err();
        assert_eq!(missing.kind(), ErrorKind::NotFound);
    }
}
