//! The generated part of `docs/configuration.md`.

use std::fmt::Write as _;

use tidelog_types::{
    property::Property,
    topic_settings::{Support, TopicSettings},
};

use crate::{config::NodeSettings, topic_config::broker_synonyms};

/// The heading of both tables.
const COLUMNS: &str = "| key | default | accepts | what it does |\n|---|---|---|---|\n";

/// A node's settings and a topic's, as Markdown tables.
#[must_use]
pub fn tables() -> String {
    let mut text = format!("## A node's settings\n\n{COLUMNS}");
    for property in NodeSettings::properties() {
        let note = match property.dynamic {
            true => format!("{} Can be changed while the broker runs.", property.doc),
            false => property.doc.to_owned(),
        };
        row(&mut text, property, &note);
    }
    text.push_str("\n## A topic's settings\n\n");
    text.push_str(COLUMNS);
    for property in TopicSettings::PROPERTIES {
        let support = TopicSettings::support(property.key).expect("every setting has a support");
        let mut note = property.doc.to_owned();
        match support {
            Support::NotYet(reason) => append(&mut note, "Only the default", reason),
            Support::Accepted(reason) => append(&mut note, "Without effect", reason),
            Support::Honoured => {}
        }
        let keys = broker_synonyms(property.key).iter().map(|synonym| format!("`{}`", synonym.key));
        let keys: Vec<String> = keys.collect();
        if !keys.is_empty() {
            note.push_str(&format!(" Default from {}.", keys.join(", else ")));
        }
        row(&mut text, property, &note);
    }
    text
}

fn append(note: &mut String, what: &str, reason: &str) {
    note.push_str(&format!(" {what}: {reason}."));
}

fn row(text: &mut String, property: &Property, doc: &str) {
    let default = match property.default {
        "" => "(empty)".to_owned(),
        default => format!("`{default}`"),
    };
    let written =
        writeln!(text, "| `{}` | {default} | {} | {doc} |", property.key, property.expected());
    assert!(written.is_ok(), "writing to a String cannot fail");
}
