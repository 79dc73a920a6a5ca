//! The producing load.

use std::{
    cell::RefCell,
    collections::{BTreeMap, VecDeque},
    rc::Rc,
    sync::Arc,
    time::Instant,
};

use anyhow::{Result, ensure};
use tokio::{task::spawn_local, time::sleep_until};

use crate::{
    args::{AcksArg, ProduceArgs},
    batch::random_batch,
    cluster::{self, Leader, Place},
    pacer::{Due, run_pacer},
    produce::{Producer, Template, Window},
    report::Report,
    run::{CONNECT_TIME, join, now_ms, on_threads, open, ours, runtime},
    stats::Stats,
};

/// What all threads share.
struct ProduceLoad {
    args: ProduceArgs,
    leaders: Vec<Leader>,
    /// One for each leader.
    templates: Vec<Template>,
    window: Window,
}

/// Produces as the arguments say.
pub(crate) fn measure(args: &ProduceArgs) -> Result<Report> {
    ensure!(args.inflight > 0 && args.batch_records > 0, "at least one request and record");
    ensure!(args.rate.is_none_or(|rate| rate > 0.0), "a rate is positive");
    let topic = args.common.topic.as_str();
    let (leaders, before) = runtime()?.block_on(prepare(args))?;
    let batch = random_batch(args.batch_records, args.message_size, now_ms(), 1);
    let template = |leader: &Leader| {
        Template::new(args, cluster::topic_name(topic), leader.partition, batch.clone())
    };
    let templates: Vec<Template> = leaders.iter().map(template).collect::<Result<_>>()?;
    let frame_bytes = templates[0].frame_bytes();
    let start = Instant::now() + CONNECT_TIME + args.warmup;
    let window = Window { start, end: start + args.common.duration };
    let load = ProduceLoad { args: args.clone(), leaders: leaders.clone(), templates, window };
    let load = Arc::new(load);
    let (stats, measured) = on_threads(&args.common, window, move |thread, stats| {
        Box::pin(run_thread(Arc::clone(&load), thread, stats))
    })?;
    let mut report = Report::produce(args, frame_bytes, &stats, measured);
    if args.acks != AcksArg::None {
        let after = runtime()?.block_on(cluster::offsets(&leaders, topic, Place::End))?;
        report.problems = check_offsets(args, &stats, &before, &after);
    }
    Ok(report)
}

/// Finds the leaders and where their logs end.
async fn prepare(args: &ProduceArgs) -> Result<(Vec<Leader>, BTreeMap<i32, i64>)> {
    let topic = args.common.topic.as_str();
    let client = cluster::connect(&args.common.bootstrap_servers).await?;
    if args.create_topic {
        cluster::create_topic(&client, args).await?;
    }
    let leaders = cluster::leaders(&client, topic, args.create_topic).await?;
    let before = cluster::offsets(&leaders, topic, Place::End).await?;
    Ok((leaders, before))
}

async fn run_thread(
    load: Arc<ProduceLoad>,
    thread: usize,
    stats: Rc<RefCell<Stats>>,
) -> Result<()> {
    let (args, window) = (&load.args, load.window);
    let begin = window.start - args.warmup;
    let mut schedules = Vec::new();
    let mut producers = Vec::new();
    for connection in ours(&args.common, thread) {
        let place = connection % load.leaders.len();
        let due = args.rate.map(|_| Rc::new(Due::default()));
        schedules.extend(due.clone());
        producers.push(Producer {
            wire: open(load.leaders[place]).await?,
            template: load.templates[place].clone(),
            partition: load.leaders[place].partition,
            acks: args.acks,
            in_flight_max: args.inflight,
            due,
            window,
            stats: Rc::clone(&stats),
            in_flight: VecDeque::new(),
            next_correlation_id: 0,
            next_offset: 0,
        });
    }
    sleep_until(begin.into()).await;
    let mut tasks: Vec<_> = producers.into_iter().map(spawn_local).collect();
    if let Some(rate) = args.rate {
        let share = rate * schedules.len() as f64 / args.common.connections as f64;
        tasks.push(spawn_local(run_pacer(schedules, share, begin, window.end)));
    }
    join(tasks, window, &stats).await
}

/// Every acknowledged record has an offset of its own, so partitions grew by at least as many.
fn check_offsets(
    args: &ProduceArgs,
    stats: &Stats,
    before: &BTreeMap<i32, i64>,
    after: &BTreeMap<i32, i64>,
) -> Vec<String> {
    let mut problems = Vec::new();
    let of = |counts: &BTreeMap<i32, u64>, partition| {
        i64::try_from(counts.get(partition).copied().unwrap_or(0)).unwrap_or(i64::MAX)
    };
    for (partition, start) in before {
        let there = after.get(partition).map_or(0, |end| end - start);
        let acknowledged = of(&stats.acknowledged, partition);
        let unknown = of(&stats.unknown, partition) * args.batch_records as i64;
        if there < acknowledged {
            problems.push(format!(
                "partition {partition}: {acknowledged} records were acknowledged, {there} are there"
            ));
        } else if there > acknowledged + unknown && stats.errors.is_empty() {
            problems.push(format!(
                "partition {partition}: {there} records are there, {acknowledged} were \
                 acknowledged; does another producer write to it?"
            ));
        }
    }
    problems
}
