//! From a URI and its options to a driver with its layers.

use std::collections::BTreeMap;
use std::sync::Arc;

use millpond_proto::ErrorKind;

use crate::context::UfsContext;
use crate::error::{Op, UfsError};
use crate::http::HttpUfs;
use crate::layer::{Deadline, Limited, Metered, Rates, ReadOnly, Shape, Shaped, Valve};
use crate::local::LocalUfs;
use crate::memory::MemoryStore;
use crate::object::{self, ObjectUfs, Rules};
use crate::options::{OptionSet, Patience};
use crate::ufs::Ufs;
use crate::uri::{Scheme, UfsUri};

/// Opens the under-store at `uri` with `options` (see
/// [`known_options`](crate::known_options)): parses both, finds the credentials, builds the
/// driver. Nothing is asked over the network yet; [`probe`](crate::probe) does that. A local
/// directory must exist.
///
/// # Errors
/// `Invalid` for a malformed URI, an unknown option or a wrong value; `NotFound` for a local
/// directory, profile or credentials file that does not exist; `Denied` where one cannot be
/// read.
pub async fn open(
    uri: &str,
    options: &BTreeMap<String, String>,
    context: UfsContext,
) -> Result<Arc<dyn Ufs>, UfsError> {
    let parsed = UfsUri::parse(uri).map_err(|error| {
        // The text may hold what its writer thought to be credentials: it is shown only up
        // to where those could begin.
        let shown = match uri.contains('@') || uri.contains('?') {
            true => uri.split("://").next().unwrap_or_default(),
            false => uri,
        };
        UfsError::new(ErrorKind::Invalid, Op::Open, shown, error.to_string())
    })?;
    let options = OptionSet::new(parsed.to_string(), parsed.scheme(), options)?;
    let patience = Patience::of(&options)?;
    let concurrency = options.number("concurrency", context.concurrency, 1, MAX_CONCURRENCY)?;
    let rates = Rates {
        bytes: options.bandwidth("ufs_bandwidth", None)?,
        requests: options.request_rate("ufs_requests", None)?,
    };
    let shape = Shape::of(&options)?;
    let metrics = Arc::clone(&context.metrics);
    let valve = Valve::new(concurrency as u32, &context.in_flight, Arc::clone(&metrics));

    let read_only = options.flag("read_only", false)?;

    let driver: Arc<dyn Ufs> = match parsed.scheme() {
        Scheme::File => Arc::new(LocalUfs::open(&parsed).await?),
        Scheme::Memory => Arc::new(ObjectUfs::new(
            parsed.to_string(),
            parsed.root(),
            MemoryStore::named(parsed.authority()),
            Rules::of(&options)?,
            Arc::clone(&context.metrics),
        )),
        Scheme::Http => Arc::new(HttpUfs::open(&parsed, &options, patience, &valve)?),
        Scheme::S3 | Scheme::Gcs | Scheme::Azure => {
            object::open(&parsed, &options, patience, &context, &valve)?
        }
    };
    let driver = match read_only {
        true => Arc::new(ReadOnly::new(driver)),
        false => driver,
    };
    let driver = match shape {
        Some(shape) => Arc::new(Shaped::new(driver, shape)),
        None => driver,
    };
    let driver = Arc::new(Deadline::new(driver, patience.timeout));
    let counted = Arc::clone(&metrics);
    let driver = Arc::new(Limited::new(
        driver,
        valve,
        rates,
        patience.timeout,
        counted,
    ));
    Ok(Arc::new(Metered::new(driver, metrics)))
}

/// Beyond this a store is not helped by more, and sockets run out.
const MAX_CONCURRENCY: usize = 65_536;
