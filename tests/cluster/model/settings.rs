//! A topic's settings as the model has them: what they make of a batch, and what they let go.

use bytes::Bytes;
use kafka_protocol::{
    messages::{
        IncrementalAlterConfigsRequest,
        incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig},
    },
    protocol::StrBytes,
};
use tidelog_tests::{
    batch::{self, Batch, HEADER_BYTES},
    programs::wait_until,
    seed::Random,
    wire::PATIENCE,
};

use super::{
    batches::{CODECS, Codec, Sent},
    codes::*,
    log::Stored,
    places::{earliest, latest},
    world::{MESSAGE_BYTES_MAX, RETENTION, TOPICS, World, now_ms},
};

/// Where the header says what it was stamped and compressed by, its times and its checksum's reach.
const ATTRIBUTES: usize = 21;
const MAX_TIMESTAMP: std::ops::Range<usize> = 35..43;
const LOG_APPEND_TIME: u8 = 0b1000;
const CODEC_BITS: u8 = 0b111;

/// What matters of one topic's settings.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    max_message_bytes: usize,
    /// `None` keeps the producer's.
    codec: Option<Codec>,
    pub log_append_time: bool,
}

/// A change of one of them; `None` is back to the default.
#[derive(Debug, Clone, Copy)]
pub enum Change {
    MaxMessageBytes(Option<usize>),
    CompressionType(Option<Codec>),
    LogAppendTime(Option<bool>),
}

/// What retention keeps.
#[derive(Debug, Clone, Copy)]
pub enum Limit {
    Milliseconds(i64),
    Bytes(i64),
}

/// What becomes of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    Fits,
    TooLarge,
    /// It depends on how well the broker compresses.
    Unclear,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings { max_message_bytes: MESSAGE_BYTES_MAX, codec: None, log_append_time: false }
    }
}

impl Settings {
    pub fn take(&mut self, change: Change) {
        let default = Settings::default();
        match change {
            Change::MaxMessageBytes(to) => {
                self.max_message_bytes = to.unwrap_or(default.max_message_bytes);
            }
            Change::CompressionType(to) => self.codec = to,
            Change::LogAppendTime(to) => self.log_append_time = to.unwrap_or_default(),
        }
    }

    /// `max.message.bytes` holds for what is sent and for what is stored.
    pub fn fate(&self, sent: &Sent) -> Fate {
        let stored = HEADER_BYTES + sent.opened.len();
        // What does not get smaller may get a little larger.
        let at_worst = stored + stored / 50 + 200;
        match self.new_codec(sent) {
            _ if sent.bytes.len() > self.max_message_bytes => Fate::TooLarge,
            Some(Codec::None) if stored > self.max_message_bytes => Fate::TooLarge,
            None | Some(Codec::None) => Fate::Fits,
            Some(_) if at_worst > self.max_message_bytes => Fate::Unclear,
            Some(_) => Fate::Fits,
        }
    }

    /// Whether the batch is stored as it was sent.
    pub fn keeps(&self, sent: &Sent) -> bool {
        self.new_codec(sent).is_none() && !self.log_append_time
    }

    fn new_codec(&self, sent: &Sent) -> Option<Codec> {
        self.codec.filter(|codec| *codec != sent.codec)
    }

    /// Checks that a batch is stored as these settings ask for, and is what was sent in all else.
    pub fn check(&self, sent: &Sent, stored: &[u8]) {
        let codec = self.codec.unwrap_or(sent.codec);
        let records = &stored[HEADER_BYTES..];
        match self.new_codec(sent) {
            Some(codec) => assert_eq!(codec.open(records), sent.opened, "its records"),
            None => assert_eq!(*records, sent.bytes[HEADER_BYTES..], "its records"),
        }
        let attributes = stored[ATTRIBUTES + 1];
        assert_eq!(attributes & CODEC_BITS, codec as u8, "its codec");
        assert_eq!(attributes & LOG_APPEND_TIME != 0, self.log_append_time, "whose time it has");
        let mut expected = sent.bytes[..HEADER_BYTES].to_vec();
        expected[8..12].copy_from_slice(&stored[8..12]); // a length that the split relied on
        expected[12..ATTRIBUTES].copy_from_slice(&stored[12..ATTRIBUTES]); // leader epoch, CRC
        expected[ATTRIBUTES + 1] = attributes;
        if self.log_append_time {
            expected[MAX_TIMESTAMP].copy_from_slice(&stored[MAX_TIMESTAMP]);
        }
        assert_eq!(stored[8..HEADER_BYTES], expected[8..], "the rest of its header");
        let mut sealed = stored.to_vec();
        batch::seal(&mut sealed);
        assert_eq!(stored, sealed, "its checksum");
    }
}

impl Stored {
    /// The broker had to change it.
    pub fn changed(base_offset: i64, sent: Sent, bytes: Bytes) -> Stored {
        let stamped = bytes[ATTRIBUTES + 1] & LOG_APPEND_TIME != 0;
        let stamp = i64::from_be_bytes(bytes[MAX_TIMESTAMP].try_into().expect("eight bytes"));
        let timestamps = match stamped {
            true => vec![stamp; sent.timestamps.len()],
            false => sent.timestamps.clone(),
        };
        assert!(!stamped || stamp <= now_ms(), "a stamp of the future");
        Stored { base_offset, sent, bytes, timestamps }
    }
}

impl Change {
    pub fn choose(random: &mut Random) -> Change {
        match random.below(8) {
            0 => Change::MaxMessageBytes(Some(500 + random.index(5_000))),
            1 => Change::MaxMessageBytes(None),
            2..5 => Change::CompressionType(Some(CODECS[random.index(CODECS.len())])),
            5 => Change::CompressionType(None),
            6 => Change::LogAppendTime(Some(true)),
            _ => Change::LogAppendTime([None, Some(false)][random.index(2)]),
        }
    }

    fn entry(self) -> (&'static str, Option<String>) {
        match self {
            Change::MaxMessageBytes(to) => ("max.message.bytes", to.map(|to| to.to_string())),
            Change::CompressionType(to) => ("compression.type", to.map(|to| to.name().to_owned())),
            Change::LogAppendTime(to) => {
                let name = |is| if is { "LogAppendTime" } else { "CreateTime" };
                ("message.timestamp.type", to.map(|to| name(to).to_owned()))
            }
        }
    }
}

impl Limit {
    fn entry(self) -> (&'static str, String) {
        match self {
            Limit::Milliseconds(ms) => ("retention.ms", ms.to_string()),
            Limit::Bytes(bytes) => ("retention.bytes", bytes.to_string()),
        }
    }
}

impl World {
    pub fn alter(&mut self, topic: usize, change: Change) {
        self.settle_all(topic);
        let (key, value) = change.entry();
        let code = self.set(topic, key, value);
        match self.topics.get_mut(&topic) {
            None => assert_eq!(code, UNKNOWN_TOPIC_OR_PARTITION),
            Some(topic) => {
                assert_eq!(code, 0, "{change:?}");
                topic.settings.take(change);
            }
        }
    }

    /// Has a topic keep no more than the limit for a while, which the node may not survive.
    pub fn retain(&mut self, topic: usize, limit: Limit, dies: bool) {
        self.settle_all(topic);
        let (key, value) = limit.entry();
        if !self.topics.contains_key(&topic) {
            let code = self.set(topic, key, Some(value));
            return assert_eq!(code, UNKNOWN_TOPIC_OR_PARTITION);
        }
        assert_eq!(self.set(topic, key, Some(value)), 0);
        if dies {
            self.node.kill();
            self.start_again();
        }
        self.pass();
        let places: Vec<_> = self.places().into_iter().filter(|place| place.0 == topic).collect();
        if matches!(limit, Limit::Milliseconds(1)) {
            for place in &places {
                let end_offset = self.log(*place).expect("it exists").end_offset();
                let wire = &mut self.wire;
                wait_until("all is old", PATIENCE, || earliest(wire, *place) == end_offset);
            }
        }
        assert_eq!(self.set(topic, key, None), 0);
        self.pass();
        for place in places {
            let start_offset = earliest(&mut self.wire, place);
            let before = self.log(place).expect("it exists").log_start_offset;
            self.log_mut(place).retained(start_offset, limit, now_ms());
            self.retained += usize::from(start_offset > before);
            // Where the log starts is on disk once this is answered.
            let told = self.delete_records_below(place, start_offset, 2);
            assert_eq!(told, (0, start_offset));
        }
    }

    /// Waits until every log was searched for old records, from the first to the last: a search
    /// that has begun before ends before the next one finds what is written now.
    fn pass(&mut self) {
        for _ in 0..2 {
            let batch = Batch { timestamp_ms: self.now_ms - 60_000, ..Batch::new(vec![vec![]]) };
            let produced = self.wire.produce(TOPICS[RETENTION], batch.encode().freeze());
            assert_eq!(produced.expect("an answer").0, 0);
            let wire = &mut self.wire;
            wait_until("a search for old records", PATIENCE, || {
                earliest(wire, (RETENTION, 0)) == latest(wire, (RETENTION, 0))
            });
        }
    }

    /// Error code of setting a topic's setting, or of giving it back to the default.
    fn set(&mut self, topic: usize, key: &str, value: Option<String>) -> i16 {
        let config = AlterableConfig::default()
            .with_name(StrBytes::from_string(key.to_owned()))
            .with_config_operation(i8::from(value.is_none()))
            .with_value(value.map(StrBytes::from_string));
        let topic = AlterConfigsResource::default()
            .with_resource_type(2)
            .with_resource_name(StrBytes::from_static_str(TOPICS[topic]))
            .with_configs(vec![config]);
        let request = IncrementalAlterConfigsRequest::default().with_resources(vec![topic]);
        self.wire.call(&request, 1).expect("an answer").responses[0].error_code
    }

    fn settle_all(&mut self, topic: usize) {
        let places = self.places().into_iter().filter(|place| place.0 == topic);
        places.for_each(|place| self.settle(place));
    }
}
