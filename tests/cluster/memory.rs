//! Memory is what the settings say, however much is produced.

use std::time::Duration;

use tidelog_tests::{
    node::{Node, Options},
    programs::{bytes_on_disk, finish, python, raise_open_files},
};

const MIB: u64 = 1024 * 1024;
/// Connections that one node must hold, and what they may cost together.
const IDLE_CONNECTIONS: u64 = 10_000;
const IDLE_BYTES_MAX: u64 = 200 * MIB;
/// Descriptors of a test and of a node that are no connections of this test.
const OTHER_FILES: u64 = 500;

#[test]
fn a_gigabyte_goes_through_small_bounds() {
    let bounds = Options::default()
        .set("wal.tail.max.bytes", "8388608")
        .set("wal.queue.max.bytes", "8388608")
        .set("wal.max.bytes", "67108864")
        .set("wal.file.bytes", "8388608")
        .set("queued.max.request.bytes", "16777216")
        .set("socket.request.max.bytes", "4194304");
    let node = Node::start(bounds);
    let idle = node.resident_bytes();
    let mut command = python("scripts/produce_bulk.py");
    command.args(["--bootstrap-server", &node.bootstrap(), "--size", "10000"]);
    command.args(["--records", "107374", "--partitions", "8"]);
    let output = finish(command, "");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut command = python("scripts/verify_consumption.py");
    command.args(["--bootstrap-server", &node.bootstrap()]);
    let output = finish(command, "");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    let on_disk = bytes_on_disk(node.dir());
    assert!(on_disk > 1_000 * MIB, "only {} MiB on disk", on_disk / MIB);
    let peak = node.peak_resident_bytes();
    eprintln!("idle {} MiB, peak {} MiB", idle / MIB, peak / MIB);
    assert!(idle < 40 * MIB, "idle: {} MiB", idle / MIB);
    // Idle, the tail, the queue, requests on their way, and the allocator's slack.
    assert!(peak < 160 * MIB, "peak: {} MiB", peak / MIB);
}

#[test]
fn connections_leave_no_descriptor_behind() {
    let node = Node::start(Options::default());
    drop(node.wire());
    let before = node.open_files();
    for _ in 0..10 {
        let mut wires: Vec<_> = (0..50).map(|_| node.wire()).collect();
        for wire in &mut wires {
            wire.api_versions().expect("an answer");
        }
    }
    let patience = Duration::from_secs(10);
    tidelog_tests::programs::wait_until("descriptors are closed", patience, || {
        node.open_files() <= before + 1
    });
}

#[test]
fn ten_thousand_idle_connections_cost_200_mb_at_most() {
    // Both ends have one descriptor for each connection, and a process of its own.
    let connections = IDLE_CONNECTIONS.min(raise_open_files() - OTHER_FILES);
    if connections < IDLE_CONNECTIONS {
        eprintln!(
            "this machine allows no more than {connections} connections of {IDLE_CONNECTIONS}"
        );
    }
    let node = Node::start(Options::default());
    drop(node.wire());
    let before = node.resident_bytes();
    let mut wires = Vec::new();
    for _ in 0..connections {
        let mut wire = node.wire();
        wire.api_versions().expect("an answer");
        wires.push(wire);
    }
    let cost = node.resident_bytes() - before;
    eprintln!("{connections} connections: {} KiB, {} bytes each", cost / 1024, cost / connections);
    assert!(cost <= IDLE_BYTES_MAX * connections / IDLE_CONNECTIONS, "{} MiB", cost / MIB);
    for wire in [0, wires.len() / 2, wires.len() - 1] {
        wires[wire].api_versions().expect("whoever was idle is served");
    }
}
