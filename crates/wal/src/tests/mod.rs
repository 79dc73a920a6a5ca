//! Tests of the whole log, over file systems that lose, tear and fail.

mod basic;
mod history;
mod model;
mod regressions;
mod rules;
mod support;
