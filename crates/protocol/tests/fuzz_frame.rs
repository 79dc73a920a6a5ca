//! The corpus of the fuzz target `frame`, without a fuzzer.

#[path = "../../../tests/fuzz/bodies/frame.rs"]
mod body;
#[path = "../../../tests/fuzz/bodies/corpus.rs"]
mod corpus;

#[test]
fn every_input_of_the_corpus_passes() {
    corpus::replay("frame", body::run);
}
