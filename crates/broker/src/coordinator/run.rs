//! The loop that owns all shards of one internal topic: the only place where they change.
//!
//! One thread for all of them: fifty idle shards cost a look at fifty deadlines, and what a burst
//! of requests asks is planned without a lock and appended together.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::poll_fn,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tidelog_coordinator::Now;
use tidelog_types::{Clock, ErrorCode, LeaderEpoch};
use tidelog_wal::Wal;
use tokio::{sync::mpsc, time::sleep};
use tracing::{debug, error, info};

use super::{
    commands::{Ask, Asks, Shared},
    loading::{LoadError, Loading},
    serving::{Lost, Serving},
    shard::Shard,
};
use crate::{
    coordinator::metrics::CoordinatorMetrics,
    errors,
    partition::{AppendError, Partition},
    replica_manager::{ReplicaManager, Topic},
};

/// Requests that are planned before the log and the time are looked at again.
const ASKS_A_TURN: usize = 512;
/// How long time may be kept waiting by requests: they may be what it would act on.
const OVERDUE_MAX: Duration = Duration::from_secs(2);
/// How long after a failure a log is read again.
const LOAD_AGAIN_AFTER: Duration = Duration::from_secs(10);

/// What the loop is given.
pub(crate) struct Coordinator<S: Shard> {
    pub settings: S::Settings,
    pub replicas: Arc<ReplicaManager>,
    pub wal: Wal,
    pub clock: Arc<dyn Clock>,
    pub metrics: Arc<CoordinatorMetrics>,
    pub shared: Arc<Shared>,
    pub commands: mpsc::Receiver<Asks<S::Request, S::Response>>,
    /// Looks at all shards, now and then.
    pub survey: Survey<S>,
}

/// Counts what the shards are like.
pub(crate) type Survey<S> = Box<dyn FnMut(&mut dyn Iterator<Item = &S>) + Send>;

/// How often shards are counted.
const SURVEY_INTERVAL: Duration = Duration::from_secs(5);

/// Runs until the broker stops.
pub(crate) async fn run_coordinator<S: Shard>(given: Coordinator<S>) {
    let Coordinator { settings, replicas, wal, clock, metrics, shared, mut commands, mut survey } =
        given;
    let owned = BTreeMap::new();
    let mut shards = Shards {
        owned,
        settings,
        wal,
        clock,
        metrics,
        is_behind: false,
        not_before: Duration::ZERO,
    };
    let mut batch = Vec::new();
    let mut surveyed = Duration::ZERO;
    loop {
        let now = shards.now();
        let next_survey = surveyed + SURVEY_INTERVAL;
        let wake = shards.next_deadline().map_or(next_survey, |at| at.min(next_survey));
        tokio::select! {
            biased;
            () = shared.bell.notified() => {
                if shards.follow(&replicas, &shared) == Follow::Stop {
                    return shards.stop();
                }
            }
            () = poll_fn(|context| shards.poll(context)) => {}
            received = commands.recv_many(&mut batch, ASKS_A_TURN), if shards.have_room() => {
                if received == 0 {
                    return shards.stop();
                }
                shards.is_behind = received == ASKS_A_TURN;
                batch.drain(..).flatten().for_each(|ask| shards.ask(ask));
            }
            () = sleep(wake.saturating_sub(now.elapsed)) => shards.is_behind = false,
        }
        shards.advance();
        if shards.now().elapsed >= next_survey {
            surveyed = shards.now().elapsed;
            survey(&mut shards.serving().map(Serving::shard));
        }
    }
}

/// What the news ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Follow {
    Continue,
    Stop,
}

/// All shards whose partitions this broker leads.
struct Shards<S: Shard> {
    owned: BTreeMap<i32, Owned<S>>,
    settings: S::Settings,
    wal: Wal,
    clock: Arc<dyn Clock>,
    metrics: Arc<CoordinatorMetrics>,
    /// More requests wait than were taken.
    is_behind: bool,
    /// Until then time does nothing: requests that came before may not have been read.
    not_before: Duration,
}

struct Owned<S: Shard> {
    partition: Arc<Partition>,
    leader_epoch: LeaderEpoch,
    batch_bytes_max: usize,
    /// Topics that were deleted and that the shard has not been told of.
    deleted: BTreeSet<String>,
    phase: Phase<S>,
}

enum Phase<S: Shard> {
    Loading(Loading<S>),
    Serving(Serving<S>),
    /// Its log could not be read. When to try again.
    Failed(Duration),
}

impl<S: Shard> Shards<S> {
    fn now(&self) -> Now {
        Now { elapsed: self.clock.elapsed(), wall_ms: self.clock.wall_ms() }
    }

    fn serving(&self) -> impl Iterator<Item = &Serving<S>> {
        self.owned.values().filter_map(|owned| match &owned.phase {
            Phase::Serving(serving) => Some(serving),
            Phase::Loading(_) | Phase::Failed(_) => None,
        })
    }

    fn have_room(&self) -> bool {
        self.serving().all(Serving::has_room)
    }

    /// When there is something to do though nobody asks. Where the log takes nothing, a shard's
    /// time stands still.
    fn next_deadline(&self) -> Option<Duration> {
        let is_refused = self.wal.refusal().is_some();
        let deadlines = self.owned.values().filter_map(|owned| match &owned.phase {
            Phase::Serving(serving) if !is_refused => {
                serving.next_deadline().map(|deadline| deadline.max(self.not_before))
            }
            Phase::Loading(_) | Phase::Serving(_) => None,
            Phase::Failed(again) => Some(*again),
        });
        deadlines.min()
    }

    /// Takes over what this broker has come to lead, and gives up what it does not lead any more.
    fn follow(&mut self, replicas: &ReplicaManager, shared: &Shared) -> Follow {
        let (deleted, is_stopping) =
            shared.news(|news| (std::mem::take(&mut news.deleted), news.is_stopping));
        if is_stopping {
            return Follow::Stop;
        }
        self.forget(&deleted);
        let topics = replicas.topics();
        let topic = topics.named(S::TOPIC).ok();
        let led = topic.map(|topic| led(topic)).unwrap_or_default();
        let is_led = |index: &i32, owned: &Owned<S>| {
            led.get(index).is_some_and(|led| {
                led.leader_epoch == owned.leader_epoch && led.partition.id() == owned.partition.id()
            })
        };
        let gone: Vec<i32> =
            self.owned.iter().filter(|(i, owned)| !is_led(i, owned)).map(|(i, _)| *i).collect();
        for index in gone {
            info!(topic = S::TOPIC, partition = index, "no longer its coordinator");
            let owned = self.owned.remove(&index).expect("it was just found");
            owned.end(ErrorCode::NotCoordinator);
        }
        for (index, led) in led {
            self.own(index, led);
        }
        shared.set_partitions(topic.map_or(0, |topic| topic.partition_count()));
        self.count();
        Follow::Continue
    }

    fn own(&mut self, index: i32, led: Led) {
        let Led { partition, leader_epoch, batch_bytes_max } = led;
        if let Some(owned) = self.owned.get_mut(&index) {
            return owned.limit(batch_bytes_max);
        }
        let phase = load(&self.settings, &partition);
        let deleted = BTreeSet::new();
        let owned = Owned { partition, leader_epoch, batch_bytes_max, deleted, phase };
        self.owned.insert(index, owned);
    }

    fn forget(&mut self, topics: &[String]) {
        for owned in self.owned.values_mut() {
            owned.deleted.extend(topics.iter().cloned());
        }
    }

    fn ask(&mut self, Ask { partition, request, reply }: Ask<S::Request, S::Response>) {
        let now = self.now();
        let refusal = self.wal.refusal();
        let refusal = refusal.map(|error| errors::coordinator(&AppendError::Storage(error)));
        let phase = self.owned.get_mut(&partition).map(|owned| &mut owned.phase);
        match phase {
            None => reply.answer(Err(ErrorCode::NotCoordinator)),
            Some(Phase::Loading(_) | Phase::Failed(_)) => {
                reply.answer(Err(ErrorCode::CoordinatorLoadInProgress));
            }
            Some(Phase::Serving(serving)) => serving.ask(&request, reply, now, refusal),
        }
    }

    /// Does what is due, unless the log would not take it. What clients asked comes first, as long
    /// as that does not take too long: a member whose heartbeat waits here is not silent.
    fn advance(&mut self) {
        let now = self.now();
        if !self.have_room() {
            self.not_before = now.elapsed + OVERDUE_MAX;
        }
        let is_refused = self.wal.refusal().is_some();
        let patience = if self.is_behind { OVERDUE_MAX } else { Duration::ZERO };
        let not_before = self.not_before;
        let is_due = |deadline: Duration| deadline.max(not_before) + patience <= now.elapsed;
        for owned in self.owned.values_mut() {
            match &mut owned.phase {
                Phase::Serving(_) if is_refused => {}
                Phase::Serving(serving) => {
                    let deleted = std::mem::take(&mut owned.deleted);
                    if let Some(request) = S::forget(&deleted.into_iter().collect::<Vec<_>>()) {
                        serving.tell(&request, now);
                    }
                    if serving.next_deadline().is_some_and(is_due) {
                        serving.advance(now);
                    }
                }
                Phase::Failed(again) if *again <= now.elapsed => {
                    owned.phase = load(&self.settings, &owned.partition);
                }
                Phase::Loading(_) | Phase::Failed(_) => {}
            }
        }
    }

    /// Moves every shard on that has something to do. Ready whenever one has moved.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let now = self.now();
        let (mut has_changed, mut has_moved) = (false, false);
        for (index, owned) in &mut self.owned {
            let lost = match &mut owned.phase {
                Phase::Loading(loading) => match loading.poll(&self.metrics, context) {
                    Poll::Pending => continue,
                    Poll::Ready(Ok(())) => {
                        has_changed = true;
                        if loading.is_complete() {
                            owned.serve(*index, now, &self.metrics);
                        }
                        continue;
                    }
                    Poll::Ready(Err(error)) => Failure::Load(error),
                },
                Phase::Serving(serving) if serving.is_busy() => {
                    match serving.poll(&self.wal, context) {
                        Poll::Pending => continue,
                        Poll::Ready(Ok(())) => {
                            has_moved = true;
                            continue;
                        }
                        Poll::Ready(Err(lost)) => {
                            self.metrics.lost.inc();
                            Failure::Lost(lost)
                        }
                    }
                }
                Phase::Serving(_) | Phase::Failed(_) => continue,
            };
            has_changed = true;
            owned.fail(*index, &lost, now, &self.settings);
        }
        if has_changed {
            self.count();
        }
        if has_changed || has_moved { Poll::Ready(()) } else { Poll::Pending }
    }

    fn count(&self) {
        let loading = self.owned.len() - self.serving().count();
        self.metrics.shards.set(i64::try_from(self.owned.len()).unwrap_or(i64::MAX));
        self.metrics.shards_loading.set(i64::try_from(loading).unwrap_or(i64::MAX));
    }

    fn stop(self) {
        self.owned.into_values().for_each(|owned| owned.end(ErrorCode::NotCoordinator));
    }
}

/// Why a shard does not serve.
enum Failure {
    Load(LoadError),
    Lost(Lost),
}

impl<S: Shard> Owned<S> {
    fn limit(&mut self, batch_bytes_max: usize) {
        self.batch_bytes_max = batch_bytes_max;
        if let Phase::Serving(serving) = &mut self.phase {
            serving.limit(batch_bytes_max);
        }
    }

    /// Everything was read: from now on it answers.
    fn serve(&mut self, index: i32, now: Now, metrics: &Arc<CoordinatorMetrics>) {
        let phase = std::mem::replace(&mut self.phase, Phase::Failed(now.elapsed));
        let Phase::Loading(loading) = phase else { unreachable!("only what was loaded serves") };
        let loaded = loading.finish();
        metrics.loads.inc();
        metrics.load_seconds.observe(loaded.took.as_secs_f64());
        debug!(topic = S::TOPIC, partition = index, records = loaded.records, "loaded");
        let shared = (Arc::clone(&self.partition), Arc::clone(metrics));
        let bytes_max = self.batch_bytes_max;
        let mut serving = Serving::new(loaded.shard, shared.0, bytes_max, loaded.end, shared.1);
        serving.begin(now);
        self.phase = Phase::Serving(serving);
    }

    /// What the shard knows is not what its log says, or cannot be found out.
    fn fail(&mut self, index: i32, failure: &Failure, now: Now, settings: &S::Settings) {
        let again = Phase::Failed(now.elapsed + LOAD_AGAIN_AFTER);
        let phase = match failure {
            Failure::Load(error) => {
                error!(topic = S::TOPIC, partition = index, %error, "cannot be loaded");
                again
            }
            Failure::Lost(lost) => {
                info!(topic = S::TOPIC, partition = index, %lost, "is loaded again");
                load(settings, &self.partition)
            }
        };
        let code = match failure {
            Failure::Load(_) => ErrorCode::CoordinatorLoadInProgress,
            Failure::Lost(lost) => lost.error_code(),
        };
        if let Phase::Serving(serving) = std::mem::replace(&mut self.phase, phase) {
            serving.end(code);
        }
    }

    fn end(self, code: ErrorCode) {
        if let Phase::Serving(serving) = self.phase {
            serving.end(code);
        }
    }
}

fn load<S: Shard>(settings: &S::Settings, partition: &Arc<Partition>) -> Phase<S> {
    Phase::Loading(Loading::new(S::new(settings), Arc::clone(partition)))
}

/// A partition of the topic that this broker leads.
struct Led {
    partition: Arc<Partition>,
    leader_epoch: LeaderEpoch,
    batch_bytes_max: usize,
}

fn led(topic: &Topic) -> BTreeMap<i32, Led> {
    let batch_bytes_max = topic.settings.max_message_bytes;
    let led = (0..topic.partition_count()).filter_map(|index| {
        let partition = Arc::clone(topic.partition(index).ok()?);
        let view = partition.view(LeaderEpoch::NONE).ok()?;
        let batch_bytes_max = batch_bytes_max as usize;
        Some((index, Led { partition, leader_epoch: view.leader_epoch, batch_bytes_max }))
    });
    led.collect()
}
