//! The cleaner thread's body: finds the logs that are due, and compacts one after the other.

use std::{
    collections::{BTreeSet, VecDeque},
    io,
    sync::Arc,
    time::Instant,
};

use tidelog_types::TopicIdPartition;

use super::{
    BatchRewriter, CleanerConfig, Compaction,
    keys::KeyMap,
    pass::{Found, Pass, PassError, Progress, Tools},
    plan::{Bounds, Piece, dirty},
    throttle::Throttle,
};
use crate::{
    error::{Fatal, WalError},
    file_cache::FileCache,
    shard::{LogInner, Shard},
    threads::Step,
};

/// Compacts logs, a step at a time.
pub(crate) struct Cleaner {
    shard: Arc<Shard>,
    files: Arc<FileCache>,
    rewriter: Arc<dyn BatchRewriter>,
    config: CleanerConfig,
    throttle: Throttle,
    /// What the throttle's times count from.
    started: Instant,
    run: Option<Run>,
    /// Damaged logs: left alone until the next start.
    uncleanable: BTreeSet<TopicIdPartition>,
}

/// One search for logs that are due, and what it found.
struct Run {
    now_ms: i64,
    /// The dirtiest first.
    due: VecDeque<Arc<LogInner>>,
    pass: Option<Pass>,
}

impl Cleaner {
    pub(crate) fn new(
        shard: Arc<Shard>,
        files: Arc<FileCache>,
        rewriter: Arc<dyn BatchRewriter>,
        config: CleanerConfig,
    ) -> Cleaner {
        Cleaner {
            shard,
            files,
            rewriter,
            config,
            throttle: Throttle::new(config.io_bytes_per_second),
            started: Instant::now(),
            run: None,
            uncleanable: BTreeSet::new(),
        }
    }

    /// Does a piece of work, if there is any and it may.
    pub(crate) fn step(&mut self) -> Result<Step, Fatal> {
        if self.shard.is_writer_done() {
            return self.stop();
        }
        if self.throttle.is_spent(self.started.elapsed()) {
            return Ok(Step::Pause);
        }
        let Some(mut run) = self.run.take().or_else(|| self.begin_run()) else {
            return Ok(Step::Idle);
        };
        let Some(pass) = run.pass.as_mut() else {
            run.pass = self.next_pass(&mut run);
            if run.pass.is_none() && run.due.is_empty() {
                self.shard.metrics.cleaner_last_run.set(run.now_ms / 1000);
                return Ok(Step::Worked);
            }
            self.run = Some(run);
            return Ok(Step::Worked);
        };
        let stepped = pass.step(&self.tools());
        let step = self.heed(&mut run, stepped)?;
        self.run = Some(run);
        Ok(step)
    }

    fn heed(&mut self, run: &mut Run, stepped: Result<Progress, PassError>) -> Result<Step, Fatal> {
        match stepped {
            Ok(Progress::Worked(bytes)) => {
                self.throttle.spend(bytes, self.started.elapsed());
                return Ok(Step::Worked);
            }
            Ok(Progress::Waits) => return Ok(Step::Pause),
            Ok(Progress::Done) => self.shard.metrics.cleaner_passes.inc(),
            Err(PassError::Refused(WalError::Fatal(fatal))) => return Err(fatal),
            Err(error) => self.on_failed(run, &error)?,
        }
        let pass = run.pass.take();
        let is_removed = pass.as_ref().is_some_and(|pass| pass.log.is_removed());
        drop(pass);
        if is_removed {
            // Its files waited for this pass to end.
            self.shard.want_checkpoint();
        }
        Ok(Step::Worked)
    }

    fn on_failed(&mut self, run: &mut Run, error: &PassError) -> Result<(), Fatal> {
        let Some(pass) = run.pass.as_mut() else { return Ok(()) };
        let partition = pass.log.id;
        let metrics = &self.shard.metrics;
        match error {
            PassError::Changed => {
                tracing::debug!(%partition, "a log changed while it was compacted");
            }
            PassError::Refused(error) => {
                metrics.cleaner_failures.inc();
                tracing::warn!(%partition, %error, "a log is not compacted now; trying again");
            }
            PassError::Unreadable(error) => {
                metrics.cleaner_failures.inc();
                self.uncleanable.insert(partition);
                metrics.cleaner_uncleanable.set(self.uncleanable.len() as i64);
                tracing::error!(
                    %partition, %error,
                    "a damaged log is not compacted any more until the next start"
                );
            }
        }
        match pass.abandon() {
            Err(WalError::Fatal(fatal)) => Err(fatal),
            Err(error) => {
                tracing::warn!(%partition, %error, "what was written of it stays for a while");
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    /// What is not finished is removed; the next start would find it too.
    fn stop(&mut self) -> Result<Step, Fatal> {
        if let Some(pass) = self.run.take().and_then(|run| run.pass).as_mut()
            && let Err(WalError::Fatal(fatal)) = pass.abandon()
        {
            return Err(fatal);
        }
        Ok(Step::Done)
    }

    /// Looks at all logs, if somebody wants that.
    fn begin_run(&mut self) -> Option<Run> {
        let now_ms = self.shard.take_compaction()?;
        let mut due: Vec<(f64, Arc<LogInner>)> = Vec::new();
        let mut greatest: f64 = 0.0;
        for log in self.shard.all_logs() {
            let Some(limits) = self.may_clean(&log) else { continue };
            self.have_spilled(&log);
            let Ok(Some(found)) = look(&log, &self.files, &limits, now_ms) else { continue };
            let dirty = found.dirty;
            greatest = greatest.max(dirty.ratio);
            if dirty.is_due(&limits) {
                due.push((dirty.ratio, log));
            }
        }
        due.sort_by(|(a, _), (b, _)| b.total_cmp(a));
        self.shard.metrics.cleaner_dirty_ratio.set(greatest);
        let due = due.into_iter().map(|(_, log)| log).collect();
        Some(Run { now_ms, due, pass: None })
    }

    fn next_pass(&self, run: &mut Run) -> Option<Pass> {
        let log = run.due.pop_front()?;
        let limits = self.may_clean(&log)?;
        let found = match look(&log, &self.files, &limits, run.now_ms) {
            Ok(found) => found?,
            Err(error) => {
                tracing::warn!(partition = %log.id, %error, "cannot tell how dirty a log is");
                return None;
            }
        };
        let keys = KeyMap::new(self.config.dedupe_bytes, secret());
        let pass = Pass::begin(log, limits, run.now_ms, found, keys);
        if pass.is_none() {
            // A removal may have seen the pass that did not begin, and waits for its end.
            self.shard.want_checkpoint();
        }
        pass
    }

    fn may_clean(&self, log: &LogInner) -> Option<Compaction> {
        let is_out = log.is_removed() || self.uncleanable.contains(&log.id);
        log.settings().compaction.filter(|_| !is_out)
    }

    /// What would fill a segment is to become one, so that it can be compacted: the next run finds
    /// it.
    fn have_spilled(&self, log: &LogInner) {
        let settings = log.settings();
        let unspilled = log.state().tail.unspilled_span();
        let is_old = unspilled.span_ms > settings.segment_ms;
        let active = log.reader().map_or(0, |reader| reader.last_bytes(&self.files));
        if unspilled.bytes > 0 && (is_old || active + unspilled.bytes >= settings.segment_bytes) {
            self.shard.spill_wanted.store(true, std::sync::atomic::Ordering::Release);
            self.shard.bells.spill.ring();
        }
    }

    fn tools(&self) -> Tools<'_> {
        Tools { shard: &self.shard, files: &self.files, rewriter: &*self.rewriter }
    }
}

/// What of a log is dirty, if anything is, and its segments.
fn look(
    log: &LogInner,
    files: &FileCache,
    limits: &Compaction,
    now_ms: i64,
) -> io::Result<Option<Found>> {
    let (Some(reader), Some(observer)) = (log.reader(), log.observer()) else { return Ok(None) };
    let stable = observer.stable_offset();
    let (cuts, bounds) = {
        let state = log.state();
        if state.is_suspect || state.file_cut.is_some() || state.has_pending_cut() {
            return Ok(None);
        }
        let damage = state.damaged.first().map_or(state.spilled_end, |range| range.start);
        let stable = stable.min(state.durable_end).min(state.spilled_end).min(damage);
        let (log_start, clean_below) = (state.log_start, state.clean_below);
        (state.cuts, Bounds { log_start, clean_below, stable })
    };
    let wants_times = (limits.max_lag_ms < i64::MAX, limits.min_lag_ms > 0);
    let pieces: Vec<Piece> = reader.pieces(files, wants_times)?;
    let found = dirty(&pieces, &bounds, limits, now_ms);
    Ok(found.map(|dirty| Found { cuts, dirty, pieces }))
}

/// Nobody can foresee which keys are taken for one.
fn secret() -> [u64; 2] {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).expect("the system has random bytes");
    let (words, _) = bytes.as_chunks::<8>();
    [u64::from_le_bytes(words[0]), u64::from_le_bytes(words[1])]
}

/// A log's end in memory only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct UnspilledSpan {
    pub(crate) bytes: u64,
    /// Milliseconds between its first and its last batch.
    pub(crate) span_ms: i64,
}
