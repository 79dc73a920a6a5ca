//! Handlers and loops that join cores to disk and net.
//!
//! Architecture invariants:
//! * No rule of replication, metadata or the protocol is decided here: cores decide, this acts.
//! * No file and no socket is opened here, and no task blocks or is spawned for a request.
//! * A produce request costs one counter: no channel, no timer. Nobody is woken under a lock.
//! * Readers of metadata and of the partition map take no lock; the metadata thread alone writes.
//! * A partition is led in a leader epoch of this very process before anything of it is served.
//! * Every error becomes a Kafka code in one match without `_`.

mod absent;
pub mod broker;
pub mod clock;
pub mod config;
pub mod config_doc;
mod config_resource;
mod controller_handle;
mod coordinator;
pub mod dispatch;
mod dynamic_config;
mod errors;
mod fetch_sessions;
mod handlers;
mod leader_hints;
pub mod metadata_loop;
pub mod metrics;
pub mod partition;
mod partition_state;
mod pending;
mod recompressor;
mod record_walker;
pub mod replica_manager;
mod request_context;
mod retention;
pub mod topic_config;
mod waiting_room;
pub mod waits;

pub use broker::{
    Broker, BrokerIdentity, BrokerParts, OnSettings, StartError, metadata_events, random_uuid,
};
pub use clock::SystemClock;
pub use config::NodeSettings;
pub use dispatch::BrokerService;
pub use metrics::BrokerMetrics;
