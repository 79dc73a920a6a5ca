//! The bytes of a chain file's header block.
//!
//! The header lies in two sectors of the block. A file whose first group was not synced may have
//! both torn, and nothing in it matters; one that rotted in a single sector reads from the other.

use super::BLOCK_BYTES;
use crate::checksum::crc32c;

/// Bytes of one copy of the header; the rest of the block is zeros.
pub const HEADER_BYTES: usize = 64;
/// Where the copies start.
const COPIES: [usize; 2] = [0, BLOCK_BYTES as usize / 2];

const MAGIC: [u8; 8] = *b"TIDECHN1";
const VERSION: u16 = 1;
/// No log gets to where a number or a sequence is as high as this.
pub(crate) const COUNT_END: u64 = 1 << 62;

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
    /// Whole, and of no file that this log ever began.
    #[error("the header says what cannot be")]
    Impossible,
}

impl FileHeader {
    /// Writes the header block.
    #[must_use]
    pub fn encode_block(&self, owner: [u8; 4]) -> [u8; BLOCK_BYTES as usize] {
        let mut block = [0; BLOCK_BYTES as usize];
        for at in COPIES {
            block[at..at + HEADER_BYTES].copy_from_slice(&self.encode(owner));
        }
        block
    }

    /// Reads a header block; `None` for a file that never had a header, or whose header was being
    /// written when the power failed. Of two copies the newer counts.
    ///
    /// # Errors
    /// [`HeaderError::Version`] or [`HeaderError::Owner`]: the file is somebody else's;
    /// [`HeaderError::Impossible`].
    pub fn decode_block(
        block: &[u8; BLOCK_BYTES as usize],
        owner: [u8; 4],
    ) -> Result<Option<FileHeader>, HeaderError> {
        let mut newest: Option<FileHeader> = None;
        for at in COPIES {
            let Some(copy) = block[at..].first_chunk() else { continue };
            match FileHeader::decode(copy, owner) {
                Ok(Some(header)) if newest.is_none_or(|n| n.number < header.number) => {
                    newest = Some(header);
                }
                Ok(_) | Err(HeaderError::Damaged) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(newest)
    }

    /// Writes one copy of the header.
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

    /// Reads one copy; `None` where there never was one.
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
        let header = FileHeader {
            number: u64::from_le_bytes(take(bytes, 16)),
            epoch: u64::from_le_bytes(take(bytes, 24)),
            first_sequence: u64::from_le_bytes(take(bytes, 32)),
            predecessor: u64::from_le_bytes(take(bytes, 40)),
        };
        let possible = header.predecessor < header.number
            && header.number < COUNT_END
            && header.first_sequence < COUNT_END;
        if possible { Ok(Some(header)) } else { Err(HeaderError::Impossible) }
    }
}

fn take<const N: usize>(bytes: &[u8; HEADER_BYTES], at: usize) -> [u8; N] {
    let mut field = [0; N];
    field.copy_from_slice(&bytes[at..at + N]);
    field
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWNER: [u8; 4] = *b"TEST";
    const HEADER: FileHeader =
        FileHeader { number: 7, epoch: 0x1234_5678, first_sequence: 100, predecessor: 6 };

    #[test]
    fn a_header_survives_any_flipped_bit() {
        let block = HEADER.encode_block(OWNER);
        for bit in 0..block.len() * 8 {
            let mut flipped = block;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(FileHeader::decode_block(&flipped, OWNER), Ok(Some(HEADER)), "bit {bit}");
        }
    }

    #[test]
    fn a_header_torn_while_it_was_written_is_the_old_or_the_new_one_or_none() {
        let newer = FileHeader { number: 9, ..HEADER }.encode_block(OWNER);
        let older = HEADER.encode_block(OWNER);
        let garbled = [0x55; HEADER_BYTES];
        let mut block = older;
        block[..2048].copy_from_slice(&newer[..2048]);
        let read = FileHeader::decode_block(&block, OWNER).map(|h| h.map(|h| h.number));
        assert_eq!(read, Ok(Some(9)));
        block[..HEADER_BYTES].copy_from_slice(&garbled);
        assert_eq!(FileHeader::decode_block(&block, OWNER), Ok(Some(HEADER)));
        block[2048..2048 + HEADER_BYTES].copy_from_slice(&garbled);
        assert_eq!(FileHeader::decode_block(&block, OWNER), Ok(None));
    }

    #[test]
    fn a_whole_header_that_cannot_be_is_refused() {
        for header in [
            FileHeader { predecessor: 7, ..HEADER },
            FileHeader { number: u64::MAX, ..HEADER },
            FileHeader { first_sequence: u64::MAX, ..HEADER },
        ] {
            let read = FileHeader::decode_block(&header.encode_block(OWNER), OWNER);
            assert_eq!(read, Err(HeaderError::Impossible), "{header:?}");
        }
    }

    #[test]
    fn a_file_of_another_log_is_not_taken_for_a_free_one() {
        let block = HEADER.encode_block(*b"ELSE");
        assert_eq!(FileHeader::decode_block(&block, OWNER), Err(HeaderError::Owner));
    }
}
