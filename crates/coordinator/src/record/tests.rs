//! The layouts, against bytes that Kafka wrote and bytes that nobody should have written.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn kafka() -> BTreeMap<&'static str, Bytes> {
    let lines = include_str!("../../testdata/records_of_kafka_4_2.txt").lines();
    let named = lines.filter(|line| !line.starts_with('#')).map(|line| {
        let (name, hex) = line.split_once(' ').unwrap();
        (name, unhex(hex))
    });
    named.collect()
}

fn unhex(hex: &str) -> Bytes {
    let digit = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
    (0..hex.len()).step_by(2).map(digit).collect()
}

fn offset_value() -> OffsetCommitValue {
    OffsetCommitValue {
        offset: Offset(258),
        leader_epoch: LeaderEpoch::NONE,
        metadata: "m".into(),
        commit_timestamp_ms: 1_700_000_000_000,
        expire_timestamp_ms: None,
        topic_id: TopicId::ZERO,
    }
}

fn group_value() -> GroupMetadataValue {
    let member = MemberMetadata {
        member_id: "a-1".into(),
        group_instance_id: None,
        client_id: "a".into(),
        client_host: "/127.0.0.1".into(),
        rebalance_timeout_ms: 300_000,
        session_timeout_ms: 10_000,
        subscription: Bytes::from_static(&[1, 2]),
        assignment: Bytes::from_static(&[3]),
    };
    let other = MemberMetadata {
        member_id: "b-2".into(),
        group_instance_id: Some("i".into()),
        client_id: "b".into(),
        client_host: "/::1".into(),
        rebalance_timeout_ms: 60_000,
        session_timeout_ms: 6_000,
        subscription: Bytes::new(),
        assignment: Bytes::new(),
    };
    GroupMetadataValue {
        protocol_type: "consumer".into(),
        generation_id: 3,
        protocol_name: Some("range".into()),
        leader: Some("a-1".into()),
        state_timestamp_ms: Some(1_700_000_000_000),
        members: vec![member, other],
    }
}

fn empty_group_value() -> GroupMetadataValue {
    GroupMetadataValue {
        generation_id: 4,
        protocol_name: None,
        leader: None,
        members: Vec::new(),
        ..group_value()
    }
}

fn offset(group_id: &str, topic: &str, value: Option<OffsetCommitValue>) -> GroupRecord {
    let (group_id, topic) = (group_id.into(), topic.into());
    GroupRecord::OffsetCommit { group_id, topic, partition: 7, value }
}

fn group(value: Option<GroupMetadataValue>) -> GroupRecord {
    GroupRecord::GroupMetadata { group_id: "g".into(), value }
}

/// What old versions could not say of a group.
fn group_value_of(version: usize) -> GroupMetadataValue {
    let mut value = group_value();
    if version < 2 {
        value.state_timestamp_ms = None;
    }
    for member in &mut value.members {
        if version < 1 {
            member.rebalance_timeout_ms = member.session_timeout_ms;
        }
        if version < 3 {
            member.group_instance_id = None;
        }
    }
    value
}

#[test]
fn every_version_that_kafka_wrote_is_read() {
    let kafka = kafka();
    let epoch = OffsetCommitValue { leader_epoch: LeaderEpoch(5), ..offset_value() };
    let expire_timestamp_ms = Some(1_700_000_001_000);
    let mut topic_id = TopicId::ZERO;
    topic_id.0[7] = 1;
    topic_id.0[15] = 2;
    let offsets = [
        ("offset-value-0", offset_value()),
        ("offset-value-1", OffsetCommitValue { expire_timestamp_ms, ..offset_value() }),
        ("offset-value-2", offset_value()),
        ("offset-value-3", epoch.clone()),
        ("offset-value-4", OffsetCommitValue { topic_id, ..epoch.clone() }),
        ("offset-value-4-without-id", epoch),
    ];
    for (name, value) in offsets {
        let read = GroupRecord::decode(&kafka["offset-key-1"], Some(&kafka[name]));
        assert_eq!(read, Ok(offset("grüppe", "topic", Some(value.clone()))), "{name}");
        let read = GroupRecord::decode(&kafka["offset-key-0"], Some(&kafka[name]));
        assert_eq!(read, Ok(offset("g", "t", Some(value))), "{name}");
    }
    for version in 0..=4 {
        let name = format!("group-value-{version}");
        let read = GroupRecord::decode(&kafka["group-key"], Some(&kafka[name.as_str()]));
        assert_eq!(read, Ok(group(Some(group_value_of(version)))), "{name}");
    }
    let read = GroupRecord::decode(&kafka["group-key"], Some(&kafka["group-value-empty"]));
    assert_eq!(read, Ok(group(Some(empty_group_value()))));
}

#[test]
fn what_is_written_is_what_kafka_writes() {
    let kafka = kafka();
    let epoch = OffsetCommitValue { leader_epoch: LeaderEpoch(5), ..offset_value() };
    let expire_timestamp_ms = Some(1_700_000_001_000);
    let mut topic_id = TopicId::ZERO;
    topic_id.0[7] = 1;
    topic_id.0[15] = 2;
    let cases = [
        ("offset-key-1", "offset-value-3", offset("grüppe", "topic", Some(epoch.clone()))),
        (
            "offset-key-1",
            "offset-value-1",
            offset(
                "grüppe",
                "topic",
                Some(OffsetCommitValue { expire_timestamp_ms, ..epoch.clone() }),
            ),
        ),
        (
            "offset-key-1",
            "offset-value-4",
            offset("grüppe", "topic", Some(OffsetCommitValue { topic_id, ..epoch })),
        ),
        ("group-key", "group-value-3", group(Some(group_value()))),
        ("group-key", "group-value-empty", group(Some(empty_group_value()))),
    ];
    for (key, value, record) in cases {
        let expected = (kafka[key].clone(), Some(kafka[value].clone()));
        assert_eq!(record.encode(), expected, "{value}");
    }
    for (key, record) in
        [("offset-key-1", offset("grüppe", "topic", None)), ("group-key", group(None))]
    {
        assert_eq!(record.encode(), (kafka[key].clone(), None), "a tombstone of {key}");
        assert_eq!(GroupRecord::decode(&kafka[key], None), Ok(record));
    }
}

#[test]
fn a_count_is_believed_as_far_as_there_are_bytes() {
    for (bytes, elements, expected) in [
        (&[0x7f, 0xff, 0xff, 0xff, 1, 2][..], 2, Err(RecordError::Truncated { field: "it" })),
        (&[0, 0, 0, 2, 1, 2, 3], 2, Err(RecordError::Truncated { field: "it" })),
        (&[0, 0, 0, 2, 1, 2, 3, 4], 2, Ok(2)),
        (&[0xff, 0xff, 0xff, 0xff], 2, Err(RecordError::Invalid { field: "it" })),
    ] {
        let mut reader = Reader::new(&Bytes::from_static(bytes));
        assert_eq!(reader.count("it", elements), expected, "{bytes:?}");
    }
}

#[test]
fn records_of_other_kinds_are_carried_as_they_are() {
    let key = kafka()["consumer-group-member-key"].clone();
    for value in [None, Some(Bytes::from_static(b"whatever"))] {
        let record = GroupRecord::decode(&key, value.as_ref()).unwrap();
        assert_eq!(record, GroupRecord::Unknown { key: key.clone(), value: value.clone() });
        assert_eq!(record.encode(), (key.clone(), value));
    }
}

#[test]
fn bytes_that_are_no_record_say_why() {
    let kafka = kafka();
    let mut without_protocol = group_value();
    without_protocol.protocol_name = None;
    let long = "x".repeat(STRING_BYTES_MAX + 1);
    let mut flexible_and_long = BytesMut::from(&[0, 4, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 5][..]);
    Writer::new(&mut flexible_and_long, true).uvarint(long.len() as u64 + 1);
    flexible_and_long.put_slice(long.as_bytes());
    flexible_and_long.put_i64(0);
    let group = &kafka["group-key"];
    let offset = &kafka["offset-key-1"];
    let truncated = |field| RecordError::Truncated { field };
    let invalid = |field| RecordError::Invalid { field };
    let newer = |field| RecordError::UnknownVersion { field, version: 5 };
    let of = |bytes: &'static [u8]| Some(Bytes::from_static(bytes));
    let cases = [
        (Bytes::new(), None, truncated("the version of a key")),
        (Bytes::from_static(&[0xff, 0xff]), None, invalid("the version of a key")),
        (Bytes::from_static(&[0, 2, 0x7f, 0xff, b'g']), None, truncated("a group id")),
        (Bytes::from_static(&[0, 2, 0xff, 0xff]), None, invalid("a group id")),
        (Bytes::from_static(&[0, 2, 0, 1, 0xff]), None, invalid("a group id")),
        (offset.clone(), of(&[]), truncated("the value of an offset")),
        (offset.clone(), of(&[0, 5]), newer("the value of an offset")),
        (offset.clone(), of(&[0xff, 0xfe]), invalid("the value of an offset")),
        (offset.clone(), Some(flexible_and_long.freeze()), invalid("an offset's metadata")),
        (group.clone(), of(&[0, 5]), newer("the value of a group")),
        (
            group.clone(),
            // A count of members that the bytes do not bear out.
            of(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff]),
            truncated("the members"),
        ),
        (group.clone(), Some(without_protocol.encode()), invalid("a protocol")),
    ];
    for (key, value, error) in cases {
        let read = GroupRecord::decode(&key, value.as_ref());
        assert_eq!(read, Err(error), "{key:?} {value:?}");
    }
}

proptest! {
    /// Whatever is read can be written, and reads as the same again.
    #[test]
    fn spoiled_bytes_are_refused_or_understood(
        which in 0..16_usize,
        spoils in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in any::<prop::sample::Index>(),
        is_cut: bool,
    ) {
        let kafka = kafka();
        let (name, value) = kafka.iter().nth(which % kafka.len()).unwrap();
        let key = &kafka[if name.starts_with("group") { "group-key" } else { "offset-key-1" }];
        let mut spoiled = [&key[..], &value[..]].concat();
        for (at, byte) in spoils {
            let at = at.index(spoiled.len());
            spoiled[at] = byte;
        }
        let end = if is_cut { key.len() + cut.index(value.len() + 1) } else { spoiled.len() };
        let value = Bytes::copy_from_slice(&spoiled[key.len()..end]);
        let key = Bytes::copy_from_slice(&spoiled[..key.len()]);
        if let Ok(record) = GroupRecord::decode(&key, Some(&value)) {
            let (key, value) = record.encode();
            let again = GroupRecord::decode(&key, value.as_ref());
            prop_assert_eq!(again.map(forget_lost), Ok(forget_lost(record)));
        }
    }

    #[test]
    fn arbitrary_bytes_do_no_harm(key: Vec<u8>, value: Option<Vec<u8>>) {
        let has_version = key.len() >= 2 && key[0] < 0x80;
        let value = value.map(Bytes::from);
        let read = GroupRecord::decode(&Bytes::from(key), value.as_ref());
        prop_assert!(has_version || read.is_err());
    }
}

/// The one thing that Kafka has no place for: an expiry and an epoch or an id at once. And a time
/// that is not known is written as the time that stands for that.
fn forget_lost(mut record: GroupRecord) -> GroupRecord {
    if let GroupRecord::OffsetCommit { value: Some(value), .. } = &mut record
        && value.expire_timestamp_ms.is_some()
    {
        value.leader_epoch = LeaderEpoch::NONE;
        value.topic_id = TopicId::ZERO;
    }
    record
}
