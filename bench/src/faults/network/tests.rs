use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::{Instant, timeout};

use super::*;

const SOON: Duration = Duration::from_secs(20);
/// Long enough for what passes to have passed; a test that waits so long for nothing is right
/// on a fast machine and passes wrongly, never fails wrongly, on a slow one.
const NOTHING: Duration = Duration::from_millis(150);

/// A node that answers every datagram with itself, and its network.
async fn echo(network: &mut Network) -> usize {
    let index = network.add().unwrap();
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    network.connect(index, socket.local_addr().unwrap());
    network.tasks.spawn(async move {
        let mut buffer = [0; 2048];
        while let Ok((len, sender)) = socket.recv_from(&mut buffer).await {
            let _ = socket.send_to(&buffer[..len], sender).await;
        }
    });
    index
}

/// Whether a datagram with this text comes back, asked again and again.
async fn answers(socket: &UdpSocket, to: SocketAddr, text: &str, within: Duration) -> bool {
    let mut buffer = [0; 2048];
    let asked = async {
        loop {
            socket.send_to(text.as_bytes(), to).await.unwrap();
            let received = timeout(Duration::from_millis(50), socket.recv_from(&mut buffer));
            if let Ok(Ok((len, _))) = received.await
                && buffer[..len] == *text.as_bytes()
            {
                return;
            }
        }
    };
    timeout(within, asked).await.is_ok()
}

#[tokio::test]
async fn a_cut_node_is_not_heard_until_it_is_healed() {
    let mut network = Network::new(&Handle::current(), "127.0.0.1:1").unwrap();
    let (cut, other) = (echo(&mut network).await, echo(&mut network).await);
    let (to_cut, to_other) = (network.blocks(cut), network.blocks(other));
    let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    assert!(answers(&client, to_cut, "before", SOON).await);
    network.cut(cut);
    assert!(!answers(&client, to_cut, "cut", NOTHING).await);
    assert!(answers(&client, to_other, "other", SOON).await);
    network.heal(cut);
    assert!(answers(&client, to_cut, "healed", SOON).await);
}

#[tokio::test]
async fn a_cut_node_cannot_call_others_either() {
    let mut network = Network::new(&Handle::current(), "127.0.0.1:1").unwrap();
    let other = echo(&mut network).await;
    let caller = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let index = network.add().unwrap();
    network.connect(index, caller.local_addr().unwrap());
    let to = network.blocks(other);
    assert!(answers(&caller, to, "before", SOON).await);
    network.cut(index);
    assert!(!answers(&caller, to, "cut", NOTHING).await);
    let stranger = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    assert!(answers(&stranger, to, "stranger", SOON).await);
}

#[tokio::test]
async fn a_slow_node_answers_later() {
    let mut network = Network::new(&Handle::current(), "127.0.0.1:1").unwrap();
    let slow = echo(&mut network).await;
    let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let delay = Duration::from_millis(60);
    network.slow(slow, delay);
    let start = Instant::now();
    let mut buffer = [0; 64];
    client.send_to(b"x", network.blocks(slow)).await.unwrap();
    timeout(SOON, client.recv_from(&mut buffer))
        .await
        .unwrap()
        .unwrap();
    assert!(start.elapsed() >= delay * 2, "{:?}", start.elapsed());
}

#[tokio::test]
async fn a_cut_control_connection_pauses_and_loses_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let coordinator = listener.local_addr().unwrap().to_string();
    let mut network = Network::new(&Handle::current(), &coordinator).unwrap();
    let index = network.add().unwrap();
    let mut near = TcpStream::connect(network.control(index)).await.unwrap();
    let (mut far, _) = timeout(SOON, listener.accept()).await.unwrap().unwrap();
    let mut buffer = [0; 3];
    near.write_all(b"one").await.unwrap();
    timeout(SOON, far.read_exact(&mut buffer))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(&buffer, b"one");
    network.cut(index);
    near.write_all(b"two").await.unwrap();
    assert!(timeout(NOTHING, far.read_exact(&mut buffer)).await.is_err());
    network.heal(index);
    timeout(SOON, far.read_exact(&mut buffer))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(&buffer, b"two");
    drop(near);
    assert_eq!(
        timeout(SOON, far.read(&mut buffer)).await.unwrap().unwrap(),
        0
    );
}
