//! Ports for brokers that must come back on the same address after a restart.

use std::{
    net::{Ipv4Addr, TcpListener},
    process,
    sync::atomic::{AtomicU32, Ordering},
};

/// Below the range from which the kernel takes the near end of outgoing connections, so that no
/// client of a broker that is down can take its port.
const FIRST: u32 = 12_000;
const COUNT: u32 = 20_000;

/// A port that nobody listens on now, and that this process hands out once.
///
/// # Panics
/// If every port of the range is taken.
pub fn free() -> u16 {
    static TRIED: AtomicU32 = AtomicU32::new(0);
    // Test processes that run side by side start in different places.
    let start = process::id().wrapping_mul(7_919);
    for _ in 0..COUNT {
        let tried = TRIED.fetch_add(1, Ordering::Relaxed);
        let port = FIRST + start.wrapping_add(tried) % COUNT;
        let port = u16::try_from(port).expect("the range lies below 65,536");
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
    panic!("no free port from {FIRST} to {}", FIRST + COUNT);
}
