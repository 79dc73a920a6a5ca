//! How fast connections may come: each takes its share of a second, with one second's worth at
//! once.

use std::time::{Duration, Instant};

/// What may come at once after a pause.
const BURST: Duration = Duration::from_secs(1);

/// A bound on the connections of each second.
#[derive(Debug)]
pub(crate) struct CreationRate {
    /// What one connection takes.
    interval: Duration,
    /// Everything before was taken.
    taken_until: Option<Instant>,
}

impl CreationRate {
    pub fn new(per_second: u32) -> CreationRate {
        assert!(per_second > 0, "a rate of none would let nobody in");
        CreationRate { interval: Duration::from_secs(1) / per_second, taken_until: None }
    }

    /// How long to wait before the next connection.
    pub fn pause(&self, now: Instant) -> Duration {
        self.taken_until.map_or(Duration::ZERO, |until| until.saturating_duration_since(now))
    }

    /// A connection has come.
    pub fn take(&mut self, now: Instant) {
        let unused = now.checked_sub(BURST);
        let until = self.taken_until.max(unused).unwrap_or(now);
        self.taken_until = Some(until + self.interval);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seconds_worth_comes_at_once_and_the_rest_in_time() {
        let start = Instant::now();
        let mut rate = CreationRate::new(10);
        let mut now = start;
        for _ in 0..40 {
            now += rate.pause(now);
            rate.take(now);
        }
        let took = now.duration_since(start).as_millis();
        assert!((2900..=3000).contains(&took), "{took} ms for 40 at 10 a second");
        now += Duration::from_secs(60);
        for _ in 0..10 {
            assert_eq!(rate.pause(now), Duration::ZERO);
            rate.take(now);
        }
        rate.take(now);
        assert_eq!(rate.pause(now), Duration::from_millis(100));
    }
}
