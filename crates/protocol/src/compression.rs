//! Opens compressed records, up to a limit: 36 KB of zstd can become 1 GB.

use std::io::Read;

use bytes::Bytes;
use tidelog_types::Compression;

/// How snappy-java begins its own framing: a magic and two version numbers.
const XERIAL_MAGIC: [u8; 8] = [0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0];
const XERIAL_HEADER_LEN: usize = 16;
/// The largest window, as a power of two, that zstd's own tools use by default.
const ZSTD_WINDOW_LOG_MAX: u32 = 27;
/// Memory for the output grows from here.
const FIRST_OUTPUT_BYTES: usize = 4096;

/// Why records could not be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecompressError {
    /// They would grow over the limit.
    #[error("the records take more than {bytes_max} bytes")]
    TooLarge {
        /// The limit.
        bytes_max: usize,
    },
    /// They are not what their codec writes.
    #[error("the records are not valid {codec:?}")]
    Malformed {
        /// The codec.
        codec: Compression,
    },
}

/// Decompresses what follows a batch's header. Never allocates for more than `bytes_max` of output.
///
/// # Errors
/// When the output would exceed `bytes_max`, or the input is not the codec's.
pub fn decompress(
    codec: Compression,
    input: &Bytes,
    bytes_max: usize,
) -> Result<Bytes, DecompressError> {
    let malformed = DecompressError::Malformed { codec };
    match codec {
        Compression::None if input.len() > bytes_max => {
            Err(DecompressError::TooLarge { bytes_max })
        }
        Compression::None => Ok(input.clone()),
        Compression::Gzip => {
            read_all(flate2::bufread::MultiGzDecoder::new(&input[..]), bytes_max, malformed)
        }
        Compression::Snappy => snappy(input, bytes_max),
        Compression::Lz4 => {
            read_all(lz4_flex::frame::FrameDecoder::new(&input[..]), bytes_max, malformed)
        }
        Compression::Zstd => {
            let mut decoder =
                zstd::stream::read::Decoder::with_buffer(&input[..]).map_err(|_| malformed)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG_MAX).map_err(|_| malformed)?;
            read_all(decoder, bytes_max, malformed)
        }
    }
}

fn read_all(
    mut decoder: impl Read,
    bytes_max: usize,
    malformed: DecompressError,
) -> Result<Bytes, DecompressError> {
    let mut output = Vec::new();
    loop {
        let filled = output.len();
        let room = filled.max(FIRST_OUTPUT_BYTES).min(bytes_max - filled);
        if room == 0 {
            break;
        }
        output.reserve_exact(room);
        output.resize(filled + room, 0);
        let count = decoder.read(&mut output[filled..]).map_err(|_| malformed)?;
        output.truncate(filled + count);
        if count == 0 {
            return Ok(Bytes::from(output));
        }
    }
    match decoder.read(&mut [0]) {
        Ok(0) => Ok(Bytes::from(output)),
        Ok(_) => Err(DecompressError::TooLarge { bytes_max }),
        Err(_) => Err(malformed),
    }
}

/// Plain snappy, or blocks of it behind the header that snappy-java writes.
fn snappy(input: &[u8], bytes_max: usize) -> Result<Bytes, DecompressError> {
    let mut output = Vec::new();
    if !input.starts_with(&XERIAL_MAGIC) {
        snappy_block(input, bytes_max, &mut output)?;
        return Ok(Bytes::from(output));
    }
    let malformed = DecompressError::Malformed { codec: Compression::Snappy };
    let mut blocks = input.get(XERIAL_HEADER_LEN..).ok_or(malformed)?;
    while !blocks.is_empty() {
        let (length, rest) = blocks.split_first_chunk().ok_or(malformed)?;
        let length = usize::try_from(i32::from_be_bytes(*length)).map_err(|_| malformed)?;
        let (block, rest) = rest.split_at_checked(length).ok_or(malformed)?;
        snappy_block(block, bytes_max, &mut output)?;
        blocks = rest;
    }
    Ok(Bytes::from(output))
}

fn snappy_block(
    block: &[u8],
    bytes_max: usize,
    output: &mut Vec<u8>,
) -> Result<(), DecompressError> {
    let malformed = DecompressError::Malformed { codec: Compression::Snappy };
    let length = snap::raw::decompress_len(block).map_err(|_| malformed)?;
    if length > bytes_max - output.len() {
        return Err(DecompressError::TooLarge { bytes_max });
    }
    let filled = output.len();
    output.resize(filled + length, 0);
    let mut decoder = snap::raw::Decoder::new();
    let written = decoder.decompress(block, &mut output[filled..]).map_err(|_| malformed)?;
    assert_eq!(written, length, "snappy fills what it announced");
    Ok(())
}
