//! Version 10 of OffsetCommit and OffsetFetch, which the codec does not read yet: topics by id.
//!
//! Into the codec's own types, so that whoever answers sees one request whatever its version.

use std::collections::BTreeMap;

use bytes::Bytes;
use kafka_protocol::{
    messages::{
        GroupId, OffsetCommitRequest, OffsetFetchRequest,
        offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic},
        offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopics},
    },
    protocol::{Decodable, StrBytes},
};

use crate::{error::Malformed, header::text, wire::Reader};

/// First version that names topics by id alone.
const IDS_FROM: i16 = 10;

/// Decodes an OffsetCommit request whose shape was checked.
pub(crate) fn decode_offset_commit(
    version: i16,
    body: Bytes,
) -> Result<OffsetCommitRequest, Malformed> {
    match version {
        ..IDS_FROM => by_codec(version, body),
        _ => offset_commit(&mut Fields::new(&body)),
    }
}

/// Decodes an OffsetFetch request whose shape was checked.
pub(crate) fn decode_offset_fetch(
    version: i16,
    body: Bytes,
) -> Result<OffsetFetchRequest, Malformed> {
    match version {
        ..IDS_FROM => by_codec(version, body),
        _ => offset_fetch(&mut Fields::new(&body)),
    }
}

fn by_codec<R: Decodable>(version: i16, mut body: Bytes) -> Result<R, Malformed> {
    let reason = "the codec refuses what its shape allows";
    R::decode(&mut body, version).map_err(|_| Malformed { reason, position: 0 })
}

fn offset_commit(fields: &mut Fields<'_>) -> Result<OffsetCommitRequest, Malformed> {
    Ok(OffsetCommitRequest::default()
        .with_group_id(GroupId(fields.text()?))
        .with_generation_id_or_member_epoch(fields.reader.int32()?)
        .with_member_id(fields.text()?)
        .with_group_instance_id(fields.text_or_null()?)
        .with_topics(fields.list(|fields| {
            Ok(OffsetCommitRequestTopic::default()
                .with_topic_id(fields.uuid()?)
                .with_partitions(fields.list(committed)?)
                .with_unknown_tagged_fields(fields.tags()?))
        })?)
        .with_unknown_tagged_fields(fields.tags()?))
}

fn committed(fields: &mut Fields<'_>) -> Result<OffsetCommitRequestPartition, Malformed> {
    Ok(OffsetCommitRequestPartition::default()
        .with_partition_index(fields.reader.int32()?)
        .with_committed_offset(fields.reader.int64()?)
        .with_committed_leader_epoch(fields.reader.int32()?)
        .with_committed_metadata(fields.text_or_null()?)
        .with_unknown_tagged_fields(fields.tags()?))
}

fn offset_fetch(fields: &mut Fields<'_>) -> Result<OffsetFetchRequest, Malformed> {
    Ok(OffsetFetchRequest::default()
        .with_groups(fields.list(|fields| {
            Ok(OffsetFetchRequestGroup::default()
                .with_group_id(GroupId(fields.text()?))
                .with_member_id(fields.text_or_null()?)
                .with_member_epoch(fields.reader.int32()?)
                .with_topics(fields.list_or_null(|fields| {
                    Ok(OffsetFetchRequestTopics::default()
                        .with_topic_id(fields.uuid()?)
                        .with_partition_indexes(fields.list(|fields| fields.reader.int32())?)
                        .with_unknown_tagged_fields(fields.tags()?))
                })?)
                .with_unknown_tagged_fields(fields.tags()?))
        })?)
        .with_require_stable(fields.reader.int8()? != 0)
        .with_unknown_tagged_fields(fields.tags()?))
}

/// The fields of one flexible request, in the order of the wire.
struct Fields<'a> {
    body: &'a Bytes,
    reader: Reader<'a>,
}

impl<'a> Fields<'a> {
    fn new(body: &'a Bytes) -> Fields<'a> {
        Fields { body, reader: Reader::new(body) }
    }

    fn text(&mut self) -> Result<StrBytes, Malformed> {
        let range = self.reader.required_string(true)?;
        text(self.body.slice(range))
    }

    fn text_or_null(&mut self) -> Result<Option<StrBytes>, Malformed> {
        let range = self.reader.string(true)?;
        range.map(|range| text(self.body.slice(range))).transpose()
    }

    fn uuid(&mut self) -> Result<uuid::Uuid, Malformed> {
        self.reader.array().map(uuid::Uuid::from_bytes)
    }

    fn list<T>(
        &mut self,
        item: impl Fn(&mut Self) -> Result<T, Malformed>,
    ) -> Result<Vec<T>, Malformed> {
        let list = self.list_or_null(item)?;
        list.ok_or_else(|| self.reader.malformed("an array that must be there is null"))
    }

    fn list_or_null<T>(
        &mut self,
        item: impl Fn(&mut Self) -> Result<T, Malformed>,
    ) -> Result<Option<Vec<T>>, Malformed> {
        let Some(count) = self.reader.count_of(true, 1)? else { return Ok(None) };
        let mut items = Vec::with_capacity(count);
        for _ in 0..count {
            items.push(item(self)?);
        }
        Ok(Some(items))
    }

    /// Tagged fields that nobody knows yet.
    fn tags(&mut self) -> Result<BTreeMap<i32, Bytes>, Malformed> {
        let (body, mut tags) = (self.body, BTreeMap::new());
        self.reader.tagged_fields(|tag, reader| {
            let start = reader.position();
            tags.insert(tag as i32, body.slice(start..start + reader.remaining()));
            Ok(())
        })?;
        Ok(tags)
    }
}
