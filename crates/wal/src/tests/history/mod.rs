//! Random histories of one data directory, each crashed again and again, compared with a model.
//!
//! The model is a list of what was asked of each partition, with the sequence of its frame. After
//! a recovery that kept everything up to some sequence, a partition must be exactly what the
//! operations up to there make of it; and everything that anybody was told of must be among them.

/// Says what a history does, if somebody wants to know.
macro_rules! trace {
    ($world:expr, $($text:tt)*) => {
        if $world.trace {
            eprintln!($($text)*);
        }
    };
}

mod broker;
mod compare;
mod crashes;
mod flips;

use std::{
    collections::BTreeMap,
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex},
    time::Duration,
};

use tidelog_types::{Entry, Offset, TopicIdPartition};

use super::{model::*, support::*};
use crate::{
    Durability, Log, LogSettings, ReadError, ReadOutcome, Snapshot, StorageError, WalConfig,
    WalError,
    chain::{ChainConfig, ChainFile, FileHeader},
    checkpoint::Checkpoint,
    env::{FileSystem, mem::MemFileSystem},
    file_cache::FileCache,
    recovery::{OWNER, scan},
    segment::{Segments, SegmentsConfig},
    shard::{lock, partition_dir},
    snapshot,
};

/// A violation of what the log promises, or the expected end of a life.
enum Stop {
    Violation(String),
    Died,
}

impl From<crate::Fatal> for Stop {
    fn from(_: crate::Fatal) -> Stop {
        Stop::Died
    }
}

fn violation<T>(what: impl Into<String>) -> Result<T, Stop> {
    Err(Stop::Violation(what.into()))
}

/// A header that was made unreadable.
struct LostHeader {
    id: TopicIdPartition,
    sequence: u64,
}

struct World {
    mem: MemFileSystem,
    fs: Arc<dyn FileSystem>,
    config: WalConfig,
    random: Random,
    node: Option<Node>,
    logs: BTreeMap<usize, (Log, Arc<Observer>)>,
    models: Vec<Model>,
    /// Everything up to here was told to somebody.
    floor: u64,
    next_tag: u64,
    trouble: Trouble,
    flipped: u32,
    lost_headers: Vec<LostHeader>,
    trace: bool,
}

/// Runs one history; an error is what was violated.
pub(super) fn run(seed: u64, trouble: Trouble) -> Result<(), String> {
    let (steps, lives) = [(14, 2), (25, 2), (60, 3), (120, 4), (250, 5)][seed as usize % 5];
    let history = || World::new(seed, trouble).live(steps, lives);
    match catch_unwind(AssertUnwindSafe(history)) {
        Ok(Ok(()) | Err(Stop::Died)) => Ok(()),
        Ok(Err(Stop::Violation(what))) => Err(format!("seed {seed} {trouble:?}: {what}")),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            Err(format!("seed {seed} {trouble:?}: panicked: {}", text.unwrap_or_default()))
        }
    }
}

impl World {
    fn new(seed: u64, trouble: Trouble) -> World {
        let mem = MemFileSystem::new();
        let models = (0..PARTITIONS).map(|_| Model { exists: true, ..Model::default() }).collect();
        World {
            fs: Arc::new(mem.clone()),
            mem,
            config: WalConfig {
                durability: match trouble {
                    Trouble::PageCache => Durability::PageCache,
                    _ => Durability::Synced,
                },
                ..small_config()
            },
            random: Random::new(seed),
            node: None,
            logs: BTreeMap::new(),
            models,
            floor: 0,
            next_tag: 1,
            trouble,
            flipped: 0,
            lost_headers: Vec::new(),
            trace: std::env::var("TIDELOG_TRACE").is_ok(),
        }
    }

    fn live(&mut self, steps: u64, lives: u64) -> Result<(), Stop> {
        for life in 0..=lives {
            let is_last = life == lives;
            if !self.recover(is_last)? {
                return Ok(());
            }
            self.check()?;
            if is_last {
                return Ok(());
            }
            let lives_on = self.random.percent(15) || self.act(steps)?;
            if lives_on && self.trouble == Trouble::DiskFull && !self.mem.is_off() {
                match self.check_relief() {
                    Ok(()) | Err(Stop::Died) => {}
                    Err(violation) => return Err(violation),
                }
            }
            self.relieve();
            self.end_life();
        }
        Ok(())
    }
}

#[test]
fn no_history_loses_what_was_told_or_brings_back_what_was_not() {
    check_all(0..1500, Trouble::None);
}

#[test]
fn a_flipped_bit_in_the_wal_is_named_and_never_shortens_a_log_silently() {
    check_all(10_000..10_800, Trouble::FlipWal);
}

#[test]
fn a_flipped_bit_in_a_segment_index_or_snapshot_never_serves_wrong_bytes() {
    check_all(20_000..20_800, Trouble::FlipSegments);
}

#[test]
fn a_full_disk_loses_nothing_and_ends_by_itself() {
    check_all(30_000..30_600, Trouble::DiskFull);
}

#[test]
fn few_descriptors_lose_nothing() {
    check_all(40_000..40_500, Trouble::FewDescriptors);
}

#[test]
fn without_waiting_for_syncs_a_power_loss_takes_the_end_and_nothing_before_it() {
    check_all(50_000..50_600, Trouble::PageCache);
}

fn check_all(seeds: Range<u64>, trouble: Trouble) {
    let seeds = match std::env::var("TIDELOG_SEED").ok().and_then(|seed| seed.parse().ok()) {
        Some(seed) => seed..seed + 1,
        None => {
            let more = std::env::var("TIDELOG_HISTORIES").ok().and_then(|count| count.parse().ok());
            seeds.start..more.map_or(seeds.end, |more: u64| seeds.start + more)
        }
    };
    let failures: Vec<String> = seeds.filter_map(|seed| run(seed, trouble).err()).collect();
    assert!(
        failures.is_empty(),
        "{} failures, first {:?}",
        failures.len(),
        &failures[..failures.len().min(5)]
    );
}
