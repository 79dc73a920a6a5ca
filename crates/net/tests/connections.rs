//! Connections over real sockets: order, back-pressure, limits, deadlines, drain.

mod common;

use std::{collections::BTreeMap, sync::atomic::Ordering, time::Duration};

use common::{Ask, NetTest, request, request_of};
use tidelog_net::{Drained, NetConfig, Phase};

#[tokio::test]
async fn replies_leave_in_the_order_of_their_requests() {
    let test = NetTest::start(NetConfig::default());
    let mut peer = test.connect().await;
    let asks = [Ask::AtGate, Ask::Answer(10), Ask::Nothing, Ask::After(5), Ask::Answer(0)];
    let ids = 0..200;
    let frames: Vec<u8> =
        ids.clone().flat_map(|id| request(id, asks[id as usize % asks.len()])).collect();
    peer.send(&frames).await;
    // All are handled although the first is not answered: requests are pipelined.
    test.until("all requests handled", |test| test.service.seen().len() == 200).await;
    test.service.gate.open();
    let answered: Vec<i32> = ids.clone().filter(|id| id % 5 != 2).collect();
    assert_eq!(peer.receive_ids(answered.len()).await, answered);
    assert_eq!(test.service.seen(), ids.collect::<Vec<_>>());
}

#[tokio::test]
async fn requests_of_any_size_cut_anywhere_are_whole() {
    let test = NetTest::start(NetConfig::default());
    let sizes = [0, 1, 300, 70_000, 11_000, 3_000_000, 64 * 1024, 262_144, 5];
    let frames: Vec<Vec<u8>> = sizes
        .iter()
        .enumerate()
        .map(|(id, size)| request_of(id as i32, Ask::Answer(*size as u32), *size))
        .collect();
    let stream = frames.concat();
    for step in [stream.len(), 1_000_003, 65_537, 4_099] {
        let mut peer = test.connect().await;
        let (mut reader, mut writer) = peer.0.into_split();
        let stream = stream.clone();
        let sending = tokio::spawn(async move {
            for piece in stream.chunks(step) {
                tokio::io::AsyncWriteExt::write_all(&mut writer, piece).await.expect("open");
                tokio::task::yield_now().await;
            }
            writer
        });
        for (id, size) in sizes.iter().enumerate() {
            let length = tokio::io::AsyncReadExt::read_u32(&mut reader).await.expect("a reply");
            let mut body = vec![0; length as usize];
            tokio::io::AsyncReadExt::read_exact(&mut reader, &mut body).await.expect("a reply");
            assert_eq!(body[..4], (id as i32).to_be_bytes());
            assert!(body.len() >= *size);
        }
        let writer = sending.await.expect("no panic");
        peer = common::Peer(reader.reunite(writer).expect("halves of one socket"));
        drop(peer);
    }
    let bytes = frames.iter().map(|frame| frame.len() - 4).sum::<usize>();
    assert_eq!(test.service.frame_bytes.load(Ordering::SeqCst), 4 * bytes);
    test.until("all closed", |test| test.metric("tidelog_connections", "") == 0.0).await;
    assert_eq!(test.limits.request_bytes(), 0);
    assert_eq!(test.service.closed.load(Ordering::SeqCst), 4);
}

#[tokio::test]
async fn requests_over_the_bound_are_not_read_until_replies_leave() {
    let config = NetConfig { requests_in_flight_max: 4, ..NetConfig::default() };
    let test = NetTest::start(config);
    let mut peer = test.connect().await;
    let frames: Vec<u8> = (0..10).flat_map(|id| request(id, Ask::AtGate)).collect();
    peer.send(&frames).await;
    test.until("four are handled", |test| test.service.seen().len() == 4).await;
    // Whatever the first connection was going to do, it has done before the second is answered.
    let mut other = test.connect().await;
    other.send(&request(100, Ask::Answer(0))).await;
    assert_eq!(other.receive_ids(1).await, [100]);
    assert_eq!(test.service.seen(), [0, 1, 2, 3, 100]);
    assert_eq!(test.metric("tidelog_inflight_requests", ""), 4.0);
    test.service.gate.open();
    assert_eq!(peer.receive_ids(10).await, (0..10).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_client_that_leaves_is_noticed_although_nothing_of_it_is_read() {
    let test = NetTest::start(NetConfig { requests_in_flight_max: 4, ..NetConfig::default() });
    let mut peer = test.connect().await;
    let frames: Vec<u8> = (0..10).flat_map(|id| request(id, Ask::AtGate)).collect();
    peer.send(&frames).await;
    test.until("four are handled", |test| test.service.seen().len() == 4).await;
    drop(peer);
    let closed = |test: &NetTest| test.metric("tidelog_connections_closed_total", "disconnected");
    test.until("it has left", |test| closed(test) == 1.0).await;
    assert_eq!(test.service.seen(), [0, 1, 2, 3]);
    assert_eq!(test.limits.request_bytes(), 0);
}

#[tokio::test]
async fn replies_that_nobody_takes_are_given_up_once_others_need_their_room() {
    let config = NetConfig { reply_bytes_max: 0, request_stall_ms: 100, ..NetConfig::default() };
    let test = NetTest::start(config);
    let held = |test: &NetTest| test.metric("tidelog_inflight_response_bytes", "");
    let closed = |test: &NetTest| test.metric("tidelog_connections_closed_total", "slow_reader");
    let [mut small, mut large] = [test.connect().await, test.connect().await];
    // More than the kernel's buffers take.
    small.send(&request(1, Ask::Answer(7_000_000))).await;
    test.until("some waits for its client", |test| held(test) > 0.0).await;
    assert!(held(&test) < 3_000_000.0, "there is room for others: {} bytes", held(&test));
    assert_eq!(small.receive_ids(1).await, [1]);
    large.send(&request(2, Ask::Answer(20_000_000))).await;
    test.until("the slow reader is closed", |test| closed(test) == 1.0).await;
    assert_eq!(held(&test), 0.0);
}

#[tokio::test]
async fn nothing_overtakes_a_request_that_waits() {
    let test = NetTest::start(NetConfig::default());
    let mut peer = test.connect().await;
    let asks = [Ask::Answer(1), Ask::Wait, Ask::Answer(1)];
    let frames: Vec<u8> = (0..).zip(asks).flat_map(|(id, ask)| request(id, ask)).collect();
    peer.send(&frames).await;
    assert_eq!(peer.receive_ids(1).await, [0]);
    assert_eq!(test.service.seen(), [0, 1]);
    test.service.gate.open();
    assert_eq!(peer.receive_ids(2).await, [1, 2]);
}

#[tokio::test]
async fn what_a_request_spends_its_time_on_is_told() {
    const MS: u32 = 300;
    let test = NetTest::start(NetConfig::default());
    let (mut peer, mut clock) = (test.connect().await, test.connect().await);
    // The second answer is written behind the first.
    peer.send(&[request(1, Ask::After(MS)), request(2, Ask::Answer(10))].concat()).await;
    assert_eq!(peer.receive_ids(2).await, [1, 2]);
    // The fourth is in line behind the third.
    peer.send(&[request(3, Ask::Wait), request(4, Ask::Answer(0))].concat()).await;
    test.until("the third is handled", |test| test.service.seen().len() == 3).await;
    clock.send(&request(5, Ask::After(MS))).await;
    assert_eq!(clock.receive_ids(1).await, [5]);
    test.service.gate.open();
    assert_eq!(peer.receive_ids(2).await, [3, 4]);
    use Phase::{Handle, Queue, Wait, Write};
    let all = BTreeMap::from([(Queue, 5), (Handle, 5), (Wait, 3), (Write, 5)]);
    test.until("all is told", |test| test.service.spent(Duration::ZERO) == all).await;
    let long = test.service.spent(Duration::from_millis(u64::from(MS) - 20));
    assert_eq!(long, BTreeMap::from([(Queue, 1), (Wait, 3), (Write, 1)]));
}

#[tokio::test]
async fn a_reply_that_waits_ends_at_its_deadline() {
    let test = NetTest::start(NetConfig::default());
    let mut peer = test.connect().await;
    peer.send(&[request(1, Ask::After(30)), request(2, Ask::After(10))].concat()).await;
    let start = std::time::Instant::now();
    assert_eq!(peer.receive_ids(2).await, [1, 2]);
    assert!(start.elapsed() >= Duration::from_millis(25), "not before its deadline");
}

#[tokio::test]
async fn a_connection_ends_behind_the_replies_before_its_end() {
    let test = NetTest::start(NetConfig::default());
    let cases = [
        ("unsupported", request(2, Ask::Close)),
        ("oversized", 104_857_601_u32.to_be_bytes().into()),
        ("malformed", (-1_i32).to_be_bytes().into()),
        ("malformed", 3_u32.to_be_bytes().into()),
    ];
    for (reason, end) in cases {
        let before = test.metric("tidelog_connections_closed_total", reason);
        let mut peer = test.connect().await;
        peer.send(&[request(1, Ask::After(20)), end, request(3, Ask::Answer(0))].concat()).await;
        assert_eq!(peer.receive_ids(1).await, [1], "{reason}");
        assert!(peer.ended().await, "{reason}");
        let closed = |test: &NetTest| test.metric("tidelog_connections_closed_total", reason);
        test.until(reason, |test| closed(test) == before + 1.0).await;
    }
    assert!(!test.service.seen().contains(&3));
}

#[tokio::test]
async fn a_client_that_never_reads_is_bounded_and_closed() {
    let config =
        NetConfig { write_stall_ms: 150, output_bytes_max: 100_000, ..NetConfig::default() };
    let test = NetTest::start(config);
    let mut peer = test.connect().await;
    // Replies of 400 MB in all.
    let frames: Vec<u8> = (0..400).flat_map(|id| request(id, Ask::Answer(1_000_000))).collect();
    peer.send(&frames).await;
    let closed = |test: &NetTest| test.metric("tidelog_connections_closed_total", "slow_reader");
    test.until("the slow reader is closed", |test| closed(test) == 1.0).await;
    let handled = test.service.seen().len();
    assert!(handled < 50, "the kernel's buffers and one reply more, not {handled} MB");
    assert_eq!(test.limits.request_bytes(), 0);
}

#[tokio::test]
async fn a_slow_reader_that_goes_on_is_not_closed() {
    let config = NetConfig { write_stall_ms: 700, ..NetConfig::default() };
    let test = NetTest::start(config);
    let mut peer = test.connect().await;
    let frames: Vec<u8> = (0..20).flat_map(|id| request(id, Ask::Answer(500_000))).collect();
    peer.send(&frames).await;
    for id in 0..20 {
        // Its pace, not what the test waits for: longer in all than the deadline.
        tokio::time::sleep(Duration::from_millis(40)).await;
        assert_eq!(peer.receive_ids(1).await, [id]);
    }
}

#[tokio::test]
async fn silence_is_ended_by_its_deadlines() {
    let config = NetConfig { idle_ms: 500, first_request_ms: 300, ..NetConfig::default() };
    let test = NetTest::start(config);
    let mut silent = test.connect().await;
    let mut dripping = test.connect().await;
    let mut once = test.connect().await;
    let mut waiting = test.connect().await;
    once.send(&request(1, Ask::Answer(0))).await;
    waiting.send(&request(2, Ask::AtGate)).await;
    dripping.send(&request(3, Ask::Answer(0))[..7]).await;
    assert_eq!(once.receive_ids(1).await, [1]);
    assert!(silent.ended().await);
    assert!(dripping.ended().await);
    assert!(once.ended().await);
    let closed = |reason| test.metric("tidelog_connections_closed_total", reason);
    assert_eq!((closed("no_request"), closed("idle")), (2.0, 1.0));
    // Who waits for us is not idle, however long we take.
    test.service.gate.open();
    assert_eq!(waiting.receive_ids(1).await, [2]);
    assert!(waiting.ended().await);
}

#[tokio::test]
async fn the_half_sent_request_longest_without_progress_makes_room() {
    let config = NetConfig { request_stall_ms: 50, ..two_megabytes() };
    let test = NetTest::start(config);
    let large = request_of(1, Ask::Answer(0), (1 << 20) - 100);
    let (start, end) = large.split_at(900_000);
    let [mut first, mut second] = [test.connect().await, test.connect().await];
    first.send(start).await;
    test.until("one is held", |test| test.limits.request_bytes() >= 900_000).await;
    // Long enough to be given up.
    tokio::time::sleep(Duration::from_millis(60)).await;
    second.send(start).await;
    test.until("both are held", |test| test.limits.request_bytes() >= 1_800_000).await;
    let mut third = test.connect().await;
    third.send(&large).await;
    assert!(first.ended().await);
    assert_eq!(third.receive_ids(1).await, [1]);
    second.send(end).await;
    assert_eq!(second.receive_ids(1).await, [1]);
    assert_eq!(test.metric("tidelog_connections_closed_total", "evicted"), 1.0);
    drop((second, third));
    test.until("all closed", |test| test.metric("tidelog_connections", "") == 0.0).await;
    assert_eq!(test.limits.request_bytes(), 0);
}

#[tokio::test]
async fn clients_that_do_what_they_can_all_get_their_turn() {
    let test = NetTest::start(NetConfig { request_stall_ms: 15_000, ..two_megabytes() });
    let mut peers = Vec::new();
    for id in 0..12 {
        let mut peer = test.connect().await;
        let frame = request_of(id, Ask::AtGate, 500_000);
        tokio::io::AsyncWriteExt::write_all(&mut peer.0, &frame[..400_000]).await.expect("open");
        peers.push((id, peer, frame));
    }
    test.until("the bound is reached", |test| test.limits.request_bytes() >= 1 << 20).await;
    let mut tasks = Vec::new();
    for (id, mut peer, frame) in peers {
        tasks.push(tokio::spawn(async move {
            let sent = tokio::io::AsyncWriteExt::write_all(&mut peer.0, &frame[400_000..]).await;
            sent.is_ok() && tokio::io::AsyncReadExt::read_u32(&mut peer.0).await.is_ok() && id >= 0
        }));
    }
    test.service.gate.open();
    for task in tasks {
        assert!(common::in_time(task).await.expect("no panic"), "each is answered");
    }
    assert_eq!(test.metric("tidelog_connections_closed_total", "evicted"), 0.0);
    test.until("all closed", |test| test.metric("tidelog_connections", "") == 0.0).await;
    assert_eq!(test.limits.request_bytes(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn one_request_at_a_time_may_cost_more_than_there_is_room_for() {
    const COST: u32 = 3 << 20;
    let test = NetTest::start(two_megabytes());
    let _awake = keep_awake();
    let [mut first, mut second] = [test.connect().await, test.connect().await];
    // It is read before there is no room any more, and handled after.
    second.send(&[request(1, Ask::Wait), request(3, Ask::Costly(COST))].concat()).await;
    test.until("the second waits", |test| test.service.seen() == [1]).await;
    first.send(&request(2, Ask::Costly(COST))).await;
    test.until("the first goes beyond", |test| test.service.seen() == [1, 2]).await;
    let held = test.limits.request_bytes();
    assert!(held > u64::from(COST), "{held} bytes");
    test.service.gate.open();
    assert_eq!(second.receive().await.0, 1);
    let has_gone_on =
        |test: &NetTest| test.limits.request_bytes() < held || test.service.seen().len() > 2;
    test.until("the second comes to its costly request", has_gone_on).await;
    assert_eq!(test.service.seen(), [1, 2], "it waits for the first");
    test.service.thread_gate.open();
    assert_eq!((first.receive().await.0, second.receive().await.0), (2, 3));
    drop((first, second));
    test.until("all closed", |test| test.metric("tidelog_connections", "") == 0.0).await;
    assert_eq!(test.limits.request_bytes(), 0);
}

/// Wakes a worker again and again, until dropped. The one that looks after sockets and timers may
/// be the one that a handler holds: another takes that over only when it goes to sleep anew.
fn keep_awake() -> std::sync::mpsc::SyncSender<()> {
    let runtime = tokio::runtime::Handle::current();
    let (sender, dropped) = std::sync::mpsc::sync_channel(0);
    std::thread::spawn(move || {
        let pause = Duration::from_millis(5);
        while dropped.recv_timeout(pause) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
            runtime.spawn(async {});
        }
    });
    sender
}

/// Room for two of the largest requests.
fn two_megabytes() -> NetConfig {
    NetConfig { request_bytes_max: 1 << 20, queued_bytes_max: 2 << 20, ..NetConfig::default() }
}

#[tokio::test]
async fn a_stopping_listener_answers_what_is_in_flight() {
    let mut test = NetTest::start(NetConfig::default());
    let [mut idle, mut busy, mut half] =
        [test.connect().await, test.connect().await, test.connect().await];
    busy.send(&[request(1, Ask::AtGate), request(2, Ask::Answer(500_000))].concat()).await;
    half.send(&request(3, Ask::Answer(0))[..12]).await;
    test.until("handled", |test| test.service.seen().len() == 2).await;
    test.until("connected", |test| test.metric("tidelog_connections", "") == 3.0).await;
    test.stop();
    assert!(idle.ended().await);
    assert!(half.ended().await);
    test.service.gate.open();
    assert_eq!(busy.receive_ids(2).await, [1, 2]);
    assert!(busy.ended().await);
    assert_eq!(test.stopped().await, Drained { connections: 3, aborted: 0 });
    assert!(tokio::net::TcpStream::connect(test.address).await.is_err());
}

#[tokio::test]
async fn a_stopping_listener_hurries_those_who_wait_for_their_deadline() {
    let mut test = NetTest::start(NetConfig::default());
    let mut peer = test.connect().await;
    let frames: Vec<u8> = (0..3).flat_map(|id| request(id, Ask::After(1_000_000))).collect();
    peer.send(&frames).await;
    test.until("handled", |test| test.service.seen().len() == 3).await;
    test.stop();
    assert_eq!(peer.receive_ids(3).await, [0, 1, 2]);
    assert_eq!(test.stopped().await, Drained { connections: 1, aborted: 0 });
}

#[tokio::test]
async fn a_stopping_listener_waits_only_so_long() {
    let mut test = NetTest::start(NetConfig { drain_ms: 50, ..NetConfig::default() });
    let mut peer = test.connect().await;
    peer.send(&request(1, Ask::AtGate)).await;
    test.until("handled", |test| test.service.seen().len() == 1).await;
    test.stop();
    assert_eq!(test.stopped().await, Drained { connections: 1, aborted: 1 });
    assert!(peer.ended().await);
}
