//! Reads a shard's log from its start to its end, a piece at a time, and gives each record to it.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use bytes::Bytes;
use tidelog_protocol::{
    record_batch,
    records::{Records, RecordsError},
};
use tidelog_types::{Entry, Offset};
use tidelog_wal::{ReadError, ReadOutcome};
use tokio::sync::oneshot;
use tracing::warn;

use super::shard::{LoggedRecord, Shard};
use crate::{coordinator::metrics::CoordinatorMetrics, partition::Partition};

/// Bytes that are read at once: other shards are not kept waiting for more.
const PIECE_BYTES: usize = 1 << 20;
/// Bytes that one batch may take once it is open. None of ours is compressed.
const OPENED_BYTES_MAX: usize = 64 << 20;

/// Why a log cannot be read to its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadError {
    /// As the log says.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// There should be more records.
    #[error("there is nothing to read at {from}, though the log ends at {end}")]
    Nothing {
        /// Where it was read.
        from: Offset,
        /// Where it ends.
        end: Offset,
    },
}

/// A shard that does not know everything yet.
pub(crate) struct Loading<S> {
    shard: S,
    partition: Arc<Partition>,
    next: Offset,
    /// Where the log ended when the loading began: this broker leads, so nobody appends but us.
    end: Offset,
    reading: Option<oneshot::Receiver<Result<Vec<Bytes>, ReadError>>>,
    started: Instant,
    records: u64,
}

/// A shard that knows everything below an offset.
pub(crate) struct Loaded<S> {
    /// The shard.
    pub shard: S,
    /// Where its log ends.
    pub end: Offset,
    /// Records that were read.
    pub records: u64,
    /// How long that took.
    pub took: Duration,
}

impl<S: Shard> Loading<S> {
    /// Begins at the log's start.
    pub fn new(shard: S, partition: Arc<Partition>) -> Loading<S> {
        let (next, end) = (partition.log().log_start_offset(), partition.log().log_end_offset());
        assert!(next <= end, "a log starts before it ends");
        let started = Instant::now();
        Loading { shard, partition, next, end, reading: None, started, records: 0 }
    }

    /// Reads one more piece. Ready with nothing while there is more to read, so that others get
    /// their turn.
    pub fn poll(
        &mut self,
        metrics: &CoordinatorMetrics,
        context: &mut Context<'_>,
    ) -> Poll<Result<(), LoadError>> {
        if self.is_complete() {
            return Poll::Ready(Ok(())); // an empty log
        }
        let entries = ready!(self.poll_piece(context))?;
        if entries.is_empty() {
            // To go on without what may be missing would be to forget it.
            return Poll::Ready(Err(LoadError::Nothing { from: self.next, end: self.end }));
        }
        for entry in &entries {
            self.load_batch(entry, metrics);
        }
        Poll::Ready(Ok(()))
    }

    /// Whether everything was read.
    pub fn is_complete(&self) -> bool {
        self.next >= self.end
    }

    /// The shard, once everything was read.
    pub fn finish(self) -> Loaded<S> {
        assert!(self.is_complete(), "a shard that does not know everything must not serve");
        let took = self.started.elapsed();
        Loaded { shard: self.shard, end: self.end, records: self.records, took }
    }

    fn poll_piece(&mut self, context: &mut Context<'_>) -> Poll<Result<Vec<Entry>, ReadError>> {
        if self.reading.is_none() {
            match self.partition.read(self.next, self.end, PIECE_BYTES, true)? {
                ReadOutcome::Entries(entries) => return Poll::Ready(Ok(entries)),
                ReadOutcome::Cold(cold) => {
                    let (sender, receiver) = oneshot::channel();
                    let done = move |outcome| {
                        let _ = sender.send(outcome); // the shard may have gone meanwhile
                    };
                    self.partition.log().read_cold(cold, Box::new(done))?;
                    self.reading = Some(receiver);
                }
            }
        }
        let reading = self.reading.as_mut().expect("a read was begun");
        let outcome = ready!(Pin::new(reading).poll(context));
        self.reading = None;
        let pieces = outcome.unwrap_or(Err(ReadError::Closed))?;
        Poll::Ready(Ok(pieces.into_iter().flat_map(record_batch::split).collect()))
    }

    fn load_batch(&mut self, entry: &Entry, metrics: &CoordinatorMetrics) {
        let facts = entry.facts();
        self.next = facts.next_offset();
        if facts.is_control() {
            return; // says what became of a transaction, which is not a record of the shard's
        }
        let loaded = Records::open(entry, OPENED_BYTES_MAX).map(|records| {
            records.keyed().for_each(|record| match record {
                Ok(record) => {
                    let offset = record.facts.offset;
                    let Some(key) = record.key else {
                        return self.skip(offset, "it has no key", metrics);
                    };
                    let logged = LoggedRecord { key, value: record.value };
                    match self.shard.load(logged) {
                        Ok(()) => self.records += 1,
                        Err(why) => self.skip(offset, &why, metrics),
                    }
                }
                Err(error) => self.skip(facts.base_offset, &error.to_string(), metrics),
            });
        });
        loaded.unwrap_or_else(|error: RecordsError| {
            self.skip(facts.base_offset, &error.to_string(), metrics);
        });
    }

    /// Passes over what cannot be read, as Kafka does: the rest of the log is worth having.
    fn skip(&self, offset: Offset, why: &str, metrics: &CoordinatorMetrics) {
        metrics.unreadable_records.inc();
        let (topic, partition) = (S::TOPIC, self.partition.id().partition);
        warn!(topic, partition, %offset, why, "a record that cannot be read is passed over");
    }
}
