//! One pass of a fetch over its partitions: from memory where it can, else from the disk.

use std::{
    future::Future as _,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use tidelog_net::{ReplyBudget, ReplyRoom};
use tidelog_protocol::{
    RecordChunks,
    fetch::{EpochEndOffset, FetchPartition, FetchPartitionResponse},
};
use tidelog_replica::EpochEnd;
use tidelog_types::{ErrorCode, LeaderEpoch, Offset};
use tidelog_wal::{ColdRead, ColdReply, ReadError, ReadOutcome};
use tokio::sync::oneshot;

use super::{Fetch, Limits, Wanted};
use crate::{
    errors,
    partition::{Partition, View},
};

/// Room that a first batch, sent whole whatever its size, is expected to need, in bytes.
const FIRST_BATCH_BYTES: u64 = 1 << 20;

/// One pass over the partitions.
pub(super) struct Round {
    /// Holds `bytes`, and what the disk was asked for.
    room: ReplyRoom,
    pub(super) answers: Vec<FetchPartitionResponse>,
    /// What was seen of each partition, to notice what changes before a wait is registered.
    pub(super) seen: Vec<(LeaderEpoch, Offset)>,
    pub(super) bytes: usize,
    /// Something other than records makes the answer worth sending.
    pub(super) is_urgent: bool,
    cold: Option<Cold>,
}

/// Tells a fetch what the disk gave.
struct Told(oneshot::Sender<Result<Vec<Bytes>, ReadError>>);

/// A partition whose batches the disk is asked for.
struct Cold {
    view: View,
    receiver: oneshot::Receiver<Result<Vec<Bytes>, ReadError>>,
}

/// What one partition gives at once.
enum Read {
    /// With the leader epoch it was read in, if it could be read.
    Answer(FetchPartitionResponse, LeaderEpoch),
    Cold(Cold),
    /// Nothing: it is to be read once the fetch is the next, and there is room.
    Later,
}

impl Fetch {
    /// Reads on from where the round stopped. Pending where the disk is asked, or room is wanting.
    pub(super) fn read(&self, round: &mut Round, context: &mut Context<'_>) -> Poll<()> {
        loop {
            if let Some(cold) = &mut round.cold {
                let Poll::Ready(outcome) = Pin::new(&mut cold.receiver).poll(context) else {
                    return Poll::Pending;
                };
                let view = cold.view;
                round.cold = None;
                self.finish_cold(round, view, outcome.unwrap_or(Err(ReadError::Closed)));
            }
            let Some(wanted) = self.wanted.get(round.answers.len()) else {
                return Poll::Ready(());
            };
            match self.read_partition(round, wanted) {
                Read::Answer(answer, leader_epoch) => round.take(answer, leader_epoch),
                Read::Cold(cold) => round.cold = Some(cold),
                Read::Later if self.is_next && !round.room.wait(context.waker()) => {}
                Read::Later => return Poll::Pending,
            }
        }
    }

    fn read_partition(&self, round: &mut Round, wanted: &Wanted) -> Read {
        let request = &wanted.request;
        let failed = |code| Read::failed(request, code);
        let partition = match &wanted.partition {
            Ok(partition) => partition,
            Err(error) => return failed(error.error_code()),
        };
        let view = match partition.view(request.current_leader_epoch) {
            Ok(view) => view,
            Err(error) => return failed(error.error_code()),
        };
        if request.fetch_offset < view.log_start_offset {
            return failed(ErrorCode::OffsetOutOfRange);
        }
        match diverging(partition, request) {
            Ok(None) => {}
            Ok(Some(end)) => {
                let diverging_epoch = Some(end);
                let answer = answer(&view, request, self.limits, RecordChunks::None);
                let answer = FetchPartitionResponse { diverging_epoch, ..answer };
                return Read::Answer(answer, view.leader_epoch);
            }
            Err(code) => return failed(code),
        }
        // A client that is past the end because its log parted from this one was told where.
        if request.fetch_offset > view.log_end_offset {
            return failed(ErrorCode::OffsetOutOfRange);
        }
        self.read_log(round, partition, &view, request)
    }

    /// The at-least-one rule (KIP-74): the first batch of a response is sent whole, however large.
    fn read_log(
        &self,
        round: &mut Round,
        partition: &Partition,
        view: &View,
        request: &FetchPartition,
    ) -> Read {
        let upper = self.limits.readable_end(view);
        let is_first = round.bytes == 0;
        let budget = self.limits.max_bytes.saturating_sub(round.bytes);
        let budget = budget.min(usize::try_from(request.partition_max_bytes).unwrap_or(0));
        let nothing = || {
            let answer = answer(view, request, self.limits, RecordChunks::None);
            Read::Answer(answer, view.leader_epoch)
        };
        if request.fetch_offset >= upper || (budget == 0 && !is_first) {
            return nothing();
        }
        let Some(budget) = round.make_room(budget) else {
            // Who holds room does not wait for more, and who may not wait any longer has to ask
            // again: else all could wait for each other.
            let may_wait = self.deadline.or(self.patience).is_some();
            return if is_first && may_wait { Read::Later } else { nothing() };
        };
        match partition.read(request.fetch_offset, upper, budget, is_first) {
            Ok(ReadOutcome::Entries(entries)) => {
                let records = RecordChunks::Entries(entries);
                Read::Answer(answer(view, request, self.limits, records), view.leader_epoch)
            }
            Ok(ReadOutcome::Cold(_)) if !self.is_next => Read::Later,
            Ok(ReadOutcome::Cold(read)) => ask_the_disk(partition, *view, read, request),
            Err(error) => Read::failed(request, errors::read(&error)),
        }
    }

    fn finish_cold(&self, round: &mut Round, view: View, outcome: Result<Vec<Bytes>, ReadError>) {
        let wanted = &self.wanted[round.answers.len()];
        let records = match outcome {
            Ok(pieces) => RecordChunks::Bytes(pieces),
            Err(error) => {
                let code = errors::read(&error);
                let failed = FetchPartitionResponse::failed(wanted.request.partition, code);
                return round.take(failed, LeaderEpoch::NONE);
            }
        };
        round.take(answer(&view, &wanted.request, self.limits, records), view.leader_epoch);
    }
}

impl Round {
    pub(super) fn new(replies: &Arc<ReplyBudget>, connection_id: u64) -> Round {
        Round {
            room: ReplyRoom::new(replies, connection_id),
            answers: Vec::new(),
            seen: Vec::new(),
            bytes: 0,
            is_urgent: false,
            cold: None,
        }
    }

    /// Room for up to so many bytes more, `None` where there is none. The first batch of a
    /// response is sent whole, so it gets room in any case where there is some.
    fn make_room(&mut self, bytes: usize) -> Option<usize> {
        let wanted = match self.bytes {
            0 => FIRST_BATCH_BYTES.max(bytes as u64),
            _ => bytes as u64,
        };
        let taken = usize::try_from(self.room.take(wanted)?).unwrap_or(usize::MAX);
        Some(bytes.min(taken))
    }

    fn take(&mut self, answer: FetchPartitionResponse, leader_epoch: LeaderEpoch) {
        self.bytes += answer.records.len();
        self.room.settle(self.bytes as u64);
        self.is_urgent |= answer.error_code != ErrorCode::None || answer.diverging_epoch.is_some();
        self.seen.push((leader_epoch, answer.high_watermark));
        self.answers.push(answer);
    }
}

impl Read {
    fn failed(request: &FetchPartition, code: ErrorCode) -> Read {
        let answer = FetchPartitionResponse::failed(request.partition, code);
        Read::Answer(answer, LeaderEpoch::NONE)
    }
}

impl ColdReply<Vec<Bytes>> for Told {
    fn is_abandoned(&self) -> bool {
        self.0.is_closed()
    }

    fn done(self: Box<Self>, outcome: Result<Vec<Bytes>, ReadError>) {
        // The client may have gone while the disk was read.
        let _ = self.0.send(outcome);
    }
}

impl Limits {
    fn readable_end(self, view: &View) -> Offset {
        if self.read_committed { view.last_stable_offset } else { view.high_watermark }
    }
}

/// Where the client's log and this one part, for a client that says what it read last (KIP-595).
fn diverging(
    partition: &Partition,
    request: &FetchPartition,
) -> Result<Option<EpochEndOffset>, ErrorCode> {
    if request.last_fetched_epoch.0 < 0 {
        return Ok(None);
    }
    let end = partition.epoch_end(request.last_fetched_epoch);
    if end == EpochEnd::UNDEFINED {
        return Err(ErrorCode::OffsetOutOfRange);
    }
    let EpochEnd { leader_epoch: epoch, end_offset } = end;
    let parts = epoch < request.last_fetched_epoch || end_offset < request.fetch_offset;
    Ok(parts.then_some(EpochEndOffset { epoch, end_offset }))
}

fn ask_the_disk(
    partition: &Partition,
    view: View,
    read: ColdRead,
    request: &FetchPartition,
) -> Read {
    let (sender, receiver) = oneshot::channel();
    match partition.log().read_cold(read, Box::new(Told(sender))) {
        Ok(()) => Read::Cold(Cold { view, receiver }),
        Err(error) => Read::failed(request, errors::read(&error)),
    }
}

fn answer(
    view: &View,
    request: &FetchPartition,
    limits: Limits,
    records: RecordChunks,
) -> FetchPartitionResponse {
    FetchPartitionResponse {
        high_watermark: view.high_watermark,
        last_stable_offset: view.last_stable_offset,
        log_start_offset: view.log_start_offset,
        aborted_transactions: limits.read_committed.then(Vec::new),
        records,
        ..FetchPartitionResponse::failed(request.partition, ErrorCode::None)
    }
}
