//! The consuming load.

use std::{cell::RefCell, collections::BTreeMap, rc::Rc, sync::Arc, time::Instant};

use anyhow::{Result, ensure};
use tokio::{task::spawn_local, time::sleep_until};

use crate::{
    args::ConsumeArgs,
    cluster::{self, Leader, Place},
    consume::Consumer,
    produce::Window,
    report::Report,
    run::{CONNECT_TIME, join, on_threads, open, ours, runtime},
    stats::Stats,
};

/// What all threads share.
struct ConsumeLoad {
    args: ConsumeArgs,
    leaders: Vec<Leader>,
    starts: BTreeMap<i32, i64>,
    ends: BTreeMap<i32, i64>,
    window: Window,
}

/// Consumes as the arguments say.
pub(crate) fn measure(args: &ConsumeArgs) -> Result<Report> {
    let mut load = runtime()?.block_on(prepare(args))?;
    let start = Instant::now() + CONNECT_TIME;
    load.window = Window { start, end: start + args.common.duration };
    let (window, load) = (load.window, Arc::new(load));
    let (stats, measured) = on_threads(&args.common, window, move |thread, stats| {
        Box::pin(run_thread(Arc::clone(&load), thread, stats))
    })?;
    Ok(Report::consume(args, &stats, measured))
}

/// Finds the leaders and what their logs hold.
async fn prepare(args: &ConsumeArgs) -> Result<ConsumeLoad> {
    let topic = args.common.topic.as_str();
    let client = cluster::connect(&args.common.bootstrap_servers).await?;
    let leaders = cluster::leaders(&client, topic, false).await?;
    let starts = cluster::offsets(&leaders, topic, Place::Start).await?;
    let ends = cluster::offsets(&leaders, topic, Place::End).await?;
    let window = Window { start: Instant::now(), end: Instant::now() };
    Ok(ConsumeLoad { args: args.clone(), leaders, starts, ends, window })
}

async fn run_thread(
    load: Arc<ConsumeLoad>,
    thread: usize,
    stats: Rc<RefCell<Stats>>,
) -> Result<()> {
    let args = Rc::new(load.args.clone());
    let mut consumers = Vec::new();
    for connection in ours(&args.common, thread) {
        let read = load.partitions_of(connection)?;
        let range = |leader: &Leader| {
            let partition = leader.partition;
            (partition, (load.starts[&partition], load.ends[&partition]))
        };
        consumers.push(Consumer {
            wire: open(read[0]).await?,
            args: Rc::clone(&args),
            topic: cluster::topic_name(&args.common.topic),
            ranges: read.iter().map(range).collect(),
            window: load.window,
            stats: Rc::clone(&stats),
        });
    }
    sleep_until(load.window.start.into()).await;
    let tasks = consumers.into_iter().map(|consumer| spawn_local(consumer.run())).collect();
    join(tasks, load.window, &stats).await
}

impl ConsumeLoad {
    /// What one connection reads: its share of the partitions, or one that others read too.
    fn partitions_of(&self, connection: usize) -> Result<Vec<Leader>> {
        let leaders = self.leaders.iter().copied();
        let connections = self.args.common.connections;
        let mut read: Vec<Leader> = leaders.skip(connection).step_by(connections).collect();
        if read.is_empty() {
            read.push(self.leaders[connection % self.leaders.len()]);
        }
        let one_broker = read.iter().all(|leader| leader.address == read[0].address);
        let needed = self.leaders.len();
        ensure!(one_broker, "partitions have several leaders: use {needed} connections");
        Ok(read)
    }
}
