//! A process without descriptors goes on serving whom it has. Alone in its program: it lowers the
//! limit for all.

mod common;

use common::{Ask, NetTest, request};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tidelog_net::NetConfig;
use tokio::net::TcpSocket;

#[tokio::test]
async fn out_of_descriptors_clients_are_turned_away_without_spinning() {
    let test = NetTest::start(NetConfig::default());
    let mut served = test.connect().await;
    served.send(&request(1, Ask::Answer(0))).await;
    assert_eq!(served.receive_ids(1).await, [1]);

    // All the clients' ends are open before the first connects, so that they, not the order in
    // which connects and accepts come, decide how many descriptors the listener finds.
    let sockets: Vec<TcpSocket> =
        (0..8).map(|_| TcpSocket::new_v4().expect("a descriptor")).collect();
    let old = getrlimit(Resource::Nofile);
    let used = std::fs::read_dir("/proc/self/fd").expect("a list").count() as u64;
    let limit = Rlimit { current: Some(used + 4), maximum: old.maximum };
    setrlimit(Resource::Nofile, limit).expect("a lower limit");
    let mut clients = Vec::new();
    for socket in sockets {
        // Whoever is turned away may learn it while still connecting.
        clients.extend(socket.connect(test.address).await.map(common::Peer));
    }
    let refused = |test: &NetTest| test.metric("tidelog_connections_refused_total", "open_files");
    test.until("somebody is turned away", |test| refused(test) >= 1.0).await;
    served.send(&request(2, Ask::Answer(0))).await;
    assert_eq!(served.receive_ids(1).await, [2]);
    let errors = test.metric("tidelog_accept_errors_total", "");
    assert!(errors < 200.0, "{errors} failed accepts: the loop spins");

    drop(clients);
    setrlimit(Resource::Nofile, old).expect("the old limit");
    let mut late = test.connect().await;
    late.send(&request(3, Ask::Answer(0))).await;
    assert_eq!(late.receive_ids(1).await, [3]);
}
