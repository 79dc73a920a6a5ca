//! Fetches with and without a session, and what their answers may hold.

use std::collections::{BTreeMap, BTreeSet};

use kafka_protocol::messages::{
    FetchRequest, FetchResponse,
    fetch_request::{FetchPartition, FetchTopic},
    fetch_response::PartitionData,
};
use tidelog_tests::{seed::Random, wire::topic_name};

use super::{
    codes::*,
    log::{Log, Stored},
    session::{Key, Known, TopicKey},
    step::{Limits, Place},
    world::{TOPIC_ID_VERSION, TOPICS, World},
};

impl World {
    pub fn fetch(&mut self, wanted: &[Place], version: i16, limits: Limits, random: &mut Random) {
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
    pub fn fetch_from(
        &mut self,
        from: &[(Place, i64)],
        version: i16,
        limits: Limits,
    ) -> Vec<usize> {
        let by_id = version >= TOPIC_ID_VERSION;
        let request = self.fetch_request(from, version, limits);
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

    /// A fetch without a session.
    pub fn fetch_request(
        &self,
        from: &[(Place, i64)],
        version: i16,
        limits: Limits,
    ) -> FetchRequest {
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
        FetchRequest::default()
            .with_max_bytes(limits.max_bytes)
            .with_session_epoch(-1)
            .with_topics(topics.collect())
    }

    pub fn subscribe(&mut self, session: usize, to: Place, random: &mut Random) {
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

    pub fn unsubscribe(&mut self, session: usize, random: &mut Random) {
        let session = &mut self.sessions[session];
        if session.wanted.is_empty() {
            return;
        }
        let at = random.index(session.wanted.len());
        let key = session.wanted.keys().nth(at).copied();
        session.wanted.remove(&key.expect("one of them"));
    }

    pub fn session_fetch(&mut self, session: usize, max_bytes: i32, random: &mut Random) {
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
            let first_bytes = first.bytes.len() as i64;
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
