//! What every request looks like on the wire, walked before the codec sees it.
//!
//! The codec allocates an array by the length that the wire claims, so that six bytes can ask for
//! 154 GB. The walk refuses a length that the bytes left cannot hold and counts what decoding will
//! allocate. What it accepts, the codec decodes.

use std::mem::size_of;

use bytes::Bytes;
use kafka_protocol::messages::{
    alter_configs_request, create_partitions_request as create_partitions,
    create_topics_request::{CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig},
    delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic},
    delete_topics_request::DeleteTopicState,
    describe_configs_request::DescribeConfigsResource,
    describe_log_dirs_request::DescribableLogDirTopic,
    describe_producers_request, describe_quorum_request, describe_topic_partitions_request,
    incremental_alter_configs_request,
    join_group_request::JoinGroupRequestProtocol,
    leave_group_request::MemberIdentity,
    list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic},
    metadata_request::MetadataRequestTopic,
    offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic},
    offset_delete_request::{OffsetDeleteRequestPartition, OffsetDeleteRequestTopic},
    offset_fetch_request::{
        OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
    },
    offset_for_leader_epoch_request::{OffsetForLeaderPartition, OffsetForLeaderTopic},
    sync_group_request::SyncGroupRequestAssignment,
    update_features_request::FeatureUpdateKey,
};

use crate::{
    api_versions::ApiKey,
    error::{Malformed, RequestError},
    wire::Reader,
};

/// What a request may take of memory for each of its bytes, decoded.
pub const MEMORY_FACTOR: usize = 64;
/// What any request may take besides, in bytes.
pub const MEMORY_SLACK_BYTES: usize = 4096;

/// Upper bounds of what unknown tagged fields take: the map's first node, and each further field.
const TAG_MAP_BYTES: usize = 544;
const TAGGED_FIELD_BYTES: usize = 128;

/// What decoding a request will allocate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShapeCost {
    /// An upper bound, in bytes, without the frame itself.
    pub bytes_in_memory: usize,
    /// Bytes of the body that belong to the request; what is behind them is ignored.
    pub bytes_walked: usize,
}

/// A field and the versions that have it.
struct Field {
    since: i16,
    until: i16,
    kind: Kind,
}

enum Kind {
    /// So many bytes, whatever they say.
    Fixed(usize),
    Text(Null),
    /// Bytes that mean something to clients only, and are never null.
    Opaque,
    List {
        null: Null,
        item: Item,
        /// Memory that one item takes in its vector, in bytes.
        item_bytes: usize,
    },
    /// A structure behind a byte that says whether it is there.
    Maybe(&'static [Field]),
}

enum Item {
    Int8,
    Int32,
    Text,
    Struct(&'static [Field]),
}

/// First version in which a field may be null.
#[derive(Clone, Copy)]
struct Null(i16);

const NEVER_NULL: Null = Null(i16::MAX);
const MAY_BE_NULL: Null = Null(0);

/// Checks a request that the codec is to decode, and counts what that will cost.
///
/// Produce and Fetch are not for the codec: their own decoders check while they read.
///
/// # Errors
/// The connection is to be closed.
pub fn check(api: ApiKey, version: i16, body: &[u8]) -> Result<ShapeCost, RequestError> {
    let bytes_max = api.api().frame_bytes_max;
    if body.len() > bytes_max {
        return Err(RequestError::TooLarge { api: api.name(), bytes: body.len(), bytes_max });
    }
    let memory_max = MEMORY_FACTOR * body.len() + MEMORY_SLACK_BYTES;
    let mut walk = Walk {
        reader: Reader::new(body),
        version,
        flexible: api.is_flexible(version),
        memory_bytes: 0,
    };
    walk.structure(fields(api))?;
    if walk.memory_bytes > memory_max {
        return Err(RequestError::TooCostly {
            api: api.name(),
            bytes: body.len(),
            memory_bytes: walk.memory_bytes,
        });
    }
    let bytes_walked = walk.reader.position();
    assert!(bytes_walked <= body.len(), "a walk stays within its bytes");
    Ok(ShapeCost { bytes_in_memory: walk.memory_bytes, bytes_walked })
}

struct Walk<'a> {
    reader: Reader<'a>,
    version: i16,
    flexible: bool,
    memory_bytes: usize,
}

impl Walk<'_> {
    fn structure(&mut self, fields: &[Field]) -> Result<(), Malformed> {
        for field in fields {
            if field.is_in(self.version) {
                self.field(field)?;
            }
        }
        if self.flexible {
            let count = self.reader.skip_tagged_fields()?;
            if count > 0 {
                self.memory_bytes += TAG_MAP_BYTES + count * TAGGED_FIELD_BYTES;
            }
        }
        Ok(())
    }

    fn field(&mut self, field: &Field) -> Result<(), Malformed> {
        match &field.kind {
            Kind::Fixed(bytes) => self.reader.range(*bytes).map(drop),
            Kind::Text(null) => self.text(*null),
            Kind::Opaque => match self.reader.bytes(self.flexible)? {
                Some(_) => Ok(()),
                None => Err(self.reader.malformed("bytes that must be there are null")),
            },
            Kind::List { null, item, item_bytes } => self.list(*null, item, *item_bytes),
            Kind::Maybe(fields) => match self.reader.int8()? {
                1 => self.structure(fields),
                ..=-1 => Ok(()),
                // Everybody writes 1; the codec would take anything else for "not there".
                _ => Err(self.reader.malformed("a structure is neither there nor not there")),
            },
        }
    }

    fn text(&mut self, null: Null) -> Result<(), Malformed> {
        match self.reader.string(self.flexible)? {
            None if self.version < null.0 => Err(self.reader.malformed("a string is null")),
            _ => Ok(()),
        }
    }

    fn list(&mut self, null: Null, item: &Item, item_bytes: usize) -> Result<(), Malformed> {
        let wire_bytes_min = item.wire_bytes_min(self.version, self.flexible);
        let count = match self.reader.count_of(self.flexible, wire_bytes_min)? {
            None if self.version < null.0 => Err(self.reader.malformed("an array is null")),
            count => Ok(count.unwrap_or(0)),
        }?;
        self.memory_bytes += count * item_bytes;
        match item {
            Item::Int8 => self.reader.range(count).map(drop),
            Item::Int32 => self.reader.range(count * size_of::<i32>()).map(drop),
            Item::Text => (0..count).try_for_each(|_| self.text(NEVER_NULL)),
            Item::Struct(fields) => (0..count).try_for_each(|_| self.structure(fields)),
        }
    }
}

impl Item {
    /// Bytes that an item takes at least, which is more than none.
    fn wire_bytes_min(&self, version: i16, flexible: bool) -> usize {
        let length_bytes = |fixed| if flexible { 1 } else { fixed };
        match self {
            Item::Int8 => size_of::<i8>(),
            Item::Int32 => size_of::<i32>(),
            Item::Text => length_bytes(2),
            Item::Struct(fields) => {
                let present = fields.iter().filter(|field| field.is_in(version));
                let bytes = present.map(|field| match &field.kind {
                    Kind::Fixed(bytes) => *bytes,
                    Kind::Text(_) => length_bytes(2),
                    Kind::List { .. } | Kind::Opaque => length_bytes(4),
                    Kind::Maybe(_) => 1,
                });
                bytes.sum::<usize>() + usize::from(flexible)
            }
        }
    }
}

impl Field {
    fn is_in(&self, version: i16) -> bool {
        (self.since..=self.until).contains(&version)
    }

    const fn since(self, since: i16) -> Field {
        Field { since, ..self }
    }

    const fn until(self, until: i16) -> Field {
        Field { until, ..self }
    }
}

const fn field(kind: Kind) -> Field {
    Field { since: 0, until: i16::MAX, kind }
}

const fn fixed(bytes: usize) -> Field {
    field(Kind::Fixed(bytes))
}

const BOOLEAN: Field = fixed(1);
const INT8: Field = fixed(1);
const INT16: Field = fixed(2);
const INT32: Field = fixed(4);
const INT64: Field = fixed(8);
const UUID: Field = fixed(16);
const TEXT: Field = field(Kind::Text(NEVER_NULL));
const TEXT_OR_NULL: Field = field(Kind::Text(MAY_BE_NULL));
const OPAQUE: Field = field(Kind::Opaque);

const fn texts(null: Null) -> Field {
    field(Kind::List { null, item: Item::Text, item_bytes: size_of::<Bytes>() })
}

const fn int8s() -> Field {
    field(Kind::List { null: NEVER_NULL, item: Item::Int8, item_bytes: size_of::<i8>() })
}

const fn int32s() -> Field {
    field(Kind::List { null: NEVER_NULL, item: Item::Int32, item_bytes: size_of::<i32>() })
}

const fn list<Decoded>(null: Null, fields: &'static [Field]) -> Field {
    let item_bytes = size_of::<Decoded>();
    field(Kind::List { null, item: Item::Struct(fields), item_bytes })
}

/// The fields of a request that the codec decodes, in the order of the wire.
fn fields(api: ApiKey) -> &'static [Field] {
    match api {
        ApiKey::AlterConfigs => ALTER_CONFIGS,
        ApiKey::ApiVersions => API_VERSIONS,
        ApiKey::CreatePartitions => CREATE_PARTITIONS,
        ApiKey::CreateTopics => CREATE_TOPICS,
        ApiKey::DeleteGroups => DELETE_GROUPS,
        ApiKey::DeleteRecords => DELETE_RECORDS,
        ApiKey::DeleteTopics => DELETE_TOPICS,
        ApiKey::DescribeCluster => DESCRIBE_CLUSTER,
        ApiKey::DescribeConfigs => DESCRIBE_CONFIGS,
        ApiKey::DescribeGroups => DESCRIBE_GROUPS,
        ApiKey::DescribeLogDirs => DESCRIBE_LOG_DIRS,
        ApiKey::DescribeProducers => DESCRIBE_PRODUCERS,
        ApiKey::DescribeQuorum => DESCRIBE_QUORUM,
        ApiKey::DescribeTopicPartitions => DESCRIBE_TOPIC_PARTITIONS,
        ApiKey::FindCoordinator => FIND_COORDINATOR,
        ApiKey::Heartbeat => HEARTBEAT,
        ApiKey::IncrementalAlterConfigs => INCREMENTAL_ALTER_CONFIGS,
        ApiKey::InitProducerId => INIT_PRODUCER_ID,
        ApiKey::JoinGroup => JOIN_GROUP,
        ApiKey::LeaveGroup => LEAVE_GROUP,
        ApiKey::ListConfigResources => LIST_CONFIG_RESOURCES,
        ApiKey::ListGroups => LIST_GROUPS,
        ApiKey::ListOffsets => LIST_OFFSETS,
        ApiKey::Metadata => METADATA,
        ApiKey::OffsetCommit => OFFSET_COMMIT,
        ApiKey::OffsetDelete => OFFSET_DELETE,
        ApiKey::OffsetFetch => OFFSET_FETCH,
        ApiKey::OffsetForLeaderEpoch => OFFSET_FOR_LEADER_EPOCH,
        ApiKey::SyncGroup => SYNC_GROUP,
        ApiKey::UpdateFeatures => UPDATE_FEATURES,
        ApiKey::Produce | ApiKey::Fetch => unreachable!("they have decoders of their own"),
    }
}

const ALTER_CONFIGS: &[Field] = &[
    list::<alter_configs_request::AlterConfigsResource>(
        NEVER_NULL,
        &[
            INT8,
            TEXT,
            list::<alter_configs_request::AlterableConfig>(NEVER_NULL, &[TEXT, TEXT_OR_NULL]),
        ],
    ),
    BOOLEAN,
];

const API_VERSIONS: &[Field] = &[TEXT.since(3), TEXT.since(3)];

const CREATE_PARTITIONS: &[Field] = &[
    list::<create_partitions::CreatePartitionsTopic>(
        NEVER_NULL,
        &[
            TEXT,
            INT32,
            list::<create_partitions::CreatePartitionsAssignment>(MAY_BE_NULL, &[int32s()]),
        ],
    ),
    INT32,
    BOOLEAN,
];

const CREATE_TOPICS: &[Field] = &[
    list::<CreatableTopic>(
        NEVER_NULL,
        &[
            TEXT,
            INT32,
            INT16,
            list::<CreatableReplicaAssignment>(NEVER_NULL, &[INT32, int32s()]),
            list::<CreatableTopicConfig>(NEVER_NULL, &[TEXT, TEXT_OR_NULL]),
        ],
    ),
    INT32,
    BOOLEAN,
];

const DELETE_GROUPS: &[Field] = &[texts(NEVER_NULL)];

const DELETE_RECORDS: &[Field] = &[
    list::<DeleteRecordsTopic>(
        NEVER_NULL,
        &[TEXT, list::<DeleteRecordsPartition>(NEVER_NULL, &[INT32, INT64])],
    ),
    INT32,
];

const DELETE_TOPICS: &[Field] = &[
    list::<DeleteTopicState>(NEVER_NULL, &[TEXT_OR_NULL, UUID]).since(6),
    texts(NEVER_NULL).until(5),
    INT32,
];

const DESCRIBE_CLUSTER: &[Field] = &[BOOLEAN, INT8.since(1), BOOLEAN.since(2)];

const DESCRIBE_CONFIGS: &[Field] = &[
    list::<DescribeConfigsResource>(NEVER_NULL, &[INT8, TEXT, texts(MAY_BE_NULL)]),
    BOOLEAN,
    BOOLEAN.since(3),
];

const DESCRIBE_GROUPS: &[Field] = &[texts(NEVER_NULL), BOOLEAN.since(3)];

const DESCRIBE_LOG_DIRS: &[Field] =
    &[list::<DescribableLogDirTopic>(MAY_BE_NULL, &[TEXT, int32s()])];

const DESCRIBE_PRODUCERS: &[Field] =
    &[list::<describe_producers_request::TopicRequest>(NEVER_NULL, &[TEXT, int32s()])];

const DESCRIBE_QUORUM: &[Field] = &[list::<describe_quorum_request::TopicData>(
    NEVER_NULL,
    &[TEXT, list::<describe_quorum_request::PartitionData>(NEVER_NULL, &[INT32])],
)];

const DESCRIBE_TOPIC_PARTITIONS: &[Field] = &[
    list::<describe_topic_partitions_request::TopicRequest>(NEVER_NULL, &[TEXT]),
    INT32,
    field(Kind::Maybe(&[TEXT, INT32])),
];

const FIND_COORDINATOR: &[Field] = &[TEXT.until(3), INT8.since(1), texts(NEVER_NULL).since(4)];

const HEARTBEAT: &[Field] = &[TEXT, INT32, TEXT, TEXT_OR_NULL.since(3)];

const INCREMENTAL_ALTER_CONFIGS: &[Field] = &[
    list::<incremental_alter_configs_request::AlterConfigsResource>(
        NEVER_NULL,
        &[
            INT8,
            TEXT,
            list::<incremental_alter_configs_request::AlterableConfig>(
                NEVER_NULL,
                &[TEXT, INT8, TEXT_OR_NULL],
            ),
        ],
    ),
    BOOLEAN,
];

const INIT_PRODUCER_ID: &[Field] = &[TEXT_OR_NULL, INT32, INT64.since(3), INT16.since(3)];

const JOIN_GROUP: &[Field] = &[
    TEXT,
    INT32,
    INT32.since(1),
    TEXT,
    TEXT_OR_NULL.since(5),
    TEXT,
    list::<JoinGroupRequestProtocol>(NEVER_NULL, &[TEXT, OPAQUE]),
    TEXT_OR_NULL.since(8),
];

const LEAVE_GROUP: &[Field] = &[
    TEXT,
    TEXT.until(2),
    list::<MemberIdentity>(NEVER_NULL, &[TEXT, TEXT_OR_NULL, TEXT_OR_NULL.since(5)]).since(3),
];

const LIST_CONFIG_RESOURCES: &[Field] = &[int8s().since(1)];

const LIST_GROUPS: &[Field] = &[texts(NEVER_NULL).since(4), texts(NEVER_NULL).since(5)];

const LIST_OFFSETS: &[Field] = &[
    INT32,
    INT8.since(2),
    list::<ListOffsetsTopic>(
        NEVER_NULL,
        &[TEXT, list::<ListOffsetsPartition>(NEVER_NULL, &[INT32, INT32.since(4), INT64])],
    ),
    INT32.since(10),
];

const METADATA: &[Field] = &[
    list::<MetadataRequestTopic>(Null(1), &[UUID.since(10), field(Kind::Text(Null(10)))]),
    BOOLEAN.since(4),
    BOOLEAN.since(8).until(10),
    BOOLEAN.since(8),
];

const OFFSET_COMMIT: &[Field] = &[
    TEXT,
    INT32,
    TEXT,
    TEXT_OR_NULL.since(7),
    INT64.until(4),
    list::<OffsetCommitRequestTopic>(
        NEVER_NULL,
        &[
            TEXT.until(9),
            UUID.since(10),
            list::<OffsetCommitRequestPartition>(
                NEVER_NULL,
                &[INT32, INT64, INT32.since(6), TEXT_OR_NULL],
            ),
        ],
    ),
];

const OFFSET_DELETE: &[Field] = &[
    TEXT,
    list::<OffsetDeleteRequestTopic>(
        NEVER_NULL,
        &[TEXT, list::<OffsetDeleteRequestPartition>(NEVER_NULL, &[INT32])],
    ),
];

const OFFSET_FETCH: &[Field] = &[
    TEXT.until(7),
    list::<OffsetFetchRequestTopic>(Null(2), &[TEXT, int32s()]).until(7),
    list::<OffsetFetchRequestGroup>(
        NEVER_NULL,
        &[
            TEXT,
            TEXT_OR_NULL.since(9),
            INT32.since(9),
            list::<OffsetFetchRequestTopics>(
                MAY_BE_NULL,
                &[TEXT.until(9), UUID.since(10), int32s()],
            ),
        ],
    )
    .since(8),
    BOOLEAN.since(7),
];

const OFFSET_FOR_LEADER_EPOCH: &[Field] = &[
    INT32.since(3),
    list::<OffsetForLeaderTopic>(
        NEVER_NULL,
        &[TEXT, list::<OffsetForLeaderPartition>(NEVER_NULL, &[INT32, INT32, INT32])],
    ),
];

const SYNC_GROUP: &[Field] = &[
    TEXT,
    INT32,
    TEXT,
    TEXT_OR_NULL.since(3),
    TEXT_OR_NULL.since(5),
    TEXT_OR_NULL.since(5),
    list::<SyncGroupRequestAssignment>(NEVER_NULL, &[TEXT, OPAQUE]),
];

const UPDATE_FEATURES: &[Field] = &[
    INT32,
    list::<FeatureUpdateKey>(NEVER_NULL, &[TEXT, INT16, BOOLEAN.until(0), INT8.since(1)]),
    BOOLEAN.since(1),
];
