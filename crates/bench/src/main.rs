//! The load driver as a program of its own.

use std::process::ExitCode;

use clap::Parser;
use tidelog_bench::{BenchArgs, run};

/// Loads a Kafka-compatible broker and says what it held.
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    #[command(flatten)]
    bench: BenchArgs,
}

fn main() -> anyhow::Result<ExitCode> {
    run(Cli::parse().bench)
}
