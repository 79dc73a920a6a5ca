//! One broker as a real process, and what may befall it: kills, power loss, damage, bad clients.

mod admin;
mod bombs;
mod compaction;
mod conversation;
mod damage;
mod full_disk;
mod groups;
mod hostile;
mod idempotence;
mod kill;
mod large;
mod lifecycle;
mod look;
mod many_partitions;
mod memory;
mod misbehaving;
mod model;
mod observe;
