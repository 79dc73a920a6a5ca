//! How fast compaction may read and write.
//!
//! Architecture invariant: pure. It is told what time it is.

use std::time::Duration;

/// Time that is made up for at most: who was idle does not then take the disk for himself.
const CREDIT_MAX: Duration = Duration::from_millis(100);

/// Bytes that were read and written, against those that might have been.
#[derive(Debug)]
pub(crate) struct Throttle {
    bytes_per_second: f64,
    /// Until when the bytes so far would have taken at that rate.
    paid_until: Duration,
}

impl Throttle {
    pub(crate) fn new(bytes_per_second: f64) -> Throttle {
        assert!(bytes_per_second > 0.0, "a rate of nothing would never end");
        Throttle { bytes_per_second, paid_until: Duration::ZERO }
    }

    /// Notes bytes that were read or written. Times are since any fixed moment.
    pub(crate) fn spend(&mut self, bytes: u64, now: Duration) {
        let seconds = (bytes as f64 / self.bytes_per_second).min(3600.0);
        let from = self.paid_until.max(now.saturating_sub(CREDIT_MAX));
        self.paid_until = from + Duration::from_secs_f64(seconds);
    }

    /// Whether it must rest.
    pub(crate) fn is_spent(&self, now: Duration) -> bool {
        self.paid_until > now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_than_its_rate_goes_through_in_any_second() {
        let mut throttle = Throttle::new(1000.0);
        let (mut spent, mut now) = (0, Duration::from_secs(50));
        let start = now;
        while now < start + Duration::from_secs(10) {
            if !throttle.is_spent(now) {
                throttle.spend(50, now);
                spent += 50;
            }
            now += Duration::from_millis(1);
        }
        assert!((10_000..=10_150).contains(&spent), "{spent}");
    }

    #[test]
    fn without_a_limit_it_never_rests() {
        let mut throttle = Throttle::new(f64::MAX);
        throttle.spend(u64::MAX, Duration::from_secs(1));
        assert!(!throttle.is_spent(Duration::from_secs(1)));
    }
}
