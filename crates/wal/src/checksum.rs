//! CRC-32C, the one checksum of everything on disk.

use crc_fast::{CrcAlgorithm, Digest};

/// CRC-32C of the parts, as if they lay behind each other.
#[must_use]
pub fn crc32c(parts: &[&[u8]]) -> u32 {
    if let [whole] = parts {
        return crc_fast::crc32_iscsi(whole);
    }
    let mut digest = Digest::new(CrcAlgorithm::Crc32Iscsi);
    for part in parts {
        digest.update(part);
    }
    digest.finalize() as u32
}
