//! Records as bytes: every one reads back, and what is not known is refused.

use bytes::Bytes;
use proptest::prelude::*;
use protobuf::{CodedOutputStream, Message};
use tidelog_types::{BrokerEpoch, BrokerId, LeaderEpoch, PartitionEpoch, ProducerId, Uuid};

use super::*;
use crate::error::DecodeError;

fn uuid() -> impl Strategy<Value = Uuid> {
    any::<[u8; 16]>().prop_map(Uuid)
}

fn uuids() -> impl Strategy<Value = Vec<Uuid>> {
    prop::collection::vec(uuid(), 0..3)
}

fn ids() -> impl Strategy<Value = Vec<BrokerId>> {
    prop::collection::vec(any::<i32>().prop_map(BrokerId), 0..4)
}

fn endpoint() -> impl Strategy<Value = Endpoint> {
    (".*", ".*", any::<u16>(), 0..4).prop_map(|(listener, host, port, protocol)| Endpoint {
        listener,
        host,
        port,
        security_protocol: SecurityProtocol::from_number(protocol).expect("one of four"),
    })
}

fn register() -> impl Strategy<Value = MetadataRecord> {
    let feature = (".*", any::<i16>(), any::<i16>())
        .prop_map(|(name, min_level, max_level)| SupportedFeature { name, min_level, max_level });
    let lists =
        (prop::collection::vec(endpoint(), 0..3), uuids(), prop::collection::vec(feature, 0..3));
    let facts = (any::<i32>(), any::<i64>(), uuid(), prop::option::of(".*"), any::<[bool; 2]>());
    (facts, lists).prop_map(|((id, epoch, incarnation_id, rack, flags), lists)| {
        MetadataRecord::RegisterBroker(RegisterBroker {
            broker_id: BrokerId(id),
            broker_epoch: BrokerEpoch(epoch),
            incarnation_id,
            endpoints: lists.0,
            rack,
            fenced: flags[0],
            in_controlled_shutdown: flags[1],
            directories: lists.1,
            features: lists.2,
        })
    })
}

fn recovery_state() -> impl Strategy<Value = LeaderRecoveryState> {
    prop_oneof![Just(LeaderRecoveryState::Recovered), Just(LeaderRecoveryState::Recovering)]
}

fn partition() -> impl Strategy<Value = MetadataRecord> {
    let facts = (uuid(), any::<i32>(), any::<[i32; 2]>(), prop::option::of(any::<i32>()));
    let lists = (ids(), ids(), ids(), ids(), ids(), ids(), uuids());
    (facts, lists, recovery_state()).prop_map(|(facts, lists, leader_recovery_state)| {
        let (topic_id, partition, [leader_epoch, partition_epoch], leader) = facts;
        let (replicas, isr, elr, last_known_elr, adding_replicas, removing_replicas, directories) =
            lists;
        let registration = PartitionRegistration {
            replicas,
            isr,
            leader: leader.map(BrokerId),
            leader_epoch: LeaderEpoch(leader_epoch),
            partition_epoch: PartitionEpoch(partition_epoch),
            elr,
            last_known_elr,
            adding_replicas,
            removing_replicas,
            leader_recovery_state,
            directories,
        };
        MetadataRecord::Partition { topic_id, partition, registration }
    })
}

fn partition_change() -> impl Strategy<Value = MetadataRecord> {
    use prop::option::of;
    let facts = (uuid(), any::<i32>(), any::<i32>(), of(any::<i32>()), of(of(any::<i32>())));
    let lists = (of(ids()), of(ids()), of(ids()), of(ids()), of(ids()), of(ids()), of(uuids()));
    (facts, lists, of(recovery_state())).prop_map(|(facts, lists, leader_recovery_state)| {
        let (topic_id, partition, partition_epoch, leader_epoch, leader) = facts;
        let (replicas, isr, elr, last_known_elr, adding_replicas, removing_replicas, directories) =
            lists;
        MetadataRecord::PartitionChange(PartitionChange {
            topic_id,
            partition,
            partition_epoch: PartitionEpoch(partition_epoch),
            leader_epoch: leader_epoch.map(LeaderEpoch),
            leader: leader.map(|leader| leader.map(BrokerId)),
            replicas,
            isr,
            elr,
            last_known_elr,
            adding_replicas,
            removing_replicas,
            leader_recovery_state,
            directories,
        })
    })
}

fn config() -> impl Strategy<Value = MetadataRecord> {
    let resource = prop_oneof![
        ".*".prop_map(ConfigResource::Topic),
        prop::option::of(any::<i32>()).prop_map(|id| ConfigResource::Broker(id.map(BrokerId))),
    ];
    (resource, ".*", prop::option::of(".*"))
        .prop_map(|(resource, key, value)| MetadataRecord::Config { resource, key, value })
}

fn small() -> impl Strategy<Value = MetadataRecord> {
    let broker = || (any::<i32>().prop_map(BrokerId), any::<i64>().prop_map(BrokerEpoch));
    let flag = || prop::option::of(any::<bool>());
    prop_oneof![
        (".*", any::<i16>()).prop_map(|(name, level)| MetadataRecord::FeatureLevel { name, level }),
        uuid().prop_map(|cluster_id| MetadataRecord::Cluster { cluster_id }),
        broker().prop_map(|(broker_id, broker_epoch)| MetadataRecord::UnregisterBroker {
            broker_id,
            broker_epoch
        }),
        (broker(), flag(), flag()).prop_map(|((broker_id, broker_epoch), fenced, shutdown)| {
            let in_controlled_shutdown = shutdown;
            MetadataRecord::BrokerChange { broker_id, broker_epoch, fenced, in_controlled_shutdown }
        }),
        (".*", uuid()).prop_map(|(name, topic_id)| MetadataRecord::Topic { name, topic_id }),
        uuid().prop_map(|topic_id| MetadataRecord::RemoveTopic { topic_id }),
        (broker(), any::<i64>()).prop_map(|((broker_id, broker_epoch), next)| {
            let next_producer_id = ProducerId(next);
            MetadataRecord::ProducerIds { broker_id, broker_epoch, next_producer_id }
        }),
    ]
}

fn record() -> impl Strategy<Value = MetadataRecord> {
    prop_oneof![small(), register(), partition(), partition_change(), config()]
}

proptest! {
    #[test]
    fn every_record_reads_back(records in prop::collection::vec(record(), 0..8)) {
        prop_assert_eq!(decode_records(&encode_records(&records)), Ok(records));
    }

    #[test]
    fn bytes_that_are_no_entry_are_an_error(
        records in prop::collection::vec(record(), 1..4),
        place: prop::sample::Index,
        byte: u8,
        end: prop::sample::Index,
    ) {
        let mut bytes = encode_records(&records).to_vec();
        let place = place.index(bytes.len());
        bytes[place] = byte;
        bytes.truncate(end.index(bytes.len() + 1));
        let _ = decode_records(&Bytes::from(bytes)); // whatever it says, it comes back
    }

    #[test]
    fn any_bytes_come_back(bytes: Vec<u8>) {
        let _ = decode_records(&Bytes::from(bytes));
    }
}

fn refusal(envelope: &proto::Envelope) -> String {
    let mut bytes = Vec::new(); // written unchecked: a required field may be missing
    let mut stream = CodedOutputStream::vec(&mut bytes);
    envelope.compute_size();
    envelope.write_to_with_cached_sizes(&mut stream).unwrap();
    stream.flush().unwrap();
    drop(stream);
    decode_records(&Bytes::from(bytes)).expect_err("a refusal").to_string()
}

fn envelope(records: Vec<proto::Record>) -> proto::Envelope {
    let mut envelope = proto::Envelope::new();
    envelope.set_version(RECORD_VERSION);
    envelope.set_records(records.into());
    envelope
}

#[test]
fn what_a_later_release_writes_is_refused_and_never_skipped() {
    let mut later = envelope(vec![]);
    later.set_version(RECORD_VERSION + 1);
    assert_eq!(refusal(&later), "metadata records have version 2; this release reads version 1");

    let mut kind = proto::Record::new();
    kind.mut_unknown_fields().add_length_delimited(99, vec![]);
    assert_eq!(
        refusal(&envelope(vec![kind])),
        "Record has field 99, which this release does not know"
    );

    let mut field = proto::Record::new();
    field.mut_remove_topic().set_topic_id(Bytes::from_static(&[1; 16]));
    field.mut_remove_topic().mut_unknown_fields().add_varint(7, 1);
    assert_eq!(
        refusal(&envelope(vec![field])),
        "RemoveTopic has field 7, which this release does not know"
    );
}

#[test]
fn a_field_that_holds_what_it_cannot_is_named() {
    let mut id = proto::Record::new();
    id.mut_remove_topic().set_topic_id(Bytes::from_static(&[1; 15]));
    let mut level = proto::Record::new();
    level.mut_feature_level().set_name("f".to_owned());
    level.mut_feature_level().set_level(40_000);
    let mut missing = proto::Record::new();
    missing.mut_topic().set_name("t".to_owned());
    for (record, text) in [
        (id, "RemoveTopic.topic_id is 15 bytes"),
        (level, "FeatureLevel.level is 40000"),
        (missing, "malformed metadata: not all message fields set"),
        (proto::Record::new(), "Record.kind is nothing"),
    ] {
        assert_eq!(refusal(&envelope(vec![record])), text);
    }
    let empty = decode_records(&Bytes::new());
    assert!(matches!(empty, Err(DecodeError::Malformed(_))), "{empty:?}");
}

/// One record of each kind, every field set.
fn one_of_each() -> Vec<MetadataRecord> {
    let [topic_id, directory] = [Uuid([0x11; 16]), Uuid([0x22; 16])];
    let [one, two, three] = [BrokerId(1), BrokerId(2), BrokerId(3)];
    let broker_epoch = BrokerEpoch(9);
    let registration = PartitionRegistration {
        replicas: vec![one, two, three],
        isr: vec![one],
        leader: Some(one),
        leader_epoch: LeaderEpoch(4),
        partition_epoch: PartitionEpoch(5),
        elr: vec![two],
        last_known_elr: vec![three],
        adding_replicas: vec![two],
        removing_replicas: vec![three],
        leader_recovery_state: LeaderRecoveryState::Recovering,
        directories: vec![directory; 3],
    };
    let change = PartitionChange {
        leader_epoch: Some(LeaderEpoch(5)),
        leader: Some(None),
        replicas: Some(vec![one, two]),
        isr: Some(vec![two]),
        elr: Some(vec![]),
        last_known_elr: Some(vec![]),
        adding_replicas: Some(vec![]),
        removing_replicas: Some(vec![]),
        leader_recovery_state: Some(LeaderRecoveryState::Recovered),
        directories: Some(vec![]),
        ..PartitionChange::new(topic_id, 0, PartitionEpoch(6))
    };
    let endpoint = Endpoint {
        listener: "CLIENTS".to_owned(),
        host: "broker.example".to_owned(),
        port: 9092,
        security_protocol: SecurityProtocol::SaslSsl,
    };
    let feature = SupportedFeature { name: "feature".to_owned(), min_level: 1, max_level: 2 };
    let key = "segment.bytes".to_owned();
    vec![
        MetadataRecord::FeatureLevel { name: "feature".to_owned(), level: 2 },
        MetadataRecord::Cluster { cluster_id: Uuid([0x33; 16]) },
        MetadataRecord::RegisterBroker(RegisterBroker {
            broker_id: one,
            broker_epoch,
            incarnation_id: Uuid([0x44; 16]),
            endpoints: vec![endpoint],
            rack: Some("rack".to_owned()),
            fenced: true,
            in_controlled_shutdown: true,
            directories: vec![directory],
            features: vec![feature],
        }),
        MetadataRecord::BrokerChange {
            broker_id: one,
            broker_epoch,
            fenced: Some(false),
            in_controlled_shutdown: Some(false),
        },
        MetadataRecord::UnregisterBroker { broker_id: one, broker_epoch },
        MetadataRecord::Topic { name: "topic".to_owned(), topic_id },
        MetadataRecord::Partition { topic_id, partition: 0, registration },
        MetadataRecord::PartitionChange(change),
        MetadataRecord::Config {
            resource: ConfigResource::Topic("topic".to_owned()),
            key: key.clone(),
            value: Some("1024".to_owned()),
        },
        MetadataRecord::Config { resource: ConfigResource::Broker(Some(one)), key, value: None },
        MetadataRecord::RemoveTopic { topic_id },
        MetadataRecord::ProducerIds {
            broker_id: one,
            broker_epoch,
            next_producer_id: ProducerId(1000),
        },
    ]
}

/// The bytes that version 1 has for ever: if this fails, old clusters cannot be opened.
#[test]
fn records_of_version_1_are_the_bytes_that_they_always_were() {
    let stored: String =
        include_str!("../../tests/data/records_v1.hex").split_whitespace().collect();
    let written = encode_records(&one_of_each());
    let hex: String = written.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, stored);
    assert_eq!(decode_records(&written), Ok(one_of_each()));
}
