//! What a run is told as: a line that Kafka's own tools would print, a table, JSON.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Write},
    path::Path,
    time::Duration,
};

use anyhow::{Context, Result};
use hdrhistogram::Histogram;
use serde::Serialize;

use crate::{
    args::{ConsumeArgs, ProduceArgs},
    process::Usage,
    run::Measured,
    stats::{Counts, Stats},
};

const MEBIBYTE: f64 = 1_048_576.0;

/// What one run came to.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Raised when a field changes its meaning.
    pub schema: u32,
    /// `produce` or `consume`.
    pub load: &'static str,
    /// The parameters, as the command line would give them.
    pub parameters: BTreeMap<&'static str, String>,
    /// How long was measured.
    pub seconds: f64,
    /// Requests answered well in that time.
    pub requests: u64,
    /// Their records.
    pub records: u64,
    /// Bytes of their values (produce) or batches (consume).
    pub bytes: u64,
    /// The same by the second.
    pub requests_per_second: f64,
    /// The same by the second.
    pub records_per_second: f64,
    /// The same by the second, in units of 1,048,576 bytes.
    pub mebibytes_per_second: f64,
    /// From the intended time of a request to its answer.
    pub latency_ms: Latency,
    /// What went wrong, by name, at any time.
    pub errors: BTreeMap<String, u64>,
    /// What does not add up.
    pub problems: Vec<String>,
    /// What the broker used, where its process was named.
    pub broker: Option<Broker>,
}

/// A latency distribution, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Latency {
    /// Arithmetic mean.
    pub mean: f64,
    /// Median.
    pub p50: f64,
    /// One in twenty is slower.
    pub p95: f64,
    /// One in a hundred is slower.
    pub p99: f64,
    /// One in a thousand is slower.
    pub p999: f64,
    /// None is slower.
    pub max: f64,
}

/// The broker's process in the measured time.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Broker {
    /// User and system time.
    pub cpu_seconds: f64,
    /// The same for each request, in microseconds.
    pub cpu_us_per_request: f64,
    /// Memory at the end.
    pub resident_bytes: u64,
    /// Most memory since it started.
    pub resident_bytes_peak: u64,
    /// Calls that read or write, for each request.
    pub read_write_calls_per_request: f64,
    /// Handed to storage.
    pub written_bytes: u64,
    /// The same for each byte of a record's value.
    pub written_per_value_byte: f64,
}

impl Report {
    pub(crate) fn produce(
        args: &ProduceArgs,
        frame_bytes: usize,
        stats: &Stats,
        measured: Measured,
    ) -> Report {
        let parameters = BTreeMap::from([
            ("topic", args.common.topic.clone()),
            ("connections", args.common.connections.to_string()),
            ("threads", args.common.threads.to_string()),
            ("inflight", args.inflight.to_string()),
            ("message-size", args.message_size.to_string()),
            ("batch-records", args.batch_records.to_string()),
            ("acks", args.acks.wire().to_string()),
            ("rate", args.rate.map_or_else(|| "closed loop".to_owned(), |r| r.to_string())),
            ("request-bytes", frame_bytes.to_string()),
        ]);
        Report::new("produce", parameters, stats, measured)
    }

    pub(crate) fn consume(args: &ConsumeArgs, stats: &Stats, measured: Measured) -> Report {
        let parameters = BTreeMap::from([
            ("topic", args.common.topic.clone()),
            ("connections", args.common.connections.to_string()),
            ("threads", args.common.threads.to_string()),
            ("fetch-bytes", args.fetch_bytes.to_string()),
        ]);
        Report::new("consume", parameters, stats, measured)
    }

    fn new(
        load: &'static str,
        parameters: BTreeMap<&'static str, String>,
        stats: &Stats,
        measured: Measured,
    ) -> Report {
        let per_second = |count: u64| count as f64 / measured.seconds.max(1e-9);
        Report {
            schema: 1,
            load,
            parameters,
            seconds: measured.seconds,
            requests: stats.requests,
            records: stats.records,
            bytes: stats.bytes,
            requests_per_second: per_second(stats.requests),
            records_per_second: per_second(stats.records),
            mebibytes_per_second: per_second(stats.bytes) / MEBIBYTE,
            latency_ms: Latency::of(&stats.latency_us),
            errors: stats.errors.clone(),
            problems: Vec::new(),
            broker: measured.usage.map(|usage| Broker::of(usage, stats)),
        }
    }

    /// Whether there were requests, all were answered without an error, and everything adds up.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.requests > 0 && self.errors.is_empty() && self.problems.is_empty()
    }

    /// Prints the report.
    ///
    /// # Errors
    /// When standard output is closed.
    pub fn print(&self) -> io::Result<()> {
        let mut out = io::stdout().lock();
        let parameters: Vec<String> =
            self.parameters.iter().map(|(name, value)| format!("{name}={value}")).collect();
        writeln!(out, "{}: {}", self.load, parameters.join(" "))?;
        writeln!(out, "{}", self.summary())?;
        self.print_table(&mut out)?;
        for (name, count) in &self.errors {
            writeln!(out, "error: {count} x {name}")?;
        }
        for problem in &self.problems {
            writeln!(out, "problem: {problem}")?;
        }
        out.flush()
    }

    /// Writes the report as JSON.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write_json(&self, path: &Path) -> Result<()> {
        let json = serde_json::to_string_pretty(self)?;
        fs::write(path, json + "\n").with_context(|| format!("cannot write {}", path.display()))
    }

    /// In the manner of Kafka's own producer tool, which says MB where it means MiB.
    fn summary(&self) -> String {
        let latency = &self.latency_ms;
        let verb = if self.load == "produce" { "sent" } else { "consumed" };
        if self.requests == 0 {
            return format!("nothing was {verb} in the measured time");
        }
        format!(
            "{} records {verb}, {:.1} records/sec ({:.2} MiB/sec), {:.2} ms avg latency, \
             {:.2} ms max latency, {:.2} ms 50th, {:.2} ms 95th, {:.2} ms 99th, {:.2} ms 99.9th.",
            self.records,
            self.records_per_second,
            self.mebibytes_per_second,
            latency.mean,
            latency.max,
            latency.p50,
            latency.p95,
            latency.p99,
            latency.p999,
        )
    }

    fn print_table(&self, out: &mut impl Write) -> io::Result<()> {
        let latency = &self.latency_ms;
        let errors: u64 = self.errors.values().sum();
        let mut rows = vec![
            ("seconds", format!("{:.2}", self.seconds)),
            ("requests/s", format!("{:.0}", self.requests_per_second)),
            ("records/s", format!("{:.0}", self.records_per_second)),
            ("MiB/s", format!("{:.1}", self.mebibytes_per_second)),
        ];
        if self.requests > 0 {
            rows.extend([
                ("latency p50 ms", format!("{:.3}", latency.p50)),
                ("latency p95 ms", format!("{:.3}", latency.p95)),
                ("latency p99 ms", format!("{:.3}", latency.p99)),
                ("latency p99.9 ms", format!("{:.3}", latency.p999)),
                ("latency max ms", format!("{:.3}", latency.max)),
            ]);
        }
        rows.push(("errors", errors.to_string()));
        if let Some(broker) = &self.broker {
            rows.extend([
                ("broker CPU s", format!("{:.2}", broker.cpu_seconds)),
                ("broker CPU us/request", format!("{:.2}", broker.cpu_us_per_request)),
                ("broker RSS MiB", mebibytes(broker.resident_bytes)),
                ("broker RSS peak MiB", mebibytes(broker.resident_bytes_peak)),
                (
                    "broker read+write calls/request",
                    format!("{:.3}", broker.read_write_calls_per_request),
                ),
                ("broker written MiB", mebibytes(broker.written_bytes)),
                ("broker written/value byte", format!("{:.3}", broker.written_per_value_byte)),
            ]);
        }
        for (name, value) in rows {
            writeln!(out, "  {name:<32} {value:>14}")?;
        }
        Ok(())
    }
}

/// Tells on standard error what the last second brought.
pub(crate) fn progress(
    elapsed: Duration,
    earlier: Counts,
    counts: Counts,
    usage: Option<Usage>,
) -> io::Result<()> {
    let mut line = format!(
        "{:>4.0} s  {:>8} requests/s  {:>9} records/s  {:>8} MiB/s",
        elapsed.as_secs_f64(),
        counts.requests - earlier.requests,
        counts.records - earlier.records,
        mebibytes(counts.bytes - earlier.bytes),
    );
    if let Some(usage) = usage {
        let memory = mebibytes(usage.resident_bytes);
        line += &format!("  broker RSS {memory} MiB");
    }
    writeln!(io::stderr(), "{line}")
}

fn mebibytes(bytes: u64) -> String {
    format!("{:.1}", bytes as f64 / MEBIBYTE)
}

impl Latency {
    fn of(histogram: &Histogram<u64>) -> Latency {
        let at = |quantile| histogram.value_at_quantile(quantile) as f64 / 1000.0;
        Latency {
            mean: histogram.mean() / 1000.0,
            p50: at(0.5),
            p95: at(0.95),
            p99: at(0.99),
            p999: at(0.999),
            max: histogram.max() as f64 / 1000.0,
        }
    }
}

impl Broker {
    fn of(usage: Usage, stats: &Stats) -> Broker {
        let requests = stats.requests.max(1) as f64;
        Broker {
            cpu_seconds: usage.cpu_seconds,
            cpu_us_per_request: usage.cpu_seconds * 1e6 / requests,
            resident_bytes: usage.resident_bytes,
            resident_bytes_peak: usage.resident_bytes_peak,
            read_write_calls_per_request: usage.read_write_calls as f64 / requests,
            written_bytes: usage.written_bytes,
            written_per_value_byte: usage.written_bytes as f64 / stats.bytes.max(1) as f64,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn report(requests: u64) -> Report {
        let mut stats = Stats::new(Arc::default());
        for _ in 0..requests {
            stats.answered(10, 1 << 20);
            stats.latency_us.saturating_record(1500);
        }
        let measured = Measured { seconds: 2.0, usage: None };
        Report::new("produce", BTreeMap::new(), &stats, measured)
    }

    #[test]
    fn the_summary_says_how_much_and_how_fast() {
        let expected = "40 records sent, 20.0 records/sec (2.00 MiB/sec), 1.50 ms avg latency, \
                        1.50 ms max latency, 1.50 ms 50th, 1.50 ms 95th, 1.50 ms 99th, \
                        1.50 ms 99.9th.";
        assert_eq!(report(4).summary(), expected);
        assert!(report(4).is_clean());
    }

    #[test]
    fn a_run_in_which_nothing_succeeded_has_no_latency_and_is_not_clean() {
        assert_eq!(report(0).summary(), "nothing was sent in the measured time");
        assert!(!report(0).is_clean());
    }
}
