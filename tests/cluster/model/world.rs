//! One node, its clients, and what the model knows of both.

use std::{
    collections::BTreeMap,
    time::{SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use kafka_protocol::messages::{CreateTopicsRequest, create_topics_request::CreatableTopic};
use tidelog_tests::{
    batch,
    node::{Node, Options},
    seed::Random,
    wire::{Wire, topic_name},
};
use uuid::Uuid;

use super::{
    codes::*,
    log::Log,
    places::latest,
    session::Session,
    settings::{Limit, Settings},
    step::{Limits, Place, Retained, Step},
};

/// Every name that a topic may have, and behind them that of [`RETENTION`].
pub const TOPICS: [&str; 4] = ["alpha", "beta", "gamma", "retention"];
/// A topic that shows when old records were searched for: it keeps nothing.
pub const RETENTION: usize = 3;
/// What a batch may have, in bytes.
pub const MESSAGE_BYTES_MAX: usize = 200_000;
/// First version of Produce and of Fetch that names topics by id.
pub const TOPIC_ID_VERSION: i16 = 13;

pub struct Topic {
    pub id: Uuid,
    pub logs: Vec<Log>,
    pub settings: Settings,
}

pub struct World {
    pub node: Node,
    pub wire: Wire,
    /// When the workload began.
    pub now_ms: i64,
    pub topics: BTreeMap<usize, Topic>,
    /// Ids and epochs.
    pub producers: Vec<(i64, i16)>,
    pub sessions: [Session; 2],
    pub played: Vec<Step>,
    pub batches_read: usize,
    /// How often retention removed something.
    pub retained: usize,
}

impl World {
    pub fn new(options: Options) -> World {
        let node = Node::start(
            options
                .set("message.max.bytes", &MESSAGE_BYTES_MAX.to_string())
                .set("auto.create.topics.enable", "false")
                .set("log.retention.check.interval.ms", "10")
                // So that there are many segments.
                .set("log.roll.ms", "10000"),
        );
        let mut wire = node.wire();
        let keeps_nothing = [("retention.ms", "1")];
        let created = wire.create_topic(TOPICS[RETENTION], &keeps_nothing).expect("an answer");
        assert_eq!(created, 0);
        let mut world = World {
            node,
            wire,
            now_ms: now_ms(),
            topics: BTreeMap::new(),
            producers: Vec::new(),
            sessions: [Session::new(12, 1_000_000), Session::new(17, 3_000)],
            played: Vec::new(),
            batches_read: 0,
            retained: 0,
        };
        (0..4).for_each(|_| world.new_producer());
        world
    }

    pub fn any_topic(&self, random: &mut Random) -> usize {
        random.index(RETENTION)
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
            Step::Alter { topic, change } => self.alter(*topic, *change),
            Step::Retain { topic, limit, dies } => {
                let limit = match limit {
                    Retained::Nothing => Limit::Milliseconds(1),
                    Retained::Since(ms) => Limit::Milliseconds(now_ms() - self.now_ms + ms),
                    Retained::Bytes(bytes) => Limit::Bytes(*bytes),
                };
                self.retain(*topic, limit, *dies);
            }
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
        format!(
            "{steps} steps, {kills} kills, {there} batches at the end, {read} batches read, \
             {retained} times retention",
            retained = self.retained
        )
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

    pub fn places(&self) -> Vec<Place> {
        let topics = self.topics.iter();
        let places =
            topics.flat_map(|(topic, found)| (0..).zip(&found.logs).map(|(at, _)| (*topic, at)));
        places.collect()
    }

    pub fn log(&self, (topic, partition): Place) -> Option<&Log> {
        self.topics.get(&topic)?.logs.get(usize::try_from(partition).ok()?)
    }

    pub fn log_mut(&mut self, (topic, partition): Place) -> &mut Log {
        let topic = self.topics.get_mut(&topic).expect("it exists");
        &mut topic.logs[usize::try_from(partition).expect("not negative")]
    }

    /// The topic's id; one that no topic has if there is none.
    pub fn id_of(&self, topic: usize) -> Uuid {
        self.topics.get(&topic).map_or(Uuid::from_u128(topic as u128 + 1), |topic| topic.id)
    }

    /// What a request that names a partition is told if there is none.
    pub fn lookup_error(&self, (topic, partition): Place, by_id: bool) -> Option<i16> {
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
            self.topics.insert(topic, Topic { id, logs, settings: Settings::default() });
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

    /// The node has ended, by whatever means.
    pub fn start_again(&mut self) {
        self.node.restart();
        self.wire = self.node.wire();
        self.sessions.iter_mut().for_each(|session| session.lives = false);
        for place in self.places() {
            if !self.log(place).expect("it exists").unanswered.is_empty() {
                let end_offset = latest(&mut self.wire, place);
                self.resolve(place, end_offset);
            }
        }
    }

    /// The settings of a topic, if there is one.
    pub fn settings(&self, topic: usize) -> Option<&Settings> {
        self.topics.get(&topic).map(|topic| &topic.settings)
    }

    /// The batch that begins at an offset.
    pub fn read_one(&mut self, (topic, partition): Place, offset: i64) -> Bytes {
        let request = self.fetch_request(&[((topic, partition), offset)], 12, Limits::WIDE);
        let mut response = self.wire.call(&request, 12).expect("an answer");
        let data = response.responses.remove(0).partitions.remove(0);
        assert_eq!(data.error_code, 0);
        let (base_offset, bytes) = batch::split(data.records.expect("records")).remove(0);
        assert_eq!(base_offset, offset);
        bytes
    }
}

/// Milliseconds since 1970.
pub fn now_ms() -> i64 {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    i64::try_from(since_1970.as_millis()).expect("before the year 292 million")
}
