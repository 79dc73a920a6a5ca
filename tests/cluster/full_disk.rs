//! A disk that fills up, or fails, under a running broker.

use std::{fs, path::Path, time::Duration};

use bytes::Bytes;
use tidelog_tests::{
    batch::{self, Batch, HEADER_BYTES},
    http,
    node::{Node, Options, PATIENCE},
    programs::{bytes_on_disk, wait_until},
    small_disk::SmallDisk,
    wire::Wire,
};

const MIB: u64 = 1 << 20;
const DISK_BYTES: u64 = 160 * MIB;
const TOPIC: &str = "filled";
const KAFKA_STORAGE_ERROR: i16 = 56;
/// What a broker says when a disk failed: an exit code of its own, for whoever watches it.
const FAILED_DISK: i32 = 70;

/// What producers were promised.
#[derive(Default)]
struct Promised {
    batches: Vec<(i64, Bytes)>,
    next: u64,
}

impl Promised {
    /// Produces one batch of about 100 KB; the error code.
    fn produce(&mut self, wire: &mut Wire, topic: &str) -> i16 {
        self.next += 1;
        let mut value = vec![b'v'; 100_000];
        value[..8].copy_from_slice(&self.next.to_be_bytes());
        let batch = Batch::new(vec![value]).encode().freeze();
        let (code, offset) = wire.produce(topic, batch.clone()).expect("an answer");
        if code == 0 {
            self.batches.push((offset, batch.slice(HEADER_BYTES..)));
        }
        code
    }

    /// Reads everything from `from` on and compares it with what was promised.
    fn verify(&self, wire: &mut Wire, from: i64) {
        let promised: Vec<_> = self.batches.iter().filter(|(offset, _)| *offset >= from).collect();
        let mut read = Vec::new();
        let mut next = from;
        while read.len() < promised.len() {
            let fetched = wire.fetch(TOPIC, next, 1 << 20).expect("an answer");
            assert_eq!(fetched.error_code, 0, "at {next}");
            let batches = batch::split(fetched.records);
            next = batch::next_offset(&batches.last().expect("what was promised is there").1);
            read.extend(batches.into_iter().map(|(at, batch)| (at, batch.slice(HEADER_BYTES..))));
        }
        assert!(read.iter().eq(promised), "what is read is what was promised, once, in order");
    }
}

fn small_node(disk: &SmallDisk) -> Options {
    assert!(disk.free_bytes() > DISK_BYTES / 2, "room for a start");
    Options::default().small_bounds()
}

#[test]
fn a_disk_that_fills_under_load_refuses_produces_serves_reads_and_is_used_again_by_itself() {
    let Some(disk) = SmallDisk::mount(DISK_BYTES) else { return };
    let options = small_node(&disk).expect_log("disk full: appends are refused");
    let mut node = Node::at(disk.path().join("data"), options.expect_torn_tails());
    node.restart();
    let mut wire = node.wire();
    assert_eq!(wire.create_topic(TOPIC, &[]).expect("an answer"), 0);
    let mut promised = Promised::default();
    (0..20).for_each(|_| assert_eq!(promised.produce(&mut wire, TOPIC), 0));
    for round in 0..2 {
        let ballast = disk.fill(24 * MIB);
        let refused = (0..2000).map(|_| promised.produce(&mut wire, TOPIC)).find(|code| *code != 0);
        assert_eq!(refused, Some(KAFKA_STORAGE_ERROR), "an error that clients try again after");
        let (status, why) = http::get(node.admin_port(), "/readyz").expect("an answer");
        assert!(status == 503 && why.starts_with("disk full: "), "{status} {why}");
        let count = promised.batches.len();
        eprintln!("round {round}: full after {count} batches, {} bytes free", disk.free_bytes());
        let mut other = node.wire();
        promised.verify(&mut other, 0);
        assert_eq!(other.describe().expect("metadata").len(), 2, "the cluster and one topic");
        assert_eq!(other.list_offset(TOPIC, -1).expect("an answer"), (0, count as i64));
        fs::remove_file(ballast).expect("the ballast");
        wait_until("producers are taken again", PATIENCE, || {
            promised.produce(&mut wire, TOPIC) == 0
        });
        (0..20).for_each(|_| assert_eq!(promised.produce(&mut wire, TOPIC), 0));
        promised.verify(&mut other, 0);
    }
    node.kill();
    node.restart();
    promised.verify(&mut node.wire(), 0);
    assert!(node.terminate().success());
}

#[test]
fn retention_makes_room_on_a_full_disk_without_anybody() {
    let Some(disk) = SmallDisk::mount(DISK_BYTES) else { return };
    let options = small_node(&disk).expect_log("disk full: appends are refused");
    let options = options.set("log.retention.check.interval.ms", "100");
    let mut node = Node::at(disk.path().join("data"), options);
    node.restart();
    let mut wire = node.wire();
    // Files wait a minute before they are deleted; not where space is short.
    let kept = (8 * MIB).to_string();
    let created = wire.create_topic(TOPIC, &[("retention.bytes", &kept)]);
    assert_eq!(created.expect("an answer"), 0);
    let mut promised = Promised::default();
    let mut refused = 0;
    while promised.batches.len() < 3 * (DISK_BYTES / 100_000) as usize {
        match promised.produce(&mut wire, TOPIC) {
            0 => {}
            KAFKA_STORAGE_ERROR => {
                refused += 1;
                wait_until("room", PATIENCE, || promised.produce(&mut wire, TOPIC) == 0);
            }
            code => panic!("error {code}"),
        }
    }
    let (_, earliest) = wire.list_offset(TOPIC, -2).expect("an answer");
    let (_, latest) = wire.list_offset(TOPIC, -1).expect("an answer");
    eprintln!("refused {refused} times; offsets {earliest} to {latest} of a disk twice full");
    assert!(latest - earliest >= (8 * MIB / 100_000) as i64, "retention.bytes are kept");
    assert!(latest - earliest < (DISK_BYTES / 100_000) as i64, "and not much more");
    promised.verify(&mut wire, earliest.max(latest - 50));
}

#[test]
fn a_file_system_that_shuts_down_ends_the_broker_and_loses_nothing_promised() {
    let Some(disk) = SmallDisk::ext4(DISK_BYTES) else {
        eprintln!("SKIPPED: no loop device may be mounted here");
        return;
    };
    let options = small_node(&disk).expect_torn_tails().expect_log("; exiting");
    let mut node = Node::at(disk.path().join("data"), options);
    node.restart();
    let mut wire = node.wire();
    assert_eq!(wire.create_topic(TOPIC, &[]).expect("an answer"), 0);
    let mut promised = Promised::default();
    (0..100).for_each(|_| assert_eq!(promised.produce(&mut wire, TOPIC), 0));
    disk.abort();
    let batch = Batch::new(vec![b"too late".to_vec()]).encode().freeze();
    if let Ok((code, _)) = wire.produce(TOPIC, batch) {
        assert_ne!(code, 0, "nothing is promised that a disk did not take");
    }
    let status = node.wait_for_exit(PATIENCE);
    assert_eq!(status.code(), Some(FAILED_DISK), "{}", node.log_text());
    disk.mend();
    node.restart();
    promised.verify(&mut node.wire(), 0);
    assert!(node.terminate().success());
}

#[test]
fn retention_bounds_a_log_through_kills_and_a_deleted_topic_leaves_nothing() {
    let options = Options::default().small_bounds().expect_torn_tails();
    let options = options
        .set("log.retention.check.interval.ms", "20")
        .set("log.segment.delete.delay.ms", "0")
        .set("log.retention.bytes", "4194304");
    let mut node = Node::start(options);
    assert_eq!(node.wire().create_topic(TOPIC, &[]).expect("an answer"), 0);
    let mut promised = Promised::default();
    for _ in 0..8 {
        let mut wire = node.wire();
        (0..120).for_each(|_| assert_eq!(promised.produce(&mut wire, TOPIC), 0));
        node.kill();
        node.restart();
        let mut wire = node.wire();
        let (code, earliest) = wire.list_offset(TOPIC, -2).expect("an answer");
        let (_, latest) = wire.list_offset(TOPIC, -1).expect("an answer");
        assert_eq!((code, latest), (0, promised.batches.len() as i64));
        let kept = latest - earliest;
        assert!(kept >= 4 * MIB as i64 / 100_100, "{kept} batches are less than retention.bytes");
        promised.verify(&mut wire, latest - 40);
    }
    let topics = node.dir().join("topics");
    let used = |topics: &Path| bytes_on_disk(topics) / MIB;
    // Segments of a megabyte, the last one, and what an index takes.
    wait_until("old segments go", PATIENCE, || used(&topics) <= 6);
    assert_eq!(node.wire().delete_topic(TOPIC).expect("an answer"), 0);
    wait_until("the topic's files go", Duration::from_secs(20), || {
        fs::read_dir(&topics).is_ok_and(|mut names| names.next().is_none())
    });
}
