//! Stock clients as the judge: programs as their users write them, and the tools people have.
//!
//! `scripts/setup` installs the clients; a missing one fails its test. The programs pass against
//! Apache Kafka 4.2 too, given segments of at least the 1 MiB that it asks for.

mod java;
mod kcat;
mod python;
mod quickstart;
