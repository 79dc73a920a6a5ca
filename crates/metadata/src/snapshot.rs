//! An image as bytes: what a Raft snapshot holds.

use bytes::{BufMut, Bytes, BytesMut};

use crate::{
    error::DecodeError,
    image::MetadataImage,
    record::{SnapshotBody, decode_snapshot_body, encode_snapshot_body},
};

/// `TLms`: the first four bytes of a metadata snapshot.
const MAGIC: u32 = 0x544c_6d73;
/// The version of the frame; the records inside have their own.
const VERSION: u16 = 1;
/// Magic, version, CRC and length.
const HEADER_LEN: usize = 18;

/// The bytes of an image.
///
/// Big-endian: magic `TLms` (4), version (2), CRC-32C of the body (4), length of the body (8),
/// then the body: the protobuf message `Snapshot` of `proto/metadata.proto`.
#[must_use]
pub fn encode(image: &MetadataImage) -> Bytes {
    let body = encode_snapshot_body(&SnapshotBody {
        index: image.index(),
        features_epoch: image.features().epoch(),
        next_broker_epoch: image.cluster().next_broker_epoch().0,
        records: image.to_records(),
    });
    let mut bytes = BytesMut::with_capacity(HEADER_LEN + body.len());
    bytes.put_u32(MAGIC);
    bytes.put_u16(VERSION);
    bytes.put_u32(crc32c(&body));
    bytes.put_u64(body.len() as u64);
    bytes.put_slice(&body);
    bytes.freeze()
}

/// Reads back what [`encode`] wrote.
///
/// # Errors
/// For bytes that were damaged, cut short, or written by a later release.
pub fn decode(bytes: &Bytes) -> Result<MetadataImage, DecodeError> {
    let body = decode_snapshot_body(&check_frame(bytes)?)?;
    let SnapshotBody { index, features_epoch, next_broker_epoch, records } = body;
    Ok(MetadataImage::restore(&records, index, features_epoch, next_broker_epoch))
}

/// The body, once the frame around it is known to be whole.
fn check_frame(bytes: &Bytes) -> Result<Bytes, DecodeError> {
    let Some((header, _)) = bytes.split_first_chunk::<HEADER_LEN>() else {
        return Err(DecodeError::NotASnapshot("shorter than its header"));
    };
    let [m0, m1, m2, m3, v0, v1, c0, c1, c2, c3, length @ ..] = *header;
    if u32::from_be_bytes([m0, m1, m2, m3]) != MAGIC {
        return Err(DecodeError::NotASnapshot("it starts with other bytes"));
    }
    let version = u16::from_be_bytes([v0, v1]);
    if version != VERSION {
        let (found, newest) = (u32::from(version), u32::from(VERSION));
        return Err(DecodeError::UnknownVersion { found, newest });
    }
    let body = bytes.slice(HEADER_LEN..);
    if u64::from_be_bytes(length) != body.len() as u64 {
        return Err(DecodeError::NotASnapshot("its length is another than it says"));
    }
    let (found, computed) = (u32::from_be_bytes([c0, c1, c2, c3]), crc32c(&body));
    if found != computed {
        return Err(DecodeError::WrongChecksum { found, computed });
    }
    Ok(body)
}

fn crc32c(bytes: &[u8]) -> u32 {
    crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, bytes) as u32
}
