//! rust-rdkafka.

use std::process::Command;

use tidelog_tests::programs::tool;

use crate::{judge, spilling_node};

#[test]
fn rust_rdkafka_finds_what_it_knows() {
    judge(Command::new(tool("rust/debug/stock-client")), &spilling_node());
}
