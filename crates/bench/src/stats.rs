//! What was measured: counts, errors by name, latencies.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use tidelog_types::ErrorCode;

/// Latencies up to ten minutes, in microseconds, to three digits.
const LATENCY_MAX_US: u64 = 600_000_000;

/// One thread's measurements; they add up.
#[derive(Debug, Clone)]
pub(crate) struct Stats {
    /// Requests answered well within the measured time.
    pub requests: u64,
    /// Their records.
    pub records: u64,
    /// Bytes of their records' values (produce) or of their batches (consume).
    pub bytes: u64,
    /// Everything that went wrong at any time, by name.
    pub errors: BTreeMap<String, u64>,
    /// Records acknowledged at any time, by partition.
    pub acknowledged: BTreeMap<i32, u64>,
    /// Requests without an answer to tell of them, by partition.
    pub unknown: BTreeMap<i32, u64>,
    pub latency_us: Histogram<u64>,
}

impl Stats {
    pub fn new() -> Stats {
        let latency_us = Histogram::new_with_bounds(1, LATENCY_MAX_US, 3);
        Stats {
            requests: 0,
            records: 0,
            bytes: 0,
            errors: BTreeMap::new(),
            acknowledged: BTreeMap::new(),
            unknown: BTreeMap::new(),
            latency_us: latency_us.expect("lawful bounds"),
        }
    }

    pub fn error(&mut self, name: String, count: u64) {
        *self.errors.entry(name).or_default() += count;
    }

    pub fn error_code(&mut self, code: i16) {
        let known = ErrorCode::from_wire(code);
        self.error(known.map_or_else(|| format!("ERROR_{code}"), ErrorCode::name), 1);
    }

    pub fn merge(&mut self, other: &Stats) {
        self.requests += other.requests;
        self.records += other.records;
        self.bytes += other.bytes;
        add_all(&mut self.errors, &other.errors);
        add_all(&mut self.acknowledged, &other.acknowledged);
        add_all(&mut self.unknown, &other.unknown);
        self.latency_us += &other.latency_us;
    }
}

fn add_all<K: Ord + Clone>(to: &mut BTreeMap<K, u64>, from: &BTreeMap<K, u64>) {
    for (key, count) in from {
        *to.entry(key.clone()).or_default() += count;
    }
}
