//! Who may depend on whom, read from every dependency table of every manifest.

use std::path::Path;

use cargo_metadata::{DependencyKind, MetadataCommand, Package};

/// A crate, the crates of ours it may use, and the crates with effects it may use.
struct Layer {
    name: &'static str,
    ours: &'static [&'static str],
    effects: &'static [&'static str],
}

/// Think about the layering of the whole project before changing this table.
const LAYERS: &[Layer] = &[
    Layer { name: "types", ours: &[], effects: &[] },
    Layer { name: "protocol", ours: &["types"], effects: &[] },
    Layer { name: "metadata", ours: &["types"], effects: &[] },
    Layer { name: "replica", ours: &["types"], effects: &[] },
    Layer { name: "coordinator", ours: &["types", "metadata"], effects: &[] },
    Layer { name: "wal", ours: &["types"], effects: &["crossbeam", "rustix", "libc"] },
    Layer { name: "raft", ours: &["types", "wal"], effects: &["crossbeam", "tokio", "raft"] },
    Layer { name: "net", ours: &["types", "protocol"], effects: &["tokio", "rustix", "socket2"] },
    Layer {
        name: "broker",
        ours: &["types", "protocol", "metadata", "replica", "coordinator", "wal", "raft", "net"],
        effects: &["crossbeam", "tokio"],
    },
    Layer {
        name: "server",
        ours: &["types", "protocol", "metadata", "wal", "raft", "net", "broker", "bench"],
        effects: &["tokio", "axum", "hyper", "clap", "figment", "rustix", "crossbeam"],
    },
    Layer {
        name: "bench",
        ours: &["types", "protocol", "net"],
        effects: &["tokio", "clap", "rustix"],
    },
    Layer {
        name: "sim",
        ours: &["types", "metadata", "replica", "coordinator", "wal", "raft"],
        effects: &[],
    },
];

/// Packages that judge the others from outside, and so may use any of them.
const JUDGES: &[&str] = &["tidelog-tests", "tidelog-benches"];

/// Crates that bring a runtime, threads, sockets, files or a command line. A name stands for its
/// family too: `crossbeam` for `crossbeam-channel`.
const EFFECTS: &[&str] = &[
    "async-std",
    "axum",
    "clap",
    "crossbeam",
    "figment",
    "hyper",
    "libc",
    "mio",
    "nix",
    "raft",
    "rayon",
    "rustix",
    "smol",
    "socket2",
    "tokio",
];

/// The packages of the workspace at `root`, without resolving what they depend on.
pub fn read(root: &Path) -> Vec<Package> {
    MetadataCommand::new()
        .manifest_path(root.join("Cargo.toml"))
        .no_deps()
        .other_options(["--offline".to_owned()])
        .exec()
        .expect("cargo reads the manifests")
        .workspace_packages()
        .into_iter()
        .cloned()
        .collect()
}

/// One sentence for each arrow that the table does not have.
pub fn check(packages: &[Package]) -> Vec<String> {
    let judged = packages.iter().filter(|package| !JUDGES.contains(&package.name.as_str()));
    judged.flat_map(check_package).collect()
}

fn check_package(package: &Package) -> Vec<String> {
    let name = package.name.as_str();
    let Some(layer) = LAYERS.iter().find(|layer| name.strip_prefix("tidelog-") == Some(layer.name))
    else {
        return vec![format!("{name}: not in the table of layers")];
    };
    let mut problems = Vec::new();
    for dependency in &package.dependencies {
        if !layer.allows(&dependency.name, dependency.kind) {
            let table = format!("{:?}", dependency.kind).to_lowercase();
            let on = &dependency.name;
            problems.push(format!("{name}: may not depend on {on} (a {table} dependency)"));
        }
    }
    problems
}

impl Layer {
    fn allows(&self, dependency: &str, kind: DependencyKind) -> bool {
        if let Some(ours) = dependency.strip_prefix("tidelog-") {
            // A crate may switch on its own test features for its own tests.
            let itself = ours == self.name && kind == DependencyKind::Development;
            return itself || self.ours.contains(&ours);
        }
        let Some(family) = EFFECTS.iter().find(|effect| is_family(dependency, effect)) else {
            return true;
        };
        self.effects.contains(family)
    }
}

fn is_family(dependency: &str, effect: &str) -> bool {
    dependency.strip_prefix(effect).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
}
