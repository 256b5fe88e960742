//! Refuses every change.

use std::ops::Range;
use std::sync::Arc;

use futures::stream::BoxStream;
use millpond_proto::{FileVersion, Refusal};

use super::{Ask, Layer};
use crate::error::{Op, UfsError};
use crate::ufs::{ByteStream, Ufs};
use crate::write::Abilities;

/// A store that the mount does not write to, whatever it could.
#[derive(Debug, Clone)]
pub(crate) struct ReadOnly {
    inner: Arc<dyn Ufs>,
}

impl ReadOnly {
    pub(crate) fn new(inner: Arc<dyn Ufs>) -> Self {
        Self { inner }
    }
}

impl Layer for ReadOnly {
    fn inner(&self) -> &Arc<dyn Ufs> {
        &self.inner
    }

    async fn around<T: Send>(
        &self,
        ask: Ask<'_>,
        call: impl Future<Output = Result<T, UfsError>> + Send,
    ) -> Result<T, UfsError> {
        if !ask.op.changes() {
            return call.await;
        }
        Err(UfsError::refused(
            Refusal::ReadOnly,
            ask.op,
            self.inner.object_uri(ask.path),
            "the mount has the option read_only",
        ))
    }

    fn pages<T: Send + 'static>(
        &self,
        _: Op,
        _: &str,
        pages: BoxStream<'static, Result<T, UfsError>>,
    ) -> BoxStream<'static, Result<T, UfsError>> {
        pages
    }

    async fn read_through(
        &self,
        path: &str,
        version: &FileVersion,
        range: Range<u64>,
    ) -> Result<ByteStream, UfsError> {
        self.inner.read(path, version, range).await
    }

    fn abilities_through(&self) -> Abilities {
        Abilities::default()
    }
}
