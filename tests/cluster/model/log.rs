//! What the model knows of one partition's log.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use tidelog_tests::batch;

use super::batches::Sent;

/// Batches of one producer that are told from new ones.
const REMEMBERED: usize = 5;

/// A batch in the log.
#[derive(Debug, Clone)]
pub struct Stored {
    pub base_offset: i64,
    pub sent: Sent,
}

impl Stored {
    pub fn next_offset(&self) -> i64 {
        self.base_offset + self.sent.timestamps.len() as i64
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
    pub fn append(&mut self, sent: Sent) {
        let base_offset = self.end_offset();
        if let Some((id, epoch, base_sequence)) = sent.producer {
            let producer = self.producers.entry(id).or_default();
            if epoch > producer.epoch {
                *producer = Producer { epoch, ..Producer::default() };
            }
            producer.batches.push_back((base_sequence, base_offset, sent.timestamps.len()));
            if producer.batches.len() > REMEMBERED {
                producer.batches.pop_front();
            }
        }
        self.batches.push(Stored { base_offset, sent });
    }

    /// The log is seen to end here: so many of the unanswered batches arrived, and no other will.
    pub fn resolve(&mut self, end_offset: i64) {
        while self.end_offset() < end_offset {
            let arrived = self.unanswered.pop_front().expect("nothing that nobody sent");
            self.append(arrived);
        }
        assert_eq!(self.end_offset(), end_offset, "the log ends where a batch does");
        self.unanswered.clear();
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
            let sent = &stored.sent.bytes;
            let same = batch[8..12] == sent[8..12] && batch[16..] == sent[16..];
            assert!(same, "the batch at {base_offset} is not what was sent");
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
        let records = batches
            .flat_map(|stored| stored.sent.timestamps.iter().copied().zip(stored.base_offset..));
        records.filter(|(_, offset)| *offset >= self.log_start_offset)
    }
}
