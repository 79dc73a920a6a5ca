//! What the broker compressed again, because the topic's `compression.type` says so, every client
//! can open: each has a decoder of its own, and codecs have more than one way of framing.

use std::process::Command;

use tidelog_tests::{
    node::{Node, Options},
    programs::{java, python, tool},
};

use crate::judge;

#[test]
fn batches_that_the_broker_opened_are_read() {
    recompressed("uncompressed", vec![go("franz"), java("java", "clients.Stock")]);
}

#[test]
fn batches_in_the_brokers_gzip_are_read() {
    recompressed("gzip", vec![go("segmentio"), aiokafka()]);
}

#[test]
fn batches_in_the_brokers_snappy_are_read() {
    recompressed("snappy", vec![java("java-3", "clients.Stock"), kafka_python(), go("sarama")]);
}

#[test]
fn batches_in_the_brokers_lz4_are_read() {
    recompressed("lz4", vec![java("java-newest", "clients.Stock"), go("franz"), rdkafka()]);
}

#[test]
fn batches_in_the_brokers_zstd_are_read() {
    recompressed("zstd", vec![go("segmentio"), go("sarama"), aiokafka()]);
}

/// Each program brings every codec that it has, and the broker stores them all in this one.
fn recompressed(codec: &str, programs: Vec<Command>) {
    for program in programs {
        let options = Options::default().small_bounds().set("compression.type", codec);
        judge(program, &Node::start(options));
    }
}

fn go(name: &str) -> Command {
    Command::new(tool(&format!("go/{name}")))
}

fn rdkafka() -> Command {
    Command::new(tool("rust/debug/stock-client"))
}

fn aiokafka() -> Command {
    python("tests/clients/python/aiokafka_program.py")
}

fn kafka_python() -> Command {
    python("tests/clients/python/kafka_python_program.py")
}
