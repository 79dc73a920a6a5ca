//! What goes under the next sync. Pure: whatever waits when the device is free is the next group;
//! no clock is asked.

use crate::frame::{FRAME_ALIGN, frame_bytes};

/// What the writer does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Gathered {
    /// Write this many frames, together this many bytes.
    Group { frames: usize, bytes: u64 },
    /// The first frame needs a file with room for this many bytes.
    NeedsFile { bytes: u64 },
    /// Nothing waits.
    Nothing,
}

/// Takes frames in order while they fit the file and the bound of one group; at least one,
/// however large.
pub(crate) fn gather(
    payload_bytes: impl Iterator<Item = usize>,
    room: u64,
    group_bytes_max: u64,
) -> Gathered {
    let (mut frames, mut bytes) = (0, 0);
    for payload in payload_bytes {
        let more = frame_bytes(payload) as u64;
        assert!(more.is_multiple_of(FRAME_ALIGN as u64), "frames are aligned");
        if bytes + more > room {
            return match frames {
                0 => Gathered::NeedsFile { bytes: more },
                _ => Gathered::Group { frames, bytes },
            };
        }
        if frames > 0 && bytes + more > group_bytes_max {
            break;
        }
        frames += 1;
        bytes += more;
    }
    assert!(bytes <= room, "a group fits its file");
    match frames {
        0 => Gathered::Nothing,
        _ => Gathered::Group { frames, bytes },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_what_waits_within_file_and_bound() {
        // A payload of 100 bytes is a frame of 256.
        let cases: [(&[usize], u64, u64, Gathered); 6] = [
            (&[], 4096, 4096, Gathered::Nothing),
            (&[100, 100], 4096, 4096, Gathered::Group { frames: 2, bytes: 512 }),
            (&[100, 100, 100], 4096, 512, Gathered::Group { frames: 2, bytes: 512 }),
            (&[100, 100, 100], 512, 4096, Gathered::Group { frames: 2, bytes: 512 }),
            (&[9000], 16384, 4096, Gathered::Group { frames: 1, bytes: 9152 }),
            (&[9000, 1], 4096, 4096, Gathered::NeedsFile { bytes: 9152 }),
        ];
        for (payloads, room, bound, expected) in cases {
            let got = gather(payloads.iter().copied(), room, bound);
            assert_eq!(got, expected, "{payloads:?} {room} {bound}");
        }
    }
}
