//! Exactly as many bytes as were asked for, or an error.

use bytes::Bytes;
use futures::StreamExt;
use millpond_proto::ErrorKind;

use crate::error::{Op, UfsError};
use crate::ufs::ByteStream;

/// `stream`, ended by an error if it has fewer or more than `len` bytes.
pub(crate) fn exactly(stream: ByteStream, len: u64, uri: String) -> ByteStream {
    let state = (stream, 0_u64, uri);
    futures::stream::try_unfold(state, move |(mut stream, mut got, uri)| async move {
        let wrong = |got: u64| {
            UfsError::new(
                ErrorKind::Unavailable,
                Op::Read,
                uri.clone(),
                format!("the store sent {got} bytes instead of {len}"),
            )
        };
        let Some(piece) = stream.next().await else {
            return if got == len {
                Ok(None)
            } else {
                Err(wrong(got))
            };
        };
        let piece: Bytes = piece?;
        got += piece.len() as u64;
        if got > len {
            return Err(wrong(got));
        }
        Ok(Some((piece, (stream, got, uri))))
    })
    .boxed()
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::TryStreamExt;

    async fn collect(pieces: &[&'static str], len: u64) -> Result<Vec<Bytes>, UfsError> {
        let pieces: Vec<_> = pieces
            .iter()
            .map(|piece| Ok(Bytes::from_static(piece.as_bytes())))
            .collect();
        exactly(futures::stream::iter(pieces).boxed(), len, "u".into())
            .try_collect()
            .await
    }

    #[tokio::test]
    async fn short_and_long_bodies_are_errors() {
        assert!(collect(&["ab", "c"], 3).await.is_ok());
        for len in [2, 4] {
            let error = collect(&["ab", "c"], len).await.expect_err("wrong length");
            assert_eq!(error.kind(), ErrorKind::Unavailable);
        }
    }
}
