//! A compacted topic on a real node that is killed while it compacts: of each key the newest value
//! is there, whatever was written anew when, and offsets rise.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use tidelog_tests::{
    batch::{self, Batch},
    http,
    node::{Node, Options},
    programs::wait_until,
    seed::Random,
    wire::Wire,
};

const TOPIC: &str = "compacted";
const KEYS: u64 = 300;
const PATIENCE: Duration = Duration::from_secs(60);
const INVALID_RECORD: i16 = 87;

#[test]
fn the_newest_value_of_each_key_survives_kills_while_it_is_compacted() {
    let test = "the_newest_value_of_each_key_survives_kills_while_it_is_compacted";
    kill_while_compacting(options(), 8, Random::new(test));
}

#[test]
fn the_newest_value_of_each_key_survives_power_losses_while_it_is_compacted() {
    let test = "the_newest_value_of_each_key_survives_power_losses_while_it_is_compacted";
    kill_while_compacting(options().held(), 8, Random::new(test));
}

fn options() -> Options {
    Options::default()
        .small_bounds()
        .expect_torn_tails()
        .set("log.cleaner.backoff.ms", "20")
        .set("log.cleaner.dedupe.buffer.size", "1048576")
}

fn kill_while_compacting(options: Options, kills: u32, mut random: Random) {
    let mut node = Node::start(options);
    let settings = [
        ("cleanup.policy", "compact"),
        ("segment.bytes", "65536"),
        ("min.cleanable.dirty.ratio", "0.01"),
        ("file.delete.delay.ms", "100"),
    ];
    assert_eq!(node.wire().create_topic(TOPIC, &settings).expect("an answer"), 0);
    // Every acknowledged record, by offset.
    let mut written: BTreeMap<i64, (Vec<u8>, Vec<u8>)> = BTreeMap::new();
    let mut removed = 0;
    for kill in 0..=kills {
        fill(&mut node.wire(), &mut random, &mut written);
        if kill == kills {
            let before = passes(&node);
            wait_until("the log to be compacted", PATIENCE, || passes(&node) > before);
        } else {
            let before = work(&node);
            let more = random.below(400_000) as f64;
            // Somewhere in the middle of a pass; a log that is clean by then will do too.
            let is_on_its_way = || work(&node) >= before + more || random.below(60) == 0;
            wait_until("compaction to go on", PATIENCE, is_on_its_way);
            removed += metric(&node, "tidelog_log_cleaner_removed_records_total") as u64;
            node.kill();
            node.restart();
        }
        check(&mut node.wire(), &written);
    }
    assert!(removed > 0, "nothing was compacted before a kill");
    assert!(node.terminate().success());
    node.restart();
    check(&mut node.wire(), &written);
}

/// Keyed records, some batches of one and some of many.
fn fill(wire: &mut Wire, random: &mut Random, written: &mut BTreeMap<i64, (Vec<u8>, Vec<u8>)>) {
    for _ in 0..120 {
        let count = 1 + random.index(60);
        let keys: Vec<Vec<u8>> =
            (0..count).map(|_| format!("key-{}", random.below(KEYS)).into_bytes()).collect();
        let values: Vec<Vec<u8>> =
            (0..count).map(|_| format!("{:0100}", random.bits()).into_bytes()).collect();
        let batch = Batch { keys: keys.clone(), ..Batch::new(values.clone()) };
        let (code, base) = wire.produce(TOPIC, batch.encode().freeze()).expect("an answer");
        assert_eq!(code, 0);
        written.extend((base..).zip(keys.into_iter().zip(values)));
    }
}

/// Reads the topic from its start.
fn check(wire: &mut Wire, written: &BTreeMap<i64, (Vec<u8>, Vec<u8>)>) {
    let mut newest: BTreeMap<&[u8], i64> = BTreeMap::new();
    for (offset, (key, _)) in written {
        newest.insert(key, *offset);
    }
    let (mut next, mut last) = (0, -1);
    let mut found: BTreeMap<Vec<u8>, i64> = BTreeMap::new();
    let (code, end) = wire.list_offset(TOPIC, -1).expect("an answer");
    assert_eq!(code, 0);
    while next < end {
        let fetched = wire.fetch(TOPIC, next, 200_000).expect("an answer");
        assert_eq!(fetched.error_code, 0, "a fetch of {next}");
        let batches = batch::split(fetched.records);
        assert!(!batches.is_empty(), "nothing from {next} to {end}");
        for (_, bytes) in batches {
            for (offset, key, value) in batch::records(&bytes) {
                assert!(offset > last, "{offset} behind {last}");
                last = offset;
                let (key, value) = (key.expect("a key"), value.expect("a value"));
                let known = written.get(&offset).expect("it was written");
                assert_eq!((&key, &value), (&known.0, &known.1), "at {offset}");
                found.insert(key, offset);
            }
            let after = batch::next_offset(&bytes);
            assert!(after > next, "{after} behind {next}");
            next = after;
        }
    }
    for (key, offset) in newest {
        let key = String::from_utf8_lossy(key).into_owned();
        assert_eq!(found.get(key.as_bytes()), Some(&offset), "the newest of {key}");
    }
}

/// Bytes that compaction has read and written.
fn work(node: &Node) -> f64 {
    let bytes = ["read", "written"].map(|how| format!("tidelog_log_cleaner_{how}_bytes_total"));
    bytes.iter().map(|name| metric(node, name)).sum()
}

fn passes(node: &Node) -> f64 {
    metric(node, "tidelog_log_cleaner_passes_total")
}

fn metric(node: &Node, name: &str) -> f64 {
    let (_, metrics) = http::get(node.admin_port(), "/metrics").expect("an answer");
    let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.expect("a metric of this name").parse().expect("a number")
}

#[test]
fn records_without_a_key_are_refused_where_they_would_be_lost() {
    let node = Node::start(Options::default());
    let mut wire = node.wire();
    let policy = |policy| [("cleanup.policy", policy)];
    for (topic, policy, code) in [
        ("deleted", policy("delete"), 0),
        ("compacted", policy("compact"), INVALID_RECORD),
        ("both", policy("compact,delete"), INVALID_RECORD),
    ] {
        assert_eq!(wire.create_topic(topic, &policy).expect("an answer"), 0, "{topic}");
        let keyless: Bytes = Batch::new(vec![b"x".to_vec()]).encode().freeze();
        assert_eq!(wire.produce(topic, keyless).expect("an answer").0, code, "{topic}");
        let keyed = Batch { keys: vec![Vec::new()], ..Batch::new(vec![b"x".to_vec()]) };
        assert_eq!(wire.produce(topic, keyed.encode().freeze()).expect("an answer").0, 0);
    }
}
