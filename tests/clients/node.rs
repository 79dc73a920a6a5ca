//! kafkajs, whose consumer knows nothing but groups: what it writes, kcat reads.

use std::{
    process::Command,
    time::{Duration, SystemTime},
};

use tidelog_tests::{
    node::Node,
    programs::{on_path, root, run, tool},
};

use crate::{judge, spilling_node};

const PARTITIONS: u32 = 3;
/// Five codecs, three ways of acks, and idempotent: a hundred records of each.
const RECORDS: u64 = 5 * 4 * 100;

#[test]
fn kafkajs_writes_what_kcat_reads_and_finds_what_it_knows() {
    let node = spilling_node();
    let start = millis_now() - 3_600_000;
    judge(kafkajs("produce", start), &node);
    for partition in 0..PARTITIONS {
        let read = read(&node, partition);
        let written: String = (0..RECORDS).map(|number| line(partition, number, start)).collect();
        assert!(read == written, "partition {partition}: {}", first_difference(&read, &written));
    }
    judge(kafkajs("manage", start), &node);
}

fn kafkajs(part: &str, start: u64) -> Command {
    let mut command = Command::new("node");
    command.arg(root().join("tests/clients/node/client.js")).args([part, &start.to_string()]);
    command.env("NODE_PATH", tool("node/node_modules"));
    command.env("KAFKAJS_NO_PARTITIONER_WARNING", "1");
    command
}

fn read(node: &Node, partition: u32) -> String {
    let mut command = on_path("kcat");
    command.args(["-b", &node.bootstrap(), "-C", "-t", "kafkajs", "-o", "beginning", "-e", "-q"]);
    command.args(["-p", &partition.to_string(), "-f", "%o %T %k %h %s\n"]);
    run(command, "")
}

/// What kcat says of a record that `client.js` wrote.
fn line(partition: u32, number: u64, start: u64) -> String {
    let timestamp = start + number * 1_000;
    let value = format!("value-{partition}-{number} ").repeat(number as usize % 80);
    let headers = format!("number={number},number=again,empty=");
    format!("{number} {timestamp} key-{partition}-{number} {headers} {value}\n")
}

fn first_difference(read: &str, written: &str) -> String {
    let mut lines = read.lines().zip(written.lines());
    match lines.find(|(read, written)| read != written) {
        Some((read, written)) => format!("expected {written}\nsaw {read}"),
        None => format!("expected {RECORDS} records, saw {}", read.lines().count()),
    }
}

fn millis_now() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    Duration::as_millis(&now.expect("after 1970")) as u64
}
