//! What operators look at.

use tidelog_tests::{
    batch::Batch,
    http,
    node::{Node, Options},
    programs::{on_path, run},
};

#[test]
fn metrics_pass_promtool_and_count_what_happened() {
    let node = Node::start(Options::default());
    let mut wire = node.wire();
    assert_eq!(wire.create_topic("seen", &[]).expect("an answer"), 0);
    let batch = Batch::new(vec![b"x".to_vec()]).encode().freeze();
    assert_eq!(wire.produce("seen", batch).expect("an answer"), (0, 0));
    let (status, metrics) = http::get(node.admin_port(), "/metrics").expect("an answer");
    assert_eq!(status, 200);
    let mut promtool = on_path("promtool");
    promtool.args(["check", "metrics"]);
    run(promtool, &metrics);
    for name in [
        "tidelog_raft_entries_hit_total",
        "tidelog_raft_wal_fallback_total",
        "tidelog_raft_wal_fallback_duration_seconds",
    ] {
        assert!(metrics.contains(&format!("# TYPE {name}")), "no {name}");
    }
    let lines = metrics.lines().filter(|line| !line.starts_with('#'));
    let strangers: Vec<&str> = lines.filter(|line| !line.starts_with("tidelog_")).collect();
    assert!(strangers.is_empty(), "{strangers:?}");
}

#[test]
fn health_readiness_and_version_answer() {
    let node = Node::start(Options::default());
    for (path, expected) in [("/healthz", 200), ("/readyz", 200), ("/version", 200), ("/no", 404)] {
        let (status, _) = http::get(node.admin_port(), path).expect("an answer");
        assert_eq!(status, expected, "{path}");
    }
}
