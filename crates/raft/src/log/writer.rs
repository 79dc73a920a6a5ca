//! The one who writes and syncs the Raft log: takes all that waits, writes it, syncs once, tells.

use std::{
    collections::VecDeque,
    io::IoSlice,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender};
use raft::eraftpb::{Entry, HardState, Snapshot};
use tidelog_wal::{
    WalError,
    chain::{BLOCK_BYTES, ChainWriter, block_align},
    error::Fatal,
};
use tracing::{error, info};

use super::{
    LogFiles,
    record::{Place, RECORD_ALIGN, Record, append_bytes, entry_payload_bytes},
    replay::SnapshotMeta,
};
use crate::{cold_reads::Task, handle::Shared, handle::lock, metrics::RaftMetrics, snapshot};

/// Most bytes of entries that one sync covers, more or less one request.
const GROUP_BYTES_MAX: u64 = 4 << 20;

/// Most bytes of the records that a file begins with.
const STATE_BYTES_MAX: u64 = 8 << 10;

/// Bytes of buffer kept from one group to the next.
const BUFFER_BYTES_KEPT: usize = 1 << 20;

/// What a step did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Something; there may be more.
    Worked,
    /// There was nothing to do.
    Idle,
    /// The disk is full: nothing is lost, try again later.
    Blocked,
}

/// What the Raft thread wants on disk, in order.
#[derive(Debug)]
pub(crate) enum Request {
    /// What one Ready says must be durable.
    Ready {
        /// The Ready's number.
        number: u64,
        /// Entries to append.
        entries: Vec<Entry>,
        /// Term, vote, commit index, where changed.
        hard_state: Option<HardState>,
        /// A snapshot that replaces the log.
        snapshot: Option<Snapshot>,
    },
    /// A snapshot file is durable: name it, and truncate the log there.
    Compact {
        /// The snapshot.
        snapshot: SnapshotMeta,
        /// The index to truncate at and its term.
        truncate: (u64, u64),
    },
}

/// The state that every file begins with, so that older files can go.
#[derive(Debug, Clone)]
pub(crate) struct LogState {
    pub(crate) hard_state: HardState,
    pub(crate) snapshot: SnapshotMeta,
    pub(crate) truncated: (u64, u64),
    pub(crate) last: (u64, u64),
}

/// The writer's own things.
#[derive(Debug)]
pub(crate) struct LogWriter {
    files: LogFiles,
    chain: ChainWriter,
    links: WriterLinks,
    metrics: RaftMetrics,
    state: LogState,
    next_sequence: u64,
    durable_through: u64,
    /// Whether a record on disk vouches for the last group.
    is_vouched: bool,
    /// The index of a leader's snapshot whose marker, when written, replaces the log.
    installing: Option<u64>,
    taken: VecDeque<Request>,
    unwritten: VecDeque<Record>,
    outcome: Outcome,
    buffer: Vec<u8>,
    notes: Vec<Note>,
}

/// The writer's ends of the channels to the node's other threads.
#[derive(Debug)]
pub(crate) struct WriterLinks {
    pub(crate) requests: Receiver<Request>,
    pub(crate) tasks: Sender<Task>,
    pub(crate) shared: Arc<Shared>,
}

/// What may be said and done once everything taken is durable.
#[derive(Debug, Default)]
struct Outcome {
    number: u64,
    needs_sync: bool,
    compacted: bool,
}

/// What the table learns when the buffer is written.
#[derive(Debug, Clone, Copy)]
enum Note {
    /// Where in the buffer an append record is.
    Append { first: u64, count: u64, at: u64, length: u64 },
    /// A snapshot replaced the log.
    Reset { index: u64 },
}

impl LogWriter {
    /// Takes over a log and writes the state that its fresh file begins with, durably.
    ///
    /// # Errors
    /// As the file system says.
    pub(crate) fn begin(
        files: LogFiles,
        chain: ChainWriter,
        state: LogState,
        next_sequence: u64,
        links: WriterLinks,
        metrics: RaftMetrics,
    ) -> Result<LogWriter, Fatal> {
        let mut writer = LogWriter {
            files,
            chain,
            links,
            metrics,
            state,
            next_sequence,
            durable_through: next_sequence - 1,
            is_vouched: false,
            installing: None,
            taken: VecDeque::new(),
            unwritten: VecDeque::new(),
            outcome: Outcome::default(),
            buffer: Vec::new(),
            notes: Vec::new(),
        };
        writer.begin_file();
        writer.flush()?;
        writer.sync()?;
        Ok(writer)
    }

    /// Takes what waits and makes it durable; with nothing to take, vouches for the last group.
    ///
    /// # Errors
    /// Any error ends the process: what was promised may not be on the disk.
    pub(crate) fn step(&mut self) -> Result<Step, Fatal> {
        if self.unwritten.is_empty() && !self.take()? {
            return Ok(Step::Blocked);
        }
        if self.unwritten.is_empty() && self.outcome.number == 0 {
            return self.vouch();
        }
        if !self.write()? {
            return Ok(Step::Blocked);
        }
        if self.outcome.needs_sync {
            self.sync()?;
        }
        self.publish()?;
        Ok(Step::Worked)
    }

    /// Writes and syncs what is left, and vouches for it, so that the next start sees a clean end.
    ///
    /// # Errors
    /// As [`LogWriter::step`].
    pub(crate) fn finish(&mut self) -> Result<(), Fatal> {
        while self.step()? == Step::Worked {}
        self.chain.sync()
    }

    /// Waits for a request, for at most `pause`.
    ///
    /// # Errors
    /// Where none came, or where none can come any more.
    pub(crate) fn wait(&mut self, pause: Duration) -> Result<(), RecvTimeoutError> {
        let request = match pause {
            Duration::MAX => {
                self.links.requests.recv().map_err(|_| RecvTimeoutError::Disconnected)?
            }
            _ => self.links.requests.recv_timeout(pause)?,
        };
        self.taken.push_back(request);
        Ok(())
    }

    /// Turns waiting requests into records; `false` where a full disk refuses a snapshot file.
    fn take(&mut self) -> Result<bool, Fatal> {
        let mut bytes = 0;
        while bytes < GROUP_BYTES_MAX {
            let Some(request) =
                self.taken.pop_front().or_else(|| self.links.requests.try_recv().ok())
            else {
                break;
            };
            if let Request::Ready { snapshot: Some(snapshot), .. } = &request
                && !self.write_snapshot_file(snapshot)?
            {
                self.taken.push_front(request);
                return Ok(!self.unwritten.is_empty());
            }
            bytes += self.records_of(request);
        }
        Ok(true)
    }

    /// The snapshot of a leader, durable before the marker that names it.
    fn write_snapshot_file(&self, snapshot: &Snapshot) -> Result<bool, Fatal> {
        let meta = SnapshotMeta::of(snapshot);
        snapshot::write(&self.files, &meta, &snapshot.data)
    }

    /// Queues the records of a request, in the order that a torn tail may cut between any two of
    /// them; returns the bytes of its entries.
    fn records_of(&mut self, request: Request) -> u64 {
        match request {
            Request::Ready { number, entries, hard_state, snapshot } => {
                self.outcome.number = self.outcome.number.max(number);
                if let Some(snapshot) = snapshot {
                    self.installing = Some(snapshot.get_metadata().index);
                    self.unwritten.push_back(marker(SnapshotMeta::of(&snapshot)));
                }
                if let Some(hard_state) = hard_state {
                    self.take_hard_state(hard_state, !entries.is_empty());
                }
                let bytes = entries.iter().map(entry_payload_bytes).sum::<usize>() as u64;
                let records = split(entries, lock(&self.files.table).record_bytes_max());
                self.unwritten.extend(records.into_iter().map(Record::Append));
                bytes
            }
            Request::Compact { snapshot, truncate: (index, term) } => {
                self.outcome.compacted = true;
                self.unwritten.push_back(marker(snapshot));
                self.unwritten.push_back(Record::TruncatePrefix { index, term });
                0
            }
        }
    }

    /// A commit index alone may be lost, so it waits for the next record, or for quiet. A term or
    /// a vote may not.
    fn take_hard_state(&mut self, hard_state: HardState, has_entries: bool) {
        let ours = &self.state.hard_state;
        let is_promise = (hard_state.term, hard_state.vote) != (ours.term, ours.vote);
        self.state.hard_state = hard_state.clone();
        self.is_vouched = false;
        if is_promise || has_entries {
            self.unwritten.push_back(Record::HardState(hard_state));
        }
    }

    /// Writes every record taken; `false` where no file is ready and the disk is full.
    fn write(&mut self) -> Result<bool, Fatal> {
        while let Some(record) = self.unwritten.front() {
            let bytes = record_bytes_max(record);
            let needed = block_align(self.buffer.len() as u64 + bytes);
            if needed > self.chain.room() {
                self.flush()?;
                if !self.roll(bytes + STATE_BYTES_MAX)? {
                    return Ok(false);
                }
            }
            if let Some(record) = self.unwritten.pop_front() {
                self.encode(record);
            }
        }
        self.flush()?;
        Ok(true)
    }

    fn encode(&mut self, record: Record) {
        let at = self.buffer.len() as u64;
        let place = Place {
            group: self.files.group,
            file_epoch: self.chain.epoch(),
            sequence: self.next_sequence,
            durable_through: self.durable_through,
        };
        record.encode(place, &mut self.buffer);
        self.next_sequence += 1;
        self.outcome.needs_sync = true;
        self.is_vouched = false;
        let length = self.buffer.len() as u64 - at;
        match record {
            Record::Append(entries) => {
                let (first, last) = (&entries[0], &entries[entries.len() - 1]);
                self.state.last = (last.index, last.term);
                let count = entries.len() as u64;
                self.notes.push(Note::Append { first: first.index, count, at, length });
            }
            Record::SnapshotMarker { index, term, conf_state } => {
                if self.installing == Some(index) {
                    self.installing = None;
                    self.state.last = (index, term);
                    self.state.truncated = (index, term);
                    self.notes.push(Note::Reset { index });
                    self.metrics.snapshots_installed.inc();
                }
                self.state.snapshot = SnapshotMeta { index, term, conf_state };
            }
            Record::TruncatePrefix { index, term } => self.state.truncated = (index, term),
            Record::HardState(_) | Record::LogEnd { .. } => {}
        }
    }

    /// Hands the buffer to the file as one group.
    fn flush(&mut self) -> Result<(), Fatal> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        assert!(self.buffer.len().is_multiple_of(RECORD_ALIGN), "only whole records are written");
        let bytes = self.buffer.len() as u64;
        let start = self.chain.append(vec![IoSlice::new(&self.buffer)], bytes)?;
        let mut table = lock(&self.files.table);
        for note in self.notes.drain(..) {
            match note {
                Note::Append { first, count, at, length } => {
                    table.note_append(first, count, start + at, length);
                }
                Note::Reset { index } => table.reset(index),
            }
        }
        drop(table);
        self.metrics.log_write_bytes.inc_by(bytes);
        self.buffer.clear();
        Ok(())
    }

    /// Goes on in the next file; `false` where none is ready and the disk is full.
    fn roll(&mut self, bytes_min: u64) -> Result<bool, Fatal> {
        // Everything so far is synced before the next file's header can say so.
        self.sync()?;
        while !self.chain.roll(self.next_sequence, bytes_min)? {
            match self.files.pool.fill_one() {
                Ok(_) => {}
                Err(WalError::Fatal(fatal)) => return Err(fatal),
                Err(_) => return Ok(false),
            }
        }
        self.begin_file();
        Ok(true)
    }

    /// The state in front of a fresh file: from here on the files before are needed for their
    /// entries only.
    fn begin_file(&mut self) {
        let files = self.files.pool.live_files();
        let Some(newest) = files.last() else { unreachable!("a file was just begun") };
        let header = newest.header;
        lock(&self.files.table).begin_file(header.number, header.epoch, BLOCK_BYTES, newest.bytes);
        self.metrics.log_files.set(files.len() as i64);
        let state = self.state.clone();
        self.encode(Record::LogEnd { index: state.last.0, term: state.last.1 });
        self.encode(marker(state.snapshot));
        let (index, term) = state.truncated;
        self.encode(Record::TruncatePrefix { index, term });
        self.encode(Record::HardState(state.hard_state));
    }

    fn sync(&mut self) -> Result<(), Fatal> {
        assert!(self.buffer.is_empty(), "what is synced was written before");
        let begun = Instant::now();
        self.chain.sync()?;
        self.metrics.log_sync_seconds.observe(begun.elapsed().as_secs_f64());
        self.durable_through = self.next_sequence - 1;
        Ok(())
    }

    fn publish(&mut self) -> Result<(), Fatal> {
        let outcome = std::mem::take(&mut self.outcome);
        self.buffer.shrink_to(BUFFER_BYTES_KEPT);
        if outcome.number > 0 {
            self.links.shared.persisted.fetch_max(outcome.number, Ordering::AcqRel);
            self.links.shared.wake();
        }
        if outcome.compacted {
            self.delete_old()?;
        }
        if self.chain.room() < self.chain.group_bytes_max() / 2 && self.files.pool.wants_file() {
            // A lost wish costs the next roll the time to fill the file itself.
            let _ = self.links.tasks.try_send(Task::FillFile);
        }
        Ok(())
    }

    /// Frees the files and snapshots that the log just made durable does not need.
    fn delete_old(&mut self) -> Result<(), Fatal> {
        let mut table = lock(&self.files.table);
        let below = table.files_below(self.state.truncated.0);
        below.into_iter().for_each(|number| table.forget_oldest(number));
        let oldest = table.oldest_file();
        drop(table);
        let live = self.files.pool.live_files();
        let oldest = live.iter().find(|file| Some(file.header.number) >= oldest);
        if let Some(file) = oldest
            && let Err(error) = self.files.pool.recycle_below(file.header.first_sequence)
        {
            error!(%error, "an old file of the Raft log stays until the next start");
        }
        let index = self.state.snapshot.index;
        if let Err(error) = snapshot::remove_older(&self.files, index) {
            error!(%error, "an old snapshot file stays until the next one is taken");
        }
        let (truncated, _) = self.state.truncated;
        info!(snapshot_index = index, truncated, "compacted the Raft log");
        self.metrics.log_files.set(self.files.pool.live_files().len() as i64);
        Ok(())
    }

    /// One record after the last group, so that damage in the group is not taken for a torn tail.
    /// It needs no sync: lost, it only leaves the group as it was.
    fn vouch(&mut self) -> Result<Step, Fatal> {
        if self.is_vouched {
            return Ok(Step::Idle);
        }
        self.unwritten.push_back(Record::HardState(self.state.hard_state.clone()));
        if !self.write()? {
            return Ok(Step::Blocked);
        }
        self.outcome = Outcome::default();
        self.is_vouched = true;
        Ok(Step::Worked)
    }
}

fn marker(meta: SnapshotMeta) -> Record {
    let SnapshotMeta { index, term, conf_state } = meta;
    Record::SnapshotMarker { index, term, conf_state }
}

/// Bytes that a record takes at most, a new file's state in front of it included.
fn record_bytes_max(record: &Record) -> u64 {
    const OTHERS_BYTES_MAX: u64 = 4 << 10;
    match record {
        Record::Append(entries) => append_bytes(entries),
        _ => OTHERS_BYTES_MAX,
    }
}

/// Entries in records of a size that one cold read decodes.
fn split(entries: Vec<Entry>, record_bytes_max: usize) -> Vec<Vec<Entry>> {
    let mut records: Vec<Vec<Entry>> = Vec::new();
    let mut bytes = 0;
    for entry in entries {
        let entry_bytes = entry_payload_bytes(&entry);
        match records.last_mut().filter(|_| bytes + entry_bytes <= record_bytes_max) {
            Some(record) => record.push(entry),
            None => {
                records.push(vec![entry]);
                bytes = 0;
            }
        }
        bytes += entry_bytes;
    }
    records
}
