//! The broker as its connections see it: requests in, answers out, over a disk that can lose power.

mod admin;
mod configs;
mod context;
mod fetch;
mod fetch_limits;
mod groups;
mod offsets;
mod produce;
mod records;
mod restart;
mod sessions;
mod settings;
mod storage;
mod topics;
mod versions;
