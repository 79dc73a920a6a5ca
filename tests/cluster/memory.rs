//! Memory is what the settings say, however much is produced.

use std::time::Duration;

use tidelog_tests::{
    node::{Node, Options},
    programs::{bytes_on_disk, finish, python},
};

const MIB: u64 = 1024 * 1024;

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
