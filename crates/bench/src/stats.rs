//! What was measured: counts, errors by name, latencies.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use hdrhistogram::Histogram;
use tidelog_types::ErrorCode;

/// Latencies up to ten minutes, in microseconds, to three digits.
const LATENCY_MAX_US: u64 = 600_000_000;

/// What all threads have done so far, to be watched.
#[derive(Debug, Default)]
pub(crate) struct Live {
    requests: AtomicU64,
    records: AtomicU64,
    bytes: AtomicU64,
}

/// One look at [`Live`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Counts {
    pub requests: u64,
    pub records: u64,
    pub bytes: u64,
}

impl Live {
    pub fn counts(&self) -> Counts {
        let [requests, records, bytes] =
            [&self.requests, &self.records, &self.bytes].map(|n| n.load(Ordering::Relaxed));
        Counts { requests, records, bytes }
    }
}

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
    live: Arc<Live>,
}

impl Stats {
    pub fn new(live: Arc<Live>) -> Stats {
        let latency_us = Histogram::new_with_bounds(1, LATENCY_MAX_US, 3);
        Stats {
            requests: 0,
            records: 0,
            bytes: 0,
            errors: BTreeMap::new(),
            acknowledged: BTreeMap::new(),
            unknown: BTreeMap::new(),
            latency_us: latency_us.expect("lawful bounds"),
            live,
        }
    }

    /// Counts one request that was answered well within the measured time.
    pub fn answered(&mut self, records: u64, bytes: u64) {
        self.requests += 1;
        self.records += records;
        self.bytes += bytes;
        self.live.requests.fetch_add(1, Ordering::Relaxed);
        self.live.records.fetch_add(records, Ordering::Relaxed);
        self.live.bytes.fetch_add(bytes, Ordering::Relaxed);
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
