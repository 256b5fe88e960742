//! Blocks over TCP, sendfile, and Unix sockets, as bytes and as file descriptors: what moving
//! them could cost without packets and encryption. Blocking threads on both ends, one
//! connection for each request in flight.

mod server;
mod wire;

use std::fs::File;
use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use super::child::{self, Child, Role};
use super::content::Content;
use super::workers::{self, Step};
use super::{files, quinn};
use crate::measure::Sample;

pub(super) use server::serve;
use wire::Connection;
pub use wire::Way;

/// Bytes that the server holds, in memory and in a file.
pub const SET: u64 = quinn::SET;

/// A server of all ways, as a process of its own.
#[derive(Debug)]
pub struct StreamLimit {
    child: Child,
    tcp: SocketAddr,
    socket: PathBuf,
    content: Content,
}

impl StreamLimit {
    /// Starts the server, which keeps a file and a socket in `dir`.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn start(dir: &Path, seed: u64) -> Result<Self> {
        let content = Content::new(seed, SET);
        let (file, socket) = (dir.join("set"), dir.join("socket"));
        files::create(&file, SET, &content)?;
        let serving = Serving {
            file: child::text(&file)?,
            socket: child::text(&socket)?,
            seed,
        };
        let child = Child::start(&Role::Streams(serving)).context("cannot start the server")?;
        Ok(Self {
            tcp: (Ipv4Addr::LOCALHOST, child.ready("port")?.parse()?).into(),
            child,
            socket,
            content,
        })
    }

    /// Keeps `in_flight` requests of `request` bytes each under way for `duration`; CPU time of
    /// both ends.
    ///
    /// # Errors
    /// When a connection fails.
    pub fn run(
        &self,
        way: Way,
        request: u32,
        in_flight: u64,
        duration: Duration,
    ) -> Result<Sample> {
        let len = u64::from(request);
        ensure!(
            (1..=SET).contains(&len),
            "{request} bytes cannot be asked for"
        );
        let places = SET / len;
        let mut steps: Vec<Step<'static>> = Vec::new();
        for job in 0..in_flight {
            let mut receiver = Receiver::connect(self, way)?;
            let mut buffer = vec![1; request as usize];
            // Each begins elsewhere, as requests of one reader would.
            let mut number = places * job / in_flight;
            steps.push(Box::new(move || {
                receiver.receive(number % places * len, &mut buffer)?;
                number += 1;
                Ok(Some(len))
            }));
        }
        workers::threads(steps, Some(duration), &[self.child.pid()])
    }

    /// Reads all bytes once and compares them; how many.
    ///
    /// # Errors
    /// When some are wrong.
    pub fn verify(&self, way: Way) -> Result<u64> {
        let mut receiver = Receiver::connect(self, way)?;
        let mut buffer = vec![0; 1 << 20];
        for offset in (0..SET).step_by(buffer.len()) {
            receiver.receive(offset, &mut buffer)?;
            let wrong = self.content.mismatches(offset, &buffer);
            ensure!(wrong == 0, "{wrong} bytes came wrong");
        }
        Ok(SET)
    }
}

/// The asking end of one connection.
struct Receiver {
    connection: Connection,
    way: Way,
}

impl Receiver {
    fn connect(limit: &StreamLimit, way: Way) -> Result<Self> {
        let connection = match way {
            Way::Tcp | Way::Sendfile => {
                let stream = TcpStream::connect(limit.tcp)?;
                stream.set_nodelay(true)?;
                Connection::Tcp(stream)
            }
            Way::Unix | Way::Descriptor => Connection::Unix(UnixStream::connect(&limit.socket)?),
        };
        Ok(Self { connection, way })
    }

    fn receive(&mut self, offset: u64, into: &mut [u8]) -> Result<()> {
        let len = into.len() as u64;
        self.connection.ask(self.way, offset, len)?;
        if self.way == Way::Descriptor {
            let file: File = self.connection.take_descriptor()?.into();
            file.read_exact_at(into, offset)?;
        } else {
            self.connection.read_exact(into)?;
        }
        Ok(())
    }
}

/// What the child serves.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Serving {
    file: String,
    socket: String,
    seed: u64,
}
