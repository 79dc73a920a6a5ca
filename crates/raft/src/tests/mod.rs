//! Whole nodes under test: real threads over a real disk, and stepped ones over disks that fail.

mod chaos;
mod cluster;
mod conformance;
mod contract;
mod crashes;
mod fuzz;
mod regressions;
mod restarts;
mod sole_voter;
mod store;
mod three_voters;

use prometheus::Registry;
use raft::eraftpb::Entry;

use crate::RaftMetrics;

/// Metrics with a registry of their own.
fn metrics() -> RaftMetrics {
    RaftMetrics::register(&Registry::new()).expect("a registry of its own")
}

/// An entry with data that nobody else has.
fn entry(index: u64, term: u64) -> Entry {
    let data = format!("entry {index} of term {term}").into_bytes().into();
    Entry { index, term, data, ..Entry::default() }
}

fn entries(range: std::ops::RangeInclusive<u64>, term: u64) -> Vec<Entry> {
    range.map(|index| entry(index, term)).collect()
}

/// Seeds to play: so many, or as many as `TIDELOG_SEEDS` says for a long run by hand.
fn seeds(count: u64) -> std::ops::Range<u64> {
    let asked = std::env::var("TIDELOG_SEEDS").ok().and_then(|seeds| seeds.parse().ok());
    0..asked.unwrap_or(count)
}

/// Says which seed to replay when the test that holds it fails.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("failed with seed {}", self.0);
        }
    }
}
