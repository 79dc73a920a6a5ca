//! Tests of the whole log, over file systems that lose, tear and fail.

mod basic;
mod compaction;
mod fuzz;
mod history;
mod model;
mod recovery;
mod regressions;
mod restarts;
mod retention;
mod room;
mod rules;
mod support;
mod threads;
