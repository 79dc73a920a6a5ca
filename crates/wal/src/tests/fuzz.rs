//! The corpus of the fuzz target `wal_recovery`, without a fuzzer.

#[path = "../../../../tests/fuzz/bodies/wal_recovery.rs"]
mod body;
#[path = "../../../../tests/fuzz/bodies/corpus.rs"]
mod corpus;

#[test]
fn every_input_of_the_corpus_passes() {
    corpus::replay("wal_recovery", body::run);
}

#[test]
fn an_input_meets_the_same_directories_whenever_it_is_played() {
    for end in 0..body::ENDS {
        let [first, second] = [body::image(end), body::image(end)];
        assert_eq!(first.files(), second.files(), "directory {end}");
        for path in first.files() {
            let same = first.contents(&path).unwrap() == second.contents(&path).unwrap();
            assert!(same, "directory {end}: {}", path.display());
        }
    }
}
