//! Adds up the bytes of each log's segments after a start, which looks at names only.

use std::sync::atomic::Ordering;

use super::Spill;

/// Logs that are measured between two looks at what else there is to do.
const LOGS_A_STEP: usize = 8;

impl Spill {
    /// Measures some of the logs that nobody has looked at since the start; whether there were any.
    pub(super) fn measure_some(&mut self) -> bool {
        let rest = self.unmeasured.len().saturating_sub(LOGS_A_STEP);
        let some = self.unmeasured.split_off(rest);
        for id in &some {
            // Removed meanwhile, or not.
            let log = self.shard.logs().get(id).cloned();
            if let (Some(log), Some(segments)) = (log, self.segments.get(id)) {
                log.segment_bytes.store(segments.bytes(), Ordering::Release);
            }
        }
        !some.is_empty()
    }
}
