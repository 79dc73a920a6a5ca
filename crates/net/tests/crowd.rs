//! Polite and rude clients over a small bound: nobody waits for ever and nothing stays behind.

mod common;

use std::time::Duration;

use common::{Ask, NetTest, PATIENCE, Peer, request_of};
use tidelog_net::NetConfig;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{sleep, timeout},
};

const CLIENTS: u64 = 60;
const REQUESTS: usize = 12;

/// Small numbers that a seed determines (SplitMix64).
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}

/// What became of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Answered,
    Closed,
    Left,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_over_a_small_bound_is_served_and_leaves_nothing_behind() {
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| u64::from(std::process::id()));
    eprintln!("SEED={seed}");
    let config = NetConfig {
        request_bytes_max: 1 << 20,
        queued_bytes_max: 600_000,
        request_stall_ms: 300,
        requests_in_flight_max: 3,
        output_bytes_max: 100_000,
        ..NetConfig::default()
    };
    let test = NetTest::start(config);
    let clients = (0..CLIENTS).map(|client| {
        let address = test.address;
        tokio::spawn(async move {
            let socket = tokio::net::TcpStream::connect(address).await.expect("a listener");
            let polite = client % 3 > 0;
            run_client(Peer(socket), polite, Dice(seed ^ (client << 32))).await
        })
    });
    let clients: Vec<_> = clients.collect();
    let mut ends = Vec::new();
    for client in clients {
        let ended = timeout(3 * PATIENCE, client).await;
        ends.push(ended.expect("nobody waits for ever").expect("no panic"));
    }
    let answered = ends.iter().filter(|end| **end == End::Answered).count();
    assert!(answered > 0, "{ends:?}");
    for gauge in ["tidelog_connections", "tidelog_inflight_requests"] {
        test.until(gauge, |test| test.metric(gauge, "") == 0.0).await;
    }
    assert_eq!(test.limits.request_bytes(), 0);
    assert_eq!(test.metric("tidelog_inflight_request_bytes", ""), 0.0);
}

async fn run_client(peer: Peer, polite: bool, mut dice: Dice) -> End {
    let (mut reader, mut writer) = peer.0.into_split();
    let leaves_after = if polite { usize::MAX } else { dice.below(REQUESTS as u64) as usize };
    let sizes: Vec<usize> = (0..REQUESTS)
        .map(|_| [10, 11_000, 300_000, (1 << 20) - 100][dice.below(4) as usize])
        .collect();
    let sending = tokio::spawn(async move {
        for (id, size) in sizes.iter().enumerate() {
            let frame = request_of(id as i32, Ask::Answer(dice.below(50_000) as u32), *size);
            if id == leaves_after {
                // A rude client stalls in the middle of a request, then is gone.
                let _ = writer.write_all(&frame[..frame.len() / 2]).await;
                sleep(Duration::from_millis(dice.below(600))).await;
                return None;
            }
            for piece in frame.chunks(1 + dice.below(400_000) as usize) {
                if writer.write_all(piece).await.is_err() {
                    return None;
                }
                tokio::task::yield_now().await;
            }
        }
        // Open until all answers are read.
        Some(writer)
    });
    for id in 0..REQUESTS.min(leaves_after) {
        let Ok(length) = reader.read_u32().await else { return End::Closed };
        let mut body = vec![0; length as usize];
        if reader.read_exact(&mut body).await.is_err() {
            return End::Closed;
        }
        assert_eq!(body[..4], (id as i32).to_be_bytes(), "replies in order");
    }
    drop(sending.await.expect("no panic"));
    if leaves_after < REQUESTS { End::Left } else { End::Answered }
}
