//! Clients that announce and do not send, ask and do not read, come and do not go.

use std::{
    io::{ErrorKind, Write as _},
    net::TcpStream,
    time::{Duration, Instant},
};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tidelog_tests::{
    batch::Batch,
    http,
    node::{Node, Options},
    wire::{Wire, encode, fetch_request, produce_request},
};

const MIB: u64 = 1024 * 1024;

#[test]
fn three_thousand_announcements_of_100_mib_cost_only_what_was_sent() {
    const CONNECTIONS: usize = 3_000;
    const ANNOUNCED: i32 = 100 * 1024 * 1024;
    const SENT: usize = 40_000;
    allow_many_files();
    let budget = 32 * MIB;
    let options = Options::default().set("queued.max.request.bytes", &budget.to_string());
    let node = Node::start(options);
    let idle = node.resident_bytes();
    let mut friend = node.wire();
    assert_eq!(friend.create_topic("alive", &[]).expect("an answer"), 0);
    let nothing = Batch::new(vec![b"x".to_vec()]).encode().freeze();
    let mut begun = encode(&produce_request("alive", nothing, 1), 9, 1);
    begun.resize(SENT, 0);
    let mut attackers = Vec::with_capacity(CONNECTIONS);
    for number in 0..CONNECTIONS {
        // The broker may refuse more connections, or close those that are too many.
        let Ok(mut attacker) = Wire::connect(node.port()) else { continue };
        let stream = attacker.stream();
        let _ = stream.write_all(&ANNOUNCED.to_be_bytes());
        let _ = stream.set_nonblocking(true);
        let _ = stream.write(&begun);
        attackers.push(attacker);
        if number % 500 == 0 {
            served(&mut friend, "alive", &node);
        }
    }
    served(&mut friend, "alive", &node);
    let mut newcomer = node.wire();
    served(&mut newcomer, "alive", &node);
    let peak = node.peak_resident_bytes();
    eprintln!("{} attackers: idle {} MiB, peak {} MiB", attackers.len(), idle / MIB, peak / MIB);
    // The budget, a task for each connection, and what the allocator keeps of those that were
    // closed; what was sent is 114 MiB, what was announced 300 GB.
    assert!(peak < idle + budget + 64 * MIB, "peak {} MiB", peak / MIB);
    drop(attackers);
    served(&mut friend, "alive", &node);
}

#[test]
fn a_client_that_never_reads_fills_neither_memory_nor_the_way_of_others() {
    const CONNECTIONS: usize = 20;
    const BATCH_BYTES: usize = 500_000;
    let node = Node::start(Options::default());
    let mut friend = node.wire();
    assert_eq!(friend.create_topic("alive", &[]).expect("an answer"), 0);
    for _ in 0..16 {
        let batch = Batch::new(vec![vec![b'x'; BATCH_BYTES]]).encode().freeze();
        assert_eq!(friend.produce("alive", batch).expect("an answer").0, 0);
    }
    let before = node.resident_bytes();
    let mut attackers: Vec<Wire> = (0..CONNECTIONS).map(|_| node.wire()).collect();
    let request = encode(&fetch_request("alive", 0, 8_000_000), 11, 1);
    let length = i32::try_from(request.len()).expect("a small request");
    let framed = [&length.to_be_bytes(), &request[..]].concat();
    let mut asked = 0_u64;
    for attacker in &mut attackers {
        asked += ask_until_blocked(attacker.stream(), &framed);
        served(&mut friend, "alive", &node);
    }
    let peak = node.peak_resident_bytes();
    let wanted = asked * 8 * 1_000_000 / MIB;
    eprintln!("asked for {wanted} MiB: {} MiB before, peak {} MiB", before / MIB, peak / MIB);
    assert!(wanted > 2_000, "asked for only {wanted} MiB");
    assert!(peak < before + 300 * MIB, "peak {} MiB", peak / MIB);
    served(&mut friend, "alive", &node);
}

#[test]
fn fetches_of_what_is_on_disk_take_no_more_than_their_bound() {
    const CONNECTIONS: usize = 10;
    let bound = 16 * MIB;
    let options = Options::default().small_bounds();
    let node = Node::start(options.set("queued.max.response.bytes", &bound.to_string()));
    let mut friend = node.wire();
    assert_eq!(friend.create_topic("alive", &[]).expect("an answer"), 0);
    for _ in 0..100 {
        let batch = Batch::new(vec![vec![b'x'; 1_000_000]]).encode().freeze();
        assert_eq!(friend.produce("alive", batch).expect("an answer").0, 0);
    }
    let before = node.peak_resident_bytes();
    let request = encode(&fetch_request("alive", 0, 50_000_000), 11, 1);
    let length = i32::try_from(request.len()).expect("a small request");
    let framed = [&length.to_be_bytes(), &request[..]].concat().repeat(100);
    let attackers: Vec<Wire> = (0..CONNECTIONS)
        .map(|_| {
            let mut attacker = node.wire();
            attacker.stream().write_all(&framed).expect("sent");
            attacker
        })
        .collect();
    let asked = Instant::now();
    while asked.elapsed() < Duration::from_secs(3) {
        // While the bound is spent a fetch that does not wait is answered empty, and asks again.
        let patience = Duration::from_secs(5);
        tidelog_tests::programs::wait_until("others are served", patience, || {
            !friend.fetch("alive", 99, 1).expect("an answer").records.is_empty()
        });
    }
    let peak = node.peak_resident_bytes();
    eprintln!("{} MiB before, peak {} MiB", before / MIB, peak / MIB);
    assert!(peak < before + bound + 32 * MIB, "peak {} MiB", peak / MIB);
    drop(attackers);
    tidelog_tests::programs::wait_until("the disk is read again", Duration::from_secs(5), || {
        !friend.fetch("alive", 0, 1).expect("an answer").records.is_empty()
    });
}

#[test]
fn half_sent_requests_for_pages_give_way() {
    let node = Node::start(Options::default());
    let crowd: Vec<TcpStream> = (0..100)
        .map(|_| {
            let mut rude = TcpStream::connect(("127.0.0.1", node.admin_port())).expect("a port");
            rude.write_all(b"GET /metrics HTTP/1.1\r\n").expect("sent");
            rude
        })
        .collect();
    let patience = Duration::from_secs(20);
    tidelog_tests::programs::wait_until("a page is served", patience, || {
        http::get(node.admin_port(), "/healthz").is_ok_and(|(status, _)| status == 200)
    });
    drop(crowd);
}

#[test]
fn running_out_of_descriptors_is_load_and_passes() {
    // Refused connections are said, and that a file cannot be made until descriptors come back.
    let options = Options::default().open_files_max(128);
    let node =
        Node::start(options.expect_log("limit=\"open files\"").expect_log("too many open files"));
    let mut friend = node.wire();
    assert_eq!(friend.create_topic("alive", &[]).expect("an answer"), 0);
    let mut crowd: Vec<TcpStream> = Vec::new();
    for _ in 0..400 {
        crowd.extend(TcpStream::connect(node.bootstrap()));
    }
    served(&mut friend, "alive", &node);
    drop(crowd);
    let patience = Duration::from_secs(10);
    tidelog_tests::programs::wait_until("newcomers are served again", patience, || {
        Wire::connect(node.port()).and_then(|mut wire| wire.api_versions()).is_ok()
    });
}

/// Friendly requests are answered, and soon.
fn served(friend: &mut Wire, topic: &str, node: &Node) {
    let asked = Instant::now();
    let batch = Batch::new(vec![b"still here".to_vec()]).encode().freeze();
    let served = friend.produce(topic, batch).and_then(|(code, offset)| {
        assert_eq!(code, 0, "produced");
        friend.fetch(topic, offset, 1)
    });
    let got = served.as_ref().is_ok_and(|fetched| !fetched.records.is_empty());
    assert!(got, "{served:?}:\n{}", node.log_text());
    assert!(asked.elapsed() < Duration::from_secs(5), "took {:?}", asked.elapsed());
}

/// Sends a request again and again until the broker stops reading; how many times.
fn ask_until_blocked(stream: &mut TcpStream, framed: &[u8]) -> u64 {
    const BLOCKED: Duration = Duration::from_millis(200);
    const ASKED_MAX: u64 = 100_000;
    stream.set_write_timeout(Some(BLOCKED)).expect("a socket");
    for asked in 0..ASKED_MAX {
        match stream.write_all(framed) {
            Ok(()) => {}
            // Closed, or no longer read: either way this client has had its share.
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return asked,
        }
    }
    ASKED_MAX
}

fn allow_many_files() {
    let limit = getrlimit(Resource::Nofile);
    let wanted = Rlimit { current: limit.maximum, maximum: limit.maximum };
    setrlimit(Resource::Nofile, wanted).expect("a process may use what it is allowed");
}
