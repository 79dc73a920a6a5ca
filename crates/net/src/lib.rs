//! Sockets: listeners, connections with bounded memory, and a client of the same protocol.
//!
//! Architecture invariant: no task, channel, timer or oneshot for a request. A connection is one
//! task and one small state machine; what it does not read, it does not hold.
//!
//! Architecture invariant: nothing here knows what a request means. Frames go to a [`Service`] in
//! the order they came, replies leave in that order.
//!
//! Architecture invariant: everything that grows has a bound in [`NetConfig`]: connections, bytes
//! of requests, requests in flight, bytes of replies, of one connection and of all. At a bound the
//! socket is not read, or the reply waits for room.
//!
//! Never in it: files, the log, authorization, retries.

pub mod client;
pub mod config;
mod connection;
mod creation_rate;
mod deadlines;
pub mod limits;
pub mod listener;
pub mod metrics;
mod refusal_log;
mod registry;
mod replies;
pub mod reply_budget;
pub mod service;

pub use config::NetConfig;
pub use limits::Limits;
pub use listener::{BindError, Drained, Listener};
pub use metrics::NetMetrics;
pub use reply_budget::{ReplyBudget, ReplyRoom};
pub use service::{CloseReason, ConnectionInfo, Handled, PendingReply, Phase, Reply, Service};
