//! Time as a value: cores are told the time, shells read it here.

use std::time::Duration;

/// Where a shell reads the time. A test's clock moves only when told.
pub trait Clock: Send + Sync {
    /// Milliseconds since 1970, as records carry them. May jump.
    fn wall_ms(&self) -> i64;
    /// Time since some fixed moment of this process. Never goes back.
    fn elapsed(&self) -> Duration;
}
