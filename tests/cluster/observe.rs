//! What operators look at.

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    fmt::Write as _,
    fs,
};

use kafka_protocol::{
    messages::{
        FindCoordinatorRequest, GroupId, IncrementalAlterConfigsRequest, OffsetCommitRequest,
        incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig},
        offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic},
    },
    protocol::StrBytes,
};
use tidelog_tests::{
    batch::Batch,
    http,
    node::{Node, Options, PATIENCE},
    programs::{on_path, root, run, wait_until},
    wire::topic_name,
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
    let is_known = |line: &&str| line.starts_with("tidelog_") || line.starts_with("process_");
    let strangers: Vec<&str> = lines.filter(|line| !is_known(line)).collect();
    assert!(strangers.is_empty(), "{strangers:?}");
}

#[test]
fn health_readiness_and_version_answer() {
    let node = Node::start(Options::default());
    for (path, expected) in
        [("/", 200), ("/healthz", 200), ("/readyz", 200), ("/version", 200), ("/no", 404)]
    {
        let (status, _) = http::get(node.admin_port(), path).expect("an answer");
        assert_eq!(status, expected, "{path}");
    }
}

#[test]
fn the_documentation_lists_every_metric() {
    const BEGIN: &str = "<!-- generated: begin -->\n";
    const END: &str = "<!-- generated: end -->\n";
    const REGENERATE: &str =
        "TIDELOG_REGENERATE=1 cargo test -p tidelog-tests --test cluster every_metric";
    let node = Node::start(Options::default().set("log.retention.check.interval.ms", "10"));
    // A log that is measured, so that there is a largest one.
    assert_eq!(node.wire().create_topic("measured", &[]).expect("an answer"), 0);
    let batch = Batch::new(vec![b"x".to_vec()]).encode().freeze();
    assert_eq!(node.wire().produce("measured", batch).expect("an answer"), (0, 0));
    let metrics = || http::get(node.admin_port(), "/metrics").expect("an answer").1;
    wait_until("logs are measured", PATIENCE, || metrics().contains("tidelog_log_largest_bytes{"));
    // A group that lags, so that there is a lag to show.
    commit_offset(&node, "measured");
    wait_until("lags are measured", PATIENCE, || metrics().contains("tidelog_group_lag_seconds{"));
    // An error, so that the counter of errors has something to show.
    let refused = node.wire().create_topic("no such name!", &[]).expect("an answer");
    assert_ne!(refused, 0);
    let (_, metrics) = http::get(node.admin_port(), "/metrics").expect("an answer");
    let shown = families(&metrics);
    let unseen: Vec<String> =
        named_in_sources().into_iter().filter(|n| !shown.contains_key(n)).collect();
    assert!(unseen.is_empty(), "named in the sources and not shown: {unseen:?}");

    let path = root().join("docs/metrics.md");
    let document = fs::read_to_string(&path).expect("docs/metrics.md is readable");
    let (head, rest) = document.split_once(BEGIN).expect("the generated part begins");
    let (tables, tail) = rest.split_once(END).expect("the generated part ends");
    let expected = metric_tables(&shown);
    if env::var_os("TIDELOG_REGENERATE").is_some() {
        let document = [head, BEGIN, &expected, END, tail].concat();
        fs::write(&path, document).expect("docs/metrics.md is writable");
        return;
    }
    assert_eq!(tables, expected, "docs/metrics.md is stale; run\n    {REGENERATE}");
}

#[test]
fn what_is_logged_changes_while_the_broker_runs_and_stays_changed() {
    let mut node = Node::start(Options::default().set("logging.format", "json"));
    let debug = "\"level\":\"DEBUG\"";
    assert!(!node.log_text().contains(debug), "not asked for");
    assert_eq!(set_broker_config(&node, "logging.level", "debug"), 0);
    node.wait_for_log("logging.level was changed");
    let lines = node.log();
    let logged = lines.iter().filter(|line| line.starts_with('{'));
    assert!(logged.count() > 0, "{lines:?}");
    assert!(node.terminate().success());
    node.restart();
    node.wait_for_log(debug);
    assert_ne!(set_broker_config(&node, "logging.level", "loud"), 0, "no level");
    assert_eq!(set_broker_config(&node, "logging.level", "info"), 0);
}

/// Has a group say that it has consumed nothing of a topic.
fn commit_offset(node: &Node, topic: &str) {
    let mut wire = node.wire();
    let group = StrBytes::from_static_str("group");
    let find = FindCoordinatorRequest::default().with_coordinator_keys(vec![group.clone()]);
    let found = wire.call(&find, 4).expect("an answer");
    assert_eq!(found.coordinators[0].error_code, 0);
    let partition = OffsetCommitRequestPartition::default();
    let topic = OffsetCommitRequestTopic::default()
        .with_name(topic_name(topic))
        .with_partitions(vec![partition]);
    let request = OffsetCommitRequest::default().with_group_id(GroupId(group));
    let request = request.with_topics(vec![topic]);
    wait_until("the group's coordinator is loaded", PATIENCE, || {
        let committed = wire.call(&request, 8).expect("an answer");
        committed.topics[0].partitions[0].error_code == 0
    });
}

/// Sets a setting of every broker; returns the error code.
fn set_broker_config(node: &Node, key: &str, value: &str) -> i16 {
    let config = AlterableConfig::default()
        .with_name(StrBytes::from_string(key.to_owned()))
        .with_value(Some(StrBytes::from_string(value.to_owned())));
    let broker = AlterConfigsResource::default().with_resource_type(4).with_configs(vec![config]);
    let request = IncrementalAlterConfigsRequest::default().with_resources(vec![broker]);
    node.wire().call(&request, 1).expect("an answer").responses[0].error_code
}

#[test]
fn every_alert_fires_stays_quiet_and_resolves() {
    let dir = root().join("docs/operations");
    for arguments in [["check", "rules", "alerts.yml"], ["test", "rules", "alerts_test.yml"]] {
        let mut promtool = on_path("promtool");
        promtool.args(arguments).current_dir(&dir);
        run(promtool, "");
    }
    let read = |name: &str| fs::read_to_string(dir.join(name)).expect("a readable file");
    let (rules, tests, runbooks) =
        (read("alerts.yml"), read("alerts_test.yml"), read("runbooks.md"));
    let metrics = fs::read_to_string(root().join("docs/metrics.md")).expect("a readable file");
    let after = |mark: &str| -> Vec<String> {
        let words = rules.match_indices(mark).map(|(at, _)| &rules[at + mark.len()..]);
        words.map(|rest| rest.split_whitespace().next().expect("a word").to_owned()).collect()
    };
    let alerts = after("- alert: ");
    assert!(alerts.len() > 8, "{alerts:?}");
    for alert in &alerts {
        let heading = format!("\n## {alert}\n");
        assert!(runbooks.contains(&heading), "runbooks.md says nothing of {alert}");
        assert!(rules.contains(&format!("runbooks.md#{}\"", alert.to_lowercase())), "{alert}");
        let fires = format!("- alertname: {alert}\n");
        assert!(tests.contains(&fires), "no test in which {alert} fires");
        let quiet = format!("alertname: {alert}, ");
        assert!(tests.contains(&quiet) || alert == "Watchdog", "no test in which {alert} is quiet");
    }
    for name in metric_names(&rules) {
        let name = ["_bucket", "_sum", "_count"]
            .iter()
            .find_map(|end| name.strip_suffix(end))
            .unwrap_or(&name);
        assert!(metrics.contains(&format!("| `{name}` |")), "{name} is no metric of a node");
    }
}

/// What `/metrics` says of one metric.
#[derive(Default)]
struct Family {
    kind: String,
    help: String,
    labels: BTreeSet<String>,
}

fn families(text: &str) -> BTreeMap<String, Family> {
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    for line in text.lines() {
        let mut words = line.splitn(4, ' ');
        let (first, second) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let (third, rest) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        match (first, second) {
            ("#", "HELP") => families.entry(third.to_owned()).or_default().help = rest.to_owned(),
            ("#", "TYPE") => families.entry(third.to_owned()).or_default().kind = rest.to_owned(),
            _ => add_labels(&mut families, line),
        }
    }
    families
}

/// Of one sample: `name{label="value",...} number`. Values hold no commas here.
fn add_labels(families: &mut BTreeMap<String, Family>, line: &str) {
    let Some((name, rest)) = line.split_once('{') else { return };
    let is_of = |family: &&String| {
        let end = name.strip_prefix(family.as_str());
        end.is_some_and(|end| ["", "_bucket", "_sum", "_count"].contains(&end))
    };
    let family = families.keys().find(is_of).expect("TYPE comes before samples").clone();
    let (labels, _) = rest.split_once('}').expect("labels end");
    let names = labels.split(',').filter_map(|pair| Some(pair.split_once('=')?.0));
    let names = names.filter(|label| *label != "le").map(str::to_owned);
    families.get_mut(&family).expect("found").labels.extend(names);
}

fn metric_tables(families: &BTreeMap<String, Family>) -> String {
    const GROUPS: [(&str, &str); 4] = [
        ("tidelog_wal_", "Write-ahead log and segments"),
        ("tidelog_raft_", "Metadata"),
        ("process_", "Process"),
        ("", "Broker and network"),
    ];
    let group = |name: &str| GROUPS.iter().position(|(start, _)| name.starts_with(start));
    let mut text = String::new();
    for place in [3, 0, 1, 2] {
        let heading = format!(
            "## {}\n\n| metric | type | labels | what it says |\n|---|---|---|---|\n",
            GROUPS[place].1
        );
        text.push_str(&heading);
        for (name, family) in families.iter().filter(|(name, _)| group(name) == Some(place)) {
            let labels: Vec<String> =
                family.labels.iter().map(|label| format!("`{label}`")).collect();
            writeln!(
                text,
                "| `{name}` | {} | {} | {} |",
                family.kind,
                labels.join(", "),
                family.help
            )
            .expect("writing to a String cannot fail");
        }
        text.push('\n');
    }
    text
}

/// Every name in quotes that a crate may register.
fn named_in_sources() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut folders = vec![root().join("crates")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.ends_with("metrics.rs") || path.ends_with("wiring.rs") {
                names.extend(metric_names(&fs::read_to_string(path).expect("text")));
            }
        }
    }
    // Not names but the beginnings of names.
    names.retain(|name| !name.ends_with('_'));
    names
}

fn metric_names(text: &str) -> BTreeSet<String> {
    let starts = text.match_indices("tidelog_").chain(text.match_indices("process_"));
    let is_word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    let is_start = |at: usize| !text[..at].ends_with(|c: char| is_word(c) || c == ':');
    let names = starts.filter(|(at, _)| is_start(*at)).map(|(at, _)| {
        text[at..].split(|c: char| !is_word(c)).next().expect("at least the start").to_owned()
    });
    names.filter(|name| name.matches('_').count() > 1).collect()
}
