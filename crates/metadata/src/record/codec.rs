//! Raft entries and snapshots: metadata records as bytes. What is not known is refused, never
//! skipped: a node that skipped a record would come to another state than its peers.

use bytes::Bytes;
use protobuf::{CodedInputStream, Message};

use super::{MetadataRecord, decode::record_from_proto, encode::record_to_proto, proto};
use crate::error::DecodeError;

/// The version of records that this release writes, and the newest one that it reads.
pub const RECORD_VERSION: u32 = 1;

/// The bytes of one Raft entry.
#[must_use]
pub fn encode_records(records: &[MetadataRecord]) -> Bytes {
    let bytes = envelope_to_proto(records.iter()).write_to_bytes();
    Bytes::from(bytes.expect("every required field is set, and memory does not fail to write"))
}

/// Reads one Raft entry back.
///
/// # Errors
/// For bytes that are no entry, or that a later release wrote.
pub fn decode_records(bytes: &Bytes) -> Result<Vec<MetadataRecord>, DecodeError> {
    envelope_from_proto(parse(bytes)?)
}

/// What a snapshot holds beside its frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SnapshotBody {
    pub(crate) index: u64,
    pub(crate) features_epoch: i64,
    pub(crate) next_broker_epoch: i64,
    pub(crate) records: Vec<MetadataRecord>,
}

pub(crate) fn encode_snapshot_body(body: &SnapshotBody) -> Vec<u8> {
    let mut snapshot = proto::Snapshot::new();
    snapshot.set_index(body.index);
    snapshot.set_features_epoch(body.features_epoch);
    snapshot.set_next_broker_epoch(body.next_broker_epoch);
    snapshot.set_image(envelope_to_proto(body.records.iter()));
    let bytes = snapshot.write_to_bytes();
    bytes.expect("every required field is set, and memory does not fail to write")
}

pub(crate) fn decode_snapshot_body(bytes: &Bytes) -> Result<SnapshotBody, DecodeError> {
    let mut snapshot: proto::Snapshot = parse(bytes)?;
    refuse_unknown_fields("Snapshot", &snapshot)?;
    Ok(SnapshotBody {
        index: snapshot.get_index(),
        features_epoch: snapshot.get_features_epoch(),
        next_broker_epoch: snapshot.get_next_broker_epoch(),
        records: envelope_from_proto(snapshot.take_image())?,
    })
}

/// Refuses a message with a field that this release does not know.
pub(super) fn refuse_unknown_fields(
    message: &'static str,
    fields: &impl Message,
) -> Result<(), DecodeError> {
    match fields.get_unknown_fields().into_iter().next() {
        None => Ok(()),
        Some((field, _)) => Err(DecodeError::UnknownField { message, field }),
    }
}

fn envelope_to_proto<'a>(records: impl Iterator<Item = &'a MetadataRecord>) -> proto::Envelope {
    let mut envelope = proto::Envelope::new();
    envelope.set_version(RECORD_VERSION);
    envelope.set_records(records.map(record_to_proto).collect());
    envelope
}

fn envelope_from_proto(mut envelope: proto::Envelope) -> Result<Vec<MetadataRecord>, DecodeError> {
    // The version first: it says whether the rest can be understood.
    if envelope.get_version() != RECORD_VERSION {
        let (found, newest) = (envelope.get_version(), RECORD_VERSION);
        return Err(DecodeError::UnknownVersion { found, newest });
    }
    refuse_unknown_fields("Envelope", &envelope)?;
    envelope.take_records().into_iter().map(record_from_proto).collect()
}

fn parse<M: Message>(bytes: &Bytes) -> Result<M, DecodeError> {
    let malformed = |error: protobuf::ProtobufError| DecodeError::Malformed(error.to_string());
    let mut stream = CodedInputStream::from_carllerche_bytes(bytes);
    let mut message = M::new();
    message.merge_from(&mut stream).map_err(malformed)?;
    message.check_initialized().map_err(malformed)?;
    Ok(message)
}
