//! Has logs compacted now and then, and tells the log what their records say.
//!
//! Which logs are due and what stays of them is the log's to decide: here are the time, and the
//! records' keys.

use std::{io, sync::Arc, thread, time::Duration};

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, bounded};
use tidelog_protocol::compaction::{self, RecordPlace};
use tidelog_types::{Clock, Entry};
use tidelog_wal::{BatchRewriter, CleanerConfig, OpenedBatch, OpenedRecord, Wal};

use crate::{config::BrokerSettings, record_walker::OPENED_BYTES_MAX};

/// Reads batches as Kafka's clients write them.
pub(crate) struct Rewriter;

impl BatchRewriter for Rewriter {
    fn open(&self, batch: &Entry, opened: &mut OpenedBatch) -> bool {
        let records = &mut opened.records;
        records.clear();
        let place = |place: RecordPlace| records.push(opened_record(&place));
        match compaction::open(batch, OPENED_BYTES_MAX, place) {
            Ok(bytes) => {
                opened.bytes = bytes;
                true
            }
            Err(_) => false, // whoever reads the batch finds it as it is
        }
    }

    fn rewrite(
        &self,
        batch: &Entry,
        opened: &OpenedBatch,
        keeps: &[bool],
        delete_horizon_ms: Option<i64>,
    ) -> Entry {
        let kept = opened.records.iter().zip(keeps).filter(|(_, keeps)| **keeps);
        let kept = kept.map(|(record, _)| record_place(record));
        compaction::rewrite(batch, &opened.bytes, kept, delete_horizon_ms)
    }

    fn empty(&self, batch: &Entry) -> Entry {
        compaction::emptied(&batch.facts())
    }
}

/// Ends the searches when it is dropped.
pub(crate) struct CompactionTimer {
    _running: Sender<()>,
}

/// Starts the log's cleaner, and a thread that has it look for work. `log.cleaner.backoff.ms`
///
/// # Errors
/// When the system gives no thread.
pub(crate) fn start(
    wal: &Wal,
    clock: Arc<dyn Clock>,
    settings: &BrokerSettings,
) -> io::Result<CompactionTimer> {
    let config = CleanerConfig {
        dedupe_bytes: u64::try_from(settings.log_cleaner_dedupe_buffer_size).unwrap_or(0),
        io_bytes_per_second: settings.log_cleaner_io_max_bytes_per_second as f64,
    };
    wal.start_cleaner(Arc::new(Rewriter), config)?;
    let pause = Duration::from_millis(u64::try_from(settings.log_cleaner_backoff_ms).unwrap_or(1));
    let (running, stopped) = bounded(0);
    let wal = wal.clone();
    let run = move || run(&wal, &*clock, pause, &stopped);
    thread::Builder::new().name("compaction".to_owned()).spawn(run)?;
    Ok(CompactionTimer { _running: running })
}

fn run(wal: &Wal, clock: &dyn Clock, pause: Duration, stopped: &Receiver<()>) {
    while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(pause) {
        wal.run_compaction(clock.wall_ms());
    }
}

/// Opened batches are far smaller than 4 GiB.
fn opened_record(place: &RecordPlace) -> OpenedRecord {
    let narrow = |range: &std::ops::Range<usize>| (range.start as u32, range.end as u32);
    OpenedRecord {
        offset_delta: place.offset_delta,
        bytes: narrow(&place.bytes),
        key: place.key.as_ref().map(narrow),
        has_value: place.has_value,
        timestamp_ms: place.timestamp_ms,
    }
}

fn record_place(record: &OpenedRecord) -> RecordPlace {
    let wide = |(start, end): (u32, u32)| start as usize..end as usize;
    RecordPlace {
        offset_delta: record.offset_delta,
        timestamp_ms: record.timestamp_ms,
        bytes: wide(record.bytes),
        key: record.key.map(wide),
        has_value: record.has_value,
    }
}
