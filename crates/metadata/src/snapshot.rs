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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller_test::{ControllerTest, topic};

    #[test]
    fn any_flipped_bit_is_noticed() {
        let mut test = ControllerTest::with_brokers(2);
        test.create(&[topic("one", 2, 2)]);
        let bytes = encode(&test.image).to_vec();
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&Bytes::from(damaged)).is_err(), "bit {bit}");
        }
        for end in 0..bytes.len() {
            assert!(decode(&Bytes::copy_from_slice(&bytes[..end])).is_err(), "{end} bytes");
        }
        assert_eq!(decode(&Bytes::from(bytes)).as_ref(), Ok(test.image.as_ref()));
    }

    #[test]
    fn a_snapshot_of_a_later_release_is_refused() {
        let mut bytes = encode(&MetadataImage::default()).to_vec();
        bytes[5] = 2;
        let refused = DecodeError::UnknownVersion { found: 2, newest: 1 };
        assert_eq!(decode(&Bytes::from(bytes)), Err(refused));
    }
}
