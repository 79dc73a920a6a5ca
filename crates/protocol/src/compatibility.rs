//! The generated part of `docs/compatibility.md`.

use std::fmt::Write as _;

use crate::api_versions::{Api, TABLE};

/// The table of served APIs and versions as Markdown.
#[must_use]
pub fn served_apis() -> String {
    let mut text = String::from(
        "| key | API | advertised | served | flexible from |\n\
         |---:|---|---|---|---:|\n",
    );
    for api in TABLE {
        let row = row(api);
        let written = writeln!(text, "{row}");
        assert!(written.is_ok(), "writing to a String cannot fail");
    }
    text
}

fn row(api: &Api) -> String {
    let Api { key, name, advertised_min, served_min, max, flexible_from, .. } = api;
    let key = key.code();
    format!("| {key} | {name} | {advertised_min}–{max} | {served_min}–{max} | {flexible_from} |")
}
