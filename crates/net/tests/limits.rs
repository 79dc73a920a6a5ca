//! Limits of connections over real sockets: how many, how fast, and what each must do in time.

mod common;

use std::time::{Duration, Instant};

use common::{Ask, NetTest, request, request_of};
use tidelog_net::NetConfig;
use tokio::time::sleep;

/// One setting laid over the defaults.
fn with(key: &str, value: &str) -> NetConfig {
    let mut config = NetConfig::default();
    config.set(key, value).expect("a lawful value");
    config
}

#[tokio::test]
async fn connections_over_a_limit_are_closed_and_counted() {
    for (key, reason) in [
        ("max.connections", "max_connections"),
        ("listener.name.plaintext.max.connections", "listener_max_connections"),
        ("max.connections.per.ip", "max_connections_per_ip"),
    ] {
        let test = NetTest::start(with(key, "2"));
        let [mut first, mut second] = [test.connect().await, test.connect().await];
        assert!(first.is_served().await && second.is_served().await, "{key}");
        assert!(test.connect().await.ended().await, "{key}");
        assert_eq!(test.metric("tidelog_connections_refused_total", reason), 1.0, "{key}");
        assert_eq!(test.metric("tidelog_connections_refused_total", ""), 1.0, "{key}");
        drop(first);
        test.until("there is room", |test| test.metric("tidelog_connections", "") == 1.0).await;
        assert!(test.connect().await.is_served().await, "{key}");
    }
}

#[tokio::test]
async fn an_address_may_have_a_limit_of_its_own() {
    let overrides = "127.0.0.2:3,127.0.0.3:0";
    let config = NetConfig {
        connections_per_ip_max: 1,
        ..with("max.connections.per.ip.overrides", overrides)
    };
    let test = NetTest::start(config);
    let mut served = Vec::new();
    for (ip, is_admitted) in [
        ("127.0.0.1", true),
        ("127.0.0.1", false),
        ("127.0.0.2", true),
        ("127.0.0.2", true),
        ("127.0.0.2", true),
        ("127.0.0.2", false),
        ("127.0.0.3", false),
        ("127.0.0.4", true),
    ] {
        let mut peer = test.connect_from(ip).await;
        assert_eq!(peer.is_served().await, is_admitted, "{ip}");
        served.push(peer);
    }
    assert_eq!(test.metric("tidelog_connections_refused_total", "max_connections_per_ip"), 3.0);
}

#[tokio::test]
async fn connections_that_come_too_fast_wait_and_are_served() {
    for key in
        ["max.connection.creation.rate", "listener.name.plaintext.max.connection.creation.rate"]
    {
        let test = NetTest::start(with(key, "20"));
        let start = Instant::now();
        let mut peers = Vec::new();
        for _ in 0..30 {
            peers.push(test.connect().await);
        }
        for peer in &mut peers {
            assert!(peer.is_served().await, "{key}");
        }
        // 20 at once, and ten more in half a second.
        assert!(start.elapsed() >= Duration::from_millis(400), "{key}: {:?}", start.elapsed());
        let waited = test.metric("tidelog_accept_throttled_seconds_total", "");
        assert!((0.3..2.0).contains(&waited), "{key}: {waited} s");
        assert_eq!(test.metric("tidelog_connections_refused_total", ""), 0.0, "{key}");
    }
}

#[tokio::test]
async fn a_request_that_trickles_in_is_given_up() {
    let test = NetTest::start(with("connection.request.timeout.ms", "300"));
    let mut peer = test.connect().await;
    assert!(peer.is_served().await);
    let (start, frame) = (Instant::now(), request_of(1, Ask::Answer(0), 1000));
    for byte in frame.chunks(1) {
        if tokio::io::AsyncWriteExt::write_all(&mut peer.0, byte).await.is_err() {
            break;
        }
        sleep(Duration::from_millis(10)).await;
    }
    assert!(start.elapsed() >= Duration::from_millis(300));
    assert_eq!(test.metric("tidelog_connections_closed_total", "slow_sender"), 1.0);
    assert_eq!((test.service.seen(), test.limits.request_bytes()), (vec![7], 0));
}

#[tokio::test]
async fn requests_that_come_slowly_one_after_the_other_are_no_trickle() {
    let test = NetTest::start(with("connection.request.timeout.ms", "300"));
    let mut peer = test.connect().await;
    // The end of one request and the start of the next arrive together, for longer than the limit.
    let frames: Vec<u8> = (0..12).flat_map(|id| request(id, Ask::Answer(0))).collect();
    let (start, rest) = frames.split_at(10);
    peer.send(start).await;
    for piece in rest.chunks(request(0, Ask::Answer(0)).len()) {
        sleep(Duration::from_millis(50)).await;
        peer.send(piece).await;
    }
    assert_eq!(peer.receive_ids(12).await, (0..12).collect::<Vec<_>>());
}

#[tokio::test]
async fn under_pressure_who_trickles_gives_way_to_who_sends() {
    let config = NetConfig {
        request_bytes_max: 1 << 20,
        queued_bytes_max: 1 << 20,
        request_stall_ms: 200,
        ..NetConfig::default()
    };
    let test = NetTest::start(config);
    let large = request_of(1, Ask::Answer(0), (1 << 20) - 100);
    // The first spends the bound, the second is let through beyond it.
    let mut trickling = [test.connect().await, test.connect().await];
    for (peer, received) in trickling.iter_mut().zip([900_000.0, 1_800_000.0]) {
        peer.send(&large[..900_000]).await;
        let name = "tidelog_network_received_bytes_total";
        test.until("it is read", |test| test.metric(name, "") == received).await;
    }
    let mut sending = test.connect().await;
    let whole = large.clone();
    let sent = tokio::spawn(async move {
        sending.send(&whole).await;
        sending.receive_ids(1).await
    });
    for byte in large[900_000..].chunks(1).take_while(|_| !sent.is_finished()) {
        for peer in &mut trickling {
            let _ = tokio::io::AsyncWriteExt::write_all(&mut peer.0, byte).await;
        }
        sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(sent.await.expect("no panic"), [1]);
    assert!(test.metric("tidelog_connections_closed_total", "evicted") >= 1.0);
    assert_eq!(test.metric("tidelog_connections_closed_total", "slow_sender"), 0.0);
}
