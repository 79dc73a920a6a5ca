//! Replays what the fuzzer kept, in the ordinary suite.

use std::{fs, path::Path};

/// Runs a target's body on every input of its corpus, in the order of their names.
pub fn replay(target: &str, run: fn(&[u8])) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fuzz/corpus");
    let listed = fs::read_dir(root.join(target)).expect("the target has a corpus");
    let mut paths: Vec<_> = listed.map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    assert!(paths.len() >= 10, "{target}: only {} inputs", paths.len());
    for path in paths {
        let input = fs::read(&path).expect("an input");
        eprintln!("{}", path.display()); // shown where it fails
        run(&input);
    }
}
