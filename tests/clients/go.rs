//! The clients of Go: franz-go, kafka-go and sarama.

use std::process::Command;

use tidelog_tests::programs::tool;

use crate::{judge, spilling_node};

#[test]
fn franz_go_finds_what_it_knows() {
    judge(Command::new(tool("go/franz")), &spilling_node());
}

#[test]
fn kafka_go_finds_what_it_knows() {
    judge(Command::new(tool("go/segmentio")), &spilling_node());
}

#[test]
fn sarama_finds_what_it_knows() {
    judge(Command::new(tool("go/sarama")), &spilling_node());
}
