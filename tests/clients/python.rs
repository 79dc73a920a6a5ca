//! librdkafka through confluent-kafka, and the clients that are written in Python: kafka-python and
//! aiokafka.

use tidelog_tests::{
    node::{Node, Options},
    programs::{python, root, run, tool},
};

use crate::{judge, spilling_node};

#[test]
fn every_codec_acks_and_idempotence_round_trips() {
    let node = Node::start(Options::default());
    confluent(&node, "every_producer.py", &[]);
}

#[test]
fn records_are_found_by_offset_and_time_across_segments() {
    let node = Node::start(Options::default().small_bounds());
    confluent(&node, "segments_and_times.py", &["20000"]);
}

#[test]
fn records_are_found_again_by_offset_and_time_after_a_restart() {
    let mut node = Node::start(Options::default().small_bounds().expect_torn_tails());
    confluent(&node, "segments_and_times.py", &["20000"]);
    node.kill();
    node.restart();
    confluent(&node, "segments_and_times.py", &["20000", "--only-read"]);
}

#[test]
fn topics_are_created_described_deleted_and_created_again() {
    let node = Node::start(Options::default());
    confluent(&node, "topics.py", &[]);
}

#[test]
fn settings_records_and_partitions_of_a_topic_are_changed() {
    confluent(&spilling_node(), "changes.py", &[]);
}

#[test]
fn members_share_leave_die_and_come_back() {
    let node = Node::start(Options::default().set("group.initial.rebalance.delay.ms", "100"));
    confluent(&node, "groups.py", &[]);
}

#[test]
fn kafka_python_finds_what_it_knows() {
    judge(python("tests/clients/python/kafka_python_program.py"), &spilling_node());
}

#[test]
fn aiokafka_finds_what_it_knows() {
    judge(python("tests/clients/python/aiokafka_program.py"), &spilling_node());
}

#[test]
fn the_checker_of_consumption_finds_planted_anomalies() {
    let mut command = std::process::Command::new(tool("python/bin/python"));
    command.args(["-m", "unittest", "-q", "test_verify_consumption"]);
    command.current_dir(root().join("tests/clients/python")).env("PYTHONDONTWRITEBYTECODE", "1");
    run(command, "");
}

fn confluent(node: &Node, script: &str, arguments: &[&str]) {
    let mut command = python(&format!("tests/clients/python/{script}"));
    command.arg(node.bootstrap()).args(arguments);
    let said = run(command, "");
    assert!(said.ends_with("all good\n"), "{script}: {said}");
}
