//! What can be asked on the command line.

use std::{path::PathBuf, time::Duration};

use clap::{Args, Subcommand, ValueEnum};

/// A load and where to put it.
#[derive(Debug, Clone, Args)]
pub struct BenchArgs {
    /// What to do to the broker.
    #[command(subcommand)]
    pub load: Load,
}

/// The kinds of load.
#[derive(Debug, Clone, Subcommand)]
pub enum Load {
    /// Send record batches and measure when they are acknowledged.
    Produce(ProduceArgs),
    /// Read a topic from its start as fast as the broker gives it.
    Consume(ConsumeArgs),
}

/// What every load needs to know.
#[derive(Debug, Clone, Args)]
pub struct CommonArgs {
    /// Brokers to ask for the topic's leaders, separated by commas.
    #[arg(long, default_value = "127.0.0.1:9092", value_delimiter = ',')]
    pub bootstrap_servers: Vec<String>,
    /// The topic.
    #[arg(long, default_value = "bench")]
    pub topic: String,
    /// TCP connections, dealt out to the partitions in turn.
    #[arg(long, default_value_t = 1)]
    pub connections: usize,
    /// How long to measure, such as 30s or 500ms.
    #[arg(long, default_value = "10s", value_parser = parse_duration)]
    pub duration: Duration,
    /// Threads that drive the connections.
    #[arg(long, default_value_t = 1)]
    pub threads: usize,
    /// The broker's process, whose CPU time, memory and writes are to be reported.
    #[arg(long)]
    pub pid: Option<u32>,
    /// Write the report to this file as JSON.
    #[arg(long)]
    pub json: Option<PathBuf>,
    /// No line for each second.
    #[arg(long)]
    pub quiet: bool,
}

/// How to produce.
#[derive(Debug, Clone, Args)]
pub struct ProduceArgs {
    /// What every load needs.
    #[command(flatten)]
    pub common: CommonArgs,
    /// Requests each connection keeps in flight.
    #[arg(long, default_value_t = 5)]
    pub inflight: usize,
    /// Bytes of each record's value, random.
    #[arg(long, default_value_t = 100)]
    pub message_size: usize,
    /// Records in each request's only batch.
    #[arg(long, default_value_t = 100)]
    pub batch_records: usize,
    /// Which acknowledgement to wait for.
    #[arg(long, value_enum, default_value_t = AcksArg::All)]
    pub acks: AcksArg,
    /// Requests a second in all, sent on schedule; latency then counts from the intended time.
    /// Without it each connection sends as soon as it may.
    #[arg(long)]
    pub rate: Option<f64>,
    /// How long to run before measuring.
    #[arg(long, default_value = "1s", value_parser = parse_duration)]
    pub warmup: Duration,
    /// Milliseconds that the broker may take before it gives a request up.
    #[arg(long, default_value_t = 30_000)]
    pub timeout_ms: i32,
    /// Create the topic if it does not exist.
    #[arg(long)]
    pub create_topic: bool,
    /// Partitions of the topic, if it is created.
    #[arg(long, default_value_t = 4)]
    pub partitions: i32,
    /// Replicas of each partition, if the topic is created; -1 leaves it to the broker.
    #[arg(long, default_value_t = -1, allow_hyphen_values = true)]
    pub replication_factor: i16,
}

/// How to consume.
#[derive(Debug, Clone, Args)]
pub struct ConsumeArgs {
    /// What every load needs.
    #[command(flatten)]
    pub common: CommonArgs,
    /// Bytes asked for in each fetch.
    #[arg(long, default_value_t = 4 << 20)]
    pub fetch_bytes: i32,
    /// Check each batch's CRC-32C.
    #[arg(long)]
    pub check_crcs: bool,
    /// Start over at the topic's start whenever its end is reached, until the time is up.
    #[arg(long)]
    pub repeat: bool,
}

/// Kafka's `acks`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum AcksArg {
    /// Every in-sync replica.
    #[value(name = "all", alias = "-1")]
    All,
    /// The leader.
    #[value(name = "1")]
    Leader,
    /// Nobody: counts what was handed to the kernel.
    #[value(name = "0")]
    None,
}

impl AcksArg {
    /// As the wire carries it.
    #[must_use]
    pub fn wire(self) -> i16 {
        match self {
            AcksArg::All => -1,
            AcksArg::Leader => 1,
            AcksArg::None => 0,
        }
    }
}

/// Reads `30s`, `500ms`, `2m` or bare seconds.
fn parse_duration(text: &str) -> Result<Duration, String> {
    let (number, factor) = if let Some(number) = text.strip_suffix("ms") {
        (number, 0.001)
    } else if let Some(number) = text.strip_suffix('s') {
        (number, 1.0)
    } else if let Some(number) = text.strip_suffix('m') {
        (number, 60.0)
    } else {
        (text, 1.0)
    };
    let expected = || format!("{text:?}: expected a time such as 30s, 500ms or 2m");
    let number: f64 = number.parse().map_err(|_| expected())?;
    Duration::try_from_secs_f64(number * factor).map_err(|_| expected())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_with_their_units() {
        let cases = [("30s", 30_000), ("500ms", 500), ("2m", 120_000), ("1.5", 1_500)];
        for (text, milliseconds) in cases {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
        for text in ["", "s", "-1s", "soon"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }
}
