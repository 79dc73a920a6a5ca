//! A load driver for any Kafka-compatible broker: many connections, one process, honest figures.
//!
//! Architecture invariant: it speaks only Kafka's protocol, so that it measures every broker alike.
//!
//! Architecture invariant: no answer is taken on trust. Correlation ids, error codes, and the
//! offsets that were acknowledged or fetched are checked; what does not fit ends in the report.
//!
//! Never in it: anything that a broker needs. Nothing of ours but `types`, `protocol` and `net`.

mod args;
mod batch;
mod cluster;
mod codec;
mod consume;
mod load;
mod pacer;
mod process;
mod produce;
mod report;
mod run;
mod stats;

pub use args::{BenchArgs, CommonArgs, ConsumeArgs, Load, ProduceArgs};
pub use report::Report;
pub use run::{measure, run};
