//! What the log says of requests that nobody reads: little, however many there are.

use std::{
    net::SocketAddr,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tidelog_protocol::{compatibility::not_served_name, frame::FrameError};
use tracing::info;

/// How often a request over its limit is told of, at most.
const OVERSIZED_PAUSE: Duration = Duration::from_secs(60);

/// Remembers what was said already. Shared by all connections of a listener.
#[derive(Debug, Default)]
pub(crate) struct RefusalLog {
    oversized: Mutex<Pacer>,
    /// One bit for each API key below 128, set once it was told of.
    not_served: [AtomicU64; 2],
}

impl RefusalLog {
    /// Says why a request was refused, unless it was said lately.
    pub fn tell(&self, peer: SocketAddr, error: &FrameError, now: Instant) {
        match *error {
            FrameError::TooSmall { .. } => {}
            FrameError::TooLargeForApi { api_key, bytes_max: 0, .. } => {
                self.tell_not_served(peer, api_key);
            }
            FrameError::TooLarge { length, bytes_max } => {
                self.tell_oversized(peer, i64::from(length), bytes_max, now);
            }
            FrameError::TooLargeForApi { length, bytes_max, .. } => {
                let length = i64::try_from(length).unwrap_or(i64::MAX);
                self.tell_oversized(peer, length, bytes_max, now);
            }
        }
    }

    /// Nothing for what Kafka does not have either: that is no client of Kafka's.
    fn tell_not_served(&self, peer: SocketAddr, api_key: i16) {
        let Some(api) = not_served_name(api_key) else { return };
        if self.is_first(api_key) {
            info!(api, api_key, %peer, "a client asks for an API that is not served yet");
        }
    }

    fn is_first(&self, api_key: i16) -> bool {
        let Ok(bit) = usize::try_from(api_key) else { return false };
        let Some(word) = self.not_served.get(bit / 64) else { return false };
        let mask = 1 << (bit % 64);
        word.fetch_or(mask, Ordering::Relaxed) & mask == 0
    }

    fn tell_oversized(&self, peer: SocketAddr, bytes: i64, bytes_max: usize, now: Instant) {
        let mut pacer = self.oversized.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(suppressed) = pacer.may_tell(now) else { return };
        drop(pacer);
        info!(%peer, bytes, bytes_max, suppressed, "refused a request that is too large");
    }
}

/// Lets one through in [`OVERSIZED_PAUSE`] and counts the others.
#[derive(Debug, Default)]
struct Pacer {
    told: Option<Instant>,
    suppressed: u64,
}

impl Pacer {
    /// How many were passed over since the last one, where this one may be told.
    fn may_tell(&mut self, now: Instant) -> Option<u64> {
        let lately = |told: Instant| now.saturating_duration_since(told) < OVERSIZED_PAUSE;
        if self.told.is_some_and(lately) {
            self.suppressed += 1;
            return None;
        }
        self.told = Some(now);
        Some(std::mem::take(&mut self.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_over_the_limit_are_told_of_once_a_minute_with_those_between() {
        let (mut pacer, start) = (Pacer::default(), Instant::now());
        let told = [0, 1, 59, 60, 61, 200].map(|s| pacer.may_tell(start + Duration::from_secs(s)));
        assert_eq!(told, [Some(0), None, None, Some(2), None, Some(1)]);
    }

    #[test]
    fn an_api_that_is_not_served_is_told_of_once() {
        let log = RefusalLog::default();
        let told = [11, 14, 11, 92, 92, -1, 128, i16::MAX].map(|key| log.is_first(key));
        assert_eq!(told, [true, true, false, true, false, false, false, false]);
    }
}
