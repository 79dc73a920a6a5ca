//! Settings from a TOML file, laid over the defaults and under the command line.
//!
//! A table's name is a prefix: `[wal]` with `"queue.max.bytes" = 1048576` is the same as
//! `"wal.queue.max.bytes" = 1048576`. Numbers, booleans and text are all read as text, so that one
//! check says what is wrong with a value.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use figment::{
    Figment,
    providers::{Format as _, Toml},
    value::{Dict, Value},
};
use tidelog_broker::config::{BrokerSettings, ConfigError, NodeSettings};
use tidelog_types::property::PropertyError;

use crate::kafka_keys;

/// Where a setting comes from that is not in a file.
const COMMAND_LINE: &str = "command line";

/// Why the settings cannot be used, as the operator wrote them.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The file is not there.
    #[error("{path}: no such file", path = .0.display())]
    Missing(PathBuf),
    /// It is something else than a file.
    #[error("{path}: not a file", path = .0.display())]
    NoFile(PathBuf),
    /// The file is not TOML.
    #[error("{path}: {what}", path = .path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Where and why.
        what: String,
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
    /// A setting of Kafka's that is none of a node's.
    #[error("{origin}: {key:?} is {what}")]
    KafkaOnly {
        /// The file, or the command line.
        origin: String,
        /// As written.
        key: String,
        /// What it is instead.
        what: String,
    },
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
    let mut origins = BTreeMap::new();
    if let Some(path) = file {
        let origin = path.display().to_string();
        for (key, value) in read(path)? {
            set(&mut settings, &key, &value, &origin)?;
            origins.insert(key, origin.clone());
        }
    }
    for (key, value) in flags {
        set(&mut settings, key, value, COMMAND_LINE)?;
        origins.insert(key.clone(), COMMAND_LINE.to_owned());
    }
    check_places(&settings.broker).map_err(|source| {
        let origin = origins.get(source.key()).map_or("default", String::as_str).to_owned();
        SettingsError::Setting { origin, source }
    })?;
    Ok(settings)
}

/// What was asked for a setting, as far as that can be told where not all settings can be used.
pub fn value(file: Option<&Path>, flags: &[(String, String)], key: &str) -> Option<String> {
    let in_file = file.and_then(|path| read(path).ok()).unwrap_or_default();
    let asked = in_file.iter().chain(flags).rev().find(|(asked, _)| asked == key);
    asked.map(|(_, value)| value.clone())
}

fn set(
    settings: &mut NodeSettings,
    key: &str,
    value: &str,
    origin: &str,
) -> Result<(), SettingsError> {
    settings.set(key, value).map_err(|source| {
        let (origin, key) = (origin.to_owned(), key.to_owned());
        match (&source, kafka_keys::explain(&key)) {
            (PropertyError::Unknown { .. }, Some(what)) => {
                SettingsError::KafkaOnly { origin, key, what }
            }
            _ => SettingsError::Setting { origin, source: source.into() },
        }
    })
}

/// Where data lies and where clients connect: more than a table of settings can check.
fn check_places(settings: &BrokerSettings) -> Result<(), ConfigError> {
    settings.data_dir()?;
    settings.listener()?;
    settings.advertised(1)?;
    settings.admin()?;
    Ok(())
}

fn read(path: &Path) -> Result<Vec<(String, String)>, SettingsError> {
    if !path.exists() {
        return Err(SettingsError::Missing(path.to_owned()));
    }
    if path.is_dir() {
        return Err(SettingsError::NoFile(path.to_owned()));
    }
    let extracted = Figment::from(Toml::file_exact(path)).extract::<Dict>();
    let dict = extracted.map_err(|error| {
        // The rest of what it says is the file's name again.
        let what = error.kind.to_string().trim_end().to_owned();
        SettingsError::Syntax { path: path.to_owned(), what }
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
                // The setting's own check says whether a fraction will do.
                (None, None) => number.to_f64().ok_or_else(|| shape(path, &key))?.to_string(),
            },
            Value::Char(..) | Value::Empty(..) | Value::Array(..) => {
                return Err(shape(path, &key));
            }
        };
        settings.push((key, text));
    }
    Ok(())
}

fn shape(path: &Path, key: &str) -> SettingsError {
    SettingsError::Shape { path: path.to_owned(), key: key.to_owned() }
}

#[cfg(test)]
mod tests {
    use tidelog_types::property::Kind;

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
                "node.toml: num.partitions = \"0\": expected a whole number from 1 to PARTITIONS",
            ),
            (
                "\"num.partitions\" = [1]",
                "node.toml: num.partitions: expected text, a number, true or false",
            ),
            (
                "\"num.partitions\" = 3.5",
                "node.toml: num.partitions = \"3.5\": expected a whole number from 1 to PARTITIONS",
            ),
            (
                "\"log.cleaner.threads\" = 3",
                "node.toml: \"log.cleaner.threads\" is not honoured: one thread compacts logs, and \
                 its buffers are as large as they must be",
            ),
            (
                "\"log.dirs\" = \"/a,/b\"",
                "node.toml: log.dirs = \"/a,/b\": expected one directory: several are not \
                 supported",
            ),
            (
                "listeners = \"9092\"",
                "node.toml: listeners = \"9092\": expected one listener, such as \
                 PLAINTEXT://localhost:9092",
            ),
            (
                "\"admin.listener\" = \"9644\"",
                "node.toml: admin.listener = \"9644\": expected host:port, such as 127.0.0.1:9644",
            ),
        ] {
            let partitions = BrokerSettings::PROPERTIES.iter().find(|p| p.key == "num.partitions");
            let Some(Kind::Int { max, .. }) = partitions.map(|property| property.kind) else {
                panic!("a number of partitions is a number");
            };
            let message = message.replace("PARTITIONS", &max.to_string());
            assert_eq!(load_text(text), Err(message), "{text}");
        }
        let broken = load_text("x = = 3").expect_err("no TOML");
        assert!(broken.starts_with("node.toml: TOML parse error at line 1"), "{broken}");
        assert!(!broken.contains("TOML file"), "the file is named once: {broken}");
        let missing = load(Some(Path::new("/nowhere/node.toml")), &[]);
        let message = missing.map_err(|error| error.to_string());
        assert_eq!(message, Err("/nowhere/node.toml: no such file".to_owned()));
        let directory = load(Some(Path::new("/")), &[]).map_err(|error| error.to_string());
        assert_eq!(directory, Err("/: not a file".to_owned()));
    }

    #[test]
    fn a_flag_wins_over_the_default() {
        let flags = [("node.id".to_owned(), "7".to_owned())];
        assert_eq!(load(None, &flags).expect("lawful").broker.node_id, 7);
    }
}
