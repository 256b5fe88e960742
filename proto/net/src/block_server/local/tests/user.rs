//! Connections of another user.
#![allow(unsafe_code, reason = "one thread becomes another user")]
#![allow(clippy::print_stderr, reason = "says why it tests nothing")]

use std::io::{Read as _, Write as _};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixStream};

use millpond_proto::wire::local::{CHALLENGE_LEN, Hello};

use super::{Node, RejectReason, ServerLimits};

const OTHER: u32 = 65_534;

/// Says hello as [`OTHER`]; whether it was answered. None if this process may not become it.
fn greeted(name: &str) -> Option<bool> {
    let name = name.to_owned();
    let thread = std::thread::spawn(move || {
        // SAFETY: it takes three numbers; the system call, unlike the function of libc, is for
        // the calling thread alone, which ends right after.
        let became = unsafe { libc::syscall(libc::SYS_setresuid, OTHER, OTHER, OTHER) };
        if became != 0 {
            return None;
        }
        let addr = SocketAddr::from_abstract_name(name).unwrap();
        let mut stream = UnixStream::connect_addr(&addr).unwrap();
        let hello = Hello {
            client: [9; 16],
            nonce: [1; 32],
        };
        // Fails if the other end has closed already.
        let _ = stream.write_all(&hello.encode());
        Some(stream.read_exact(&mut [0; CHALLENGE_LEN]).is_ok())
    });
    thread.join().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_user_is_refused_unless_named() {
    let node = Node::standard();
    let Some(answered) = greeted(&node.name) else {
        eprintln!("skipped: only root can connect as another user");
        return;
    };
    assert!(!answered);
    assert_eq!(node.rejected(RejectReason::Denied), 1);
    let node = Node::start(ServerLimits::default(), 8, vec![OTHER]);
    assert_eq!(greeted(&node.name), Some(true));
}
