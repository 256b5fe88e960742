//! From the URI of a network store to a file tree.

use std::sync::Arc;

use millpond_proto::ErrorKind;

use crate::context::UfsContext;
use crate::error::{Op, UfsError};
use crate::layer::Valve;
use crate::object::posix::PosixAttributes;
use crate::object::writing::Directories;
use crate::object::{Backend, ObjectUfs, azure, gcs, s3};
use crate::options::{OptionSet, Patience};
use crate::ufs::Ufs;
use crate::uri::{Scheme, UfsUri};

/// The object store that `uri` names.
pub(crate) fn open(
    uri: &UfsUri,
    options: &OptionSet<'_>,
    patience: Patience,
    context: &UfsContext,
    valve: &Arc<Valve>,
) -> Result<Arc<dyn Ufs>, UfsError> {
    install_crypto();
    match uri.scheme() {
        Scheme::S3 => tree(
            s3::open(uri, options, patience, context, valve)?,
            uri,
            options,
            context,
        ),
        Scheme::Gcs => tree(
            gcs::open(uri, options, patience, context, valve)?,
            uri,
            options,
            context,
        ),
        Scheme::Azure => tree(
            azure::open(uri, options, patience, context, valve)?,
            uri,
            options,
            context,
        ),
        Scheme::File | Scheme::Memory | Scheme::Http => Err(UfsError::new(
            ErrorKind::Internal,
            Op::Open,
            options.uri(),
            "not an object store over the network",
        )),
    }
}

/// How keys are made a file tree.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules {
    /// How many names one request of a listing asks for.
    pub(crate) page_size: usize,
    pub(crate) directories: Directories,
    pub(crate) attributes: PosixAttributes,
}

impl Rules {
    pub(crate) fn of(options: &OptionSet<'_>) -> Result<Self, UfsError> {
        Ok(Self {
            page_size: options.number("page_size", MAX_PAGE, 1, MAX_PAGE)?,
            directories: Directories::of(options)?,
            attributes: PosixAttributes::of(options)?,
        })
    }
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            page_size: MAX_PAGE,
            directories: Directories::default(),
            attributes: PosixAttributes::default(),
        }
    }
}

/// Makes sure that TLS has its cryptography, which processes install at their start, but
/// tests and tools may not have.
pub(crate) fn install_crypto() {
    // An error means that one is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

fn tree(
    backend: impl Backend,
    uri: &UfsUri,
    options: &OptionSet<'_>,
    context: &UfsContext,
) -> Result<Arc<dyn Ufs>, UfsError> {
    Ok(Arc::new(ObjectUfs::new(
        uri.to_string(),
        uri.root(),
        backend,
        Rules::of(options)?,
        Arc::clone(&context.metrics),
    )))
}

/// The most that S3 gives in one page.
const MAX_PAGE: usize = 1000;
