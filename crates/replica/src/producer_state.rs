//! What idempotent producers have written to one partition, so that a batch sent twice is stored
//! once and a missing one is noticed (KIP-98, KIP-360).

use std::collections::{BTreeMap, btree_map};

use tidelog_types::{BatchHeader, Offset, ProducerEpoch, ProducerId};

use crate::error::ProducerError;

/// Batches remembered for each producer: as many as a client may have in flight.
pub const BATCHES_PER_PRODUCER: usize = 5;
/// Milliseconds after its last write that a producer is forgotten. `producer.id.expiration.ms`
pub const EXPIRATION_MS: i64 = 86_400_000;
/// Producers remembered for each partition. At the bound, those that wrote longest ago go first;
/// one that comes back then is a new producer, and what it had sent before may be stored twice.
pub const PRODUCERS_MAX: usize = 10_000;

/// The producers that wrote to one partition.
///
/// Invariant: it is what replaying the partition's batches in order makes of it, less what
/// expired.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProducerState {
    producers: BTreeMap<ProducerId, Producer>,
    producers_max: usize,
    /// Not stored: whoever reads the log finds out anew.
    lost: Option<Lost>,
}

/// Batches of whomever that should be remembered and cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Lost {
    /// All of them lie below.
    below: Offset,
    /// When their producers would have been forgotten anyway.
    until_ms: i64,
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

/// A producer that is remembered, as an administrator sees it (KIP-664).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ActiveProducer {
    /// Who it is.
    pub producer_id: ProducerId,
    /// Which of its lives.
    pub producer_epoch: ProducerEpoch,
    /// The sequence of its last record.
    pub last_sequence: i32,
    /// The greatest timestamp of its last batch, in milliseconds since 1970.
    pub last_timestamp: i64,
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
        ProducerState { producers: BTreeMap::new(), producers_max, lost: None }
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
        let known = self.producers.get(&batch.producer_id);
        let known = known.filter(|producer| !producer.is_expired(now_ms));
        self.check_lost(known, batch, now_ms)?;
        match known {
            Some(producer) => producer.check(batch),
            // Forgotten or never seen: it may have written what retention has removed.
            None => Ok(Verdict::Append),
        }
    }

    /// Some batches below `below` cannot be read back. For as long as their producers would be
    /// remembered, a batch is refused where its original, or one that came between it and what is
    /// remembered, may be among them. Two are let through: a producer that nobody knows and that
    /// starts with sequence 0, for nearly all such are new, and a new epoch.
    pub fn lose(&mut self, below: Offset, now_ms: i64) {
        self.lost = Some(Lost { below, until_ms: now_ms.saturating_add(EXPIRATION_MS) });
    }

    /// Whether something was lost that would still be remembered: then this must not be stored.
    #[must_use]
    pub fn is_incomplete(&self, now_ms: i64) -> bool {
        self.lost.is_some_and(|lost| now_ms < lost.until_ms)
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

    /// The producers that have not expired, by id.
    pub fn active(&self, now_ms: i64) -> impl Iterator<Item = ActiveProducer> {
        let active = self.producers.iter().filter(move |(_, known)| !known.is_expired(now_ms));
        active.map(|(producer_id, known)| ActiveProducer {
            producer_id: *producer_id,
            producer_epoch: known.epoch,
            last_sequence: known.last().last_sequence(),
            last_timestamp: known.last().timestamp,
        })
    }

    /// The last offsets of the batches that are remembered: a log that is read again without one of
    /// these would not know a producer, or that what it sends is there.
    pub fn last_offsets(&self) -> impl Iterator<Item = Offset> {
        self.producers.values().flat_map(Producer::batches).map(BatchFacts::last_offset)
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

    fn check_lost(
        &self,
        known: Option<&Producer>,
        batch: &BatchHeader,
        now_ms: i64,
    ) -> Result<(), ProducerError> {
        let Some(lost) = self.lost.filter(|lost| now_ms < lost.until_ms) else { return Ok(()) };
        let BatchHeader { producer_id, producer_epoch: epoch, base_sequence, .. } = *batch;
        let is_certain = match known {
            None => base_sequence == 0,
            Some(producer) => {
                producer.last().last_offset() >= lost.below
                    || producer.original_of(batch).is_some()
                    || epoch > producer.epoch
            }
        };
        if is_certain { Ok(()) } else { Err(ProducerError::Lost { producer_id, base_sequence }) }
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
        let kept = kept.count();
        self.batches[kept..].fill(BatchFacts::default()); // so that equal producers compare equal
        self.len = kept as u8;
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

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;
    use tidelog_types::{BATCH_HEADER_LEN, ErrorCode, batch_header::patch_place};

    use super::*;

    /// A batch of `count` records, which would be appended at `offset`.
    pub(crate) fn batch(
        producer_id: i64,
        epoch: i16,
        base_sequence: i32,
        count: i32,
        offset: i64,
    ) -> BatchHeader {
        let mut bytes = BatchHeader::decode(&[0; BATCH_HEADER_LEN]).encode();
        patch_place(&mut bytes, Offset(offset), tidelog_types::LeaderEpoch(0));
        BatchHeader {
            producer_id: ProducerId(producer_id),
            producer_epoch: ProducerEpoch(epoch),
            base_sequence,
            last_offset_delta: count - 1,
            max_timestamp: 1000 + offset,
            ..BatchHeader::decode(&bytes)
        }
    }

    fn replayed(batches: &[BatchHeader]) -> ProducerState {
        let mut state = ProducerState::default();
        batches.iter().for_each(|batch| state.replay(batch, 0));
        state
    }

    fn duplicate(base: i64, last: i64) -> Result<Verdict, ErrorCode> {
        let timestamp = 1000 + base;
        Ok(Verdict::Duplicate { base_offset: Offset(base), last_offset: Offset(last), timestamp })
    }

    #[test]
    fn a_producer_is_active_until_it_expires() {
        let state = replayed(&[batch(9, 0, 0, 1, 100), batch(7, 3, 0, 10, 101)]);
        let active = |producer_id, epoch, last_sequence, last_timestamp| ActiveProducer {
            producer_id: ProducerId(producer_id),
            producer_epoch: ProducerEpoch(epoch),
            last_sequence,
            last_timestamp,
        };
        let all = [active(7, 3, 9, 1101), active(9, 0, 0, 1100)];
        for (now_ms, expected) in [(EXPIRATION_MS - 1, &all[..]), (EXPIRATION_MS, &[])] {
            assert_eq!(state.active(now_ms).collect::<Vec<_>>(), expected);
        }
    }

    #[test]
    fn each_rule_of_idempotence_has_its_answer() {
        const MAX: i32 = i32::MAX;
        let append = Ok(Verdict::Append);
        let out_of_order = Err(ErrorCode::OutOfOrderSequenceNumber);
        let old_epoch = Err(ErrorCode::InvalidProducerEpoch);
        let malformed = Err(ErrorCode::InvalidRecord);
        let one = &[batch(7, 3, 0, 10, 100)][..];
        let six: Vec<_> = (0..6).map(|n| batch(7, 3, n, 1, 100 + i64::from(n))).collect();
        let at_the_end = &[batch(7, 3, MAX - 1, 2, 100)][..];
        let across = &[batch(7, 3, MAX, 3, 100)][..];
        // What was written, what is sent (producer, epoch, sequence, records), the answer.
        for (written, (id, epoch, sequence, count), answer) in [
            (one, (-1, -1, 0, 1), append),
            (one, (-1, -1, -1, 1), append),
            (one, (7, 3, 10, 5), append),
            (one, (7, 3, 0, 10), duplicate(100, 109)),
            (one, (7, 3, 0, 9), out_of_order),
            (one, (7, 3, 11, 1), out_of_order),
            (one, (7, 3, 9, 1), out_of_order),
            (one, (7, 2, 10, 1), old_epoch),
            (one, (7, 2, 0, 10), old_epoch),
            (one, (7, 4, 0, 1), append),
            (one, (7, 4, 10, 1), out_of_order),
            (one, (8, 0, 0, 1), append),
            (one, (8, 0, 55, 1), append),
            (one, (7, -1, 10, 1), malformed),
            (one, (7, 3, -1, 1), malformed),
            (&six, (7, 3, 1, 1), duplicate(101, 101)),
            (&six, (7, 3, 5, 1), duplicate(105, 105)),
            (&six, (7, 3, 0, 1), out_of_order),
            (at_the_end, (7, 3, 0, 1), append),
            (at_the_end, (7, 3, MAX, 1), out_of_order),
            (across, (7, 3, 2, 1), append),
            (across, (7, 3, MAX, 3), duplicate(100, 102)),
        ] {
            let sent = batch(id, epoch, sequence, count, 0);
            let judged = replayed(written).check(&sent, 0).map_err(|error| error.error_code());
            assert_eq!(judged, answer, "{id} {epoch} {sequence} {count}");
        }
    }

    #[test]
    fn a_newer_epoch_forgets_the_batches_of_the_one_before() {
        let state = replayed(&[batch(7, 3, 0, 1, 100), batch(7, 4, 0, 1, 101)]);
        assert_eq!(state.check(&batch(7, 4, 0, 1, 0), 0).ok(), duplicate(101, 101).ok());
        assert!(state.check(&batch(7, 3, 0, 1, 0), 0).is_err());
    }

    #[test]
    fn a_producer_that_rests_for_a_day_is_forgotten() {
        let mut state = replayed(&[batch(7, 3, 0, 1, 100)]);
        let sent = batch(7, 2, 9, 1, 0);
        assert!(state.check(&sent, EXPIRATION_MS - 1).is_err());
        assert_eq!(state.expire(EXPIRATION_MS - 1), 0);
        assert_eq!(state.check(&sent, EXPIRATION_MS), Ok(Verdict::Append));
        assert_eq!(state.expire(EXPIRATION_MS), 1);
        assert!(state.is_empty());
    }

    #[test]
    fn at_the_bound_those_go_that_wrote_longest_ago() {
        let mut state = ProducerState::with_producers_max(16);
        for id in 0..1000 {
            state.replay(&batch(id, 0, 0, 1, id), id);
            assert!(state.len() <= 16);
        }
        let kept: Vec<_> = state.producers().map(|(id, _)| id.0).collect();
        assert_eq!(kept.first().map(|first| 1000 - first), Some(kept.len() as i64));
    }

    #[test]
    fn what_is_cut_from_the_log_is_forgotten_and_what_was_lost_is_told() {
        let written = [batch(7, 0, 0, 1, 100), batch(8, 0, 0, 1, 101), batch(7, 0, 1, 1, 102)];
        let mut state = replayed(&written);
        assert_eq!(state.truncate_from_end(Offset(102)), 0);
        assert_eq!(state, replayed(&written[..2]));
        assert_eq!(state.truncate_from_end(Offset(101)), 1);
        assert_eq!(state, replayed(&written[..1]));
    }

    /// A client that sends what it likes.
    fn sent() -> impl Strategy<Value = (i64, i16, i32, i32)> {
        (-1..3_i64, 0..3_i16, prop_oneof![0..9_i32, i32::MAX - 3..=i32::MAX], 1..4_i32)
    }

    /// What the rules say of a log that is kept whole.
    fn judge(log: &[BatchHeader], sent: &BatchHeader) -> Result<Verdict, ErrorCode> {
        let of_producer = log.iter().filter(|batch| batch.producer_id == sent.producer_id);
        let Some(last) = of_producer.clone().next_back() else { return Ok(Verdict::Append) };
        let same = |batch: &&&BatchHeader| {
            batch.base_sequence == sent.base_sequence
                && batch.last_sequence() == sent.last_sequence()
        };
        let mut remembered = of_producer
            .rev()
            .take_while(|batch| batch.producer_epoch == last.producer_epoch)
            .take(5);
        if sent.producer_id.0 < 0 {
            return Ok(Verdict::Append);
        }
        if sent.producer_epoch == last.producer_epoch
            && let Some(known) = remembered.find(|batch| same(&batch))
        {
            return duplicate(known.base_offset.0, known.last_offset().0);
        }
        let follows = i64::from(last.last_sequence()) + 1;
        let follows = (follows % (i64::from(i32::MAX) + 1)) as i32;
        match sent.producer_epoch.cmp(&last.producer_epoch) {
            std::cmp::Ordering::Less => Err(ErrorCode::InvalidProducerEpoch),
            std::cmp::Ordering::Greater if sent.base_sequence == 0 => Ok(Verdict::Append),
            std::cmp::Ordering::Equal if sent.base_sequence == follows => Ok(Verdict::Append),
            _ => Err(ErrorCode::OutOfOrderSequenceNumber),
        }
    }

    #[test]
    fn a_batch_whose_original_may_be_lost_is_refused() {
        let mut state = ProducerState::default();
        state.replay(&batch(1, 0, 0, 10, 0), 0); // the last that was read before the damage
        state.replay(&batch(2, 0, 5, 5, 30), 0); // read behind it
        state.lose(Offset(30), 0);
        let lost = Err(ErrorCode::OutOfOrderSequenceNumber);
        for (producer_id, epoch, base_sequence, expected) in [
            (1, 0, 10, lost),  // in order, or a second time what is lost
            (1, 0, 0, Ok(())), // a duplicate of what is known
            (1, 1, 0, Ok(())), // starts over
            (1, 1, 3, lost),
            (2, 0, 10, Ok(())), // nothing of it is missing
            (3, 0, 7, lost),    // nobody knows it, and it has written before
            (3, 0, 0, Ok(())),  // most likely new
        ] {
            let asked = batch(producer_id, epoch, base_sequence, 10, 0);
            let verdict = state.check(&asked, EXPIRATION_MS - 1);
            let verdict = verdict.map(drop).map_err(|error| error.error_code());
            assert_eq!(verdict, expected, "{producer_id} {epoch} {base_sequence}");
        }
        assert!(state.is_incomplete(EXPIRATION_MS - 1) && !state.is_incomplete(EXPIRATION_MS));
        assert_eq!(state.check(&batch(3, 0, 7, 1, 0), EXPIRATION_MS), Ok(Verdict::Append));
        state.replay(&batch(1, 1, 0, 10, 40), 1);
        assert_eq!(state.check(&batch(1, 1, 10, 10, 0), 1), Ok(Verdict::Append));
    }

    proptest! {
        #[test]
        fn the_state_judges_as_the_whole_log_would(
            tale in prop::collection::vec((sent(), prop::bool::weighted(0.7)), 1..80),
        ) {
            let (mut state, mut log, mut end) = (ProducerState::default(), Vec::new(), 0_i64);
            for ((id, epoch, sequence, count), fits) in tale {
                let mut sent = batch(id, epoch, sequence, count, end);
                let last = log.iter().rev().find(|b: &&BatchHeader| b.producer_id.0 == id);
                if let (true, Some(last)) = (fits, last) {
                    sent.producer_epoch = last.producer_epoch; // most batches are in order
                    sent.base_sequence = next_sequence(last.last_sequence());
                }
                let judged = state.check(&sent, 0).map_err(|error| error.error_code());
                prop_assert_eq!(judged, judge(&log, &sent), "{:?}", sent);
                if judged == Ok(Verdict::Append) {
                    state.replay(&sent, 0);
                    log.push(sent);
                    end = sent.next_offset().0;
                }
            }
            prop_assert_eq!(state, replayed(&log));
        }
    }
}
