//! The partitioned group-commit log.
//!
//! Architecture invariants:
//! * No tokio, no socket, no clock that decides when to sync, no Kafka request in here.
//! * No file is touched but through [`env::FileSystem`]; no thread body blocks on anything else.
//! * Nobody is told of a record before the sync that covers it returned.
//! * A failed sync, and any failed write but a full disk, ends the process.

pub mod env;
