//! Every setting as a configuration file: what `tidelog settings` prints.

use std::fmt::Write as _;

use tidelog_broker::NodeSettings;
use tidelog_types::{
    property::{Kind, Property},
    topic_settings::{Support, TopicSettings},
};

const HEADING: &str = "\
# Every setting of a node with its default, as a file for `tidelog serve --config FILE`.
";
const TOPIC_HEADING: &str = "
# Topics have settings of their own, given when a topic is created. They do not belong in this file.
";

/// A node's settings as TOML, and a topic's as comments.
pub fn text() -> String {
    let mut text = HEADING.to_owned();
    for property in NodeSettings::properties() {
        let (key, expected) = (property.key, property.expected());
        let value = toml_value(property);
        line(&mut text, format_args!("\n# {}\n# Accepts: {expected}.", property.doc));
        line(&mut text, format_args!("\"{key}\" = {value}"));
    }
    text.push_str(TOPIC_HEADING);
    for property in TopicSettings::PROPERTIES {
        let (key, expected) = (property.key, property.expected());
        line(&mut text, format_args!("#\n# {key} = {}", property.default));
        line(&mut text, format_args!("#     {}", property.doc));
        match TopicSettings::support(key).expect("every setting has a support") {
            Support::NotYet(reason) => {
                line(&mut text, format_args!("#     Accepts: only the default; {reason}."));
            }
            Support::Accepted(reason) => {
                line(&mut text, format_args!("#     Accepts: {expected}. No effect: {reason}."));
            }
            Support::Honoured => line(&mut text, format_args!("#     Accepts: {expected}.")),
        }
    }
    text
}

fn toml_value(property: &Property) -> String {
    match property.kind {
        Kind::Boolean | Kind::Int { .. } | Kind::Long { .. } | Kind::Double { .. } => {
            property.default.to_owned()
        }
        Kind::Text | Kind::Form(_) | Kind::List(_) | Kind::Choice(_) => {
            format!("{:?}", property.default)
        }
    }
}

fn line(text: &mut String, line: std::fmt::Arguments<'_>) {
    let written = writeln!(text, "{line}");
    assert!(written.is_ok(), "writing to a String cannot fail");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config_file;

    #[test]
    fn what_is_printed_is_a_file_that_sets_every_default() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("node.toml");
        std::fs::write(&path, text()).expect("a file");
        let settings = config_file::load(Some(&path), &[]).expect("lawful");
        for property in NodeSettings::properties() {
            assert!(settings.is_explicit(property.key), "{}", property.key);
            assert_eq!(settings.get(property.key).as_deref(), Some(property.default));
        }
    }

    #[test]
    fn every_topic_setting_is_there_as_a_comment() {
        let text = text();
        for property in TopicSettings::PROPERTIES {
            let line = format!("\n# {} = {}\n", property.key, property.default);
            assert!(text.contains(&line), "{}", property.key);
        }
    }
}
