//! Keeps `docs/configuration.md` in step with the tables that settings are read by.

use std::{env, fs, path::Path};

use tidelog_broker::config_doc;

const BEGIN: &str = "<!-- generated: begin -->\n";
const END: &str = "<!-- generated: end -->\n";
const REGENERATE: &str = "TIDELOG_REGENERATE=1 cargo test -p tidelog-broker --test configuration";

#[test]
fn the_documentation_lists_every_setting() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/configuration.md");
    let document = fs::read_to_string(&path).expect("docs/configuration.md is readable");
    let (head, rest) = document.split_once(BEGIN).expect("the generated part begins");
    let (tables, tail) = rest.split_once(END).expect("the generated part ends");
    let expected = config_doc::tables();
    if env::var_os("TIDELOG_REGENERATE").is_some() {
        let document = [head, BEGIN, &expected, END, tail].concat();
        fs::write(&path, document).expect("docs/configuration.md is writable");
        return;
    }
    assert_eq!(tables, expected, "docs/configuration.md is stale; run\n    {REGENERATE}");
}
