//! Opens compressed records, up to a limit (36 KB of zstd can become 1 GB), and compresses them.

use std::io::{Read, Write as _};

use bytes::Bytes;
use lz4_flex::frame::{BlockSize, FrameEncoder, FrameInfo};
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

/// Compresses records as producers do, snappy without snappy-java's framing.
#[must_use]
pub fn compress(codec: Compression, records: &[u8]) -> Vec<u8> {
    compress_at(codec, None, records)
}

/// Compresses records with a codec that tries as hard as `level` says, where it has levels.
///
/// # Panics
/// For a level of gzip outside 0 to 9.
#[must_use]
pub fn compress_at(codec: Compression, level: Option<i32>, records: &[u8]) -> Vec<u8> {
    let into_memory = "compressing into memory cannot fail";
    match codec {
        Compression::None => records.to_vec(),
        Compression::Gzip => {
            let level = level.map(|level| u32::try_from(level).expect("gzip counts from 0"));
            let level = level.map_or_else(flate2::Compression::default, flate2::Compression::new);
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), level);
            encoder.write_all(records).expect(into_memory);
            encoder.finish().expect(into_memory)
        }
        Compression::Snappy => snap::raw::Encoder::new().compress_vec(records).expect(into_memory),
        Compression::Lz4 => {
            // As Kafka's clients do: a consumer's buffer is as large as a block.
            let blocks = FrameInfo::new().block_size(BlockSize::Max64KB);
            let mut encoder = FrameEncoder::with_frame_info(blocks, Vec::new());
            encoder.write_all(records).expect(into_memory);
            encoder.finish().expect(into_memory)
        }
        Compression::Zstd => {
            let level = level.unwrap_or(zstd::DEFAULT_COMPRESSION_LEVEL);
            zstd::stream::encode_all(records, level).expect(into_memory)
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CODECS: [Compression; 5] = [
        Compression::None,
        Compression::Gzip,
        Compression::Snappy,
        Compression::Lz4,
        Compression::Zstd,
    ];

    fn xerial(pieces: &[&[u8]]) -> Bytes {
        let mut framed = [&XERIAL_MAGIC[..], &[0, 0, 0, 1, 0, 0, 0, 1]].concat();
        for piece in pieces {
            let block = compress(Compression::Snappy, piece);
            framed.extend((block.len() as i32).to_be_bytes());
            framed.extend(block);
        }
        framed.into()
    }

    #[test]
    fn the_framing_of_snappy_java_is_read() {
        let framed = xerial(&[b"one ", b"", b"two"]);
        assert_eq!(decompress(Compression::Snappy, &framed, 7).as_deref(), Ok(&b"one two"[..]));
        let too_large = Err(DecompressError::TooLarge { bytes_max: 6 });
        assert_eq!(decompress(Compression::Snappy, &framed, 6), too_large);
        for cut in 0..framed.len() - 1 {
            let whole_blocks = [16, 16 + 4 + 6, 16 + 4 + 6 + 4 + 1].contains(&cut);
            let read = decompress(Compression::Snappy, &framed.slice(..cut), 100);
            assert_eq!(read.is_ok(), whole_blocks, "{cut}: {read:?}");
        }
    }

    #[test]
    fn six_bytes_of_snappy_do_not_become_4_gb() {
        let bomb = Bytes::from_static(&[0xff, 0xff, 0xff, 0xff, 0x0f, 0]);
        let bytes_max = 1 << 20;
        let refused = decompress(Compression::Snappy, &bomb, bytes_max);
        assert_eq!(refused, Err(DecompressError::TooLarge { bytes_max }));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn what_is_compressed_comes_back_up_to_the_limit(
            unit: Vec<u8>,
            repeats in 1_usize..400,
        ) {
            let records = unit.repeat(repeats);
            for codec in CODECS {
                let packed = Bytes::from(compress(codec, &records));
                let opened = decompress(codec, &packed, records.len());
                prop_assert_eq!(opened.as_deref(), Ok(&records[..]));
                if let Some(bytes_max) = records.len().checked_sub(1) {
                    let refused = decompress(codec, &packed, bytes_max);
                    prop_assert_eq!(refused, Err(DecompressError::TooLarge { bytes_max }));
                }
            }
        }

        #[test]
        fn no_bytes_panic(noise: Vec<u8>, cut: usize, place: usize) {
            for codec in CODECS {
                let _ = decompress(codec, &Bytes::from(noise.clone()), 1 << 16);
                let mut packed = compress(codec, &noise.repeat(3));
                if !packed.is_empty() {
                    let place = place % packed.len();
                    packed[place] ^= 0x55;
                    packed.truncate(packed.len() - cut % packed.len());
                }
                let _ = decompress(codec, &packed.into(), 1 << 16);
            }
        }
    }
}
