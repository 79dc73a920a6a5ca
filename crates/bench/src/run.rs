//! Runs a load: finds the topic, starts threads and connections, adds up and reports.

use std::{
    cell::RefCell,
    pin::Pin,
    process::ExitCode,
    rc::Rc,
    sync::Arc,
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, anyhow, ensure};
use tidelog_net::{client::Wire, limits::raise_open_files};
use tokio::{
    runtime::{Builder, Runtime},
    task::{JoinHandle, LocalSet},
    time::timeout_at,
};

use crate::{
    args::{BenchArgs, CommonArgs, Load},
    cluster::Leader,
    load,
    process::Usage,
    produce::Window,
    report::{Report, progress},
    stats::{Counts, Live, Stats},
};

/// What the connections get to be made before the load begins.
pub(crate) const CONNECT_TIME: Duration = Duration::from_millis(500);
/// What answers get after the last request was sent.
const ANSWER_TIME: Duration = Duration::from_secs(30);
/// A longer response is a mistake of the broker's.
const RESPONSE_BYTES_MAX: usize = 512 << 20;

/// Runs a load, prints its report and writes it where asked. The exit code is 0 only if every
/// request was answered without an error and all offsets are accounted for.
///
/// # Errors
/// When the load could not be run at all.
pub fn run(args: BenchArgs) -> Result<ExitCode> {
    let report = measure(&args)?;
    let common = args.load.common();
    report.print()?;
    if let Some(path) = &common.json {
        report.write_json(path)?;
    }
    Ok(if report.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs a load and says what came of it.
///
/// # Errors
/// When the load could not be run at all.
pub fn measure(args: &BenchArgs) -> Result<Report> {
    raise_open_files();
    let common = args.load.common();
    ensure!(common.connections > 0 && common.threads > 0, "at least one connection and thread");
    match &args.load {
        Load::Produce(produce) => load::produce::measure(produce),
        Load::Consume(consume) => load::consume::measure(consume),
    }
}

impl Load {
    fn common(&self) -> &CommonArgs {
        match self {
            Load::Produce(args) => &args.common,
            Load::Consume(args) => &args.common,
        }
    }
}

/// What the broker used within the window, and how long it was.
pub(crate) struct Measured {
    pub seconds: f64,
    pub usage: Option<Usage>,
}

type ThreadFuture = Pin<Box<dyn Future<Output = Result<()>>>>;

/// Runs the load on its threads, each with a runtime of its own, and watches the window.
pub(crate) fn on_threads(
    common: &CommonArgs,
    window: Window,
    load: impl Fn(usize, Rc<RefCell<Stats>>) -> ThreadFuture + Clone + Send + 'static,
) -> Result<(Stats, Measured)> {
    let live = Arc::new(Live::default());
    let mut threads = Vec::new();
    for index in 0..common.threads.min(common.connections) {
        let (load, live) = (load.clone(), Arc::clone(&live));
        threads.push(thread::spawn(move || -> Result<(Stats, Instant)> {
            let stats = Rc::new(RefCell::new(Stats::new(Arc::clone(&live))));
            runtime()?.block_on(LocalSet::new().run_until(load(index, Rc::clone(&stats))))?;
            Ok((stats.replace(Stats::new(live)), Instant::now()))
        }));
    }
    let (before, after) = watch(common, window, &live, || threads.iter().all(|t| t.is_finished()))?;
    let mut stats = Stats::new(live);
    let mut ended = window.start;
    for thread in threads {
        let (of_thread, at) = thread.join().map_err(|_| anyhow!("a load thread panicked"))??;
        stats.merge(&of_thread);
        ended = ended.max(at);
    }
    let seconds = ended.min(window.end).saturating_duration_since(window.start).as_secs_f64();
    let usage = before.zip(after).map(|(before, after)| after.since(before));
    Ok((stats, Measured { seconds, usage }))
}

/// Takes the broker's usage at both ends of the window, or when the load has ended before.
fn watch(
    common: &CommonArgs,
    window: Window,
    live: &Live,
    ended: impl Fn() -> bool,
) -> Result<(Option<Usage>, Option<Usage>)> {
    let usage = || common.pid.map(Usage::of).transpose();
    let wait_until = |time: Instant| {
        while Instant::now() < time && !ended() {
            let left = time.saturating_duration_since(Instant::now());
            thread::sleep(left.min(Duration::from_millis(20)));
        }
    };
    wait_until(window.start);
    let before = usage()?;
    let (mut second, mut counts) = (window.start, Counts::default());
    while !common.quiet && second < window.end && !ended() {
        second += Duration::from_secs(1);
        wait_until(second.min(window.end));
        let earlier = std::mem::replace(&mut counts, live.counts());
        progress(second.duration_since(window.start), earlier, counts, usage()?)?;
    }
    wait_until(window.end);
    Ok((before, usage()?))
}

/// The connections of one thread.
pub(crate) fn ours(common: &CommonArgs, thread: usize) -> impl Iterator<Item = usize> + use<> {
    (thread..common.connections).step_by(common.threads)
}

pub(crate) async fn open(leader: Leader) -> Result<Wire> {
    let wire = Wire::connect(leader.address, RESPONSE_BYTES_MAX).await;
    wire.with_context(|| format!("cannot connect to {}", leader.address))
}

/// Waits for all connections; what has no answer by then has none.
pub(crate) async fn join(
    tasks: Vec<JoinHandle<Result<()>>>,
    window: Window,
    stats: &Rc<RefCell<Stats>>,
) -> Result<()> {
    let patience = window.end + ANSWER_TIME;
    for mut task in tasks {
        match timeout_at(patience.into(), &mut task).await {
            Ok(ended) => {
                if let Err(error) = ended? {
                    stats.borrow_mut().error(format!("{error:#}"), 1);
                }
            }
            Err(_) => task.abort(),
        }
    }
    Ok(())
}

pub(crate) fn runtime() -> Result<Runtime> {
    Ok(Builder::new_current_thread().enable_all().build()?)
}

pub(crate) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
