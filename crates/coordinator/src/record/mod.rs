//! What the offsets topic holds, in Kafka's own layouts, so that its tools read it.
//!
//! Every record has a key and, unless it says that something is gone, a value; both begin with a
//! version. Keys 0 and 1 are offsets, 2 is a classic group. Later versions of Kafka keep other
//! things under further keys: these are carried, not understood.

mod reader;
#[cfg(test)]
mod tests;
mod writer;

use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use thiserror::Error;
use tidelog_types::{LeaderEpoch, Offset, TopicId};

use reader::Reader;
use writer::Writer;

/// Longest string that a record's layout can carry, in bytes: its length is an `i16`.
pub const STRING_BYTES_MAX: usize = i16::MAX as usize;

const OFFSET_COMMIT_KEY_V0: i16 = 0;
const OFFSET_COMMIT_KEY: i16 = 1;
const GROUP_METADATA_KEY: i16 = 2;
const GROUP_METADATA_VALUE: i16 = 3;
/// The first version with compact lengths and tagged fields (KIP-915), and the last we know.
const FLEXIBLE_VALUE: i16 = 4;
/// Tag of an offset's topic id (Kafka 4.1).
const TOPIC_ID_TAG: u64 = 0;

/// A fact about a group. The later one of the same key replaces the earlier.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GroupRecord {
    /// How far a group has come in one partition.
    OffsetCommit {
        /// The group.
        group_id: Arc<str>,
        /// The topic.
        topic: Arc<str>,
        /// The partition.
        partition: i32,
        /// `None`: the group has no offset there any more.
        value: Option<OffsetCommitValue>,
    },
    /// A classic group, as its last generation left it.
    GroupMetadata {
        /// The group.
        group_id: Arc<str>,
        /// `None`: the group is gone.
        value: Option<GroupMetadataValue>,
    },
    /// Something that this version does not know: of another kind of group, or of the future.
    Unknown {
        /// Its key, version and all.
        key: Bytes,
        /// Its value, if it has one.
        value: Option<Bytes>,
    },
}

/// A committed offset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OffsetCommitValue {
    /// The next record to consume.
    pub offset: Offset,
    /// Of the last record consumed; [`LeaderEpoch::NONE`] if the client did not say.
    pub leader_epoch: LeaderEpoch,
    /// The client's own words.
    pub metadata: String,
    /// Milliseconds since 1970.
    pub commit_timestamp_ms: i64,
    /// When it is to be forgotten, if the client asked for that; milliseconds since 1970. Written
    /// in the only version that has a place for it, which has none for the leader epoch.
    pub expire_timestamp_ms: Option<i64>,
    /// The topic that was meant, or [`TopicId::ZERO`]. Only with an id is the version written that
    /// tools from before Kafka 4.1 do not read.
    pub topic_id: TopicId,
}

/// A classic group's generation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupMetadataValue {
    /// What the protocols are about; empty if the group never had members.
    pub protocol_type: Arc<str>,
    /// The generation.
    pub generation_id: i32,
    /// The chosen protocol; `None` without members.
    pub protocol_name: Option<Arc<str>>,
    /// The leader's member id; `None` without members.
    pub leader: Option<Arc<str>>,
    /// When the group came into its state, in milliseconds since 1970; `None` in old versions.
    pub state_timestamp_ms: Option<i64>,
    /// The members.
    pub members: Vec<MemberMetadata>,
}

/// A member of a generation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberMetadata {
    /// The member.
    pub member_id: Arc<str>,
    /// Of a static member (KIP-345).
    pub group_instance_id: Option<Arc<str>>,
    /// As the client calls itself.
    pub client_id: Arc<str>,
    /// Its address.
    pub client_host: Arc<str>,
    /// How long a rebalance waits for it, in milliseconds.
    pub rebalance_timeout_ms: i32,
    /// Silence after which it is removed, in milliseconds.
    pub session_timeout_ms: i32,
    /// What it told the chosen protocol.
    pub subscription: Bytes,
    /// What the leader gave it.
    pub assignment: Bytes,
}

/// Why bytes are no record of a group.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RecordError {
    /// The bytes end too early, or a length in them leads past their end.
    #[error("the bytes end within {field}")]
    Truncated {
        /// What was being read.
        field: &'static str,
    },
    /// The bytes are there, but mean nothing.
    #[error("{field} is not valid")]
    Invalid {
        /// What was being read.
        field: &'static str,
    },
    /// A newer version of something we know. Whoever wrote it knows more than we do.
    #[error("version {version} of {field} is not known")]
    UnknownVersion {
        /// What was being read.
        field: &'static str,
        /// Its version.
        version: i16,
    },
}

impl GroupRecord {
    /// The key and the value as they stand in the log.
    #[must_use]
    pub fn encode(&self) -> (Bytes, Option<Bytes>) {
        match self {
            GroupRecord::OffsetCommit { group_id, topic, partition, value } => (
                encode_offset_key(group_id, topic, *partition),
                value.as_ref().map(OffsetCommitValue::encode),
            ),
            GroupRecord::GroupMetadata { group_id, value } => {
                (encode_group_key(group_id), value.as_ref().map(GroupMetadataValue::encode))
            }
            GroupRecord::Unknown { key, value } => (key.clone(), value.clone()),
        }
    }

    /// Reads a record of the log. Bytes that follow what a version has are left alone.
    ///
    /// # Errors
    /// If a key or a value of a kind that we know does not hold what its version says. Nothing is
    /// allocated for lengths that the bytes do not bear out.
    pub fn decode(key: &Bytes, value: Option<&Bytes>) -> Result<GroupRecord, RecordError> {
        let mut reader = Reader::new(key);
        match reader.i16("the version of a key")? {
            OFFSET_COMMIT_KEY_V0 | OFFSET_COMMIT_KEY => Ok(GroupRecord::OffsetCommit {
                group_id: reader.string("a group id")?.into(),
                topic: reader.string("a topic")?.into(),
                partition: reader.i32("a partition")?,
                value: value.map(OffsetCommitValue::decode).transpose()?,
            }),
            GROUP_METADATA_KEY => Ok(GroupRecord::GroupMetadata {
                group_id: reader.string("a group id")?.into(),
                value: value.map(GroupMetadataValue::decode).transpose()?,
            }),
            version if version > GROUP_METADATA_KEY => {
                Ok(GroupRecord::Unknown { key: key.clone(), value: value.cloned() })
            }
            _ => Err(RecordError::Invalid { field: "the version of a key" }),
        }
    }
}

fn encode_offset_key(group_id: &str, topic: &str, partition: i32) -> Bytes {
    let mut key = BytesMut::with_capacity(2 + 2 + group_id.len() + 2 + topic.len() + 4);
    key.put_i16(OFFSET_COMMIT_KEY);
    let mut writer = Writer::rigid(&mut key);
    writer.string(group_id);
    writer.string(topic);
    key.put_i32(partition);
    key.freeze()
}

fn encode_group_key(group_id: &str) -> Bytes {
    let mut key = BytesMut::with_capacity(2 + 2 + group_id.len());
    key.put_i16(GROUP_METADATA_KEY);
    Writer::rigid(&mut key).string(group_id);
    key.freeze()
}

impl OffsetCommitValue {
    /// The oldest version that can say what is to be said; Kafka writes no expiry beside an id.
    fn version(&self) -> i16 {
        match self.expire_timestamp_ms {
            Some(_) => 1,
            None if self.topic_id.is_zero() => 3,
            None => FLEXIBLE_VALUE,
        }
    }

    fn encode(&self) -> Bytes {
        let version = self.version();
        let mut value = BytesMut::with_capacity(64 + self.metadata.len());
        value.put_i16(version);
        value.put_i64(self.offset.0);
        if version >= 3 {
            value.put_i32(self.leader_epoch.0);
        }
        Writer::new(&mut value, version >= FLEXIBLE_VALUE).string(&self.metadata);
        value.put_i64(self.commit_timestamp_ms);
        if let Some(expire_timestamp_ms) = self.expire_timestamp_ms {
            value.put_i64(expire_timestamp_ms);
        }
        if version >= FLEXIBLE_VALUE {
            let mut writer = Writer::new(&mut value, true);
            writer.uvarint(1);
            writer.uvarint(TOPIC_ID_TAG);
            writer.uvarint(self.topic_id.0.len() as u64);
            value.put_slice(&self.topic_id.0);
        }
        value.freeze()
    }

    fn decode(value: &Bytes) -> Result<OffsetCommitValue, RecordError> {
        let (version, mut reader) = versioned(value, "the value of an offset")?;
        let offset = Offset(reader.i64("an offset")?);
        let leader_epoch =
            if version >= 3 { LeaderEpoch(reader.i32("an epoch")?) } else { LeaderEpoch::NONE };
        let metadata = reader.string("an offset's metadata")?;
        let commit_timestamp_ms = reader.i64("a timestamp")?;
        let expire_timestamp_ms = if version == 1 { reader.i64("a timestamp")? } else { -1 };
        let mut topic_id = TopicId::ZERO;
        reader.tagged_fields(|tag, mut field| {
            if tag == TOPIC_ID_TAG && field.len() == topic_id.0.len() {
                field.copy_to_slice(&mut topic_id.0);
            }
        })?;
        Ok(OffsetCommitValue {
            offset,
            leader_epoch,
            metadata,
            commit_timestamp_ms,
            expire_timestamp_ms: (expire_timestamp_ms != -1).then_some(expire_timestamp_ms),
            topic_id,
        })
    }
}

impl GroupMetadataValue {
    /// How long the value is in the log, in bytes.
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        let optional = |text: &Option<Arc<str>>| text.as_ref().map_or(0, |text| text.len());
        let head = 2 + 2 + self.protocol_type.len() + 4 + 2 + optional(&self.protocol_name);
        let tail = 2 + optional(&self.leader) + 8 + 4;
        head + tail + self.members.iter().map(MemberMetadata::encoded_len).sum::<usize>()
    }

    fn encode(&self) -> Bytes {
        let mut value = BytesMut::with_capacity(self.encoded_len());
        value.put_i16(GROUP_METADATA_VALUE);
        Writer::rigid(&mut value).string(&self.protocol_type);
        value.put_i32(self.generation_id);
        Writer::rigid(&mut value).nullable_string(self.protocol_name.as_deref());
        Writer::rigid(&mut value).nullable_string(self.leader.as_deref());
        value.put_i64(self.state_timestamp_ms.unwrap_or(-1));
        value.put_i32(i32::try_from(self.members.len()).expect("fewer members than bytes"));
        self.members.iter().for_each(|member| member.encode(&mut value));
        assert_eq!(value.len(), self.encoded_len(), "a record is as long as it was foretold");
        value.freeze()
    }

    fn decode(value: &Bytes) -> Result<GroupMetadataValue, RecordError> {
        let (version, mut reader) = versioned(value, "the value of a group")?;
        let protocol_type = reader.string("a protocol type")?.into();
        let generation_id = reader.i32("a generation")?;
        let protocol_name = reader.nullable_string("a protocol")?.map(Into::into);
        let leader = reader.nullable_string("a leader")?.map(Into::into);
        let state_timestamp_ms = if version >= 2 { reader.i64("a timestamp")? } else { -1 };
        let count = reader.count("the members", MemberMetadata::BYTES_MIN)?;
        let mut members = Vec::with_capacity(count);
        for _ in 0..count {
            members.push(MemberMetadata::decode(&mut reader, version)?);
        }
        reader.tagged_fields(|_, _| ())?;
        if protocol_name.is_none() && !members.is_empty() {
            return Err(RecordError::Invalid { field: "a protocol" });
        }
        Ok(GroupMetadataValue {
            protocol_type,
            generation_id,
            protocol_name,
            leader,
            state_timestamp_ms: (state_timestamp_ms != -1).then_some(state_timestamp_ms),
            members,
        })
    }
}

impl MemberMetadata {
    /// The least that a member takes, in any version.
    const BYTES_MIN: usize = 15;

    fn encoded_len(&self) -> usize {
        let instance_id = self.group_instance_id.as_ref().map_or(0, |id| id.len());
        let names = self.member_id.len() + instance_id + self.client_id.len();
        let bytes = self.client_host.len() + self.subscription.len() + self.assignment.len();
        2 + 2 + 2 + 2 + 4 + 4 + 4 + 4 + names + bytes
    }

    fn encode(&self, value: &mut BytesMut) {
        Writer::rigid(value).string(&self.member_id);
        Writer::rigid(value).nullable_string(self.group_instance_id.as_deref());
        Writer::rigid(value).string(&self.client_id);
        Writer::rigid(value).string(&self.client_host);
        value.put_i32(self.rebalance_timeout_ms);
        value.put_i32(self.session_timeout_ms);
        Writer::rigid(value).bytes(&self.subscription);
        Writer::rigid(value).bytes(&self.assignment);
    }

    fn decode(reader: &mut Reader, version: i16) -> Result<MemberMetadata, RecordError> {
        let member_id = reader.string("a member id")?.into();
        let group_instance_id =
            if version >= 3 { reader.nullable_string("an instance id")? } else { None };
        let group_instance_id = group_instance_id.map(Into::into);
        let client_id = reader.string("a client id")?.into();
        let client_host = reader.string("a client's address")?.into();
        let rebalance = if version >= 1 { reader.i32("a rebalance timeout")? } else { -1 };
        let session_timeout_ms = reader.i32("a session timeout")?;
        let member = MemberMetadata {
            member_id,
            group_instance_id,
            client_id,
            client_host,
            rebalance_timeout_ms: if rebalance == -1 { session_timeout_ms } else { rebalance },
            session_timeout_ms,
            subscription: reader.bytes("a subscription")?,
            assignment: reader.bytes("an assignment")?,
        };
        reader.tagged_fields(|_, _| ())?;
        Ok(member)
    }
}

/// A value's version, and a reader of what follows it.
fn versioned(value: &Bytes, field: &'static str) -> Result<(i16, Reader), RecordError> {
    let version = Reader::new(value).i16(field)?;
    match version {
        0..=FLEXIBLE_VALUE => {
            let rest = value.slice(2..);
            Ok((version, Reader::with_flexible(rest, version >= FLEXIBLE_VALUE)))
        }
        _ if version > FLEXIBLE_VALUE => Err(RecordError::UnknownVersion { field, version }),
        _ => Err(RecordError::Invalid { field }),
    }
}
