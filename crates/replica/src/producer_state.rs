//! What idempotent producers have written to one partition, so that a batch sent twice is stored
//! once and a missing one is noticed (KIP-98, KIP-360).

use std::collections::{BTreeMap, btree_map};

use tidelog_types::{BatchHeader, Offset, ProducerEpoch, ProducerId};

use crate::error::ProducerError;

/// Batches remembered for each producer: as many as a client may have in flight.
pub const BATCHES_PER_PRODUCER: usize = 5;
/// Milliseconds after its last write that a producer is forgotten. `producer.id.expiration.ms`
pub const EXPIRATION_MS: i64 = 86_400_000;
/// Producers remembered for each partition. At the bound, those that wrote longest ago go first.
pub const PRODUCERS_MAX: usize = 10_000;

/// The producers that wrote to one partition.
///
/// Invariant: it is what replaying the partition's batches in order makes of it, less what
/// expired.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProducerState {
    producers: BTreeMap<ProducerId, Producer>,
    producers_max: usize,
}

/// One producer. Its batches are consecutive, of one epoch, oldest first, and at least one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Producer {
    pub(crate) epoch: ProducerEpoch,
    pub(crate) last_write_ms: i64,
    batches: [BatchFacts; BATCHES_PER_PRODUCER],
    len: u8,
}

/// What is remembered of one batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct BatchFacts {
    pub(crate) base_sequence: i32,
    pub(crate) last_offset_delta: i32,
    pub(crate) base_offset: Offset,
    pub(crate) timestamp: i64,
}

/// What is to be done with a batch that breaks no rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Append it, then [`ProducerState::replay`] it.
    Append,
    /// It is in the log. Answer as its original was answered, and no earlier: the original may
    /// not be on disk yet.
    Duplicate {
        /// The original's first offset.
        base_offset: Offset,
        /// The original's last offset.
        last_offset: Offset,
        /// The original's greatest timestamp, in milliseconds since 1970.
        timestamp: i64,
    },
}

impl Default for ProducerState {
    fn default() -> Self {
        ProducerState::with_producers_max(PRODUCERS_MAX)
    }
}

impl ProducerState {
    /// Remembers nobody, and never more than `producers_max` at a time.
    #[must_use]
    pub fn with_producers_max(producers_max: usize) -> ProducerState {
        assert!(producers_max > 0, "a bound of nobody would forget each write at once");
        ProducerState { producers: BTreeMap::new(), producers_max }
    }

    /// Judges a client's batch, which has no place in the log yet.
    ///
    /// # Errors
    /// The batch is not appended and nothing changes.
    pub fn check(&self, batch: &BatchHeader, now_ms: i64) -> Result<Verdict, ProducerError> {
        if batch.producer_id.0 < 0 {
            return Ok(Verdict::Append); // its sequence means nothing: some clients send 0
        }
        check_form(batch)?;
        match self.producers.get(&batch.producer_id) {
            Some(producer) if !producer.is_expired(now_ms) => producer.check(batch),
            // Forgotten or never seen: it may have written what retention has removed.
            Some(_) | None => Ok(Verdict::Append),
        }
    }

    /// Remembers a batch that has its place in the log. Runs at start-up too: it judges nothing.
    ///
    /// `now_ms` is the time of the append, or of the start-up that reads it back.
    pub fn replay(&mut self, batch: &BatchHeader, now_ms: i64) {
        if batch.producer_id.0 < 0 {
            return;
        }
        if let btree_map::Entry::Occupied(mut entry) = self.producers.entry(batch.producer_id) {
            entry.get_mut().append(batch, now_ms);
            return;
        }
        if self.producers.len() >= self.producers_max {
            self.forget_the_oldest();
        }
        self.producers.insert(batch.producer_id, Producer::new(batch, now_ms));
        assert!(self.producers.len() <= self.producers_max, "more producers than the bound");
    }

    /// Forgets producers that have not written for [`EXPIRATION_MS`]; returns how many.
    pub fn expire(&mut self, now_ms: i64) -> usize {
        let before = self.producers.len();
        self.producers.retain(|_, producer| !producer.is_expired(now_ms));
        before - self.producers.len()
    }

    /// Forgets batches at or past a new log end. Returns how many producers lost everything
    /// that was remembered of them: if any, what they wrote before is known only to the log, and
    /// the state must be built again from a snapshot and the batches behind it.
    #[must_use]
    pub fn truncate_from_end(&mut self, log_end_offset: Offset) -> usize {
        let before = self.producers.len();
        self.producers.retain(|_, producer| {
            producer.truncate_from_end(log_end_offset);
            producer.len > 0
        });
        before - self.producers.len()
    }

    /// How many producers are remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.producers.len()
    }

    /// Whether nobody is remembered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.producers.is_empty()
    }

    pub(crate) fn producers(&self) -> impl Iterator<Item = (&ProducerId, &Producer)> {
        self.producers.iter()
    }

    /// Takes over a producer that was stored; false if it is there already or the bound is met.
    pub(crate) fn restore(&mut self, producer_id: ProducerId, producer: Producer) -> bool {
        if self.producers.len() >= self.producers_max {
            return false;
        }
        self.producers.insert(producer_id, producer).is_none()
    }

    /// Makes room by an eighth of the bound, so that a new producer costs little on average.
    fn forget_the_oldest(&mut self) {
        let mut writes: Vec<_> =
            self.producers.iter().map(|(id, producer)| (producer.last_write_ms, *id)).collect();
        let room = (self.producers_max / 8).clamp(1, writes.len());
        writes.select_nth_unstable(room - 1);
        for (_, id) in &writes[..room] {
            self.producers.remove(id);
        }
    }
}

impl Producer {
    fn new(batch: &BatchHeader, now_ms: i64) -> Producer {
        let mut batches = [BatchFacts::default(); BATCHES_PER_PRODUCER];
        batches[0] = BatchFacts::of(batch);
        Producer { epoch: batch.producer_epoch, last_write_ms: now_ms, batches, len: 1 }
    }

    /// Puts a stored producer together; `None` where that breaks an invariant.
    pub(crate) fn from_parts(
        epoch: ProducerEpoch,
        last_write_ms: i64,
        stored: &[BatchFacts],
    ) -> Option<Producer> {
        let follows = |a: &BatchFacts, b: &BatchFacts| {
            a.last_offset() < b.base_offset && next_sequence(a.last_sequence()) == b.base_sequence
        };
        let lawful = (1..=BATCHES_PER_PRODUCER).contains(&stored.len())
            && stored.iter().all(BatchFacts::is_lawful)
            && stored.is_sorted_by(follows);
        if epoch.0 < 0 || !lawful {
            return None;
        }
        let mut batches = [BatchFacts::default(); BATCHES_PER_PRODUCER];
        batches[..stored.len()].copy_from_slice(stored);
        Some(Producer { epoch, last_write_ms, batches, len: stored.len() as u8 })
    }

    pub(crate) fn batches(&self) -> &[BatchFacts] {
        &self.batches[..usize::from(self.len)]
    }

    fn last(&self) -> &BatchFacts {
        self.batches().last().expect("a producer is remembered by its batches")
    }

    fn is_expired(&self, now_ms: i64) -> bool {
        now_ms.saturating_sub(self.last_write_ms) >= EXPIRATION_MS
    }

    fn check(&self, batch: &BatchHeader) -> Result<Verdict, ProducerError> {
        let BatchHeader { producer_id, producer_epoch: epoch, base_sequence, .. } = *batch;
        if let Some(original) = self.original_of(batch) {
            return Ok(original.duplicate());
        }
        if epoch < self.epoch {
            return Err(ProducerError::InvalidEpoch { producer_id, epoch, current: self.epoch });
        }
        let expected =
            if epoch > self.epoch { 0 } else { next_sequence(self.last().last_sequence()) };
        if base_sequence != expected {
            return Err(ProducerError::OutOfOrderSequence { producer_id, base_sequence, expected });
        }
        Ok(Verdict::Append)
    }

    fn original_of(&self, batch: &BatchHeader) -> Option<&BatchFacts> {
        if batch.producer_epoch != self.epoch {
            return None;
        }
        self.batches().iter().find(|known| {
            known.base_sequence == batch.base_sequence
                && known.last_offset_delta == batch.last_offset_delta
        })
    }

    fn append(&mut self, batch: &BatchHeader, now_ms: i64) {
        assert!(batch.base_offset > self.last().last_offset(), "batches are replayed in order");
        let continues = batch.producer_epoch == self.epoch
            && batch.base_sequence == next_sequence(self.last().last_sequence());
        if !continues {
            *self = Producer::new(batch, now_ms); // a newer epoch, or back after it expired
            return;
        }
        if usize::from(self.len) == BATCHES_PER_PRODUCER {
            self.batches.rotate_left(1);
            self.len -= 1;
        }
        self.batches[usize::from(self.len)] = BatchFacts::of(batch);
        self.len += 1;
        self.last_write_ms = self.last_write_ms.max(now_ms);
    }

    fn truncate_from_end(&mut self, log_end_offset: Offset) {
        let kept = self.batches().iter().filter(|batch| batch.last_offset() < log_end_offset);
        self.len = kept.count() as u8;
    }
}

impl BatchFacts {
    fn of(batch: &BatchHeader) -> BatchFacts {
        BatchFacts {
            base_sequence: batch.base_sequence,
            last_offset_delta: batch.last_offset_delta,
            base_offset: batch.base_offset,
            timestamp: batch.max_timestamp,
        }
    }

    fn is_lawful(&self) -> bool {
        let last_offset = self.base_offset.0.checked_add(i64::from(self.last_offset_delta));
        self.base_sequence >= 0
            && self.last_offset_delta >= 0
            && self.base_offset.0 >= 0
            && last_offset.is_some()
    }

    fn last_offset(&self) -> Offset {
        self.base_offset.plus(i64::from(self.last_offset_delta))
    }

    fn last_sequence(&self) -> i32 {
        let last = i64::from(self.base_sequence) + i64::from(self.last_offset_delta);
        (last & i64::from(i32::MAX)) as i32
    }

    fn duplicate(&self) -> Verdict {
        let BatchFacts { base_offset, timestamp, .. } = *self;
        Verdict::Duplicate { base_offset, last_offset: self.last_offset(), timestamp }
    }
}

/// The sequence after `last`; 0 follows the greatest.
fn next_sequence(last: i32) -> i32 {
    last.checked_add(1).unwrap_or(0)
}

fn check_form(batch: &BatchHeader) -> Result<(), ProducerError> {
    let BatchHeader { producer_id, producer_epoch: epoch, base_sequence, .. } = *batch;
    if epoch.0 < 0 || base_sequence < 0 {
        return Err(ProducerError::Malformed { producer_id, epoch, base_sequence });
    }
    Ok(())
}
