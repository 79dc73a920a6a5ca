//! Generates the protobuf types of the metadata records, in pure Rust: no protoc is needed.

use std::{env, error::Error, fs, path::Path};

use protobuf_codegen_pure::{Codegen, Customize};

const SCHEMA: &str = "proto/metadata.proto";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={SCHEMA}");
    let out_dir = env::var("OUT_DIR")?;
    // Not the lite runtime: it panics where a required field is missing.
    let customize = Customize { carllerche_bytes_for_bytes: Some(true), ..Customize::default() };
    Codegen::new().out_dir(&out_dir).input(SCHEMA).include("proto").customize(customize).run()?;
    strip_inner_attributes(&Path::new(&out_dir).join("metadata.rs"))
}

/// A file that is included cannot have attributes of its own; the module that includes it has.
fn strip_inner_attributes(file: &Path) -> Result<(), Box<dyn Error>> {
    let generated = fs::read_to_string(file)?;
    let is_inner = |line: &&str| line.starts_with("#![") || line.starts_with("//!");
    let kept: Vec<&str> = generated.lines().filter(|line| !is_inner(line)).collect();
    Ok(fs::write(file, kept.join("\n"))?)
}
