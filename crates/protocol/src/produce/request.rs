//! Decodes Produce requests, versions 3 to 13.

use std::ops::Range;

use bytes::Bytes;
use kafka_protocol::protocol::StrBytes;

use crate::{
    ApiKey,
    error::{Malformed, RequestError},
    header::text,
    topics::{Form, SLACK_BYTES, TopicRef, Topics},
    wire::Reader,
};

/// First version that names topics by id (KIP-516).
const TOPIC_ID_VERSION: i16 = 13;

/// Records to be appended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProduceRequest {
    /// Set by transactional producers.
    pub transactional_id: Option<StrBytes>,
    /// When to answer; [`tidelog_types::Acks::from_wire`] knows the lawful values.
    pub acks: i16,
    /// How long to wait for replicas, in milliseconds.
    pub timeout_ms: i32,
    topics: Topics<PartitionRecords>,
}

/// One partition's share of a Produce request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionRecords {
    /// The partition.
    pub index: i32,
    /// One batch, if the producer is honest. A slice of the frame, or a copy where that is less
    /// than a quarter of the frame: a small batch never pins a large frame.
    pub records: Option<Bytes>,
}

impl ProduceRequest {
    /// Decodes a request's body. Bytes behind the request are ignored, as Kafka does.
    ///
    /// Allocates at most twice the body and 64 KiB.
    ///
    /// # Errors
    /// The connection is to be closed.
    pub fn decode(version: i16, body: Bytes) -> Result<ProduceRequest, RequestError> {
        assert!(ApiKey::Produce.serves(version), "the header's version was checked");
        let flexible = ApiKey::Produce.is_flexible(version);
        let mut reader = Reader::new(&body);
        let transactional_id = reader.string(flexible)?;
        let (acks, timeout_ms) = (reader.int16()?, reader.int32()?);
        let form = Form {
            api_key: ApiKey::Produce,
            flexible,
            has_ids: version >= TOPIC_ID_VERSION,
            body_bytes: body.len(),
            // Copied records may take as much again.
            memory_bytes_max: body.len() + SLACK_BYTES,
        };
        let topics = Topics::decode(
            form,
            &body,
            &mut reader,
            |reader| read_partition(flexible, reader),
            |(index, range)| PartitionRecords { index, records: range.map(|r| keep(&body, r)) },
        )?;
        if flexible {
            reader.skip_tagged_fields()?;
        }
        let transactional_id = transactional_id.map(|range| text(body.slice(range))).transpose()?;
        Ok(ProduceRequest { transactional_id, acks, timeout_ms, topics })
    }

    /// The topics in the request's order, each with its partitions.
    pub fn topics(&self) -> impl Iterator<Item = (&TopicRef, &[PartitionRecords])> {
        self.topics.iter()
    }
}

fn read_partition(
    flexible: bool,
    reader: &mut Reader<'_>,
) -> Result<(i32, Option<Range<usize>>), Malformed> {
    let index = reader.int32()?;
    let records = reader.bytes(flexible)?;
    if flexible {
        reader.skip_tagged_fields()?;
    }
    Ok((index, records))
}

fn keep(body: &Bytes, range: Range<usize>) -> Bytes {
    match range.len() < body.len() / 4 {
        true => Bytes::copy_from_slice(&body[range]),
        false => body.slice(range),
    }
}
