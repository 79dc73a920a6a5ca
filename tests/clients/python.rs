//! librdkafka through confluent-kafka.

use tidelog_tests::{
    node::{Node, Options},
    programs::{python, root, run, tool},
};

#[test]
fn every_codec_acks_and_idempotence_round_trips() {
    let node = Node::start(Options::default());
    judge(&node, "every_producer.py", &[]);
}

#[test]
fn records_are_found_by_offset_and_time_across_segments() {
    let node = Node::start(Options::default().small_bounds());
    judge(&node, "segments_and_times.py", &["20000"]);
}

#[test]
fn records_are_found_again_by_offset_and_time_after_a_restart() {
    let mut node = Node::start(Options::default().small_bounds().expect_torn_tails());
    judge(&node, "segments_and_times.py", &["20000"]);
    node.kill();
    node.restart();
    judge(&node, "segments_and_times.py", &["20000", "--only-read"]);
}

#[test]
fn topics_are_created_described_deleted_and_created_again() {
    let node = Node::start(Options::default());
    judge(&node, "topics.py", &[]);
}

#[test]
fn the_checker_of_consumption_finds_planted_anomalies() {
    let mut command = std::process::Command::new(tool("python/bin/python"));
    command.args(["-m", "unittest", "-q", "test_verify_consumption"]);
    command.current_dir(root().join("tests/clients/python")).env("PYTHONDONTWRITEBYTECODE", "1");
    run(command, "");
}

fn judge(node: &Node, script: &str, arguments: &[&str]) {
    let mut command = python(&format!("tests/clients/python/{script}"));
    command.arg(node.bootstrap()).args(arguments);
    let said = run(command, "");
    assert!(said.ends_with("all good\n"), "{script}: {said}");
}
