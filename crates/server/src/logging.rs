//! What the process says, and to whom: log lines to stderr, as text or JSON.
//!
//! The level can change while the process runs. A line that repeats is left out after a while.

use std::{
    env::{self, VarError},
    io::{self, IsTerminal as _},
    sync::{Mutex, PoisonError},
};

use tracing::info;
use tracing_subscriber::{
    EnvFilter, Registry,
    filter::LevelFilter,
    fmt,
    layer::SubscriberExt as _,
    reload::{self, Handle},
    util::SubscriberInitExt as _,
};

use crate::log_throttle::Throttled;

/// Chooses levels in the usual form: `debug`, `info,tidelog_raft=trace`. Wins over the setting,
/// until the setting is changed while the process runs.
const VARIABLE: &str = "TIDELOG_LOG";

/// How lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Plain,
    /// One JSON object a line, for machines.
    Json,
}

impl Format {
    /// What the setting `logging.format` asks for.
    pub fn of(setting: Option<&str>) -> Format {
        if setting == Some("json") { Format::Json } else { Format::Plain }
    }
}

/// The level of what is logged, changed at run time.
pub struct Level {
    /// The value of `logging.level` that was heeded last.
    setting: Mutex<String>,
    handle: Handle<EnvFilter, Registry>,
}

impl Level {
    /// Heeds the setting `logging.level` from now on, if it is not the one that was heeded last.
    pub fn follow(&self, setting: &str) {
        let mut heeded = self.setting.lock().unwrap_or_else(PoisonError::into_inner);
        if *heeded == setting {
            return;
        }
        match filter(setting) {
            Ok(filter) => {
                let reloaded = self.handle.reload(filter);
                reloaded.expect("the subscriber lives as long as the process");
                info!(level = setting, "logging.level was changed");
                setting.clone_into(&mut heeded);
            }
            Err(expected) => tracing::warn!(level = setting, "logging.level: {expected}"),
        }
    }
}

/// Starts logging; `setting` is the value of `logging.level`.
///
/// # Errors
/// When the environment or the setting asks for something that is no level.
pub fn start(format: Format, setting: &str) -> Result<Level, String> {
    let (origin, text) = match env::var(VARIABLE) {
        Ok(text) if !text.trim().is_empty() => (VARIABLE, text),
        Ok(_) | Err(VarError::NotPresent) => ("logging.level", setting.to_owned()),
        Err(VarError::NotUnicode(text)) => (VARIABLE, text.to_string_lossy().into_owned()),
    };
    let filter = filter(&text).map_err(|expected| format!("{origin}={text:?}: {expected}"))?;
    let (filter, handle) = reload::Layer::new(filter);
    let lines = fmt::layer().with_writer(io::stderr);
    let registry = tracing_subscriber::registry().with(filter);
    match format {
        Format::Plain => {
            let ansi = io::stderr().is_terminal();
            let lines = lines.with_ansi(ansi).with_target(false);
            let format = fmt::format().with_ansi(ansi).with_target(false);
            registry.with(lines.event_format(Throttled::new(format))).init();
        }
        Format::Json => {
            let format = fmt::format().json().flatten_event(true);
            registry.with(lines.json().event_format(Throttled::new(format))).init();
        }
    }
    Ok(Level { setting: Mutex::new(setting.to_owned()), handle })
}

/// Writes an ERROR line, whatever the level: the process cannot go on.
pub fn tell_in_json(message: &str) {
    let lines = fmt().json().flatten_event(true).with_writer(io::stderr).finish();
    tracing::subscriber::with_default(lines, || tracing::error!("{message}"));
}

/// A lone word must be a level: otherwise it would name a module, and nothing at all be logged.
fn filter(text: &str) -> Result<EnvFilter, &'static str> {
    const EXPECTED: &str =
        "expected off, error, warn, info, debug or trace, or module=level, separated by commas";
    let is_lawful = |part: &str| part.contains('=') || part.parse::<LevelFilter>().is_ok();
    let parts: Vec<&str> = text.split(',').map(str::trim).collect();
    if !parts.iter().all(|part| !part.is_empty() && is_lawful(part)) {
        return Err(EXPECTED);
    }
    EnvFilter::try_new(parts.join(",")).map_err(|_| EXPECTED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_is_read_and_anything_else_refused() {
        for text in ["info", "debug", "OFF", "info,tidelog_raft=trace", "warn, tidelog_wal=debug"] {
            assert!(filter(text).is_ok(), "{text}");
        }
        for text in ["bogus", "tidelog_raft", "info,bogus", "tidelog_raft=loud", ""] {
            assert!(filter(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_level_changes_while_lines_are_written() {
        let (layer, handle) = reload::Layer::new(filter("info").expect("a level"));
        let level = Level { setting: Mutex::new("info".to_owned()), handle };
        let subscriber = tracing_subscriber::registry().with(layer);
        tracing::subscriber::with_default(subscriber, || {
            assert!(!tracing::enabled!(tracing::Level::DEBUG));
            level.follow("debug");
            assert!(tracing::enabled!(tracing::Level::DEBUG));
            level.follow("no level");
            assert!(tracing::enabled!(tracing::Level::DEBUG), "what cannot be heeded is not");
            level.follow("info");
            assert!(!tracing::enabled!(tracing::Level::DEBUG));
        });
    }
}
