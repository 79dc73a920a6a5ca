//! The bytes of a chain file's header sector.

use crate::checksum::crc32c;

/// Bytes of the header; the rest of its sector and block are zeros.
pub const HEADER_BYTES: usize = 64;

const MAGIC: [u8; 8] = *b"TIDECHN1";
const VERSION: u16 = 1;

/// What a file says about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileHeader {
    /// Rises by one from file to file, whatever slot it lies in.
    pub number: u64,
    /// Random; every record of the file carries it.
    pub epoch: u64,
    /// Sequence of the first record, and the seal of the predecessor.
    pub first_sequence: u64,
    /// Number of the file before, 0 if there is none.
    pub predecessor: u64,
}

/// Why a header cannot be believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// Not zeros, and not a header either.
    #[error("the header is damaged")]
    Damaged,
    /// A header of a later version.
    #[error("the header's version is not known")]
    Version,
    /// The file belongs to another log.
    #[error("the file belongs to another log")]
    Owner,
}

impl FileHeader {
    /// Writes the header.
    #[must_use]
    pub fn encode(&self, owner: [u8; 4]) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[0..8].copy_from_slice(&MAGIC);
        bytes[8..10].copy_from_slice(&VERSION.to_le_bytes());
        bytes[12..16].copy_from_slice(&owner);
        bytes[16..24].copy_from_slice(&self.number.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.epoch.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.first_sequence.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.predecessor.to_le_bytes());
        let sum = crc32c(&[&bytes[..60]]);
        bytes[60..64].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    /// Reads a header; `None` for a file that never had one.
    ///
    /// # Errors
    /// When there is something that is not a header of this owner.
    pub fn decode(
        bytes: &[u8; HEADER_BYTES],
        owner: [u8; 4],
    ) -> Result<Option<FileHeader>, HeaderError> {
        if bytes.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        if bytes[0..8] != MAGIC || u32::from_le_bytes(take(bytes, 60)) != crc32c(&[&bytes[..60]]) {
            return Err(HeaderError::Damaged);
        }
        if u16::from_le_bytes(take(bytes, 8)) != VERSION {
            return Err(HeaderError::Version);
        }
        if bytes[12..16] != owner {
            return Err(HeaderError::Owner);
        }
        Ok(Some(FileHeader {
            number: u64::from_le_bytes(take(bytes, 16)),
            epoch: u64::from_le_bytes(take(bytes, 24)),
            first_sequence: u64::from_le_bytes(take(bytes, 32)),
            predecessor: u64::from_le_bytes(take(bytes, 40)),
        }))
    }
}

fn take<const N: usize>(bytes: &[u8; HEADER_BYTES], at: usize) -> [u8; N] {
    let mut field = [0; N];
    field.copy_from_slice(&bytes[at..at + N]);
    field
}
