//! Settings from a TOML file, laid over the defaults and under the command line.
//!
//! A table's name is a prefix: `[wal]` with `"queue.max.bytes" = 1048576` is the same as
//! `"wal.queue.max.bytes" = 1048576`. Numbers, booleans and text are all read as text, so that one
//! check says what is wrong with a value.

use std::path::{Path, PathBuf};

use figment::{
    Figment,
    providers::{Format as _, Toml},
    value::{Dict, Value},
};
use tidelog_broker::config::{BrokerSettings, ConfigError, NodeSettings};

/// Why the settings cannot be used, as the operator wrote them.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The file is not there.
    #[error("{path}: no such file", path = .0.display())]
    Missing(PathBuf),
    /// The file is not TOML.
    #[error("{path}: {source}", path = .path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: Box<figment::Error>,
    },
    /// A value is neither text, number nor boolean.
    #[error("{path}: {key}: expected text, a number, true or false", path = .path.display())]
    Shape {
        /// The file.
        path: PathBuf,
        /// The setting.
        key: String,
    },
    /// One setting is unknown or has a value that it cannot have.
    #[error("{origin}: {source}")]
    Setting {
        /// The file, or the command line.
        origin: String,
        /// What is wrong.
        source: ConfigError,
    },
    /// A flag is malformed.
    #[error("{0}")]
    Flag(String),
}

/// Defaults, then the file, then the flags.
///
/// # Errors
/// Every problem names the setting, its value, what was expected, and the file.
pub fn load(
    file: Option<&Path>,
    flags: &[(String, String)],
) -> Result<NodeSettings, SettingsError> {
    let mut settings = NodeSettings::default();
    if let Some(path) = file {
        let origin = path.display().to_string();
        for (key, value) in read(path)? {
            set(&mut settings, &key, &value, &origin)?;
        }
    }
    for (key, value) in flags {
        set(&mut settings, key, value, "command line")?;
    }
    check_endpoints(&settings.broker)?;
    Ok(settings)
}

fn set(
    settings: &mut NodeSettings,
    key: &str,
    value: &str,
    origin: &str,
) -> Result<(), SettingsError> {
    settings.set(key, value).map_err(|source| {
        let origin = origin.to_owned();
        SettingsError::Setting { origin, source: source.into() }
    })
}

fn check_endpoints(settings: &BrokerSettings) -> Result<(), SettingsError> {
    let checked = settings.listener().and(settings.advertised(1).map(|_| ()));
    let checked = checked.and(settings.admin().map(|_| ()));
    checked.map_err(|source| SettingsError::Setting { origin: "settings".to_owned(), source })
}

fn read(path: &Path) -> Result<Vec<(String, String)>, SettingsError> {
    if !path.is_file() {
        return Err(SettingsError::Missing(path.to_owned()));
    }
    let extracted = Figment::from(Toml::file_exact(path)).extract::<Dict>();
    let dict = extracted.map_err(|source| {
        let source = Box::new(source);
        SettingsError::Syntax { path: path.to_owned(), source }
    })?;
    let mut settings = Vec::new();
    flatten(path, String::new(), dict, &mut settings)?;
    Ok(settings)
}

fn flatten(
    path: &Path,
    prefix: String,
    dict: Dict,
    settings: &mut Vec<(String, String)>,
) -> Result<(), SettingsError> {
    for (name, value) in dict {
        let key = if prefix.is_empty() { name } else { format!("{prefix}.{name}") };
        let text = match value {
            Value::Dict(_, inner) => {
                flatten(path, key, inner, settings)?;
                continue;
            }
            Value::String(_, text) => text,
            Value::Bool(_, flag) => flag.to_string(),
            Value::Num(_, number) => match (number.to_i128(), number.to_u128()) {
                (Some(number), _) => number.to_string(),
                (None, Some(number)) => number.to_string(),
                (None, None) => return Err(shape(path, key)),
            },
            Value::Char(..) | Value::Empty(..) | Value::Array(..) => return Err(shape(path, key)),
        };
        settings.push((key, text));
    }
    Ok(())
}

fn shape(path: &Path, key: String) -> SettingsError {
    SettingsError::Shape { path: path.to_owned(), key }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load_text(text: &str) -> Result<NodeSettings, String> {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("node.toml");
        std::fs::write(&path, text).expect("a file");
        let shown = path.display().to_string();
        load(Some(&path), &[]).map_err(|error| error.to_string().replace(&shown, "node.toml"))
    }

    #[test]
    fn a_key_may_be_quoted_dotted_or_in_a_table() {
        for text in [
            "\"wal.queue.max.bytes\" = 1048576",
            "wal.queue.max.bytes = 1048576",
            "[wal]\n\"queue.max.bytes\" = \"1048576\"",
            "[wal.queue]\nmax.bytes = 1048576",
        ] {
            let settings = load_text(text).expect(text);
            assert_eq!(settings.broker.wal_queue_max_bytes, 1_048_576, "{text}");
        }
    }

    #[test]
    fn a_bad_setting_is_named_with_its_value_and_file() {
        for (text, message) in [
            (
                "\"num.partitons\" = 3",
                "node.toml: unknown setting \"num.partitons\"; did you mean \"num.partitions\"?",
            ),
            (
                "\"num.partitions\" = 0",
                "node.toml: num.partitions = \"0\": expected a whole number from 1 to 2147483647",
            ),
            (
                "\"num.partitions\" = [1]",
                "node.toml: num.partitions: expected text, a number, true or false",
            ),
            (
                "listeners = \"9092\"",
                "settings: listeners = \"9092\": expected one listener, such as \
                 PLAINTEXT://localhost:9092",
            ),
        ] {
            assert_eq!(load_text(text), Err(message.to_owned()), "{text}");
        }
        let missing = load(Some(Path::new("/nowhere/node.toml")), &[]);
        let message = missing.map_err(|error| error.to_string());
        assert_eq!(message, Err("/nowhere/node.toml: no such file".to_owned()));
    }

    #[test]
    fn a_flag_wins_over_the_default() {
        let flags = [("node.id".to_owned(), "7".to_owned())];
        assert_eq!(load(None, &flags).expect("lawful").broker.node_id, 7);
    }
}
