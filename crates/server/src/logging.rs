//! What the process says, and to whom: log lines to stderr, as text or JSON.
//!
//! A line that repeats is left out after a while.

use std::{
    collections::BTreeMap,
    env::{self, VarError},
    io::{self, IsTerminal as _},
};

use tracing_subscriber::{
    EnvFilter, filter::LevelFilter, fmt, layer::SubscriberExt as _, util::SubscriberInitExt as _,
};

use crate::log_throttle::Throttled;

/// Chooses levels in the usual form: `debug`, `info,tidelog_raft=trace`. Wins over the setting.
const VARIABLE: &str = "TIDELOG_LOG";
/// The level of everything that has none of its own. Kafka's name for it.
const ROOT: &str = "root";

/// How lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Plain,
    /// One JSON object a line, for machines.
    Json,
}

/// A level for everything, and others for some modules.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Levels {
    root: LevelFilter,
    modules: BTreeMap<String, LevelFilter>,
}

/// Starts logging; `asked` is the setting `logging.level`.
///
/// # Errors
/// When the environment or the setting asks for something that is no level.
pub fn start(format: Format, asked: &str) -> Result<(), String> {
    let (origin, text) = match env::var(VARIABLE) {
        Ok(text) if !text.trim().is_empty() => (VARIABLE, text),
        Ok(_) | Err(VarError::NotPresent) => ("logging.level", asked.to_owned()),
        Err(VarError::NotUnicode(text)) => (VARIABLE, text.to_string_lossy().into_owned()),
    };
    let levels =
        Levels::parse(&text).map_err(|expected| format!("{origin}={text:?}: {expected}"))?;
    let lines = fmt::layer().with_writer(io::stderr);
    let registry = tracing_subscriber::registry().with(levels.filter());
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
    Ok(())
}

/// No module has this name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no logger: expected root, or a module such as tidelog_raft")]
pub struct UnknownLogger(pub String);

impl Levels {
    /// A lone word must be a level: otherwise it would name a module, and nothing at all be logged.
    fn parse(text: &str) -> Result<Levels, String> {
        let expected = || {
            "expected off, error, warn, info, debug or trace, or module=level, separated by commas"
                .to_owned()
        };
        let mut levels = Levels { root: LevelFilter::ERROR, modules: BTreeMap::new() };
        for part in text.split(',').map(str::trim) {
            let (module, level) = part.split_once('=').unwrap_or((ROOT, part));
            let level = level.trim();
            if level.is_empty() {
                return Err(expected());
            }
            let level = level.parse().map_err(|_| expected())?;
            levels.set(module.trim(), level).map_err(|_| expected())?;
        }
        Ok(levels)
    }

    fn set(&mut self, logger: &str, level: LevelFilter) -> Result<(), UnknownLogger> {
        if logger == ROOT {
            self.root = level;
            return Ok(());
        }
        let is_module = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
        if logger.is_empty() || !logger.chars().all(is_module) {
            return Err(UnknownLogger(logger.to_owned()));
        }
        self.modules.insert(logger.to_owned(), level);
        Ok(())
    }

    fn filter(&self) -> EnvFilter {
        let modules = self.modules.iter().map(|(module, level)| format!("{module}={level}"));
        let text: Vec<String> = [self.root.to_string()].into_iter().chain(modules).collect();
        EnvFilter::new(text.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_is_read_and_anything_else_refused() {
        for text in ["info", "debug", "OFF", "info,tidelog_raft=trace", "warn, tidelog_wal=debug"] {
            assert!(Levels::parse(text).is_ok(), "{text}");
        }
        for text in ["bogus", "tidelog_raft", "info,bogus", "tidelog_raft=loud", "a b=info", ""] {
            assert!(Levels::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_module_keeps_its_level_whatever_the_roots_is() {
        let mut levels = Levels::parse("warn,tidelog_raft=trace").expect("levels");
        levels.set(ROOT, LevelFilter::DEBUG).expect("the root");
        assert_eq!(levels.filter().to_string(), "tidelog_raft=trace,debug");
        assert!(levels.set("no module", LevelFilter::DEBUG).is_err());
    }
}
