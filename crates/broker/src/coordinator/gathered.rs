//! Records that were planned and are to be appended together, as few batches as they fit into.

use tidelog_protocol::batch_builder::BatchBuilder;
use tidelog_types::Entry;

use super::shard::LoggedRecord;

/// Bytes at which a batch is full. A record that is larger gets one of its own.
const BATCH_BYTES: usize = 512 << 10;

/// Batches under construction.
#[derive(Debug, Default)]
pub(crate) struct Gathered {
    batches: Vec<BatchBuilder>,
    bytes: usize,
    records: u64,
}

impl Gathered {
    pub fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    /// Bytes of all batches.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// What the log charges for them.
    pub fn memory_bytes(&self) -> u64 {
        let entry = |batch: &BatchBuilder| Entry::memory_bytes_of(batch.bytes());
        self.batches.iter().map(entry).sum()
    }

    /// How many records there are.
    pub fn records(&self) -> u64 {
        self.records
    }

    /// Adds a record, to the last batch if that stays below `batch_bytes`.
    pub fn push(&mut self, record: &LoggedRecord, now_ms: i64, batch_bytes: usize) {
        let (record_bytes, full) = (record_bytes_max(record), batch_bytes.min(BATCH_BYTES));
        let has_room = |last: &&mut BatchBuilder| last.bytes() + record_bytes <= full;
        if self.batches.last_mut().filter(has_room).is_none() {
            self.batches.push(BatchBuilder::new(now_ms));
        }
        let batch = self.batches.last_mut().expect("one was pushed");
        let before = batch.bytes();
        batch.push(now_ms, Some(&record.key), record.value.as_deref());
        self.bytes += batch.bytes() - before;
        self.records += 1;
    }

    /// The batches, ready for the log.
    pub fn into_entries(self) -> Vec<Entry> {
        self.batches.into_iter().map(BatchBuilder::entry).collect()
    }
}

/// Whether a record fits into a batch of its own.
pub(crate) fn fits(record: &LoggedRecord, batch_bytes_max: usize) -> bool {
    let empty = BatchBuilder::new(0).bytes();
    empty + record_bytes_max(record) <= batch_bytes_max
}

fn record_bytes_max(record: &LoggedRecord) -> usize {
    BatchBuilder::record_bytes_max(Some(&record.key), record.value.as_deref())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use tidelog_protocol::records::Records;

    use super::*;

    fn record(number: usize, value_bytes: usize) -> LoggedRecord {
        let key = Bytes::from(number.to_string());
        LoggedRecord { key, value: Some(Bytes::from(vec![7; value_bytes])) }
    }

    #[test]
    fn records_keep_their_order_in_batches_within_their_bound() {
        for (batch_bytes_max, batches) in [(100_000, 1), (1000, 10), (200, 100)] {
            let mut gathered = Gathered::default();
            let records: Vec<_> = (0..100).map(|number| record(number, 80)).collect();
            records.iter().for_each(|record| gathered.push(record, 5, batch_bytes_max));
            assert_eq!(gathered.records(), 100);
            let entries = gathered.into_entries();
            assert_eq!(entries.len(), batches, "{batch_bytes_max}");
            assert!(entries.iter().all(|entry| entry.len() <= batch_bytes_max));
            let walked = entries.iter().flat_map(|entry| {
                Records::open(entry, usize::MAX).expect("open").keyed().map(|r| r.expect("lawful"))
            });
            assert!(
                walked
                    .map(|r| (r.key, r.value))
                    .eq(records.into_iter().map(|r| (Some(r.key), r.value)))
            );
        }
    }

    #[test]
    fn a_record_fits_as_long_as_a_batch_of_it_does() {
        let bytes_max = 1000;
        let largest = (0..bytes_max).filter(|bytes| fits(&record(1, *bytes), bytes_max)).max();
        let mut gathered = Gathered::default();
        gathered.push(&record(1, largest.expect("a small one fits")), i64::MAX, bytes_max);
        assert!(gathered.into_entries()[0].len() <= bytes_max);
        assert!(!fits(&record(1, bytes_max), bytes_max));
    }
}
