//! What the process says, and to whom: log lines to stderr, plain text.

use std::{
    env::{self, VarError},
    io::{self, IsTerminal as _},
};

use tracing_subscriber::{EnvFilter, filter::LevelFilter};

/// Chooses levels in the usual form: `debug`, `info,tidelog_raft=trace`.
const VARIABLE: &str = "TIDELOG_LOG";

/// Starts logging.
///
/// # Errors
/// When the environment asks for something that is no level.
pub fn start() -> Result<(), String> {
    let asked = match env::var(VARIABLE) {
        Ok(text) if !text.trim().is_empty() => text,
        Ok(_) | Err(VarError::NotPresent) => "info".to_owned(),
        Err(VarError::NotUnicode(text)) => text.to_string_lossy().into_owned(),
    };
    tracing_subscriber::fmt()
        .with_env_filter(filter(&asked)?)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .with_target(false)
        .init();
    Ok(())
}

/// A lone word must be a level: otherwise it would name a module, and nothing at all be logged.
fn filter(text: &str) -> Result<EnvFilter, String> {
    let refused = || {
        format!(
            "{VARIABLE}={text:?}: expected off, error, warn, info, debug or trace, or \
             module=level, separated by commas"
        )
    };
    let is_lawful = |part: &str| part.contains('=') || part.parse::<LevelFilter>().is_ok();
    let parts: Vec<&str> = text.split(',').map(str::trim).collect();
    if !parts.iter().all(|part| is_lawful(part)) {
        return Err(refused());
    }
    EnvFilter::try_new(parts.join(",")).map_err(|_| refused())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_is_read_and_anything_else_refused() {
        for text in ["info", "debug", "OFF", "info,tidelog_raft=trace", "warn, tidelog_wal=debug"] {
            assert!(filter(text).is_ok(), "{text}");
        }
        for text in ["bogus", "tidelog_raft", "info,bogus", "tidelog_raft=loud"] {
            assert!(filter(text).is_err(), "{text}");
        }
    }
}
