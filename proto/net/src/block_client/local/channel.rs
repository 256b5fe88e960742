//! One connection to the Unix socket of a node on this host.

use std::io;
use std::os::fd::OwnedFd;

use bytes::BytesMut;
use millpond_proto::Epoch;
use millpond_proto::checksum::{crc32c, pieces};
use millpond_proto::wire::frame::Tier;
use millpond_proto::wire::local::{
    ANSWER_LEN, Answer, Ask, CHALLENGE_LEN, Challenge, Hello, LocalOffer, Shared,
};
use tokio::io::AsyncReadExt as _;
use tokio::net::UnixStream;
use tokio::time::Instant;

use super::super::response::Data;
use super::file::BlockFile;
use crate::local::{End, Secret, receive_all, send};

/// A connection whose other end has proved to be the node. Between two calls nothing is under
/// way on it; one that failed or was given up is not used again.
#[derive(Debug)]
pub(super) struct Channel {
    stream: UnixStream,
    /// When it was last used.
    pub(super) used: Instant,
}

/// What an answer brought.
#[derive(Debug)]
pub(super) enum Got {
    /// The block's file.
    File(BlockFile),
    /// The range, verified.
    Bytes(Data, Tier, Epoch),
    /// The range, which does not match its checksums.
    Corrupt,
    /// The node wants to be asked over QUIC.
    Elsewhere,
}

impl Channel {
    /// Connects, makes sure that the node is there that made `offer`, and shows that it was
    /// made to us.
    ///
    /// # Errors
    /// `PermissionDenied` when somebody else listens there; else as the system says.
    pub(super) async fn open(offer: &LocalOffer) -> io::Result<Self> {
        let stream = UnixStream::connect(format!("\0{}", offer.name)).await?;
        let secret = Secret(offer.secret);
        let hello = Hello {
            client: offer.client,
            nonce: rand::random(),
        };
        send(&stream, &hello.encode(), None).await?;
        let mut bytes = [0; CHALLENGE_LEN];
        receive_all(&stream, &mut bytes, &mut None).await?;
        let challenge = Challenge::decode(&bytes).map_err(malformed)?;
        let expected = secret.proof(End::Node, &hello.nonce, &challenge.nonce);
        if expected != challenge.proof {
            let why = "who listens there is not the node";
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
        }
        let proof = secret.proof(End::Client, &hello.nonce, &challenge.nonce);
        send(&stream, proof.as_bytes(), None).await?;
        Ok(Self {
            stream,
            used: Instant::now(),
        })
    }

    /// Asks for a range.
    ///
    /// # Errors
    /// When the connection broke, or what came is no answer to that.
    pub(super) async fn ask(&mut self, ask: &Ask) -> io::Result<Got> {
        send(&self.stream, &ask.encode(), None).await?;
        let (mut head, mut descriptor) = ([0; ANSWER_LEN], None);
        receive_all(&self.stream, &mut head, &mut descriptor).await?;
        let answer = Answer::decode(&head, ask).map_err(malformed)?;
        let mut sums = vec![0; answer.checksums_len()];
        receive_all(&self.stream, &mut sums, &mut descriptor).await?;
        let (words, _) = sums.as_chunks::<4>();
        let sums: Vec<u32> = words.iter().map(|word| u32::from_le_bytes(*word)).collect();
        let got = match answer.what {
            Shared::Elsewhere => Got::Elsewhere,
            Shared::File { start, len } => {
                let file: OwnedFd = descriptor.ok_or_else(|| malformed("no descriptor came"))?;
                let (tier, epoch) = (answer.tier, answer.epoch);
                Got::File(BlockFile::new(file, start, len, sums, tier, epoch)?)
            }
            Shared::Bytes { .. } => match self.data(ask, sums).await? {
                Some(data) => Got::Bytes(data, answer.tier, answer.epoch),
                None => Got::Corrupt,
            },
        };
        self.used = Instant::now();
        Ok(got)
    }

    /// Receives the range; none if it does not match `expected`.
    async fn data(&mut self, ask: &Ask, expected: Vec<u32>) -> io::Result<Option<Data>> {
        let len = ask.len as usize;
        let mut bytes = BytesMut::with_capacity(len);
        let mut rest = (&mut self.stream).take(u64::from(ask.len));
        let mut todo = pieces(ask.offset, ask.len).zip(&expected).peekable();
        let mut right = true;
        while bytes.len() < len {
            if rest.read_buf(&mut bytes).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            // Each piece is summed as soon as it is whole, while it is in the CPU's cache.
            let whole = |start: u32, len: u32| (start + len) as usize <= bytes.len();
            while let Some((piece, sum)) = todo.next_if(|(p, _)| whole(p.start, p.len)) {
                let start = piece.start as usize;
                right &= crc32c(&bytes[start..start + piece.len as usize]) == *sum;
            }
        }
        Ok(right.then(|| Data {
            bytes: bytes.freeze(),
            checksums: expected,
        }))
    }
}

fn malformed(why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use millpond_proto::checksum::page_checksums;
    use millpond_proto::wire::local::{ASK_LEN, HELLO_LEN};
    use millpond_proto::{BlockId, FileId};
    use tokio::net::UnixListener;

    use super::*;

    const LEN: u32 = 100_000;

    fn content() -> Bytes {
        (0..LEN).map(|i| ((i * 13) >> 3) as u8).collect()
    }

    fn ask(offset: u32, len: u32) -> Ask {
        Ask {
            block: BlockId::new(FileId([1; 16]), 0),
            offset,
            len,
            damaged: false,
        }
    }

    fn offer() -> (UnixListener, LocalOffer) {
        let name = format!("millpond-test/{:032x}", rand::random::<u128>());
        let listener = UnixListener::bind(format!("\0{name}")).unwrap();
        let offer = LocalOffer {
            name,
            client: [1; 16],
            secret: [2; 32],
        };
        (listener, offer)
    }

    async fn greet(listener: &UnixListener, secret: [u8; 32]) -> UnixStream {
        let (stream, _) = listener.accept().await.unwrap();
        let mut bytes = [0; HELLO_LEN];
        receive_all(&stream, &mut bytes, &mut None).await.unwrap();
        let hello = Hello::decode(&bytes).unwrap();
        let nonce = [5; 32];
        let proof = Secret(secret).proof(End::Node, &hello.nonce, &nonce);
        let proof = *proof.as_bytes();
        send(&stream, &Challenge { proof, nonce }.encode(), None)
            .await
            .unwrap();
        stream
    }

    /// What a client makes of an answer of these bytes, with these descriptors.
    async fn answered(ask: &Ask, bytes: &[u8], file: Option<&std::fs::File>) -> io::Result<Got> {
        let (a, b) = UnixStream::pair().unwrap();
        let mut channel = Channel {
            stream: a,
            used: Instant::now(),
        };
        let node = async {
            let mut asked = [0; ASK_LEN];
            receive_all(&b, &mut asked, &mut None).await.unwrap();
            let _ = send(&b, bytes, file.map(std::os::fd::AsFd::as_fd)).await;
            drop(b);
        };
        let (got, ()) = tokio::join!(channel.ask(ask), node);
        got
    }

    fn frame(what: Shared, sums: &[u32], data: &[u8]) -> Vec<u8> {
        let answer = Answer {
            tier: Tier::Disk,
            epoch: Epoch(1),
            what,
        };
        let mut out = answer.encode().to_vec();
        out.extend(sums.iter().flat_map(|sum| sum.to_le_bytes()));
        out.extend_from_slice(data);
        out
    }

    #[tokio::test]
    async fn somebody_else_at_the_nodes_name_is_found_out() {
        let (listener, offer) = offer();
        let (opened, _stream) = tokio::join!(Channel::open(&offer), greet(&listener, [3; 32]));
        assert_eq!(opened.unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        let (opened, stream) = tokio::join!(Channel::open(&offer), greet(&listener, [2; 32]));
        opened.unwrap();
        receive_all(&stream, &mut [0; 32], &mut None).await.unwrap();
        drop(listener);
        let refused = Channel::open(&offer).await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    }

    #[tokio::test]
    async fn answers_are_taken_as_they_are_meant() {
        let content = content();
        let mut file = tempfile::tempfile().unwrap();
        io::Write::write_all(&mut file, &content).unwrap();
        let sums = page_checksums(&content);
        let whole = frame(Shared::File { start: 0, len: LEN }, &sums, &[]);
        let got = answered(&ask(10, 20), &whole, Some(&file)).await.unwrap();
        assert!(matches!(got, Got::File(_)));
        let (len, pieces) = (20, 1);
        let part = &content[10..30];
        let bytes = frame(Shared::Bytes { len, pieces }, &[crc32c(part)], part);
        match answered(&ask(10, 20), &bytes, None).await.unwrap() {
            Got::Bytes(data, Tier::Disk, Epoch(1)) => assert_eq!(data.bytes, part),
            other => unreachable!("{other:?}"),
        }
        let wrong = frame(Shared::Bytes { len, pieces }, &[crc32c(part) ^ 1], part);
        let got = answered(&ask(10, 20), &wrong, None).await.unwrap();
        assert!(matches!(got, Got::Corrupt));
        let none = frame(Shared::Elsewhere, &[], &[]);
        let got = answered(&ask(10, 20), &none, None).await.unwrap();
        assert!(matches!(got, Got::Elsewhere));
    }

    #[tokio::test]
    async fn answers_that_make_no_sense_are_errors() {
        let sums = page_checksums(&content());
        let empty = tempfile::tempfile().unwrap();
        let what = Shared::File { start: 0, len: LEN };
        let file = frame(what, &sums, &[]);
        let (len, pieces) = (20, 1);
        let bytes = frame(Shared::Bytes { len, pieces }, &[1], &[0; 20]);
        let cases: [(&[u8], bool); 6] = [
            (b"", false),
            // No descriptor; one of a file that is too short; checksums that are cut short.
            (&file, false),
            (&file, true),
            (&file[..file.len() - 1], true),
            (&bytes[..bytes.len() - 1], false),
            (&[7; 300], false),
        ];
        for (bytes, with) in cases {
            let got = answered(&ask(0, 20), bytes, with.then_some(&empty)).await;
            assert!(got.is_err(), "{} bytes: {got:?}", bytes.len());
        }
    }
}
