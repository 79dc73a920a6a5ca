//! The loads: each finds its topic, starts its connections and judges what came of them.

pub(crate) mod consume;
pub(crate) mod produce;
