//! Fuzzes `bodies/shape.rs`.

#![no_main]

#[path = "../bodies/shape.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|data: &[u8]| body::run(data));
