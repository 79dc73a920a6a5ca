//! A broker that keeps nothing, to measure sockets alone: `mock_broker PORT [SYNC_MICROSECONDS]`.

#[path = "../tests/mock/mod.rs"]
#[allow(dead_code, reason = "shared with the tests")]
mod mock;

use std::{net::SocketAddr, time::Duration};

use mock::{Fault, Mock, MockConfig};

fn main() {
    let mut arguments = std::env::args().skip(1).map(|argument| argument.parse::<u64>());
    let mut next = |default| arguments.next().and_then(Result::ok).unwrap_or(default);
    let (port, sync_us) = (next(19_092), next(100));
    let sync_time = Duration::from_micros(sync_us);
    let config = MockConfig { partitions: 4, sync_time, keep: false, fault: Fault::None };
    let address = SocketAddr::from(([127, 0, 0, 1], port as u16));
    let (_mock, address) = Mock::start_on(config, 1, address);
    eprintln!("listening on {address}");
    loop {
        std::thread::park();
    }
}
