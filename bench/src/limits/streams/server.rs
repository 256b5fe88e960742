//! The answering end, a thread for each connection.

use std::fs::File;
use std::io::{self, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::sync::Arc;

use anyhow::{Context, Result};
use millpond_process::announce_ready;

use super::wire::{Connection, Way};
use super::{SET, Serving};
use crate::limits::content::Content;

/// The bytes, twice.
struct Set {
    memory: Vec<u8>,
    file: File,
}

/// The child's side. Its threads end with the process.
pub(in crate::limits) async fn serve(
    serving: Serving,
    stop: impl Future<Output = ()>,
) -> Result<()> {
    let set = Arc::new(Set {
        memory: Content::new(serving.seed, SET).bytes(0, SET as usize),
        file: File::open(&serving.file).context("cannot open the file to send")?,
    });
    let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no free port")?;
    let unix = UnixListener::bind(&serving.socket).context("cannot make the socket")?;
    let port = tcp.local_addr()?.port();
    let for_unix = Arc::clone(&set);
    std::thread::spawn(move || {
        for stream in tcp.incoming().map_while(Result::ok) {
            let _ = stream.set_nodelay(true);
            attend(Connection::Tcp(stream), &set);
        }
    });
    std::thread::spawn(move || {
        for stream in unix.incoming().map_while(Result::ok) {
            attend(Connection::Unix(stream), &for_unix);
        }
    });
    announce_ready(&[("port", port.to_string())]);
    stop.await;
    Ok(())
}

fn attend(mut connection: Connection, set: &Arc<Set>) {
    let set = Arc::clone(set);
    std::thread::spawn(move || {
        // A failure ends the connection, which the other end notices.
        while let Ok(Some((way, offset, len))) = connection.asked() {
            if set.answer(&mut connection, way, offset, len).is_err() {
                break;
            }
        }
    });
}

impl Set {
    fn answer(&self, to: &mut Connection, way: Way, offset: u64, len: u64) -> io::Result<()> {
        match way {
            Way::Tcp | Way::Unix => {
                let range = offset as usize..(offset + len) as usize;
                let bytes = self.memory.get(range).ok_or(io::ErrorKind::InvalidInput)?;
                to.write_all(bytes)
            }
            Way::Sendfile => {
                let mut at = offset;
                let end = offset + len;
                while at < end {
                    let left = (end - at) as usize;
                    if rustix::fs::sendfile(&*to, &self.file, Some(&mut at), left)? == 0 {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                }
                Ok(())
            }
            Way::Descriptor => to.give_descriptor(self.file.as_fd()),
        }
    }
}
