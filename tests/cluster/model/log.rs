//! What the model knows of one partition's log.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use tidelog_tests::batch;

use super::{batches::Sent, settings::Limit};

/// Batches of one producer that are told from new ones.
const REMEMBERED: usize = 5;

/// A batch in the log.
#[derive(Debug, Clone)]
pub struct Stored {
    pub base_offset: i64,
    pub sent: Sent,
    /// As a fetch gives it, but for its base offset and leader epoch.
    pub bytes: Bytes,
    /// Of each record.
    pub timestamps: Vec<i64>,
}

impl Stored {
    /// Nothing of it was changed.
    pub fn as_sent(base_offset: i64, sent: Sent) -> Stored {
        let (bytes, timestamps) = (sent.bytes.clone(), sent.timestamps.clone());
        Stored { base_offset, sent, bytes, timestamps }
    }

    pub fn next_offset(&self) -> i64 {
        self.base_offset + self.timestamps.len() as i64
    }
}

/// What a log remembers of one producer.
#[derive(Debug, Clone, Default)]
pub struct Producer {
    pub epoch: i16,
    /// First sequence and base offset of its last batches, and how many records each has.
    pub batches: VecDeque<(i32, i64, usize)>,
}

impl Producer {
    pub fn next_sequence(&self) -> i32 {
        self.batches
            .back()
            .map_or(0, |(first, _, count)| first + i32::try_from(*count).expect("few records"))
    }
}

/// One partition's log.
#[derive(Debug, Clone, Default)]
pub struct Log {
    pub log_start_offset: i64,
    /// What is certainly there, and may lie below the log start.
    pub batches: Vec<Stored>,
    /// What was sent behind that without an answer. Once the broker was killed, it is unknown how
    /// many of these the log has; those that it has are the first ones.
    pub unanswered: VecDeque<Sent>,
    pub producers: BTreeMap<i64, Producer>,
}

impl Log {
    pub fn end_offset(&self) -> i64 {
        self.batches.last().map_or(0, Stored::next_offset)
    }

    /// The end, with everything that was not answered.
    pub fn end_if_all_arrive(&self) -> i64 {
        let records = self.unanswered.iter().map(|sent| sent.timestamps.len() as i64);
        self.end_offset() + records.sum::<i64>()
    }

    /// Appends what the broker said it appended.
    pub fn append(&mut self, stored: Stored) {
        assert_eq!(stored.base_offset, self.end_offset(), "batches follow each other");
        if let Some((id, epoch, base_sequence)) = stored.sent.producer {
            let producer = self.producers.entry(id).or_default();
            if epoch > producer.epoch {
                *producer = Producer { epoch, ..Producer::default() };
            }
            let batch = (base_sequence, stored.base_offset, stored.timestamps.len());
            producer.batches.push_back(batch);
            if producer.batches.len() > REMEMBERED {
                producer.batches.pop_front();
            }
        }
        self.batches.push(stored);
    }

    /// The log is seen to start here, after retention with this limit: whole batches went, and none
    /// that the limit keeps at `now_ms`.
    pub fn retained(&mut self, start_offset: i64, limit: Limit, now_ms: i64) {
        if start_offset == self.log_start_offset {
            return;
        }
        assert!(start_offset > self.log_start_offset, "a log does not grow in front");
        let first_gone = self.batches.len() - self.from(self.log_start_offset).len();
        let kept = self.from(start_offset);
        let gone = &self.batches[first_gone..self.batches.len() - kept.len()];
        let ends = gone.last().map(Stored::next_offset);
        assert_eq!(ends, Some(start_offset), "a log starts where a batch does");
        match limit {
            Limit::Milliseconds(ms) => {
                let newest = gone.iter().flat_map(|stored| &stored.timestamps).max();
                assert!(newest.is_some_and(|at| *at < now_ms - ms), "{newest:?} is too new to go");
            }
            Limit::Bytes(bytes) => {
                let left: i64 = kept.iter().map(|stored| stored.bytes.len() as i64).sum();
                assert!(left >= bytes, "{left} bytes are left of {bytes}");
            }
        }
        self.log_start_offset = start_offset;
    }

    /// The batches from the one that holds `offset` on.
    pub fn from(&self, offset: i64) -> &[Stored] {
        let first = self.batches.partition_point(|stored| stored.next_offset() <= offset);
        &self.batches[first..]
    }

    /// Checks that `records` are whole batches as they were sent, from the one that holds `offset`
    /// on. Returns how many there are.
    pub fn check(&self, offset: i64, records: Bytes) -> usize {
        let bytes = records.len();
        let found = batch::split(records);
        let found_bytes: usize = found.iter().map(|(_, batch)| batch.len()).sum();
        assert_eq!(found_bytes, bytes, "whole batches");
        let expected = self.from(offset);
        assert!(found.len() <= expected.len(), "more batches than there are");
        for ((base_offset, batch), stored) in found.iter().zip(expected) {
            assert_eq!(*base_offset, stored.base_offset);
            let known = &stored.bytes;
            let same = batch[8..12] == known[8..12] && batch[16..] == known[16..];
            assert!(same, "the batch at {base_offset} is not what was stored");
        }
        found.len()
    }

    /// The first readable record that is not earlier than `timestamp`: when and where.
    pub fn at_or_after(&self, timestamp: i64) -> Option<(i64, i64)> {
        self.records().find(|(at, _)| *at >= timestamp)
    }

    /// The first of the latest readable records: when and where.
    pub fn latest(&self) -> Option<(i64, i64)> {
        let latest = self.records().map(|(at, _)| at).max()?;
        self.records().find(|(at, _)| *at == latest)
    }

    fn records(&self) -> impl Iterator<Item = (i64, i64)> {
        let batches = self.batches.iter();
        let records =
            batches.flat_map(|stored| stored.timestamps.iter().copied().zip(stored.base_offset..));
        records.filter(|(_, offset)| *offset >= self.log_start_offset)
    }
}
