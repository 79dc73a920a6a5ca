//! One broker as a real process, and what may befall it: kills, power loss, damage, bad clients.

mod damage;
mod hostile;
mod kill;
mod lifecycle;
mod memory;
mod misbehaving;
mod observe;
