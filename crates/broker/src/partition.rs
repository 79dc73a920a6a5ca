//! One partition that this broker hosts: the pure machines behind one short lock, and the log.
//!
//! Under the lock nothing waits, nothing is written and nobody is woken: whoever is to be told is
//! collected there and told afterwards. Lock order is partition, then log; a fetch's list of what
//! changed comes last.

mod watch;

use std::{
    collections::{BTreeSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tidelog_replica::{
    ActiveProducer, EpochEnd, EpochError, Leader, LeaderEpochCache, PartitionSnapshot,
    ProducerError, ProducerState, Purgatory, Verdict, partition_snapshot,
};
use tidelog_types::{
    Acks, BatchHeader, BrokerId, Clock, Entry, ErrorCode, LeaderEpoch, Offset, TopicIdPartition,
};
use tidelog_wal::{
    HeadersFound, Log, LogObserver, LogSettings, ReadError, ReadOutcome, RecoveredPartition,
    Reservation, Snapshot, StorageError, Wal, WalError,
};
use tracing::{debug, warn};

pub use self::watch::Watch;
use crate::waits::{FetchWaiter, ProduceWaiter};

/// Connections know their own deadlines: one timer each, none here.
const NO_DEADLINE: Duration = Duration::MAX;

/// A partition with a log on this broker.
pub struct Partition {
    log: Log,
    shared: Arc<Shared>,
}

/// What metadata says of a partition that this broker leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leadership {
    /// The epoch to lead in.
    pub leader_epoch: LeaderEpoch,
    /// The in-sync replicas, this broker among them.
    pub isr: Vec<BrokerId>,
    /// How many replicas are assigned.
    pub replicas: usize,
    /// `min.insync.replicas` of the topic.
    pub min_insync_replicas: usize,
}

/// Where an appended batch is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placed {
    /// Offset of its first record.
    pub base_offset: Offset,
    /// The broker's timestamp if the topic is LogAppendTime, else -1.
    pub log_append_time_ms: i64,
    /// First offset still readable.
    pub log_start_offset: Offset,
    /// Whether it had been appended before.
    pub duplicate: bool,
}

/// Why a batch is not appended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// This broker does not lead the partition.
    #[error("this broker does not lead the partition")]
    NotLeader,
    /// Fewer replicas are in sync than acks=all asks for.
    #[error("fewer replicas are in sync than min.insync.replicas")]
    NotEnoughReplicas,
    /// The batch does not follow what its producer sent before.
    #[error(transparent)]
    Producer(#[from] ProducerError),
    /// The log cannot take it.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// Why nothing can be said of a partition's offsets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LeaderError {
    /// This broker does not lead the partition.
    #[error("this broker does not lead the partition")]
    NotLeader,
    /// The client's leader epoch is not this leader's.
    #[error(transparent)]
    Epoch(#[from] EpochError),
}

/// Why records are not deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DeleteRecordsError {
    /// This broker does not lead the partition.
    #[error("this broker does not lead the partition")]
    NotLeader,
    /// Only what every replica has can be deleted.
    #[error("offset {offset} is not from 0 to the high watermark {high_watermark}")]
    OffsetOutOfRange {
        /// As asked.
        offset: Offset,
        /// The first offset that cannot be deleted.
        high_watermark: Offset,
    },
}

/// A leader's offsets at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct View {
    /// The epoch it leads in.
    pub leader_epoch: LeaderEpoch,
    /// First offset still readable.
    pub log_start_offset: Offset,
    /// First offset not yet on all in-sync replicas.
    pub high_watermark: Offset,
    /// First offset that a read_committed fetch must not see.
    pub last_stable_offset: Offset,
    /// The offset that the next record gets.
    pub log_end_offset: Offset,
    /// Whether the high watermark may be told as the latest offset.
    pub is_settled: bool,
}

/// What the log's threads and the connections share.
struct Shared {
    id: TopicIdPartition,
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// `None` while this broker does not lead.
    leader: Option<Leader>,
    log_end_offset: Offset,
    high_watermark: Offset,
    /// Producers and leader epochs know every batch below; the log's end but for the start-up.
    included_end_offset: Offset,
    producers: ProducerState,
    leader_epochs: LeaderEpochCache,
    purgatory: Purgatory<ProduceWaiter, FetchWaiter>,
    /// Batches above the high watermark: the offset after each, and its bytes.
    unreadable: VecDeque<(Offset, u64)>,
}

/// Who is to be told, once the lock is released.
#[derive(Default)]
struct Wakes {
    done: Vec<ProduceWaiter>,
    fetches: Vec<FetchWaiter>,
}

impl Wakes {
    fn tell(self, outcome: ErrorCode) {
        self.done.into_iter().for_each(|waiter| waiter.complete(outcome));
        self.fetches.iter().for_each(FetchWaiter::wake);
    }
}

impl Partition {
    /// Opens a partition's log and brings its state up to the log's end. It does not lead yet.
    ///
    /// # Errors
    /// As the log says.
    pub fn open(
        wal: &Wal,
        id: TopicIdPartition,
        recovered: Option<&RecoveredPartition>,
        settings: LogSettings,
        clock: Arc<dyn Clock>,
    ) -> Result<Partition, WalError> {
        let now_ms = clock.wall_ms();
        let state = recovered.map_or_else(State::default, |found| State::of(found, now_ms));
        let replay_from = state.included_end_offset;
        let shared = Arc::new(Shared { id, clock, state: Mutex::new(state) });
        let observer: Arc<dyn LogObserver> = Arc::clone(&shared) as Arc<dyn LogObserver>;
        let log = wal.open_log(id, settings, observer)?;
        let partition = Partition { log, shared };
        if recovered.is_some_and(|recovered| !recovered.suspect) {
            partition.replay_from(replay_from, now_ms);
        }
        Ok(partition)
    }

    /// The partition.
    #[must_use]
    pub fn id(&self) -> TopicIdPartition {
        self.shared.id
    }

    /// Leads from now on, in this epoch. Whatever waited in another epoch fails first.
    pub fn lead(&self, me: BrokerId, leadership: &Leadership) {
        let mut state = self.shared.lock();
        if state.leader.as_ref().is_some_and(|l| l.leader_epoch() == leadership.leader_epoch) {
            let wakes = state.set_min_isr(leadership);
            drop(state);
            return wakes.tell(ErrorCode::None);
        }
        let failed = state.step_down();
        let durable_end_offset = self.log.durable_end_offset().min(state.log_end_offset);
        let Leadership { leader_epoch, isr, replicas, min_insync_replicas } = leadership;
        let known = state.high_watermark;
        let mut leader = Leader::new(*leader_epoch, durable_end_offset, known, isr, me);
        leader.on_append(state.log_end_offset);
        leader.set_min_isr(*min_insync_replicas, *replicas);
        state.high_watermark = leader.high_watermark();
        let log_end_offset = state.log_end_offset;
        state.leader_epochs.assign(*leader_epoch, log_end_offset);
        state.leader = Some(leader);
        drop(state);
        failed.tell(ErrorCode::NotLeaderOrFollower);
    }

    /// Stops leading. Whatever waits fails.
    pub fn resign(&self) {
        let failed = self.shared.lock().step_down();
        failed.tell(ErrorCode::NotLeaderOrFollower);
    }

    /// Appends one validated batch, or finds it appended already. The waiter is completed once
    /// the batch is as safe as `acks` asks for; on an error it is given up unanswered.
    ///
    /// # Errors
    /// As [`AppendError`] says; nothing has changed then.
    pub fn append(
        &self,
        mut entry: Entry,
        acks: Acks,
        waiter: Option<ProduceWaiter>,
        reservation: &mut Reservation,
    ) -> Result<Placed, AppendError> {
        let now_ms = self.shared.clock.wall_ms();
        let mut batch = entry.facts();
        let bytes = entry.len() as u64;
        let mut state = self.shared.lock();
        let leader_epoch = state.check_append(acks)?;
        let verdict = state.producers.check(&batch, now_ms)?;
        let base_offset = match verdict {
            Verdict::Append => state.log_end_offset,
            Verdict::Duplicate { base_offset, .. } => base_offset,
        };
        if verdict == Verdict::Append {
            entry.place(base_offset, leader_epoch);
            batch.base_offset = base_offset;
            batch.leader_epoch = leader_epoch;
            self.log.append(leader_epoch, vec![entry], reservation)?;
            state.on_append(&batch, bytes, now_ms);
        }
        let placed = placed(verdict, &batch, self.log.log_start_offset());
        let end_offset = base_offset.plus(i64::from(batch.last_offset_delta) + 1);
        let done = waiter.and_then(|waiter| state.wait(acks, end_offset, waiter));
        drop(state);
        if let Some(waiter) = done {
            waiter.complete(ErrorCode::None);
        }
        Ok(placed)
    }

    /// Completes the waiter once everything that the log holds now is on all in-sync replicas, or
    /// this broker does not lead any more.
    pub fn await_safe(&self, waiter: ProduceWaiter) {
        let mut state = self.shared.lock();
        let (end_offset, leads) = (state.log_end_offset, state.leader.is_some());
        let (done, code) = match leads {
            true => (state.wait(Acks::All, end_offset, waiter), ErrorCode::None),
            false => (Some(waiter), ErrorCode::NotLeaderOrFollower),
        };
        drop(state);
        done.into_iter().for_each(|waiter| waiter.complete(code));
    }

    /// The leader's offsets, for a client that believes the leader epoch to be `client_epoch`.
    ///
    /// # Errors
    /// Where the client or this broker is behind, or this broker does not lead.
    pub fn view(&self, client_epoch: LeaderEpoch) -> Result<View, LeaderError> {
        let state = self.shared.lock();
        let leader = state.leader.as_ref().ok_or(LeaderError::NotLeader)?;
        leader.check_leader_epoch(client_epoch)?;
        Ok(View {
            leader_epoch: leader.leader_epoch(),
            log_start_offset: self.log.log_start_offset(),
            high_watermark: leader.high_watermark(),
            last_stable_offset: leader.last_stable_offset(),
            log_end_offset: leader.log_end_offset(),
            is_settled: leader.is_high_watermark_settled(),
        })
    }

    /// Deletes the records below `before`, or all that the high watermark allows where it is
    /// `None` (KIP-107). `done` is called once that is durable.
    ///
    /// # Errors
    /// As [`DeleteRecordsError`] says; nothing has changed then.
    pub fn delete_records(
        &self,
        before: Option<Offset>,
        done: Box<dyn FnOnce() + Send>,
    ) -> Result<(), DeleteRecordsError> {
        let mut state = self.shared.lock();
        let leader = state.leader.as_ref().ok_or(DeleteRecordsError::NotLeader)?;
        let high_watermark = leader.high_watermark();
        let offset = before.unwrap_or(high_watermark);
        if offset < Offset::ZERO || offset > high_watermark {
            return Err(DeleteRecordsError::OffsetOutOfRange { offset, high_watermark });
        }
        let log_start_offset = offset.max(self.log.log_start_offset());
        self.log.advance_log_start(log_start_offset, done);
        let wakes = state.on_log_start(log_start_offset);
        drop(state);
        wakes.tell(ErrorCode::None);
        Ok(())
    }

    /// The producers that are remembered, by id.
    #[must_use]
    pub fn producers(&self) -> Vec<ActiveProducer> {
        let now_ms = self.shared.clock.wall_ms();
        self.shared.lock().producers.active(now_ms).collect()
    }

    /// How far a leader epoch reaches in this log.
    #[must_use]
    pub fn epoch_end(&self, requested: LeaderEpoch) -> EpochEnd {
        let state = self.shared.lock();
        state.leader_epochs.end_offset_for(requested, state.log_end_offset)
    }

    /// The leader epoch that the record at `offset` was written in.
    #[must_use]
    pub fn epoch_of(&self, offset: Offset) -> LeaderEpoch {
        self.shared.lock().leader_epochs.epoch_of(offset).unwrap_or(LeaderEpoch::NONE)
    }

    /// Whole batches of `range`; see [`Log::read`].
    ///
    /// # Errors
    /// As the log says.
    pub fn read(
        &self,
        from: Offset,
        upper: Offset,
        max_bytes: usize,
        at_least_one: bool,
    ) -> Result<ReadOutcome, ReadError> {
        self.log.read(from, upper, max_bytes, at_least_one)
    }

    /// The log, for what needs the disk.
    #[must_use]
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// Has a fetch, or a session, told of whatever becomes readable, of any change of leadership,
    /// which ends the watch, and of any change of the log start. `None` if this broker does not
    /// lead: there is nothing to wait for.
    #[must_use]
    pub fn watch(&self, waiter: FetchWaiter) -> Option<Watch> {
        let mut state = self.shared.lock();
        let leader = state.leader.as_ref()?;
        let (leader_epoch, high_watermark) = (leader.leader_epoch(), leader.high_watermark());
        let ticket = state.purgatory.fetches.add(waiter);
        let shared = Arc::downgrade(&self.shared);
        Some(Watch { shared, ticket, leader_epoch, high_watermark })
    }

    /// Takes in the batches behind the snapshot that the state was made of. Where some cannot be
    /// read, producers whose last batches may be among them have to start over: to append what
    /// they send would store it twice without a word.
    fn replay_from(&self, tag: Offset, now_ms: i64) {
        let from = tag.max(self.log.log_start_offset());
        let mut state = self.shared.lock();
        if from >= state.log_end_offset {
            return;
        }
        let log_end_offset = state.log_end_offset;
        let lost = match self.log.headers_from(from) {
            Ok(found) => {
                let batches = found.headers.len();
                debug!(id = %self.id(), batches, "read batches behind a snapshot");
                state.replay_all(&found, from, now_ms)
            }
            Err(error) => {
                warn!(id = %self.id(), %error, "producers could not be read back");
                Some(log_end_offset)
            }
        };
        if let Some(below) = lost {
            warn!(id = %self.id(), %from, %below, "idempotent producers must start over");
            state.producers.lose(below, now_ms);
        }
        state.included_end_offset = log_end_offset;
    }
}

impl LogObserver for Shared {
    fn on_durable(&self, durable_end: Offset) {
        let wakes = self.lock().on_durable(durable_end);
        wakes.tell(ErrorCode::None);
    }

    fn high_watermark(&self) -> Offset {
        self.lock().high_watermark
    }

    fn snapshot(&self) -> Option<Snapshot> {
        let now_ms = self.clock.wall_ms();
        let mut state = self.lock();
        if state.producers.is_incomplete(now_ms) {
            return None; // the next start reads the log again and finds the same gap
        }
        state.producers.expire(now_ms);
        let tag = state.included_end_offset;
        let bytes = partition_snapshot::encode(&state.producers, &state.leader_epochs);
        Some(Snapshot { tag, bytes })
    }

    fn stable_offset(&self) -> Offset {
        let state = self.lock();
        // Who does not lead does not know what is stable.
        state.leader.as_ref().map_or(Offset::ZERO, Leader::last_stable_offset)
    }

    fn producers_last_offsets(&self) -> BTreeSet<Offset> {
        self.lock().producers.last_offsets().collect()
    }

    fn on_log_start(&self, log_start: Offset) {
        let wakes = self.lock().on_log_start(log_start);
        wakes.tell(ErrorCode::None);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Only an assertion of ours panics under this lock, and that ends the process.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The state as its newest snapshot has it; what follows the snapshot is replayed later.
    fn of(recovered: &RecoveredPartition, now_ms: i64) -> State {
        let decoded = recovered.snapshot.as_ref().and_then(|snapshot| {
            match PartitionSnapshot::decode(&snapshot.bytes) {
                Ok(decoded) => Some((snapshot.tag, decoded)),
                Err(error) => {
                    warn!(id = %recovered.id, %error, "reading the log instead of a snapshot");
                    None
                }
            }
        });
        let (tag, snapshot) =
            decoded.unwrap_or_else(|| (recovered.log_start_offset, PartitionSnapshot::default()));
        assert!(tag <= recovered.log_end_offset, "a snapshot is no newer than the log");
        let PartitionSnapshot { mut producers, mut leader_epochs } = snapshot;
        producers.expire(now_ms);
        leader_epochs.truncate_from_start(recovered.log_start_offset);
        State {
            log_end_offset: recovered.log_end_offset,
            high_watermark: recovered.high_watermark,
            included_end_offset: tag,
            producers,
            leader_epochs,
            ..State::default()
        }
    }

    fn check_append(&self, acks: Acks) -> Result<LeaderEpoch, AppendError> {
        let leader = self.leader.as_ref().ok_or(AppendError::NotLeader)?;
        if acks == Acks::All && leader.is_under_min_isr() {
            return Err(AppendError::NotEnoughReplicas);
        }
        Ok(leader.leader_epoch())
    }

    fn on_append(&mut self, batch: &BatchHeader, bytes: u64, now_ms: i64) {
        assert_eq!(batch.base_offset, self.log_end_offset, "a batch was not placed at the end");
        self.log_end_offset = batch.next_offset();
        self.included_end_offset = self.log_end_offset;
        self.producers.replay(batch, now_ms);
        self.unreadable.push_back((self.log_end_offset, bytes));
        let leader = self.leader.as_mut().expect("only a leader appends");
        leader.on_append(self.log_end_offset);
    }

    /// Remembers batches that were read back from `from` on. Returns the offset below which some
    /// are missing, if any: batches in a log leave no gaps but where it was compacted, and there
    /// each producer's newest is left.
    fn replay_all(&mut self, found: &HeadersFound, from: Offset, now_ms: i64) -> Option<Offset> {
        let (mut expected, mut lost) = (from, found.damaged_below);
        for header in found.headers.iter().filter(|header| header.next_offset() > from) {
            if header.base_offset > expected && header.base_offset >= found.holes_below {
                lost = Some(header.base_offset);
            }
            self.replay(header, from, now_ms);
            expected = header.next_offset();
        }
        if expected < self.log_end_offset { Some(self.log_end_offset) } else { lost }
    }

    /// Remembers a batch that was read back. The log may start inside the first one, at `from`.
    fn replay(&mut self, batch: &BatchHeader, from: Offset, now_ms: i64) {
        self.producers.replay(batch, now_ms);
        if self.leader_epochs.latest().is_none_or(|latest| latest < batch.leader_epoch) {
            self.leader_epochs.assign(batch.leader_epoch, batch.base_offset.max(from));
        }
    }

    /// Parks the waiter until the log is safe up to `end_offset`, or gives it back if it is.
    fn wait(
        &mut self,
        acks: Acks,
        end_offset: Offset,
        waiter: ProduceWaiter,
    ) -> Option<ProduceWaiter> {
        let leader = self.leader.as_ref().expect("only a leader appends");
        let (reached, waits) = match acks {
            Acks::None => return Some(waiter),
            Acks::Leader => (leader.durable_end_offset(), &mut self.purgatory.durable),
            Acks::All => (leader.high_watermark(), &mut self.purgatory.replicated),
        };
        if end_offset <= reached {
            return Some(waiter);
        }
        waits.add(end_offset, NO_DEADLINE, waiter);
        None
    }

    fn on_durable(&mut self, durable_end: Offset) -> Wakes {
        let Some(leader) = self.leader.as_mut() else { return Wakes::default() };
        let risen = leader.on_durable(durable_end);
        let mut wakes = self.on_readable(risen);
        wakes.done.extend(self.purgatory.durable.complete_up_to(durable_end));
        wakes
    }

    fn set_min_isr(&mut self, to: &Leadership) -> Wakes {
        let set = |leader: &mut Leader| leader.set_min_isr(to.min_insync_replicas, to.replicas);
        let risen = self.leader.as_mut().and_then(set);
        self.on_readable(risen)
    }

    fn on_readable(&mut self, risen: Option<Offset>) -> Wakes {
        let Some(high_watermark) = risen else { return Wakes::default() };
        self.high_watermark = high_watermark;
        let done = self.purgatory.replicated.complete_up_to(high_watermark);
        // Batches of an earlier leadership are not counted, but there they are.
        let bytes = self.take_readable(high_watermark).max(1);
        // Nobody may be told of the batches by another way before a session knows of them.
        let watchers = self.purgatory.fetches.iter();
        let fetches = watchers.filter(|waiter| waiter.on_readable(bytes)).cloned().collect();
        Wakes { done, fetches }
    }

    fn on_log_start(&mut self, log_start: Offset) -> Wakes {
        self.leader_epochs.truncate_from_start(log_start);
        let fetches: Vec<FetchWaiter> = self.purgatory.fetches.iter().cloned().collect();
        fetches.iter().for_each(FetchWaiter::on_change);
        Wakes { fetches, ..Wakes::default() }
    }

    /// Bytes of the batches that the high watermark has passed.
    fn take_readable(&mut self, high_watermark: Offset) -> u64 {
        let mut bytes = 0;
        while let Some((end_offset, batch_bytes)) = self.unreadable.front() {
            if *end_offset > high_watermark {
                break;
            }
            bytes += batch_bytes;
            self.unreadable.pop_front();
        }
        bytes
    }

    fn step_down(&mut self) -> Wakes {
        self.leader = None;
        self.unreadable.clear();
        let (done, fetches) = self.purgatory.take_all();
        fetches.iter().for_each(FetchWaiter::on_change);
        Wakes { done, fetches }
    }
}

fn placed(verdict: Verdict, batch: &BatchHeader, log_start_offset: Offset) -> Placed {
    let is_log_append_time = batch.is_log_append_time();
    let (base_offset, timestamp, duplicate) = match verdict {
        Verdict::Append => (batch.base_offset, batch.max_timestamp, false),
        Verdict::Duplicate { base_offset, timestamp, .. } => (base_offset, timestamp, true),
    };
    let log_append_time_ms = if is_log_append_time { timestamp } else { -1 };
    Placed { base_offset, log_append_time_ms, log_start_offset, duplicate }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(base_offset: i64, count: i32) -> BatchHeader {
        BatchHeader {
            base_offset: Offset(base_offset),
            last_offset_delta: count - 1,
            leader_epoch: LeaderEpoch(0),
            ..BatchHeader::decode(&[0; tidelog_types::BATCH_HEADER_LEN])
        }
    }

    fn found(
        headers: Vec<BatchHeader>,
        holes_below: i64,
        damaged_below: Option<Offset>,
    ) -> HeadersFound {
        HeadersFound { headers, holes_below: Offset(holes_below), damaged_below }
    }

    #[test]
    fn a_log_may_start_inside_the_first_batch_of_a_leader_epoch() {
        let mut state = State { log_end_offset: Offset(13), ..State::default() };
        state.leader_epochs.assign(LeaderEpoch(0), Offset(4));
        state.leader_epochs.truncate_from_start(Offset(10)); // as a snapshot is taken in
        let header = BatchHeader { leader_epoch: LeaderEpoch(1), ..batch(8, 5) };
        let found = found(vec![header], 0, None);
        assert_eq!(state.replay_all(&found, Offset(10), 0), None);
        assert_eq!(state.leader_epochs.epoch_of(Offset(10)), Some(LeaderEpoch(1)));
        assert_eq!(state.leader_epochs.epoch_of(Offset(9)), None);
    }

    #[test]
    fn batches_that_are_missing_behind_a_snapshot_are_noticed() {
        let (a, b, c) = (batch(10, 5), batch(15, 5), batch(20, 5));
        for (headers, from, lost) in [
            (vec![a, b, c], 10, None),
            (vec![a, b, c], 12, None), // the log starts inside a batch
            (vec![a, c], 10, Some(20)),
            (vec![b, c], 10, Some(15)),
            (vec![a, b], 10, Some(25)),
            (vec![], 10, Some(25)),
        ] {
            let mut state = State { log_end_offset: Offset(25), ..State::default() };
            let found = found(headers, 0, None);
            let noticed = state.replay_all(&found, Offset(from), 0);
            assert_eq!(noticed, lost.map(Offset), "{found:?} {from}");
        }
    }

    #[test]
    fn holes_of_a_compacted_log_are_not_taken_for_damage() {
        let (a, c) = (batch(10, 5), batch(20, 5));
        for (holes_below, damaged_below, lost) in [
            (21, None, None),
            (20, None, Some(20)), // nothing was compacted there
            (0, None, Some(20)),
            (21, Some(Offset(18)), Some(18)),
        ] {
            let mut state = State { log_end_offset: Offset(25), ..State::default() };
            let found = found(vec![a, c], holes_below, damaged_below);
            let noticed = state.replay_all(&found, Offset(10), 0);
            assert_eq!(noticed, lost.map(Offset), "{found:?}");
        }
    }
}
