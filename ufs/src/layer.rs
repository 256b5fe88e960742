//! Decorators: each wraps any [`Ufs`] and adds one thing.
//!
//! | module | adds |
//! |---|---|
//! | [`metered`] | counts and times |
//! | [`limited`] | so many calls at once, bytes and requests per second |
//! | [`deadline`] | an end to every call |
//! | [`read_only`] | a refusal of every change |
//! | [`shape`] | the slowness of another store |
//!
//! A [`Layer`] says what it does around a call, a page of a listing and a read; from that
//! every [`Layer`] is a [`Ufs`] whose every call goes through, so that a call that is added to
//! the trait cannot be forgotten in one of them.

mod deadline;
mod limited;
mod metered;
mod read_only;
mod shape;

use std::fmt::Debug;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use millpond_proto::FileVersion;

pub(crate) use deadline::Deadline;
pub(crate) use limited::{Gate, Limited, Rates, Valve};
pub(crate) use metered::Metered;
pub(crate) use read_only::ReadOnly;
pub(crate) use shape::{Shape, Shaped};

use crate::error::{Op, UfsError};
use crate::metadata::Metadata;
use crate::ufs::{ByteStream, Choice, EntryStream, Ufs};
use crate::write::{
    Abilities, AttributeChange, Attributes, Condition, RenameMode, Space, UnfinishedStream, Upload,
};

/// What a decorator does. Clones are the same decorator, for uploads keep one.
pub(crate) trait Layer: Debug + Clone + Send + Sync + 'static {
    /// What is decorated.
    fn inner(&self) -> &Arc<dyn Ufs>;

    /// Does its thing around `call`, which is what `ask` says.
    fn around<T: Send>(
        &self,
        ask: Ask<'_>,
        call: impl Future<Output = Result<T, UfsError>> + Send,
    ) -> impl Future<Output = Result<T, UfsError>> + Send;

    /// Does its thing around every page of a listing of `dir`.
    fn pages<T: Send + 'static>(
        &self,
        op: Op,
        dir: &str,
        pages: BoxStream<'static, Result<T, UfsError>>,
    ) -> BoxStream<'static, Result<T, UfsError>>;

    /// [`Ufs::read`] with its thing around it.
    fn read_through(
        &self,
        path: &str,
        version: &FileVersion,
        range: Range<u64>,
    ) -> impl Future<Output = Result<ByteStream, UfsError>> + Send;

    /// [`Ufs::read_chosen`] with its thing around it.
    fn read_chosen_through(
        &self,
        path: &str,
        version: &FileVersion,
        choose: Choice<'_>,
    ) -> impl Future<Output = Result<Option<(Range<u64>, ByteStream)>, UfsError>> + Send {
        async move {
            let Some(range) = choose() else {
                return Ok(None);
            };
            let stream = self.read_through(path, version, range.clone()).await?;
            Ok(Some((range, stream)))
        }
    }

    /// What the decorated store is able to do.
    fn abilities_through(&self) -> Abilities {
        self.inner().abilities()
    }
}

/// A call that is no listing and no read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ask<'a> {
    pub(crate) op: Op,
    pub(crate) path: &'a str,
    pub(crate) work: Work,
}

/// How much a call gives the store to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    /// It answers from what it knows, or changes a name.
    Little,
    /// It is sent so many bytes.
    Sends(u64),
    /// It moves bytes by itself, as many as an object may have.
    Moves,
}

impl<'a> Ask<'a> {
    const fn new(op: Op, path: &'a str, work: Work) -> Self {
        Self { op, path, work }
    }
}

#[async_trait]
impl<L: Layer> Ufs for L {
    fn uri(&self) -> &str {
        self.inner().uri()
    }

    fn object_uri(&self, path: &str) -> String {
        self.inner().object_uri(path)
    }

    async fn stat(&self, path: &str) -> Result<Metadata, UfsError> {
        let ask = Ask::new(Op::Stat, path, Work::Little);
        self.around(ask, self.inner().stat(path)).await
    }

    fn list(&self, dir: &str) -> EntryStream {
        self.pages(Op::List, dir, self.inner().list(dir))
    }

    async fn read(
        &self,
        path: &str,
        version: &FileVersion,
        range: Range<u64>,
    ) -> Result<ByteStream, UfsError> {
        self.read_through(path, version, range).await
    }

    async fn read_chosen(
        &self,
        path: &str,
        version: &FileVersion,
        choose: Choice<'_>,
    ) -> Result<Option<(Range<u64>, ByteStream)>, UfsError> {
        self.read_chosen_through(path, version, choose).await
    }

    async fn read_link(&self, path: &str) -> Result<String, UfsError> {
        let ask = Ask::new(Op::ReadLink, path, Work::Little);
        self.around(ask, self.inner().read_link(path)).await
    }

    fn abilities(&self) -> Abilities {
        self.abilities_through()
    }

    async fn put(
        &self,
        path: &str,
        data: Bytes,
        attributes: &Attributes,
        condition: &Condition,
    ) -> Result<Metadata, UfsError> {
        let ask = Ask::new(Op::Put, path, Work::Sends(data.len() as u64));
        let call = self.inner().put(path, data, attributes, condition);
        self.around(ask, call).await
    }

    async fn upload(
        &self,
        path: &str,
        attributes: &Attributes,
    ) -> Result<Box<dyn Upload>, UfsError> {
        let ask = Ask::new(Op::Upload, path, Work::Little);
        let inner = self
            .around(ask, self.inner().upload(path, attributes))
            .await?;
        Ok(Box::new(LayeredUpload {
            layer: self.clone(),
            path: path.to_owned(),
            inner,
        }))
    }

    fn unfinished_uploads(&self, dir: &str) -> UnfinishedStream {
        self.pages(Op::List, dir, self.inner().unfinished_uploads(dir))
    }

    async fn abort_upload(&self, path: &str, id: &str) -> Result<(), UfsError> {
        let ask = Ask::new(Op::Remove, path, Work::Little);
        self.around(ask, self.inner().abort_upload(path, id)).await
    }

    async fn copy(
        &self,
        from: &str,
        to: &str,
        condition: &Condition,
    ) -> Result<Metadata, UfsError> {
        let ask = Ask::new(Op::Copy, from, Work::Moves);
        self.around(ask, self.inner().copy(from, to, condition))
            .await
    }

    async fn rename(&self, from: &str, to: &str, mode: RenameMode) -> Result<(), UfsError> {
        let ask = Ask::new(Op::Rename, from, Work::Moves);
        self.around(ask, self.inner().rename(from, to, mode)).await
    }

    async fn remove(&self, path: &str) -> Result<(), UfsError> {
        let ask = Ask::new(Op::Remove, path, Work::Little);
        self.around(ask, self.inner().remove(path)).await
    }

    async fn create_dir(&self, path: &str, attributes: &Attributes) -> Result<(), UfsError> {
        let ask = Ask::new(Op::CreateDir, path, Work::Little);
        self.around(ask, self.inner().create_dir(path, attributes))
            .await
    }

    async fn remove_dir(&self, path: &str) -> Result<(), UfsError> {
        let ask = Ask::new(Op::RemoveDir, path, Work::Little);
        self.around(ask, self.inner().remove_dir(path)).await
    }

    async fn symlink(
        &self,
        path: &str,
        target: &str,
        attributes: &Attributes,
    ) -> Result<(), UfsError> {
        let ask = Ask::new(Op::Link, path, Work::Little);
        self.around(ask, self.inner().symlink(path, target, attributes))
            .await
    }

    async fn hard_link(&self, from: &str, to: &str) -> Result<(), UfsError> {
        let ask = Ask::new(Op::Link, to, Work::Little);
        self.around(ask, self.inner().hard_link(from, to)).await
    }

    async fn space(&self) -> Result<Option<Space>, UfsError> {
        let ask = Ask::new(Op::Stat, "", Work::Little);
        self.around(ask, self.inner().space()).await
    }

    async fn attributes(&self, path: &str) -> Result<Attributes, UfsError> {
        let ask = Ask::new(Op::GetAttributes, path, Work::Little);
        self.around(ask, self.inner().attributes(path)).await
    }

    async fn set_attributes(
        &self,
        path: &str,
        change: &AttributeChange,
    ) -> Result<Metadata, UfsError> {
        let ask = Ask::new(Op::SetAttributes, path, Work::Moves);
        self.around(ask, self.inner().set_attributes(path, change))
            .await
    }
}

/// An upload whose every call goes through a layer.
#[derive(Debug)]
struct LayeredUpload<L> {
    layer: L,
    path: String,
    inner: Box<dyn Upload>,
}

impl<L> LayeredUpload<L> {
    fn ask(&self, work: Work) -> Ask<'_> {
        Ask::new(Op::Upload, &self.path, work)
    }
}

#[async_trait]
impl<L: Layer> Upload for LayeredUpload<L> {
    fn id(&self) -> &str {
        self.inner.id()
    }

    async fn part(&self, number: u32, offset: u64, data: Bytes) -> Result<(), UfsError> {
        let ask = self.ask(Work::Sends(data.len() as u64));
        self.layer
            .around(ask, self.inner.part(number, offset, data))
            .await
    }

    async fn copy_part(
        &self,
        number: u32,
        offset: u64,
        path: &str,
        version: &FileVersion,
        range: Range<u64>,
    ) -> Result<(), UfsError> {
        let call = self.inner.copy_part(number, offset, path, version, range);
        self.layer.around(self.ask(Work::Moves), call).await
    }

    async fn complete(&self, size: u64, condition: &Condition) -> Result<Metadata, UfsError> {
        let call = self.inner.complete(size, condition);
        self.layer.around(self.ask(Work::Moves), call).await
    }

    async fn abort(&self) -> Result<(), UfsError> {
        let call = self.inner.abort();
        self.layer.around(self.ask(Work::Little), call).await
    }
}
