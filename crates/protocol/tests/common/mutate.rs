//! Spoils bytes the way an attacker would: lengths first.

use super::Random;

/// Lengths that ask for too much, in every encoding that the protocol has.
const GREEDY: &[&[u8]] = &[
    &[0x7f, 0xff, 0xff, 0xff],
    &[0x00, 0xff, 0xff, 0xff],
    &[0xff, 0xff, 0xff, 0xfe],
    &[0x80, 0x00, 0x00, 0x00],
    &[0x7f, 0xff],
    &[0x80, 0x00],
    &[0xff, 0xff, 0xff, 0xff, 0x0f],
    &[0xff, 0xff, 0xff, 0xff, 0x7f],
    &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
    &[0x80, 0x80, 0x80, 0x80, 0x08],
    &[0xff, 0x7f],
    &[0x00],
    &[0xff],
];

/// Changes between one and four places.
pub fn mutate(bytes: &mut Vec<u8>, random: &mut Random) {
    for _ in 0..=random.below(4) {
        let place = random.below(bytes.len() + 1);
        match random.below(6) {
            0 => bytes.truncate(place),
            1 => bytes.splice(place..place, random.bytes(16)).for_each(drop),
            2 => {
                let greedy = GREEDY[random.below(GREEDY.len())];
                let end = (place + greedy.len()).min(bytes.len());
                bytes.splice(place..end, greedy.iter().copied()).for_each(drop);
            }
            3 => {
                let from = random.below(bytes.len() + 1).min(place);
                let repeated = bytes[from..place].repeat(random.below(8));
                bytes.splice(place..place, repeated).for_each(drop);
            }
            _ => {
                if let Some(byte) = bytes.get_mut(place) {
                    *byte ^= 1 << random.below(8);
                }
            }
        }
    }
}
