//! Chance that can be played again: `TIDELOG_SEED=<number>` repeats what a test printed.

use std::{
    env,
    time::{SystemTime, UNIX_EPOCH},
};

/// A small generator (splitmix64): good enough to choose, useless to hide.
pub struct Random(u64);

impl Random {
    /// From `TIDELOG_SEED`, else from the clock; printed either way, for the one who repeats it.
    pub fn new(test: &str) -> Random {
        let seed = asked().unwrap_or_else(from_clock);
        eprintln!("{test}: TIDELOG_SEED={seed}");
        Random(seed)
    }

    /// From a seed that the test chose.
    pub fn from_seed(seed: u64) -> Random {
        Random(seed)
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    /// At least 0, below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        assert!(end > 0, "nothing lies below 0");
        self.bits() % end
    }

    /// An index into something of `len` elements.
    pub fn index(&mut self, len: usize) -> usize {
        usize::try_from(self.below(len as u64)).expect("an index fits a usize")
    }
}

/// The seed that somebody wants to see again.
pub fn asked() -> Option<u64> {
    env::var("TIDELOG_SEED").ok().map(|text| text.parse().expect("TIDELOG_SEED is a number"))
}

fn from_clock() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970");
    u64::from(now.subsec_nanos()) ^ now.as_secs()
}
