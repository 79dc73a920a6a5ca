//! The corpus of the fuzz target `shape`, without a fuzzer.

#[path = "../../../tests/fuzz/bodies/shape.rs"]
mod body;
#[path = "../../../tests/fuzz/bodies/corpus.rs"]
mod corpus;

#[test]
fn every_input_of_the_corpus_passes() {
    corpus::replay("shape", body::run);
}
