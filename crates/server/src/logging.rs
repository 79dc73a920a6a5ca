//! What the process says, and to whom: log lines to stderr, plain text.

use std::io::{self, IsTerminal as _};

use tracing_subscriber::EnvFilter;

/// Starts logging. `TIDELOG_LOG` chooses levels in the usual form: `debug`, `tidelog_raft=trace`.
pub fn start() {
    let filter = EnvFilter::try_from_env("TIDELOG_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .with_target(false)
        .init();
}
