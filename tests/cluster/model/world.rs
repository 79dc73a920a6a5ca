//! One node, its clients, and what the model knows of both.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use kafka_protocol::messages::{
    BrokerId, CreateTopicsRequest, DeleteRecordsRequest, FetchRequest, FetchResponse,
    ListOffsetsRequest, ProduceRequest,
    create_topics_request::CreatableTopic,
    delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic},
    fetch_request::{FetchPartition, FetchTopic},
    fetch_response::PartitionData,
    list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic},
    produce_request::{PartitionProduceData, TopicProduceData},
};
use tidelog_tests::{
    node::{Node, Options},
    programs::wait_until,
    seed::Random,
    wire::{PATIENCE, Wire, topic_name},
};
use uuid::Uuid;

use super::{
    batches::{CODECS, Codec, Sent},
    log::{Log, Stored},
    session::{Key, Known, Session, TopicKey},
    step::{Limits, Place, Step, Timestamp, What},
};

/// Every name that a topic may have.
pub const TOPICS: [&str; 3] = ["alpha", "beta", "gamma"];
/// What a batch may have, in bytes.
const MESSAGE_BYTES_MAX: &str = "200000";
/// First version of Produce and of Fetch that names topics by id.
const TOPIC_ID_VERSION: i16 = 13;
/// Version of the produce requests that are sent without waiting for each answer.
const LOAD_VERSION: i16 = 9;

const OFFSET_OUT_OF_RANGE: i16 = 1;
const CORRUPT_MESSAGE: i16 = 2;
const UNKNOWN_TOPIC_OR_PARTITION: i16 = 3;
const MESSAGE_TOO_LARGE: i16 = 10;
const INVALID_REQUIRED_ACKS: i16 = 21;
const UNSUPPORTED_VERSION: i16 = 35;
const TOPIC_ALREADY_EXISTS: i16 = 36;
const INVALID_REQUEST: i16 = 42;
const OUT_OF_ORDER_SEQUENCE_NUMBER: i16 = 45;
const INVALID_PRODUCER_EPOCH: i16 = 47;
const TRANSACTIONAL_ID_AUTHORIZATION_FAILED: i16 = 53;
const FETCH_SESSION_ID_NOT_FOUND: i16 = 70;
const UNKNOWN_TOPIC_ID: i16 = 100;

struct Topic {
    id: Uuid,
    logs: Vec<Log>,
}

/// What a batch that was sent leads to.
enum Expected {
    Appended(Sent),
    /// It is in the log already, from this offset on.
    Duplicate(i64),
    Refused(i16),
}

pub struct World {
    node: Node,
    wire: Wire,
    now_ms: i64,
    topics: BTreeMap<usize, Topic>,
    /// Ids and epochs.
    producers: Vec<(i64, i16)>,
    sessions: [Session; 2],
    pub played: Vec<Step>,
    batches_read: usize,
}

impl World {
    pub fn new(options: Options) -> World {
        let node = Node::start(
            options
                .set("message.max.bytes", MESSAGE_BYTES_MAX)
                .set("auto.create.topics.enable", "false"),
        );
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
        let wire = node.wire();
        let mut world = World {
            node,
            wire,
            now_ms: i64::try_from(since_1970.as_millis()).expect("before the year 292 million"),
            topics: BTreeMap::new(),
            producers: Vec::new(),
            sessions: [Session::new(12, 1_000_000), Session::new(17, 3_000)],
            played: Vec::new(),
            batches_read: 0,
        };
        (0..4).for_each(|_| world.new_producer());
        world
    }

    pub fn any_topic(&self, random: &mut Random) -> usize {
        random.index(TOPICS.len())
    }

    pub fn any_place(&self, random: &mut Random) -> Place {
        (self.any_topic(random), random.below(4) as i32 % 3)
    }

    pub fn play(&mut self, step: &Step, random: &mut Random) {
        match step {
            Step::CreateTopic { topic, partitions, version } => {
                self.create_topic(*topic, *partitions, *version);
            }
            Step::DeleteTopic { topic } => self.delete_topic(*topic),
            Step::Produce { to, version, acks, what } => {
                self.produce(*to, *version, *acks, *what, random);
            }
            Step::Fetch { wanted, version, limits } => {
                self.fetch(wanted, *version, *limits, random);
            }
            Step::SessionFetch { session, max_bytes } => {
                self.session_fetch(*session, *max_bytes, random);
            }
            Step::Subscribe { session, to } => self.subscribe(*session, *to, random),
            Step::Unsubscribe { session } => self.unsubscribe(*session, random),
            Step::ListOffsets { of, version, timestamp } => {
                self.list_offsets(*of, *version, *timestamp);
            }
            Step::DeleteRecords { of } => self.delete_records(*of, random),
            Step::NewProducer => self.new_producer(),
            Step::Restart => {
                assert!(self.node.terminate().success(), "a clean stop");
                self.start_again();
            }
            Step::Kill => {
                self.node.kill();
                self.start_again();
            }
            Step::KillUnderLoad { requests } => self.kill_under_load(*requests, random),
        }
    }

    pub fn summary(&self) -> String {
        let kills = self.played.iter();
        let kills = kills.filter(|step| matches!(step, Step::Kill | Step::KillUnderLoad { .. }));
        let logs = self.topics.values().flat_map(|topic| &topic.logs);
        let there: usize = logs.map(|log| log.batches.len()).sum();
        let (steps, kills, read) = (self.played.len(), kills.count(), self.batches_read);
        format!("{steps} steps, {kills} kills, {there} batches at the end, {read} batches read")
    }

    /// Reads each log from its start to its end.
    pub fn read_everything(&mut self) {
        let limits = Limits { max_bytes: 1_000_000, partition_max_bytes: 1_000_000 };
        for place in self.places() {
            self.settle(place);
            let mut next = self.log(place).expect("it exists").log_start_offset;
            while next < self.log(place).expect("it exists").end_offset() {
                let found = self.fetch_from(&[(place, next)], 12, limits);
                next = self.log(place).expect("it exists").from(next)[found[0] - 1].next_offset();
            }
        }
    }

    fn places(&self) -> Vec<Place> {
        let topics = self.topics.iter();
        let places =
            topics.flat_map(|(topic, found)| (0..).zip(&found.logs).map(|(at, _)| (*topic, at)));
        places.collect()
    }

    fn log(&self, (topic, partition): Place) -> Option<&Log> {
        self.topics.get(&topic)?.logs.get(usize::try_from(partition).ok()?)
    }

    fn log_mut(&mut self, (topic, partition): Place) -> &mut Log {
        let topic = self.topics.get_mut(&topic).expect("it exists");
        &mut topic.logs[usize::try_from(partition).expect("not negative")]
    }

    /// The topic's id; one that no topic has if there is none.
    fn id_of(&self, topic: usize) -> Uuid {
        self.topics.get(&topic).map_or(Uuid::from_u128(topic as u128 + 1), |topic| topic.id)
    }

    /// What a request that names a partition is told if there is none.
    fn lookup_error(&self, (topic, partition): Place, by_id: bool) -> Option<i16> {
        match self.topics.contains_key(&topic) {
            false if by_id => Some(UNKNOWN_TOPIC_ID),
            false => Some(UNKNOWN_TOPIC_OR_PARTITION),
            true if self.log((topic, partition)).is_none() => Some(UNKNOWN_TOPIC_OR_PARTITION),
            true => None,
        }
    }

    fn create_topic(&mut self, topic: usize, partitions: i32, version: i16) {
        let creatable = CreatableTopic::default()
            .with_name(topic_name(TOPICS[topic]))
            .with_num_partitions(partitions)
            .with_replication_factor(1);
        let request =
            CreateTopicsRequest::default().with_timeout_ms(30_000).with_topics(vec![creatable]);
        let response = self.wire.call(&request, version).expect("an answer");
        let exists = self.topics.contains_key(&topic);
        let expected = if exists { TOPIC_ALREADY_EXISTS } else { 0 };
        assert_eq!(response.topics[0].error_code, expected);
        if !exists {
            let id = self.wire.topic_id(TOPICS[topic]).expect("an answer");
            assert!(self.topics.values().all(|other| other.id != id), "an id is given once");
            let logs = (0..partitions).map(|_| Log::default()).collect();
            self.topics.insert(topic, Topic { id, logs });
        }
    }

    fn delete_topic(&mut self, topic: usize) {
        let code = self.wire.delete_topic(TOPICS[topic]).expect("an answer");
        let expected = match self.topics.remove(&topic) {
            Some(_) => 0,
            None => UNKNOWN_TOPIC_OR_PARTITION,
        };
        assert_eq!(code, expected);
    }

    fn new_producer(&mut self) {
        let id = self.wire.init_producer_id().expect("an answer");
        assert!(self.producers.iter().all(|(other, _)| *other != id), "an id is given once");
        self.producers.push((id, 0));
        if self.producers.len() > 4 {
            self.producers.remove(0);
        }
    }

    fn produce(&mut self, to: Place, version: i16, acks: i16, what: What, random: &mut Random) {
        let by_id = version >= TOPIC_ID_VERSION;
        // Only what depends on nothing before it may be sent behind what was not answered.
        if !matches!((what, acks), (What::Plain(_), 0)) {
            self.settle(to);
        }
        let (bytes, mut expected) = self.batch(to, what, random);
        if let Some(code) = self.lookup_error(to, by_id) {
            expected = Expected::Refused(code);
        }
        if !(-1..=1).contains(&acks) {
            expected = Expected::Refused(INVALID_REQUIRED_ACKS);
        }
        let request = produce_request(to, self.id_of(to.0), by_id, acks, bytes);
        if acks == 0 {
            return self.produce_unasked(to, version, &request, expected);
        }
        let response = self.wire.call(&request, version).expect("an answer");
        let answer = &response.responses[0].partition_responses[0];
        let told = (answer.error_code, answer.base_offset);
        match expected {
            Expected::Refused(code) => assert_eq!(told, (code, -1)),
            Expected::Duplicate(base_offset) => assert_eq!(told, (0, base_offset), "a duplicate"),
            Expected::Appended(sent) => {
                let log = self.log_mut(to);
                assert_eq!(told, (0, log.end_offset()));
                let start = if version >= 5 { log.log_start_offset } else { -1 };
                assert_eq!((answer.log_append_time_ms, answer.log_start_offset), (-1, start));
                log.append(sent);
            }
        }
    }

    /// Whoever does not want an answer is told of a failure by the end of the connection.
    fn produce_unasked(
        &mut self,
        to: Place,
        version: i16,
        request: &ProduceRequest,
        expected: Expected,
    ) {
        self.wire.send_unasked(request, version).expect("sent");
        match expected {
            Expected::Refused(_) => {
                assert!(self.wire.receive_frame().is_err(), "the connection ends");
                self.wire.reconnect().expect("the broker serves on");
            }
            Expected::Duplicate(_) => {}
            Expected::Appended(sent) => self.log_mut(to).unanswered.push_back(sent),
        }
    }

    /// The bytes to send, and what they lead to if there is such a partition.
    fn batch(&mut self, to: Place, what: What, random: &mut Random) -> (Bytes, Expected) {
        let now_ms = self.now_ms;
        let plain = |random: &mut Random| Sent::random(random, Codec::None, now_ms, None);
        let refused = |bytes, code| (bytes, Expected::Refused(code));
        let appended = |sent: Sent| (sent.bytes.clone(), Expected::Appended(sent));
        let state = |at: usize| {
            let (id, epoch) = self.producers[at];
            let known = self.log(to).and_then(|log| log.producers.get(&id)).cloned();
            (id, epoch, known)
        };
        match what {
            What::Plain(codec) => appended(Sent::random(random, codec, now_ms, None)),
            What::TooLarge => refused(Sent::too_large(), MESSAGE_TOO_LARGE),
            What::Damaged => refused(plain(random).damaged(), CORRUPT_MESSAGE),
            What::Transactional => {
                refused(plain(random).transactional(), TRANSACTIONAL_ID_AUTHORIZATION_FAILED)
            }
            What::NewEpoch(at) => {
                self.producers[at].1 += 1;
                let (id, epoch) = self.producers[at];
                let producer = Some((id, epoch, 0));
                appended(Sent::random(random, Codec::None, now_ms, producer))
            }
            What::OldEpoch(at) => match state(at) {
                (id, _, Some(known)) if known.epoch > 0 => {
                    let producer = Some((id, known.epoch - 1, known.next_sequence()));
                    let sent = Sent::random(random, Codec::None, now_ms, producer);
                    refused(sent.bytes, INVALID_PRODUCER_EPOCH)
                }
                _ => self.batch(to, What::Next(at, Codec::None), random),
            },
            What::Gap(at) => match state(at) {
                (id, epoch, Some(known)) => {
                    let next = if known.epoch == epoch { known.next_sequence() } else { 0 };
                    let producer = Some((id, epoch, next + 1 + random.below(9) as i32));
                    let sent = Sent::random(random, Codec::None, now_ms, producer);
                    refused(sent.bytes, OUT_OF_ORDER_SEQUENCE_NUMBER)
                }
                _ => self.batch(to, What::Next(at, Codec::None), random),
            },
            What::Again(at, back) => {
                let (_, _, known) = state(at);
                let remembered =
                    known.and_then(|known| known.batches.iter().rev().nth(back).copied());
                let Some((_, base_offset, _)) = remembered else {
                    return self.batch(to, What::Next(at, Codec::None), random);
                };
                let log = self.log(to).expect("it has batches");
                (log.from(base_offset)[0].sent.bytes.clone(), Expected::Duplicate(base_offset))
            }
            What::Next(at, codec) => {
                let (id, epoch) = self.producers[at];
                let sequence = self.log(to).map_or(0, |log| next_sequence(log, id, epoch));
                let producer = Some((id, epoch, sequence));
                appended(Sent::random(random, codec, now_ms, producer))
            }
        }
    }

    /// Waits until everything that was sent to the partition without an answer is there.
    fn settle(&mut self, place: Place) {
        let Some(log) = self.log(place) else { return };
        if log.unanswered.is_empty() {
            return;
        }
        let end_offset = log.end_if_all_arrive();
        let wire = &mut self.wire;
        wait_until("what was sent without an answer", PATIENCE, || {
            latest(wire, place) == end_offset
        });
        self.log_mut(place).resolve(end_offset);
    }

    fn fetch(&mut self, wanted: &[Place], version: i16, limits: Limits, random: &mut Random) {
        let mut from = Vec::new();
        for place in wanted {
            self.settle(*place);
            let offset = self.log(*place).map_or(0, |log| {
                let readable = log.end_offset() - log.log_start_offset;
                log.log_start_offset - 2 + random.below(readable.unsigned_abs() + 5).cast_signed()
            });
            from.push((*place, offset));
        }
        self.fetch_from(&from, version, limits);
    }

    /// Fetches without a session; how many batches each partition gave.
    fn fetch_from(&mut self, from: &[(Place, i64)], version: i16, limits: Limits) -> Vec<usize> {
        let by_id = version >= TOPIC_ID_VERSION;
        let topics = from.iter().map(|((topic, partition), offset)| {
            let partition = FetchPartition::default()
                .with_partition(*partition)
                .with_fetch_offset(*offset)
                .with_current_leader_epoch(-1)
                .with_partition_max_bytes(limits.partition_max_bytes);
            match by_id {
                true => FetchTopic::default().with_topic_id(self.id_of(*topic)),
                false => FetchTopic::default().with_topic(topic_name(TOPICS[*topic])),
            }
            .with_partitions(vec![partition])
        });
        let request = FetchRequest::default()
            .with_max_bytes(limits.max_bytes)
            .with_session_epoch(-1)
            .with_topics(topics.collect());
        let response = self.wire.call(&request, version).expect("an answer");
        assert_eq!((response.error_code, response.session_id), (0, 0));
        assert_eq!(response.responses.len(), from.len());
        let mut seen = BTreeSet::new();
        let mut budget = Budget::new(limits);
        let mut found = Vec::new();
        for ((place, offset), topic) in from.iter().zip(&response.responses) {
            let data = &topic.partitions[0];
            assert_eq!(data.partition_index, place.1);
            let known = match self.lookup_error(*place, by_id) {
                Some(code) => Known::Error(code),
                None if !seen.insert(*place) => Known::Error(INVALID_REQUEST),
                None => known(self.log(*place).expect("it exists"), *offset),
            };
            let known = known.as_told_in(version);
            assert_eq!(said(data), known, "{place:?} from {offset}");
            found.push(match known {
                Known::Error(_) => 0,
                Known::Offsets { .. } => {
                    budget.check(self.log(*place).expect("it exists"), *offset, data)
                }
            });
        }
        self.batches_read += found.iter().sum::<usize>();
        found
    }

    fn subscribe(&mut self, session: usize, to: Place, random: &mut Random) {
        let id = self.topics.get(&to.0).map(|topic| topic.id);
        let end_offset = self.log(to).map_or(0, Log::end_offset);
        let start_offset = self.log(to).map_or(0, |log| log.log_start_offset);
        let session = &mut self.sessions[session];
        let topic = match (session.uses_ids(), id) {
            (false, _) => TopicKey::Name(to.0),
            (true, Some(id)) => TopicKey::Id(id),
            (true, None) => return, // a client finds no id
        };
        let offset = if random.below(2) == 0 { start_offset } else { end_offset };
        session.wanted.insert((topic, to.1), offset);
    }

    fn unsubscribe(&mut self, session: usize, random: &mut Random) {
        let session = &mut self.sessions[session];
        if session.wanted.is_empty() {
            return;
        }
        let at = random.index(session.wanted.len());
        let key = session.wanted.keys().nth(at).copied();
        session.wanted.remove(&key.expect("one of them"));
    }

    fn session_fetch(&mut self, session: usize, max_bytes: i32, random: &mut Random) {
        self.places().into_iter().for_each(|place| self.settle(place));
        let client = &mut self.sessions[session];
        if client.wanted.is_empty() && client.epoch == 0 {
            return;
        }
        let (asked_id, is_incremental) = (client.id, client.epoch > 0);
        let request = client.request(max_bytes);
        let limits = Limits { max_bytes, partition_max_bytes: client.partition_max_bytes };
        let response = self.wire.call(&request, client.version).expect("an answer");
        if is_incremental && !client.lives {
            assert_eq!((response.error_code, response.session_id), (FETCH_SESSION_ID_NOT_FOUND, 0));
            return client.begin_again();
        }
        assert_eq!(response.error_code, 0);
        let ends = is_incremental && client.wanted.is_empty();
        assert_eq!(response.session_id == 0, ends, "a session goes on while it has partitions");
        assert!(!is_incremental || ends || response.session_id == asked_id);
        client.go_on(response.session_id);
        let reads_on = random.below(4) > 0;
        self.take(session, &response, limits, reads_on);
    }

    /// Checks an answer in a session, and that the client knows now what a full fetch would tell.
    fn take(&mut self, at: usize, response: &FetchResponse, limits: Limits, reads_on: bool) {
        let mut budget = Budget::new(limits);
        let wanted = self.sessions[at].wanted.clone();
        let mut gone = Vec::new();
        for topic in &response.responses {
            for data in &topic.partitions {
                let topic = match self.sessions[at].uses_ids() {
                    true => TopicKey::Id(topic.topic_id),
                    false => TopicKey::Name(
                        TOPICS.iter().position(|name| *name == &**topic.topic).expect("a topic"),
                    ),
                };
                let key = (topic, data.partition_index);
                let offset = *wanted.get(&key).expect("only what was asked for");
                let said = said(data);
                let mut next = offset;
                if let (Some(log), Known::Offsets { .. }) = (self.log_of(key), said) {
                    let found = budget.check(log, offset, data);
                    let read = &log.from(offset)[..found];
                    next = read.last().map_or(offset, Stored::next_offset);
                    self.batches_read += found;
                } else if let Some(log) = self.log_of(key) {
                    next = log.log_start_offset;
                } else if said == Known::Error(UNKNOWN_TOPIC_ID) {
                    gone.push(topic);
                }
                let client = &mut self.sessions[at];
                client.view.insert(key, said);
                if reads_on {
                    client.wanted.insert(key, next);
                }
            }
        }
        let truth = |key: &Key, offset: i64| match self.log_of(*key) {
            Some(log) => known(log, offset),
            None => Known::Error(match key.0 {
                TopicKey::Id(id) if !self.topics.values().any(|topic| topic.id == id) => {
                    UNKNOWN_TOPIC_ID
                }
                TopicKey::Id(_) | TopicKey::Name(_) => UNKNOWN_TOPIC_OR_PARTITION,
            }),
        };
        let truth: BTreeMap<_, _> =
            wanted.iter().map(|(key, offset)| (*key, truth(key, *offset))).collect();
        assert_eq!(self.sessions[at].view, truth, "what the client knows");
        let is_readable = |(key, offset): (&Key, &i64)| {
            self.log_of(*key)
                .is_some_and(|log| (log.log_start_offset..log.end_offset()).contains(offset))
        };
        assert_eq!(budget.is_first, !wanted.iter().any(is_readable), "something of what there is");
        gone.into_iter().for_each(|topic| self.sessions[at].drop_topic(topic));
    }

    fn log_of(&self, (topic, partition): Key) -> Option<&Log> {
        let topic = match topic {
            TopicKey::Name(topic) => self.topics.get(&topic),
            TopicKey::Id(id) => self.topics.values().find(|topic| topic.id == id),
        };
        topic?.logs.get(usize::try_from(partition).ok()?)
    }

    fn list_offsets(&mut self, of: Place, version: i16, timestamp: Timestamp) {
        self.settle(of);
        let timestamp = match timestamp {
            Timestamp::Special(special) => special,
            Timestamp::Before(milliseconds) => self.now_ms - milliseconds,
        };
        let told = list_offsets(&mut self.wire, of, version, timestamp);
        let none = (-1, -1);
        let expected = match self.log(of) {
            None => Err(UNKNOWN_TOPIC_OR_PARTITION),
            Some(log) => match timestamp {
                0.. => Ok(log.at_or_after(timestamp).unwrap_or(none)),
                -1 => Ok((-1, log.end_offset())),
                -2 => Ok((-1, log.log_start_offset)),
                -3 if version >= 7 => Ok(log.latest().unwrap_or(none)),
                -4 if version >= 8 => Ok((-1, log.log_start_offset)),
                -5 if version >= 9 => Ok(none),
                _ => Err(UNSUPPORTED_VERSION),
            },
        };
        assert_eq!(told, expected);
    }

    fn delete_records(&mut self, of: Place, random: &mut Random) {
        self.settle(of);
        let (start, end) =
            self.log(of).map_or((0, 0), |log| (log.log_start_offset, log.end_offset()));
        let offset = match random.below(8) {
            0 => -1,
            1 => end + 1,
            2 => -2,
            // Mostly little: there shall be something left.
            _ => start - 1 + random.below(1 + (end - start).unsigned_abs() / 2).cast_signed(),
        };
        let partition =
            DeleteRecordsPartition::default().with_partition_index(of.1).with_offset(offset);
        let topic = DeleteRecordsTopic::default()
            .with_name(topic_name(TOPICS[of.0]))
            .with_partitions(vec![partition]);
        let request =
            DeleteRecordsRequest::default().with_timeout_ms(30_000).with_topics(vec![topic]);
        let version = random.below(3) as i16;
        let response = self.wire.call(&request, version).expect("an answer");
        let answer = &response.topics[0].partitions[0];
        let told = (answer.error_code, answer.low_watermark);
        if self.log(of).is_none() {
            return assert_eq!(told, (UNKNOWN_TOPIC_OR_PARTITION, -1));
        }
        let to = if offset == -1 { end } else { offset };
        if to < 0 || to > end {
            return assert_eq!(told, (OFFSET_OUT_OF_RANGE, -1), "{offset} of {start}..{end}");
        }
        let log = self.log_mut(of);
        log.log_start_offset = to.max(start);
        assert_eq!(told, (0, log.log_start_offset), "{offset} of {start}..{end}");
    }

    /// The node has ended, by whatever means.
    fn start_again(&mut self) {
        self.node.restart();
        self.wire = self.node.wire();
        self.sessions.iter_mut().for_each(|session| session.lives = false);
        for place in self.places() {
            if !self.log(place).expect("it exists").unanswered.is_empty() {
                let end_offset = latest(&mut self.wire, place);
                self.log_mut(place).resolve(end_offset);
            }
        }
    }

    fn kill_under_load(&mut self, requests: usize, random: &mut Random) {
        let places = self.places();
        places.iter().for_each(|place| self.settle(*place));
        let mut sent = Vec::new();
        for _ in 0..requests.min(requests * places.len()) {
            let to = places[random.index(places.len())];
            let codec = CODECS[random.index(CODECS.len())];
            let what = match random.below(2) {
                0 => What::Plain(codec),
                _ => What::Next(random.index(self.producers.len()), codec),
            };
            let (bytes, Expected::Appended(batch)) = self.batch(to, what, random) else {
                unreachable!("such batches are lawful");
            };
            let request = produce_request(to, self.id_of(to.0), false, -1, bytes);
            self.wire.send(&request, LOAD_VERSION).expect("sent");
            self.log_mut(to).unanswered.push_back(batch);
            sent.push(to);
        }
        let waits_for = random.index(sent.len() + 1);
        for (number, to) in sent.iter().enumerate() {
            if number == waits_for {
                self.node.kill();
            }
            // What had been answered before the end may still come.
            let Ok(response) = self.wire.receive::<ProduceRequest>(LOAD_VERSION) else { break };
            let answer = &response.responses[0].partition_responses[0];
            let log = self.log_mut(*to);
            let batch = log.unanswered.pop_front().expect("it was sent");
            assert_eq!((answer.error_code, answer.base_offset), (0, log.end_offset()));
            log.append(batch);
        }
        self.node.kill();
        self.start_again();
    }
}

/// What is left of a response's limits (KIP-74).
struct Budget {
    limits: Limits,
    bytes_left: i64,
    /// Nothing has been read.
    is_first: bool,
}

impl Budget {
    fn new(limits: Limits) -> Budget {
        Budget { limits, bytes_left: i64::from(limits.max_bytes), is_first: true }
    }

    /// Checks the records of a partition that can be read; returns how many batches there are.
    fn check(&mut self, log: &Log, offset: i64, data: &PartitionData) -> usize {
        let records = data.records.clone().unwrap_or_default();
        let bytes = records.len() as i64;
        let found = log.check(offset, records);
        let limit = self.bytes_left.min(i64::from(self.limits.partition_max_bytes));
        if let Some(first) = log.from(offset).first() {
            let first_bytes = first.sent.bytes.len() as i64;
            let must = self.is_first || first_bytes <= limit;
            assert_eq!(found > 0, must, "a batch of {first_bytes} bytes where {limit} are left");
            let limit = if self.is_first { limit.max(first_bytes) } else { limit };
            assert!(bytes <= limit || !must, "{bytes} bytes where {limit} are left");
        }
        self.is_first &= found == 0;
        self.bytes_left = (self.bytes_left - bytes).max(0);
        found
    }
}

fn known(log: &Log, offset: i64) -> Known {
    match (log.log_start_offset..=log.end_offset()).contains(&offset) {
        true => Known::Offsets {
            log_start_offset: log.log_start_offset,
            high_watermark: log.end_offset(),
        },
        false => Known::Error(OFFSET_OUT_OF_RANGE),
    }
}

fn said(data: &PartitionData) -> Known {
    if data.error_code != 0 {
        assert_eq!((data.high_watermark, data.log_start_offset), (-1, -1));
        return Known::Error(data.error_code);
    }
    assert_eq!(data.last_stable_offset, data.high_watermark);
    Known::Offsets { log_start_offset: data.log_start_offset, high_watermark: data.high_watermark }
}

fn next_sequence(log: &Log, id: i64, epoch: i16) -> i32 {
    let sent = log.unanswered.iter().filter_map(|sent| {
        let (sent_id, sent_epoch, first) = sent.producer?;
        (sent_id == id && sent_epoch == epoch).then_some(first + sent.timestamps.len() as i32)
    });
    let known = log.producers.get(&id).filter(|known| known.epoch == epoch);
    sent.last().unwrap_or_else(|| known.map_or(0, |known| known.next_sequence()))
}

fn produce_request(
    (topic, partition): Place,
    id: Uuid,
    by_id: bool,
    acks: i16,
    records: Bytes,
) -> ProduceRequest {
    let data = PartitionProduceData::default().with_index(partition).with_records(Some(records));
    let topic = match by_id {
        true => TopicProduceData::default().with_topic_id(id),
        false => TopicProduceData::default().with_name(topic_name(TOPICS[topic])),
    };
    ProduceRequest::default()
        .with_transactional_id(None)
        .with_acks(acks)
        .with_timeout_ms(30_000)
        .with_topic_data(vec![topic.with_partition_data(vec![data])])
}

/// The timestamp and the offset, or why there is none.
fn list_offsets(
    wire: &mut Wire,
    (topic, partition): Place,
    version: i16,
    timestamp: i64,
) -> Result<(i64, i64), i16> {
    let wanted = ListOffsetsPartition::default()
        .with_partition_index(partition)
        .with_current_leader_epoch(-1)
        .with_timestamp(timestamp);
    let topic = ListOffsetsTopic::default()
        .with_name(topic_name(TOPICS[topic]))
        .with_partitions(vec![wanted]);
    let request = ListOffsetsRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_timeout_ms(if version >= 10 { 30_000 } else { 0 })
        .with_topics(vec![topic]);
    let response = wire.call(&request, version).expect("an answer");
    let answer = &response.topics[0].partitions[0];
    match answer.error_code {
        0 => Ok((answer.timestamp, answer.offset)),
        code => Err(code),
    }
}

fn latest(wire: &mut Wire, place: Place) -> i64 {
    list_offsets(wire, place, 5, -1).expect("the partition is led").1
}
