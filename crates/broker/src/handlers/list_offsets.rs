//! ListOffsets: the offset of a time, or of one of the places that have a negative number.

use std::{
    collections::BTreeSet,
    future::Future as _,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Instant,
};

use bytes::Bytes;
use kafka_protocol::messages::{
    ListOffsetsRequest, ListOffsetsResponse,
    list_offsets_request::ListOffsetsPartition,
    list_offsets_response::{ListOffsetsPartitionResponse, ListOffsetsTopicResponse},
};
use tidelog_net::service::{CloseReason, Handled, PendingReply, Reply};
use tidelog_protocol::{Outgoing, RequestError, records, request};
use tidelog_types::{Entry, ErrorCode, LeaderEpoch, Offset};
use tidelog_wal::{FoundBatch, ReadError};
use tokio::sync::oneshot;

use crate::{
    broker::Broker,
    errors,
    partition::{Partition, View},
    pending::timeout,
    replica_manager::Topics,
    request_context::RequestContext,
};

/// Bytes that one compressed batch may become while its records are walked.
const OPENED_BYTES_MAX: usize = 64 << 20;
/// First version in which a client says how long it waits (KIP-1075).
const TIMEOUT_FROM: i16 = 10;
/// How long a search may take where the client does not say, in milliseconds.
const TIMEOUT_MS: i32 = 30_000;

/// A place in a partition and when it was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    timestamp_ms: i64,
    offset: i64,
    leader_epoch: LeaderEpoch,
}

/// What a timestamp in a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Target {
    Latest,
    Earliest,
    MaxTimestamp,
    /// Nothing is tiered, so there is none.
    Tiered,
    AtOrAfter(i64),
}

/// An answer, or the search that will give it.
enum Answer {
    Known(Result<Place, ErrorCode>),
    Searching(Search),
}

struct Search {
    target: Target,
    receiver: oneshot::Receiver<Result<Option<FoundBatch>, ReadError>>,
}

impl Place {
    const NONE: Place = Place { timestamp_ms: -1, offset: -1, leader_epoch: LeaderEpoch::NONE };
}

pub(crate) fn handle(
    broker: &Arc<Broker>,
    context: RequestContext,
    body: Bytes,
) -> Result<Handled, RequestError> {
    let request: ListOffsetsRequest = request::decode(context.version(), body)?;
    let topics = broker.replicas.topics();
    let read_committed = request.isolation_level == 1;
    let mut seen = BTreeSet::new();
    let mut answers = Vec::new();
    for topic in &request.topics {
        for wanted in &topic.partitions {
            let is_new = seen.insert((topic.name.to_string(), wanted.partition_index));
            answers.push(match is_new {
                true => look(&topics, &topic.name, wanted, read_committed, context.version()),
                false => Answer::Known(Err(ErrorCode::InvalidRequest)),
            });
        }
    }
    drop(topics);
    let timeout_ms = if context.version() < TIMEOUT_FROM { TIMEOUT_MS } else { request.timeout_ms };
    let deadline = context.started().checked_add(timeout(timeout_ms));
    let broker = Arc::clone(broker);
    let mut reply = ListOffsets { broker, context, request, answers, deadline };
    Ok(match reply.poll_reply(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(Ok(outgoing)) => Handled::Reply(Reply::Ready(outgoing)),
        Poll::Ready(Err(reason)) => Handled::Close(reason),
        Poll::Pending => Handled::Reply(Reply::Pending(Box::new(reply))),
    })
}

fn look(
    topics: &Topics,
    topic: &str,
    wanted: &ListOffsetsPartition,
    read_committed: bool,
    version: i16,
) -> Answer {
    let found = topics.named(topic).and_then(|topic| topic.partition(wanted.partition_index));
    let partition = match found {
        Ok(partition) => partition,
        Err(error) => return Answer::Known(Err(error.error_code())),
    };
    let Some(target) = target(wanted.timestamp, version) else {
        return Answer::Known(Err(ErrorCode::UnsupportedVersion));
    };
    match partition.view(LeaderEpoch(wanted.current_leader_epoch)) {
        Ok(view) => find(partition, &view, target, read_committed, version),
        Err(error) => Answer::Known(Err(error.error_code())),
    }
}

/// `None` for a place that the version does not have.
fn target(timestamp: i64, version: i16) -> Option<Target> {
    match timestamp {
        0.. => Some(Target::AtOrAfter(timestamp)),
        -1 => Some(Target::Latest),
        -2 => Some(Target::Earliest),
        -3 if version >= 7 => Some(Target::MaxTimestamp), // KIP-734
        -4 if version >= 8 => Some(Target::Earliest),     // KIP-405
        -5 if version >= 9 => Some(Target::Tiered),       // KIP-1005
        -6 if version >= 11 => Some(Target::Tiered),      // KIP-1023
        _ => None,
    }
}

fn find(
    partition: &Partition,
    view: &View,
    target: Target,
    read_committed: bool,
    version: i16,
) -> Answer {
    let upper = if read_committed { view.last_stable_offset } else { view.high_watermark };
    if !view.is_settled && target != Target::Earliest {
        return Answer::Known(Err(match version {
            ..=4 => ErrorCode::LeaderNotAvailable,
            _ => ErrorCode::OffsetNotAvailable,
        }));
    }
    let at = |offset: Offset, leader_epoch| {
        Answer::Known(Ok(Place { timestamp_ms: -1, offset: offset.0, leader_epoch }))
    };
    let (sender, receiver) = oneshot::channel();
    // The client may have gone when the search is over.
    let done = Box::new(move |found| drop(sender.send(found)));
    match target {
        Target::Latest => return at(upper, view.leader_epoch),
        Target::Earliest => {
            return at(view.log_start_offset, partition.epoch_of(view.log_start_offset));
        }
        Target::Tiered => return Answer::Known(Ok(Place::NONE)),
        Target::MaxTimestamp => partition.log().find_max_timestamp(upper, done),
        Target::AtOrAfter(timestamp_ms) => {
            partition.log().find_by_timestamp(timestamp_ms, upper, done);
        }
    }
    Answer::Searching(Search { target, receiver })
}

/// The record that is asked for, in the batch that holds it.
fn place(target: Target, found: Result<Option<FoundBatch>, ReadError>) -> Result<Place, ErrorCode> {
    let Some(FoundBatch { entry }) = found.map_err(|error| errors::read(&error))? else {
        return Ok(Place::NONE);
    };
    let header = entry.facts();
    let leader_epoch = header.leader_epoch;
    let record = if header.is_log_append_time() { None } else { walk(target, &entry) };
    // Records all stamped by the broker share the batch's time. Where a batch cannot be walked its
    // start is told: a consumer then reads a little too early, never too late.
    let (offset, timestamp_ms) = record.unwrap_or((header.base_offset, header.max_timestamp));
    Ok(Place { timestamp_ms, offset: offset.0, leader_epoch })
}

fn walk(target: Target, entry: &Entry) -> Option<(Offset, i64)> {
    let found = match target {
        Target::AtOrAfter(timestamp_ms) => {
            records::first_at_or_after(entry, timestamp_ms, OPENED_BYTES_MAX)
        }
        Target::MaxTimestamp => records::with_max_timestamp(entry, OPENED_BYTES_MAX),
        Target::Latest | Target::Earliest | Target::Tiered => return None,
    };
    let record = found.ok().flatten()?;
    Some((record.offset, record.timestamp_ms))
}

/// A request some of whose partitions are being searched.
struct ListOffsets {
    broker: Arc<Broker>,
    context: RequestContext,
    request: ListOffsetsRequest,
    answers: Vec<Answer>,
    deadline: Option<Instant>,
}

impl ListOffsets {
    fn finish(&self) -> Result<Outgoing, CloseReason> {
        let metrics = &self.broker.metrics;
        let mut answers = self.answers.iter();
        let mut topics = Vec::with_capacity(self.request.topics.len());
        for topic in &self.request.topics {
            let mut partitions = Vec::with_capacity(topic.partitions.len());
            for (wanted, answer) in topic.partitions.iter().zip(answers.by_ref()) {
                let place = match answer {
                    Answer::Known(place) => *place,
                    Answer::Searching(_) => Err(ErrorCode::RequestTimedOut),
                };
                let response = ListOffsetsPartitionResponse::default()
                    .with_partition_index(wanted.partition_index);
                partitions.push(match place {
                    Ok(place) => response
                        .with_timestamp(place.timestamp_ms)
                        .with_offset(place.offset)
                        .with_leader_epoch(match self.context.version() {
                            ..=3 => LeaderEpoch::NONE.0,
                            _ => place.leader_epoch.0,
                        }),
                    Err(code) => response.with_error_code(self.context.error(metrics, code)),
                });
            }
            let response = ListOffsetsTopicResponse::default();
            topics.push(response.with_name(topic.name.clone()).with_partitions(partitions));
        }
        let response = ListOffsetsResponse::default().with_topics(topics);
        self.context.encode(metrics, &response)
    }
}

impl PendingReply for ListOffsets {
    fn poll_reply(&mut self, context: &mut Context<'_>) -> Poll<Result<Outgoing, CloseReason>> {
        for answer in &mut self.answers {
            let Answer::Searching(search) = answer else { continue };
            let Poll::Ready(found) = Pin::new(&mut search.receiver).poll(context) else {
                return Poll::Pending;
            };
            let found = found.unwrap_or(Err(ReadError::Closed));
            *answer = Answer::Known(place(search.target, found));
        }
        Poll::Ready(self.finish())
    }

    fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    fn expire(&mut self) -> Poll<Result<Outgoing, CloseReason>> {
        Poll::Ready(self.finish())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_newer_than_the_version_is_refused() {
        let cases = [
            (0, 1, Some(Target::AtOrAfter(0))),
            (-1, 1, Some(Target::Latest)),
            (-2, 1, Some(Target::Earliest)),
            (-3, 6, None),
            (-3, 7, Some(Target::MaxTimestamp)),
            (-4, 7, None),
            (-4, 8, Some(Target::Earliest)),
            (-5, 9, Some(Target::Tiered)),
            (-6, 10, None),
            (-6, 11, Some(Target::Tiered)),
            (-7, 11, None),
        ];
        for (timestamp, version, expected) in cases {
            assert_eq!(target(timestamp, version), expected, "{timestamp} v{version}");
        }
    }
}
