//! Reads choices off the front of what the fuzzer made up; zeros once that is spent.

#![allow(dead_code, reason = "each target uses its part")]

pub struct Input<'a>(pub &'a [u8]);

impl<'a> Input<'a> {
    pub fn byte(&mut self) -> u8 {
        self.number(1) as u8
    }

    /// A little-endian number of so many bytes.
    pub fn number(&mut self, bytes: usize) -> u64 {
        let taken = self.take(bytes);
        taken.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
    }

    /// At most so many bytes.
    pub fn take(&mut self, bytes: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(bytes.min(self.0.len()));
        self.0 = rest;
        taken
    }

    pub fn rest(self) -> &'a [u8] {
        self.0
    }
}
