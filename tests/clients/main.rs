//! Stock clients as the judge: programs as their users write them, and the tools people have.
//!
//! `scripts/setup` installs the clients; a missing one fails its test. The programs pass against
//! Apache Kafka 4.2 too, given segments of at least the 1 MiB that it asks for.

mod go;
mod java;
mod kcat;
mod node;
mod python;
mod quickstart;
mod recompression;
mod rust;

use std::process::Command;

use tidelog_tests::{
    node::{Node, Options},
    programs::run,
};

/// A broker that keeps so little in memory that reading what a program wrote reads segment files.
fn spilling_node() -> Node {
    Node::start(Options::default().small_bounds().set("wal.tail.max.bytes", "1048576"))
}

/// Runs a program that takes the broker's address last, and ends badly unless all was as expected.
fn judge(mut program: Command, node: &Node) {
    program.arg(node.bootstrap());
    let said = run(program, "");
    assert!(said.ends_with("all good\n"), "{said}");
}
