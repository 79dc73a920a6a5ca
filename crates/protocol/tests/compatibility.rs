//! Keeps `docs/compatibility.md` in step with the table that the broker serves from.

use std::{env, fs, path::Path};

use tidelog_protocol::compatibility;

const BEGIN: &str = "<!-- generated: begin -->\n";
const END: &str = "<!-- generated: end -->\n";
const REGENERATE: &str = "TIDELOG_REGENERATE=1 cargo test -p tidelog-protocol --test compatibility";

#[test]
fn the_documentation_lists_what_is_served() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/compatibility.md");
    let document = fs::read_to_string(&path).expect("docs/compatibility.md is readable");
    let (head, rest) = document.split_once(BEGIN).expect("the generated part begins");
    let (tables, tail) = rest.split_once(END).expect("the generated part ends");
    let expected = compatibility::tables();
    if env::var_os("TIDELOG_REGENERATE").is_some() {
        let document = [head, BEGIN, &expected, END, tail].concat();
        fs::write(&path, document).expect("docs/compatibility.md is writable");
        return;
    }
    assert_eq!(tables, expected, "docs/compatibility.md is stale; run\n    {REGENERATE}");
}
