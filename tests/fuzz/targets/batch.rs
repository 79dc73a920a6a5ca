//! Fuzzes `bodies/batch.rs`.

#![no_main]

#[path = "../bodies/batch.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|data: &[u8]| body::run(data));
