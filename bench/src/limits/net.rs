//! Loopback: streams, descriptors, and plain quinn.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::runtime::Handle;

use super::group::{BYTES, Bench, Case, Measured};
use super::quinn::{QuinnLimit, SET};
use super::streams::{StreamLimit, Way};
use crate::record::{Figure, Proof};

const REQUESTS: Figure = Figure::Ops("requests/s");

/// Streams and descriptors: way, bytes of a request, requests in flight.
pub(super) const STREAMS: &[Case] = &[
    ("tcp/4k-1", REQUESTS),
    ("tcp/128k-4", BYTES),
    ("tcp/1m-1", BYTES),
    ("tcp/1m-4", BYTES),
    ("sendfile/1m-1", BYTES),
    ("sendfile/1m-4", BYTES),
    ("unix/1m-1", BYTES),
    ("unix/1m-4", BYTES),
    ("unix-fd/4k-1", REQUESTS),
    ("unix-fd/1m-1", BYTES),
    ("unix-fd/1m-4", BYTES),
];
/// Plain quinn: bytes of a request, requests in flight.
pub(super) const QUINN: &[Case] = &[
    ("quinn/4k-1", REQUESTS),
    ("quinn/4k-4", REQUESTS),
    ("quinn/4k-16", REQUESTS),
    ("quinn/128k-1", BYTES),
    ("quinn/128k-4", BYTES),
    ("quinn/128k-16", BYTES),
    ("quinn/1m-1", BYTES),
    ("quinn/1m-4", BYTES),
    ("quinn/1m-16", BYTES),
];

pub(super) struct Streams(StreamLimit);

impl Streams {
    pub(super) fn new(dir: &Path, seed: u64) -> Result<Self> {
        let limit = StreamLimit::start(dir, seed)?;
        for way in [Way::Tcp, Way::Sendfile, Way::Unix, Way::Descriptor] {
            limit.verify(way).with_context(|| format!("{way:?}"))?;
        }
        Ok(Self(limit))
    }
}

impl Bench for Streams {
    fn measure(&self, case: &str, duration: Duration) -> Result<Measured> {
        let (way, shape) = case.split_once('/').context("no way")?;
        let way = match way {
            "tcp" => Way::Tcp,
            "sendfile" => Way::Sendfile,
            "unix" => Way::Unix,
            _ => Way::Descriptor,
        };
        let (request, in_flight) = shape_of(shape)?;
        let sample = self.0.run(way, request, in_flight as u64, duration)?;
        Ok(sample.into())
    }

    fn proof(&self) -> Proof {
        all_checked()
    }
}

pub(super) struct Quinn(QuinnLimit);

impl Quinn {
    pub(super) fn new(runtime: &Handle, seed: u64) -> Result<Self> {
        Ok(Self(QuinnLimit::start(runtime, true, seed)?))
    }
}

impl Bench for Quinn {
    fn measure(&self, case: &str, duration: Duration) -> Result<Measured> {
        let shape = case.strip_prefix("quinn/").context("not of quinn")?;
        let (request, in_flight) = shape_of(shape)?;
        Ok(self.0.run(request, in_flight, duration)?.into())
    }

    fn proof(&self) -> Proof {
        all_checked()
    }
}

fn all_checked() -> Proof {
    Proof {
        verified_bytes: Some(SET),
        mismatches: Some(0),
        ..Proof::default()
    }
}

/// `128k-4`: bytes of a request, requests in flight.
fn shape_of(shape: &str) -> Result<(u32, usize)> {
    let (size, in_flight) = shape.split_once('-').context("no such shape")?;
    Ok((super::files::bytes(size)?.try_into()?, in_flight.parse()?))
}
