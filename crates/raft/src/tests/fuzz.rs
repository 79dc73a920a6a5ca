//! The corpus of the fuzz target `raft_recovery`, without a fuzzer.

#[path = "../../../../tests/fuzz/bodies/raft_recovery.rs"]
mod body;
#[path = "../../../../tests/fuzz/bodies/corpus.rs"]
mod corpus;

#[test]
fn every_input_of_the_corpus_passes() {
    corpus::replay("raft_recovery", body::run);
}
