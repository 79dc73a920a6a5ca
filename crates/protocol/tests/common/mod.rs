//! What the integration tests share: seeded samples, mutations and an allocator that counts.

#![allow(dead_code, reason = "each test uses its part")]

pub mod allocation;
pub mod group_samples;
pub mod mutate;
pub mod samples;

/// Random values from one seed: the same seed gives the same values.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// SplitMix64.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    pub fn below(&mut self, end: usize) -> usize {
        (self.bits() % end as u64) as usize
    }

    pub fn chance(&mut self, one_in: usize) -> bool {
        self.below(one_in) == 0
    }

    pub fn bool(&mut self) -> bool {
        self.chance(2)
    }

    pub fn int8(&mut self) -> i8 {
        self.bits() as i8
    }

    pub fn int16(&mut self) -> i16 {
        self.bits() as i16
    }

    pub fn int32(&mut self) -> i32 {
        self.bits() as i32
    }

    pub fn int64(&mut self) -> i64 {
        self.bits() as i64
    }

    pub fn bytes(&mut self, length_end: usize) -> Vec<u8> {
        (0..self.below(length_end)).map(|_| self.bits() as u8).collect()
    }

    pub fn text(&mut self) -> String {
        const LETTERS: [char; 8] = ['a', 'Z', '0', '.', '-', '_', 'ö', '鯨'];
        (0..self.below(12)).map(|_| LETTERS[self.below(LETTERS.len())]).collect()
    }

    pub fn list<T>(&mut self, mut item: impl FnMut(&mut Random) -> T) -> Vec<T> {
        (0..self.below(4)).map(|_| item(self)).collect()
    }

    pub fn maybe<T>(&mut self, value: impl FnOnce(&mut Random) -> T) -> Option<T> {
        if self.chance(4) { None } else { Some(value(self)) }
    }
}
