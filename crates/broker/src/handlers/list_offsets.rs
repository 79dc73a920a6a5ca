//! ListOffsets: the offset of a time, or of one of the places that have a negative number.
//!
//! A time is searched for by the log's reader thread, and inside the batch by the broker's walker;
//! where the log starts inside of that batch, perhaps once more behind it.
//! Nothing is searched for before the reply's turn has come, and then one partition after another:
//! a connection occupies those threads with one search at a time, however much it asks.

use std::{
    collections::BTreeMap,
    future::Future as _,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};

use bytes::Bytes;
use kafka_protocol::messages::{
    ListOffsetsRequest, ListOffsetsResponse,
    list_offsets_request::ListOffsetsPartition,
    list_offsets_response::{ListOffsetsPartitionResponse, ListOffsetsTopicResponse},
};
use tidelog_net::service::{CloseReason, Handled, PendingReply, Reply};
use tidelog_protocol::{
    Outgoing, RequestError,
    records::{self, RecordsError},
    request,
};
use tidelog_types::{BatchHeader, Entry, ErrorCode, LeaderEpoch, Offset};
use tidelog_wal::{ColdReply, FoundBatch, ReadError};
use tokio::sync::oneshot;

use crate::{
    broker::Broker,
    errors,
    partition::{Partition, View},
    pending::timeout,
    record_walker::{RecordWalker, opened_bytes_max},
    replica_manager::{Topic, Topics},
    request_context::RequestContext,
};

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

/// An answer, or how to come by it.
enum Answer {
    Known(Result<Place, ErrorCode>),
    Wanted(Search),
    /// Whoever searches gives up by going away.
    Searching(oneshot::Receiver<Answer>),
}

/// A search that has not begun, among the records from an offset on.
#[derive(Clone)]
struct Search {
    partition: Arc<Partition>,
    target: Target,
    from: Offset,
    upper: Offset,
    /// The latest record in front of these.
    before: Option<Place>,
    opened_bytes_max: usize,
}

/// Tells a client what was found, unless it has gone: then nothing is searched for or opened.
struct Told {
    sender: oneshot::Sender<Answer>,
    walker: RecordWalker,
    search: Search,
}

impl Place {
    const NONE: Place = Place { timestamp_ms: -1, offset: -1, leader_epoch: LeaderEpoch::NONE };

    fn of(header: &BatchHeader, offset: Offset, timestamp_ms: i64) -> Place {
        Place { timestamp_ms, offset: offset.0, leader_epoch: header.leader_epoch }
    }
}

pub(crate) fn handle(
    broker: &Arc<Broker>,
    context: RequestContext,
    body: Bytes,
) -> Result<Handled, RequestError> {
    let request: ListOffsetsRequest = request::decode(context.version(), body)?;
    context.check_items(partitions(&request).count())?;
    let topics = broker.replicas.topics();
    let read_committed = request.isolation_level == 1;
    let mut times: BTreeMap<(&str, i32), usize> = BTreeMap::new();
    for (topic, wanted) in partitions(&request) {
        *times.entry((topic, wanted.partition_index)).or_default() += 1;
    }
    let answers = partitions(&request).map(|(topic, wanted)| {
        match times.get(&(topic, wanted.partition_index)) {
            Some(1) => look(&topics, topic, wanted, read_committed, context.version()),
            Some(_) | None => Answer::Known(Err(ErrorCode::InvalidRequest)),
        }
    });
    let answers = answers.collect();
    drop(topics);
    let timeout_ms = if context.version() < TIMEOUT_FROM { TIMEOUT_MS } else { request.timeout_ms };
    let deadline = context.started().checked_add(timeout(timeout_ms));
    let broker = Arc::clone(broker);
    let mut reply = ListOffsets { broker, context, request, answers, known: 0, deadline };
    reply.pass_known();
    if reply.known < reply.answers.len() {
        return Ok(Handled::Reply(Reply::Pending(Box::new(reply))));
    }
    Ok(match reply.finish() {
        Ok(outgoing) => Handled::Reply(Reply::Ready(outgoing)),
        Err(reason) => Handled::Close(reason),
    })
}

fn partitions(request: &ListOffsetsRequest) -> impl Iterator<Item = (&str, &ListOffsetsPartition)> {
    let topics = request.topics.iter();
    topics.flat_map(|topic| topic.partitions.iter().map(|wanted| (topic.name.as_str(), wanted)))
}

fn look(
    topics: &Topics,
    topic: &str,
    wanted: &ListOffsetsPartition,
    read_committed: bool,
    version: i16,
) -> Answer {
    let found = topics.named(topic).and_then(|topic| {
        let partition = topic.partition(wanted.partition_index)?;
        Ok((topic, partition))
    });
    let (topic, partition) = match found {
        Ok(found) => found,
        Err(error) => return Answer::Known(Err(error.error_code())),
    };
    let Some(target) = target(wanted.timestamp, version) else {
        return Answer::Known(Err(ErrorCode::UnsupportedVersion));
    };
    match partition.view(LeaderEpoch(wanted.current_leader_epoch)) {
        Ok(view) => find(topic, partition, &view, target, read_committed, version),
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
    topic: &Topic,
    partition: &Arc<Partition>,
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
    match target {
        Target::Latest => at(upper, view.leader_epoch),
        Target::Earliest => at(view.log_start_offset, partition.epoch_of(view.log_start_offset)),
        Target::Tiered => Answer::Known(Ok(Place::NONE)),
        Target::MaxTimestamp | Target::AtOrAfter(_) => Answer::Wanted(Search {
            partition: Arc::clone(partition),
            target,
            from: view.log_start_offset,
            upper,
            before: None,
            opened_bytes_max: opened_bytes_max(topic.settings.max_message_bytes),
        }),
    }
}

impl Search {
    fn begin(&self, walker: &RecordWalker) -> oneshot::Receiver<Answer> {
        let (sender, receiver) = oneshot::channel();
        let done = Box::new(Told { sender, walker: walker.clone(), search: self.clone() });
        let log = self.partition.log();
        match self.target {
            Target::AtOrAfter(timestamp_ms) => {
                log.find_by_timestamp(timestamp_ms, self.from, self.upper, done)
            }
            Target::MaxTimestamp => log.find_max_timestamp(self.from, self.upper, done),
            Target::Latest | Target::Earliest | Target::Tiered => {
                unreachable!("what is known is not searched for")
            }
        }
        receiver
    }

    /// The record that is asked for, in the batch that holds it. Where the log starts inside of the
    /// batch, its header may speak of records that are deleted: the search goes on behind it.
    fn look_inside(self, entry: &Entry) -> Answer {
        let header = entry.facts();
        let is_cut = header.base_offset < self.from;
        let start = Place::of(&header, header.base_offset.max(self.from), header.max_timestamp);
        let found = match header.is_log_append_time() {
            true => Ok(Some(start)), // records all stamped by the broker share the batch's time
            false => self.walk(entry),
        };
        match found {
            Ok(Some(place)) if !is_cut || self.is_the_one(place, &header) => self.known(place),
            Ok(before) if is_cut => {
                Answer::Wanted(Search { from: header.next_offset(), before, ..self })
            }
            // A batch that lies or cannot be opened: a consumer then reads a little too early,
            // never too late.
            Ok(_) | Err(_) => self.known(start),
        }
    }

    fn walk(&self, entry: &Entry) -> Result<Option<Place>, RecordsError> {
        let bytes_max = self.opened_bytes_max.max(entry.records.len());
        let record = match self.target {
            Target::AtOrAfter(timestamp_ms) => {
                records::first_at_or_after(entry, self.from, timestamp_ms, bytes_max)?
            }
            Target::MaxTimestamp => records::with_max_timestamp(entry, self.from, bytes_max)?,
            Target::Latest | Target::Earliest | Target::Tiered => None,
        };
        let header = entry.facts();
        Ok(record.map(|record| Place::of(&header, record.offset, record.timestamp_ms)))
    }

    /// Whether no record behind the batch can be a better answer than this one, inside of it.
    fn is_the_one(&self, place: Place, header: &BatchHeader) -> bool {
        self.target != Target::MaxTimestamp || place.timestamp_ms >= header.max_timestamp
    }

    /// The answer, unless there was a record before it that is as late.
    fn known(&self, place: Place) -> Answer {
        let as_late = |before: &Place| before.timestamp_ms >= place.timestamp_ms;
        Answer::Known(Ok(self.before.filter(as_late).unwrap_or(place)))
    }
}

impl ColdReply<Option<FoundBatch>> for Told {
    fn is_abandoned(&self) -> bool {
        self.sender.is_closed()
    }

    fn done(self: Box<Self>, found: Result<Option<FoundBatch>, ReadError>) {
        let Told { sender, walker, search } = *self;
        match found {
            Ok(Some(FoundBatch { entry })) => walker.queue(entry.len(), move || {
                if !sender.is_closed() {
                    tell(sender, search.look_inside(&entry));
                }
            }),
            Ok(None) => tell(sender, Answer::Known(Ok(search.before.unwrap_or(Place::NONE)))),
            Err(error) => tell(sender, Answer::Known(Err(errors::read(&error)))),
        }
    }
}

/// Answers, if the client has not gone.
fn tell(sender: oneshot::Sender<Answer>, answer: Answer) {
    let _ = sender.send(answer);
}

/// A request some of whose partitions are being searched.
struct ListOffsets {
    broker: Arc<Broker>,
    context: RequestContext,
    request: ListOffsetsRequest,
    answers: Vec<Answer>,
    /// Answers at the front that are known.
    known: usize,
    deadline: Option<Instant>,
}

impl ListOffsets {
    fn pass_known(&mut self) {
        let is_known = |answer: &&Answer| matches!(answer, Answer::Known(_));
        self.known += self.answers[self.known..].iter().take_while(is_known).count();
    }

    fn finish(&self) -> Result<Outgoing, CloseReason> {
        let metrics = &self.broker.metrics;
        let mut answers = self.answers.iter();
        let mut topics = Vec::with_capacity(self.request.topics.len());
        for topic in &self.request.topics {
            let mut partitions = Vec::with_capacity(topic.partitions.len());
            for (wanted, answer) in topic.partitions.iter().zip(answers.by_ref()) {
                let place = match answer {
                    Answer::Known(place) => *place,
                    Answer::Wanted(_) | Answer::Searching(_) => Err(ErrorCode::RequestTimedOut),
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
        while let Some(answer) = self.answers.get_mut(self.known) {
            match answer {
                Answer::Known(_) => self.known += 1,
                Answer::Wanted(search) => {
                    *answer = Answer::Searching(search.begin(&self.broker.walker));
                }
                Answer::Searching(receiver) => {
                    let Poll::Ready(found) = Pin::new(receiver).poll(context) else {
                        return Poll::Pending;
                    };
                    // Whoever gave up had too much to do: the client asks again.
                    let gave_up = Answer::Known(Err(ErrorCode::RequestTimedOut));
                    *answer = found.unwrap_or(gave_up);
                }
            }
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
