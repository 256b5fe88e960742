//! The checksum that a store sends with an object, and whether the bytes have it.
//!
//! Such a checksum is of the object as it is stored, so it says something of an answer that
//! holds all of it, and nothing of a part. Of several the one that costs least is taken.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use crc_fast::{CrcAlgorithm, Digest as Crc};
use futures::StreamExt;
use md5::{Digest as _, Md5};
use millpond_proto::ErrorKind;
use reqwest::header::HeaderMap;

use crate::error::{Op, UfsError};
use crate::ufs::ByteStream;

/// What a store says that the bytes of an object sum up to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sum {
    algorithm: Algorithm,
    /// Most significant byte first.
    value: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Algorithm {
    Crc32c,
    Crc64Nvme,
    Crc32,
    Md5,
}

impl Sum {
    /// What the head of an answer says of the object that it holds all of.
    ///
    /// | header | of |
    /// |---|---|
    /// | `x-amz-checksum-crc32c`, `-crc64nvme`, `-crc32` | S3, unless they are composed of the sums of parts |
    /// | `x-goog-hash` | Google, unless it unpacked what is stored |
    /// | `x-ms-blob-content-md5`, `content-md5` | Azure and web servers |
    pub(crate) fn of(head: &HeaderMap) -> Option<Self> {
        let text = |name: &str| head.get(name)?.to_str().ok();
        let is_composite = text("x-amz-checksum-type").is_some_and(|kind| kind != "FULL_OBJECT");
        let is_unpacked = text("x-goog-stored-content-encoding").is_some_and(|e| e != "identity");
        let google = |key: &str| {
            let lists = head.get_all("x-goog-hash").into_iter();
            let texts = lists.filter_map(|list| list.to_str().ok());
            texts.flat_map(|list| list.split(',')).find_map(|pair| {
                let (name, value) = pair.trim().split_once('=')?;
                (name == key && !is_unpacked).then_some(value)
            })
        };
        let amazon = |name: &str| text(name).filter(|_| !is_composite);
        [
            (Algorithm::Crc32c, amazon("x-amz-checksum-crc32c")),
            (Algorithm::Crc32c, google("crc32c")),
            (Algorithm::Crc64Nvme, amazon("x-amz-checksum-crc64nvme")),
            (Algorithm::Crc32, amazon("x-amz-checksum-crc32")),
            (Algorithm::Md5, google("md5")),
            (Algorithm::Md5, text("x-ms-blob-content-md5")),
            (Algorithm::Md5, text("content-md5")),
        ]
        .into_iter()
        .find_map(|(algorithm, text)| {
            let value = BASE64_STANDARD.decode(text?).ok()?;
            (value.len() == algorithm.len()).then_some(Self { algorithm, value })
        })
    }

    /// `stream`, which is of `len` bytes, ended by an error if they do not have this sum. The
    /// piece with the last of them is only handed out if they have.
    pub(crate) fn verify(self, stream: ByteStream, len: u64, uri: String) -> ByteStream {
        let hasher = Hasher::new(self.algorithm);
        let state = (stream, hasher, 0, self, uri);
        futures::stream::try_unfold(
            state,
            move |(mut stream, mut hasher, mut seen, sum, uri)| async move {
                let Some(piece) = stream.next().await else {
                    return Ok(None);
                };
                let piece: Bytes = piece?;
                hasher.update(&piece);
                let before = seen;
                seen += piece.len() as u64;
                if before < len && seen >= len && hasher.value() != sum.value {
                    return Err(sum.mismatch(uri));
                }
                Ok(Some((piece, (stream, hasher, seen, sum, uri))))
            },
        )
        .boxed()
    }

    fn mismatch(&self, uri: String) -> UfsError {
        let name = self.algorithm.name();
        let cause = format!("the bytes do not have the {name} that the store sent with them");
        UfsError::new(ErrorKind::Corrupt, Op::Read, uri, cause)
    }
}

impl Algorithm {
    const fn len(self) -> usize {
        match self {
            Self::Crc32c | Self::Crc32 => 4,
            Self::Crc64Nvme => 8,
            Self::Md5 => 16,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Crc32c => "CRC32C",
            Self::Crc64Nvme => "CRC64NVME",
            Self::Crc32 => "CRC32",
            Self::Md5 => "MD5",
        }
    }
}

/// A sum on its way.
enum Hasher {
    Crc(Box<Crc>, usize),
    Md5(Box<Md5>),
}

impl Hasher {
    fn new(algorithm: Algorithm) -> Self {
        let crc = |kind| Self::Crc(Box::new(Crc::new(kind)), algorithm.len());
        match algorithm {
            Algorithm::Crc32c => crc(CrcAlgorithm::Crc32Iscsi),
            Algorithm::Crc32 => crc(CrcAlgorithm::Crc32IsoHdlc),
            Algorithm::Crc64Nvme => crc(CrcAlgorithm::Crc64Nvme),
            Algorithm::Md5 => Self::Md5(Box::new(Md5::new())),
        }
    }

    fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Crc(crc, _) => crc.update(bytes),
            Self::Md5(md5) => md5.update(bytes),
        }
    }

    fn value(&self) -> Vec<u8> {
        match self {
            Self::Crc(crc, len) => crc.finalize().to_be_bytes()[8 - len..].to_vec(),
            Self::Md5(md5) => (**md5).clone().finalize().to_vec(),
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::TryStreamExt;

    use super::*;

    fn head(fields: &[(&'static str, &str)]) -> HeaderMap {
        let mut head = HeaderMap::new();
        for (name, value) in fields {
            head.append(*name, value.parse().expect("a header's value"));
        }
        head
    }

    /// Of the bytes `123456789`, as the catalogues of these algorithms give them.
    const CHECKS: [(&str, &str); 7] = [
        ("x-amz-checksum-crc32c", "4waSgw=="),
        ("x-amz-checksum-crc64nvme", "rosUhgp5mIg="),
        ("x-amz-checksum-crc32", "y/Q5Jg=="),
        (
            "x-goog-hash",
            "crc32c=4waSgw==,md5=AAAAAAAAAAAAAAAAAAAAAA==",
        ),
        ("x-goog-hash", "md5=JfnnlDI7RTiF9RgfG2JNCw=="),
        ("x-ms-blob-content-md5", "JfnnlDI7RTiF9RgfG2JNCw=="),
        ("content-md5", "JfnnlDI7RTiF9RgfG2JNCw=="),
    ];

    async fn verified(sum: Sum, pieces: &[&'static str]) -> (String, Option<ErrorKind>) {
        let len = pieces.iter().map(|piece| piece.len() as u64).sum();
        let pieces: Vec<_> = pieces
            .iter()
            .map(|piece| Ok(Bytes::from_static(piece.as_bytes())))
            .collect();
        let stream = futures::stream::iter(pieces).boxed();
        let mut stream = sum.verify(stream, len, "u".into());
        let mut out = String::new();
        loop {
            match stream.try_next().await {
                Ok(Some(piece)) => out.push_str(std::str::from_utf8(&piece).expect("text")),
                Ok(None) => return (out, None),
                Err(error) => return (out, Some(error.kind())),
            }
        }
    }

    #[tokio::test]
    async fn right_bytes_pass_and_the_end_of_wrong_ones_is_held_back() {
        for check in CHECKS {
            let sum = Sum::of(&head(&[check])).expect("a sum");
            let right = verified(sum.clone(), &["1234", "", "56789"]).await;
            assert_eq!(right, ("123456789".to_owned(), None), "{check:?}");
            let wrong = verified(sum.clone(), &["1234", "66789"]).await;
            let corrupt = Some(ErrorKind::Corrupt);
            assert_eq!(wrong, ("1234".to_owned(), corrupt), "{check:?}");
            let swapped = verified(sum, &["2134", "56789"]).await;
            assert_eq!(swapped.1, corrupt, "{check:?}");
        }
    }

    #[test]
    fn sums_of_something_else_are_not_taken() {
        for fields in [
            &[
                ("x-amz-checksum-type", "COMPOSITE"),
                ("x-amz-checksum-crc32c", "4waSgw=="),
            ][..],
            &[("x-amz-checksum-crc32c", "4waSgw==-3")],
            &[
                ("x-goog-stored-content-encoding", "gzip"),
                ("x-goog-hash", "crc32c=4waSgw=="),
            ],
            &[("content-md5", "4waSgw==")],
            &[("content-md5", "no base64")],
            &[],
        ] {
            assert_eq!(Sum::of(&head(fields)), None, "{fields:?}");
        }
    }

    #[test]
    fn google_may_send_one_header_for_each_sum() {
        let both = head(&[
            ("x-goog-hash", "md5=JfnnlDI7RTiF9RgfG2JNCw=="),
            ("x-goog-hash", "crc32c=4waSgw=="),
        ]);
        let sum = Sum::of(&both).expect("two sums");
        assert_eq!(sum.algorithm, Algorithm::Crc32c);
    }
}
