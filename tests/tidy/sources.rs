//! What every file owes its reader.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// Kafka has a word for each of these.
const SYNONYMS: &[(&str, &str)] = &[
    ("high_water_mark", "high_watermark"),
    ("last_offset_plus_one", "log_end_offset"),
    ("in_sync_replicas", "isr"),
    ("leader_term", "leader_epoch"),
    ("start_offset_of_log", "log_start_offset"),
];

/// Banned in what is not a test, and why.
const BANNED: &[(&str, &str)] = &[
    (".unwrap()", "unwrap() outside tests: give an error, or `expect` with the reason"),
    ("unbounded_channel(", "unbounded: everything that waits is bounded"),
    ("unbounded()", "unbounded: everything that waits is bounded"),
    ("std::sync::mpsc::channel(", "mpsc::channel is not bounded: use sync_channel"),
    ("block_in_place(", "block_in_place: a task never blocks"),
    ("thread::sleep(", "thread::sleep: wait for a condition or a deadline"),
];

/// Where a banned word is what it should be, and why.
const ALLOWED: &[(&str, &str)] = &[
    // Counts nothing: its owner bounds it in bytes.
    ("crates/raft/", "LruCache::unbounded()"),
    // A load tool keeps a pace.
    ("crates/bench/", "thread::sleep("),
];

/// Crates without clocks, threads, files or sockets, whose order must be the same everywhere.
const PURE: &[&str] = &["types", "protocol", "metadata", "replica", "coordinator"];

/// Crates where a wrong state that goes on costs records.
const ASSERTING: &[&str] = &["metadata", "replica", "coordinator", "wal", "raft"];

const ASSERTIONS_PER_THOUSAND_LINES: usize = 5;
/// A crate that is only begun has nothing to assert yet.
const ASSERTING_LINES_MIN: usize = 100;
const LINES_BEFORE_TESTS_MAX: usize = 600;
const COLUMNS_MAX: usize = 100;

/// Below these lie the folders of one user on somebody's machine.
const MACHINE_PATHS: &[&str] = &["/home/", "/root/", "/Users/"];

/// A file of the project: its path below the root, and its text.
pub struct Source {
    path: PathBuf,
    text: String,
}

/// Whether the walk goes into a folder.
#[derive(Debug, PartialEq, Eq)]
pub enum Visit {
    Enter,
    Skip,
}

impl Source {
    pub fn new(path: &str, text: &str) -> Source {
        Source { path: PathBuf::from(path), text: text.to_owned() }
    }

    pub fn is_rust(&self) -> bool {
        self.path.extension().is_some_and(|extension| extension == "rs")
    }

    /// The crate's short name, for `crates/<name>/..`.
    fn crate_name(&self) -> Option<&str> {
        self.path.strip_prefix("crates").ok()?.iter().next()?.to_str()
    }

    fn is_test(&self) -> bool {
        let folders = self.path.parent().into_iter().flatten();
        let stem = self.path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        folders.clone().any(|folder| folder == "tests" || folder == "benches")
            || stem == "tests"
            || stem.ends_with("_tests")
            || stem.ends_with("_test")
    }

    /// The lines that are part of the product: none in a test, all before `mod tests` elsewhere.
    fn product_lines(&self) -> Vec<&str> {
        let lines: Vec<&str> = self.text.lines().collect();
        if self.is_test() {
            return Vec::new();
        }
        let tests = lines.windows(2).position(|pair| {
            pair[0].trim_start().starts_with("#[cfg(test)]")
                && pair[1].trim_start().starts_with("mod ")
                && pair[1].trim_end().ends_with('{')
        });
        lines[..tests.unwrap_or(lines.len())].to_vec()
    }
}

/// Every text file below `root` that a person wrote.
pub fn read(root: &Path) -> Vec<Source> {
    let mut files = Vec::new();
    walk(root, root, &mut files);
    files
}

fn walk(root: &Path, dir: &Path, files: &mut Vec<Source>) {
    for entry in fs::read_dir(dir).expect("a folder of the project") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if path.is_dir() {
            if visit(name) == Visit::Enter {
                walk(root, &path, files);
            }
        } else if name == ".git" {
            // In a linked work tree this is a file that says where the repository lies.
        } else if let Ok(text) = fs::read_to_string(&path) {
            let path = path.strip_prefix(root).expect("a file below the root").to_owned();
            files.push(Source { path, text });
        }
    }
}

/// Folders that tools make, not people, are skipped.
pub fn visit(folder: &str) -> Visit {
    match folder {
        "target" | ".git" | ".work" | "tidelog-data" | "__pycache__" => Visit::Skip,
        _ => Visit::Enter,
    }
}

/// One sentence for each broken rule.
pub fn check(files: &[Source]) -> Vec<String> {
    let mut problems = Vec::new();
    for file in files {
        check_text(file, &mut problems);
        if file.is_rust() {
            check_rust(file, &mut problems);
        }
    }
    problems
}

fn check_text(file: &Source, problems: &mut Vec<String>) {
    // This file names the paths it forbids.
    if file.path.ends_with("tidy/sources.rs") || file.path.ends_with("tests/tidy.rs") {
        return;
    }
    for (number, line) in numbered(&file.text) {
        // A link has a path too, and a container's own paths are not somebody's machine.
        let named = MACHINE_PATHS.iter().find(|path| line.contains(*path));
        if let Some(path) = named.filter(|_| !line.contains("://")) {
            let at = file.path.display();
            problems.push(format!("{at}:{number}: {path} is a path of one machine"));
        }
    }
}

fn check_rust(file: &Source, problems: &mut Vec<String>) {
    let at = file.path.display();
    if !file.text.starts_with("//! ") {
        problems.push(format!("{at}: no module sentence"));
    }
    let lines = file.product_lines();
    if lines.len() > LINES_BEFORE_TESTS_MAX {
        problems.push(format!("{at}: {} lines, over {LINES_BEFORE_TESTS_MAX} lines", lines.len()));
    }
    for (number, line) in numbered(&file.text) {
        check_line(line, &mut |problem| problems.push(format!("{at}:{number}: {problem}")));
    }
    let pure = file.crate_name().is_some_and(|name| PURE.contains(&name));
    for (number, line) in (1..).zip(lines).filter(|(_, line)| !is_comment(line)) {
        let allowed =
            ALLOWED.iter().any(|(below, word)| file.path.starts_with(below) && line.contains(word));
        for (_, why) in BANNED.iter().filter(|(banned, _)| !allowed && line.contains(banned)) {
            problems.push(format!("{at}:{number}: {why}"));
        }
        if pure && (line.contains("HashMap") || line.contains("HashSet")) {
            problems.push(format!("{at}:{number}: HashMap in a pure crate: its order is random"));
        }
    }
}

fn check_line(line: &str, problem: &mut dyn FnMut(String)) {
    if line.chars().count() > COLUMNS_MAX && !line.contains("https://") {
        problem(format!("over {COLUMNS_MAX} columns"));
    }
    for (synonym, word) in SYNONYMS.iter().filter(|(synonym, _)| line.contains(synonym)) {
        // The list of synonyms is the one place that names them.
        if !line.trim_start().starts_with("(\"") {
            problem(format!("{synonym} is {word} here"));
        }
    }
    let task = line.split("issue ").skip(1).any(|rest| rest.starts_with(char::is_numeric));
    if is_comment(line) && task {
        problem("names a task: say why, not when".to_owned());
    }
}

/// Crates of `ASSERTING` with too few assertions outside tests.
pub fn check_assertions(files: &[Source]) -> Vec<String> {
    let mut counted: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for file in files.iter().filter(|file| file.is_rust()) {
        let Some(name) = file.crate_name().filter(|name| ASSERTING.contains(name)) else {
            continue;
        };
        let lines = file.product_lines();
        let assertions = lines.iter().filter(|line| is_assertion(line)).count();
        let counts = counted.entry(name).or_default();
        *counts = (counts.0 + assertions, counts.1 + lines.len());
    }
    let too_few = counted.into_iter().filter(|(_, (assertions, lines))| {
        *lines >= ASSERTING_LINES_MIN && assertions * 1_000 < lines * ASSERTIONS_PER_THOUSAND_LINES
    });
    too_few.map(|(name, (has, lines))| format!("{name}: {has} in {lines} lines")).collect()
}

fn is_assertion(line: &str) -> bool {
    let line = line.trim_start();
    ["assert", "debug_assert"].iter().any(|word| {
        line.split(word)
            .skip(1)
            .any(|rest| ["!(", "_eq!(", "_ne!("].iter().any(|form| rest.starts_with(form)))
    }) && !is_comment(line)
}

fn is_comment(line: &str) -> bool {
    line.trim_start().starts_with("//")
}

fn numbered(text: &str) -> impl Iterator<Item = (usize, &str)> {
    (1..).zip(text.lines())
}
