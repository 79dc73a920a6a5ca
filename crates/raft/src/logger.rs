//! raft-rs logs through slog; this is the one bridge to tracing.

use slog::{Drain, Level, Logger, Never, OwnedKVList, Record, o};
use tracing::{debug, error, trace, warn};

/// The logger handed to raft-rs. Its chatter at info (every vote, every snapshot) is our debug:
/// what an operator would tell a colleague is logged by the node itself.
pub(crate) fn bridge() -> Logger {
    Logger::root(Bridge, o!())
}

struct Bridge;

impl Drain for Bridge {
    type Ok = ();
    type Err = Never;

    fn log(&self, record: &Record<'_>, _: &OwnedKVList) -> Result<(), Never> {
        let module = record.module();
        match record.level() {
            Level::Critical | Level::Error => error!(target: "raft", module, "{}", record.msg()),
            Level::Warning => warn!(target: "raft", module, "{}", record.msg()),
            Level::Info | Level::Debug => debug!(target: "raft", module, "{}", record.msg()),
            Level::Trace => trace!(target: "raft", module, "{}", record.msg()),
        }
        Ok(())
    }
}
