//! The first command of a newcomer.

use std::process::Command;

use tidelog_tests::programs::{root, run, tidelog};

#[test]
fn quickstart_shows_records_that_survive_a_kill() {
    let mut command = Command::new(root().join("scripts/quickstart"));
    // The build is the same as ours and would only take its time again.
    command.env("TIDELOG_BIN", tidelog());
    let said = run(command, "");
    assert!(said.contains("it works"), "{said}");
}
