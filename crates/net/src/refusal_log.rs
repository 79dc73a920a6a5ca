//! What the log says of clients that reach a limit: little, however many there are.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tidelog_protocol::{compatibility::not_served_name, frame::FrameError};
use tracing::info;

use crate::service::CloseReason;

/// How often one limit is told of, at most.
const PAUSE: Duration = Duration::from_secs(60);

/// Remembers what was said already. Shared by all connections of a listener.
#[derive(Debug, Default)]
pub(crate) struct RefusalLog {
    oversized: Mutex<Pacer>,
    closed: Mutex<BTreeMap<CloseReason, Pacer>>,
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

    /// Says that a connection was closed for what its client did not do, unless it was said lately.
    pub fn tell_closed(&self, peer: SocketAddr, reason: CloseReason, now: Instant) {
        let Some(setting) = limit_of(reason) else { return };
        let mut closed = self.closed.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(suppressed) = closed.entry(reason).or_default().may_tell(now) else { return };
        drop(closed);
        info!(%peer, %reason, setting, suppressed, "closed a connection that reached a limit");
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

/// The setting that closes connections for this reason, where it is worth a word: idle ones come
/// and go every day.
fn limit_of(reason: CloseReason) -> Option<&'static str> {
    match reason {
        CloseReason::NoRequest => Some("connection.first.request.timeout.ms"),
        CloseReason::SlowReader => Some("connection.write.stall.timeout.ms"),
        CloseReason::SlowSender => Some("connection.request.timeout.ms"),
        CloseReason::Evicted => Some("queued.max.request.bytes"),
        CloseReason::Disconnected
        | CloseReason::Malformed
        | CloseReason::Oversized
        | CloseReason::Unsupported
        | CloseReason::ProduceFailed
        | CloseReason::Unauthorized
        | CloseReason::Internal
        | CloseReason::Idle
        | CloseReason::Shutdown => None,
    }
}

/// Lets one through in [`PAUSE`] and counts the others.
#[derive(Debug, Default)]
pub(crate) struct Pacer {
    told: Option<Instant>,
    suppressed: u64,
}

impl Pacer {
    /// How many were passed over since the last one, where this one may be told.
    pub fn may_tell(&mut self, now: Instant) -> Option<u64> {
        let lately = |told: Instant| now.saturating_duration_since(told) < PAUSE;
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
    fn a_limit_is_told_of_once_a_minute_with_those_between() {
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
