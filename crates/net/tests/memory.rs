//! What connections cost in memory. Alone in its program: it measures the whole process.

mod common;

use std::{io::Write, net::TcpStream};

use common::{Ask, NetTest, request};
use tidelog_net::{NetConfig, limits::raise_open_files};

/// Connections of each kind.
const CONNECTIONS: usize = 3_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn idle_and_half_sent_connections_cost_little() {
    let allowed = raise_open_files() as usize;
    let connections = CONNECTIONS.min((allowed - 100) / 4);
    let test = NetTest::start(NetConfig { connections_max: 10_000, ..NetConfig::default() });
    // What the first connections allocate for all is not theirs.
    let warm = fill(&test, 10, &request(0, Ask::Answer(100)));
    let open = |test: &NetTest| test.metric("tidelog_connections", "") as usize;
    test.until("the first are served", |test| test.service.seen().len() == 10).await;

    let before = resident_bytes();
    let idle = fill(&test, connections, &request(0, Ask::Answer(100)));
    test.until("all served", |test| test.service.seen().len() == 10 + connections).await;
    let each = (resident_bytes() - before) / connections;
    eprintln!("{each} bytes for an idle connection");
    assert!(each < 4 * 1024, "{each} bytes for an idle connection");

    let before = resident_bytes();
    let announcement = [&100_000_000_u32.to_be_bytes()[..], &[0, 0, 0, 3, 0, 0, 0, 1]].concat();
    let half = fill(&test, connections, &announcement);
    test.until("all open", |test| open(test) == 10 + 2 * connections).await;
    let received = (12 * connections + 10 * 17 + connections * 17) as f64;
    let name = "tidelog_network_received_bytes_total";
    test.until("all read", |test| test.metric(name, "") == received).await;
    let each = (resident_bytes() - before) / connections;
    eprintln!("{each} bytes for an announcement of 100 MB");
    assert!(each < 8 * 1024, "{each} bytes for an announcement of 100 MB");
    drop((warm, idle, half));
}

fn fill(test: &NetTest, count: usize, bytes: &[u8]) -> Vec<TcpStream> {
    let connect = |_| {
        let mut socket = TcpStream::connect(test.address).expect("a listener");
        socket.write_all(bytes).expect("an open connection");
        socket
    };
    (0..count).map(connect).collect()
}

fn resident_bytes() -> usize {
    let status = std::fs::read_to_string("/proc/self/statm").expect("this process");
    let pages: usize = status.split(' ').nth(1).expect("a field").parse().expect("a number");
    pages * rustix::param::page_size()
}
