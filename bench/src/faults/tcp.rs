//! A TCP address that leads to another one, with bad weather on the way.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::weather::Way;

/// Bytes that are passed on at once.
const PIECE: usize = 16 << 10;

/// Passes connections to `listener` on to `target`, until `stop`. A cut way loses nothing: it
/// holds everything back, as TCP does that sends again until it is heard.
pub(super) async fn run(
    listener: TcpListener,
    target: SocketAddr,
    way: Way,
    tasks: TaskTracker,
    stop: CancellationToken,
) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => return,
        };
        let Ok((near, _)) = accepted else { continue };
        let (way, stop) = (way.clone(), stop.clone());
        tasks.spawn(async move {
            tokio::select! {
                () = join(near, target, way) => {}
                () = stop.cancelled() => {}
            }
        });
    }
}

async fn join(near: TcpStream, target: SocketAddr, mut way: Way) {
    way.open().await;
    let Ok(far) = TcpStream::connect(target).await else {
        return;
    };
    // Small messages of a control connection; a failure only costs time.
    let _ = (near.set_nodelay(true), far.set_nodelay(true));
    let (near_in, near_out) = near.into_split();
    let (far_in, far_out) = far.into_split();
    tokio::join!(
        copy(near_in, far_out, way.clone()),
        copy(far_in, near_out, way)
    );
}

/// Copies until the end of `from` or an error, and hands the end on.
async fn copy(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut way: Way) {
    let mut buffer = vec![0; PIECE];
    while let Ok(len) = from.read(&mut buffer).await {
        way.open().await;
        tokio::time::sleep(way.now().delay).await;
        if len == 0 || to.write_all(&buffer[..len]).await.is_err() {
            break;
        }
    }
    let _ = to.shutdown().await;
}
