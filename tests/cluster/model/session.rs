//! A client that fetches in a session, by Kafka's rules for clients (KIP-227).

use std::collections::BTreeMap;

use kafka_protocol::messages::{
    FetchRequest,
    fetch_request::{FetchPartition, FetchTopic, ForgottenTopic},
};
use tidelog_tests::wire::topic_name;
use uuid::Uuid;

use super::world::TOPICS;

/// A topic as the session names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TopicKey {
    Name(usize),
    Id(Uuid),
}

/// A partition as the session names it.
pub type Key = (TopicKey, i32);

/// What is known of a partition, by its answers or by the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    Error(i16),
    Offsets { log_start_offset: i64, high_watermark: i64 },
}

impl Known {
    /// Before version 5 nobody is told where a log starts.
    pub fn as_told_in(self, version: i16) -> Known {
        match self {
            Known::Offsets { high_watermark, .. } if version < 5 => {
                Known::Offsets { log_start_offset: -1, high_watermark }
            }
            known => known,
        }
    }
}

/// One client.
#[derive(Debug)]
pub struct Session {
    /// 7 to 12 names topics, 13 and later ids.
    pub version: i16,
    /// What a session remembers is not said again, so it does not change.
    pub partition_max_bytes: i32,
    pub id: i32,
    pub epoch: i32,
    /// Whether the broker has it still.
    pub lives: bool,
    /// What the client wants: from which offset on.
    pub wanted: BTreeMap<Key, i64>,
    /// What the broker was told of that.
    told: BTreeMap<Key, i64>,
    pub view: BTreeMap<Key, Known>,
}

impl Session {
    pub fn new(version: i16, partition_max_bytes: i32) -> Session {
        Session {
            version,
            partition_max_bytes,
            id: 0,
            epoch: 0,
            lives: false,
            wanted: BTreeMap::new(),
            told: BTreeMap::new(),
            view: BTreeMap::new(),
        }
    }

    pub fn uses_ids(&self) -> bool {
        self.version >= 13
    }

    /// All that the client wants, or what has changed of that.
    pub fn request(&mut self, max_bytes: i32) -> FetchRequest {
        let is_full = self.epoch == 0;
        if is_full {
            self.view.clear();
        }
        let before = std::mem::replace(&mut self.told, self.wanted.clone());
        let is_new = |key: &Key, offset: &i64| is_full || before.get(key) != Some(offset);
        let wanted = self.wanted.iter().filter(|(key, offset)| is_new(key, offset));
        let wanted = wanted.map(|((topic, partition), offset)| {
            let partition = FetchPartition::default()
                .with_partition(*partition)
                .with_fetch_offset(*offset)
                .with_current_leader_epoch(-1)
                .with_partition_max_bytes(self.partition_max_bytes);
            let partitions = vec![partition];
            match topic {
                TopicKey::Name(topic) => {
                    FetchTopic::default().with_topic(topic_name(TOPICS[*topic]))
                }
                TopicKey::Id(id) => FetchTopic::default().with_topic_id(*id),
            }
            .with_partitions(partitions)
        });
        let forgotten = before.keys().filter(|key| !is_full && !self.wanted.contains_key(key));
        let forgotten: Vec<Key> = forgotten.copied().collect();
        self.view.retain(|key, _| !forgotten.contains(key));
        let forgotten = forgotten.into_iter().map(|(topic, partition)| {
            match topic {
                TopicKey::Name(topic) => {
                    ForgottenTopic::default().with_topic(topic_name(TOPICS[topic]))
                }
                TopicKey::Id(id) => ForgottenTopic::default().with_topic_id(id),
            }
            .with_partitions(vec![partition])
        });
        FetchRequest::default()
            .with_max_bytes(max_bytes)
            .with_session_id(self.id)
            .with_session_epoch(self.epoch)
            .with_topics(wanted.collect())
            .with_forgotten_topics_data(forgotten.collect())
    }

    /// The request was answered; `session_id` as told.
    pub fn go_on(&mut self, session_id: i32) {
        self.epoch = if session_id == 0 { 0 } else { self.epoch + 1 };
        self.lives = session_id != 0;
        self.id = session_id;
    }

    /// The session is lost.
    pub fn begin_again(&mut self) {
        (self.id, self.epoch, self.lives) = (0, 0, false);
    }

    /// Takes a topic that was deleted out.
    pub fn drop_topic(&mut self, topic: TopicKey) {
        self.wanted.retain(|(wanted, _), _| *wanted != topic);
    }
}
