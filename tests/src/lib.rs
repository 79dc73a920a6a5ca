//! What the tests of whole processes share: a broker started, watched and ended by pid.
//!
//! Architecture invariant: judges from outside. Nothing here uses a crate of ours; what the broker
//! says on its sockets, in its log and by its exit status is all that counts. Only processes that a
//! test started are ended, by pid, and traffic goes to the loopback address only.

pub mod batch;
pub mod http;
pub mod node;
pub mod ports;
pub mod programs;
pub mod seed;
pub mod small_disk;
pub mod wire;
