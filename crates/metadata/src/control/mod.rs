//! The controller's parts: each plans for one kind of request. State is the image's; the parts
//! have none.

pub mod cluster;
pub mod configs;
pub mod features;
pub mod producer_ids;
pub mod replication;
