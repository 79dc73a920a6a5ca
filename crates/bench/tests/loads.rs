//! Loads against a broker in this process: what is measured, and what is noticed.

mod mock;

use std::time::Duration;

use clap::Parser;
use mock::{Fault, Mock, MockConfig};
use tidelog_bench::{BenchArgs, Report, measure};

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    bench: BenchArgs,
}

fn run(arguments: &str) -> Report {
    let arguments = ["bench"].into_iter().chain(arguments.split_whitespace());
    measure(&Cli::parse_from(arguments).bench).expect("a load that can be run")
}

fn broker(fault: Fault) -> String {
    let sync_time = Duration::from_micros(100);
    let (_, address) = Mock::start(MockConfig { partitions: 4, sync_time, keep: true, fault }, 1);
    format!("--bootstrap-servers {address} --topic t --quiet")
}

#[test]
fn a_closed_loop_is_answered_and_adds_up() {
    let broker = broker(Fault::None);
    for (load, requests_min) in [
        ("--connections 1 --inflight 1 --batch-records 1", 20),
        ("--connections 20 --inflight 5 --threads 2 --create-topic", 100),
        ("--connections 4 --message-size 100000 --batch-records 10", 2),
        ("--connections 4 --acks 1", 20),
        ("--connections 4 --acks 0", 20),
    ] {
        let report = run(&format!("produce {broker} {load} --duration 400ms --warmup 100ms"));
        assert!(report.is_clean(), "{load}: {report:?}");
        assert!(report.requests > requests_min, "{load}: {report:?}");
        assert!(report.latency_ms.max > 0.0 && report.latency_ms.max < 10_000.0, "{report:?}");
    }
    let report = run(&format!("consume {broker} --connections 3 --check-crcs --duration 10s"));
    assert!(report.is_clean() && report.records > 1_000, "{report:?}");
    assert!(report.seconds < 9.0, "the end of the log ends the run: {report:?}");
}

#[test]
fn an_open_loop_keeps_its_rate() {
    let broker = broker(Fault::None);
    let load = "--connections 8 --rate 2000 --duration 1s --warmup 200ms --batch-records 1";
    let report = run(&format!("produce {broker} {load}"));
    assert!(report.is_clean(), "{report:?}");
    let per_second = report.requests_per_second;
    assert!((1_500.0..2_500.0).contains(&per_second), "{report:?}");
}

#[test]
fn a_broker_that_errs_is_found_out() {
    let load = "--connections 2 --duration 200ms --warmup 0s";
    let refusing = run(&format!("produce {} {load}", broker(Fault::Refuses)));
    assert!(refusing.errors.contains_key("NOT_ENOUGH_REPLICAS"), "{refusing:?}");
    let forgetting = run(&format!("produce {} {load}", broker(Fault::Forgets)));
    assert!(!forgetting.is_clean(), "{forgetting:?}");
    let repeating = run(&format!("produce {} {load}", broker(Fault::Repeats)));
    assert!(!repeating.is_clean(), "{repeating:?}");
    let skipping = broker(Fault::Skips);
    assert!(run(&format!("produce {skipping} {load}")).is_clean());
    let skipped = run(&format!("consume {skipping} --connections 1"));
    assert!(skipped.errors.keys().any(|error| error.contains("a batch at")), "{skipped:?}");
}

#[test]
fn a_topic_that_is_not_there_is_said_so_at_once() {
    let broker = broker(Fault::NoTopic);
    for load in ["produce", "consume"] {
        let arguments = format!("bench {load} {broker}");
        let arguments = Cli::parse_from(arguments.split_whitespace());
        let failure = measure(&arguments.bench).expect_err("no topic");
        let message = "topic t does not exist; `bench produce --create-topic` creates it";
        assert_eq!(failure.to_string(), message);
    }
}

#[test]
fn a_broker_that_is_not_there_is_said_so() {
    let load = "produce --bootstrap-servers 127.0.0.1:1 --duration 100ms";
    let arguments = ["bench"].into_iter().chain(load.split_whitespace());
    let failure = measure(&Cli::parse_from(arguments).bench).expect_err("nobody listens");
    assert!(format!("{failure:#}").contains("no broker answers at 127.0.0.1:1"), "{failure:#}");
}
