//! The corpus of the fuzz target `wal_recovery`, without a fuzzer.

#[path = "../../../../tests/fuzz/bodies/wal_recovery.rs"]
mod body;
#[path = "../../../../tests/fuzz/bodies/corpus.rs"]
mod corpus;

#[test]
fn every_input_of_the_corpus_passes() {
    corpus::replay("wal_recovery", body::run);
}
