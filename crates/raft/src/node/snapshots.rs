//! When a node has its state machine snapshotted, and where it truncates its log behind it.

use bytes::Bytes;
use crossbeam::channel::TrySendError;
use raft::StateRole;

use super::Node;
use crate::{
    cold_reads::Task,
    handle::{Event, lock},
    log::{Request, SnapshotMeta},
};

/// Where the next snapshot of the own state is.
#[derive(Debug, Default)]
pub(super) struct SnapshotWork {
    pub(super) is_asked_for: bool,
    pub(super) is_being_written: bool,
    /// One is due whatever was applied since the last: the log had to be compacted at the start.
    pub(super) is_due: bool,
    /// It is durable; the log is to name it when its queue has room.
    pub(super) to_name: Option<SnapshotMeta>,
    /// Bytes of entries handed out since the last one.
    pub(super) bytes_since: u64,
}

impl Node {
    pub(super) fn take_snapshot_offered(&mut self) {
        if self.snapshot.is_being_written {
            return;
        }
        let Some((index, data)) = lock(&self.shared.snapshot_offered).take() else { return };
        let log = &self.raw.raft.raft_log;
        let is_newer = index > self.raw.store().newest_snapshot().index;
        let (true, true, Ok(term)) = (is_newer, index <= log.applied, log.term(index)) else {
            self.snapshot.is_asked_for = false;
            return;
        };
        let meta = SnapshotMeta { index, term, conf_state: self.members.at(index) };
        self.write_snapshot(meta, data);
    }

    fn write_snapshot(&mut self, meta: SnapshotMeta, data: Bytes) {
        let sent = self.links.tasks.try_send(Task::WriteSnapshot { meta, data });
        self.snapshot.is_being_written = sent.is_ok();
        self.snapshot.is_asked_for = sent.is_ok();
        self.snapshot.bytes_since = 0;
    }

    /// Asks the owner for a snapshot when there is much to replay, or a follower needs one.
    pub(super) fn want_snapshot(&mut self) {
        let applied = self.raw.raft.raft_log.applied;
        let newest = self.raw.store().newest_snapshot().index;
        let wanted = self.raw.mut_store().take_wanted_snapshot();
        let settings = &self.config.settings;
        // A leader's snapshot may be newer than what the owner has applied yet.
        let is_due = self.snapshot.is_due
            || applied.saturating_sub(newest) >= settings.snapshot_entries
            || self.snapshot.bytes_since >= (settings.tail_bytes / 4).max(1);
        let is_wanted = wanted.is_some_and(|index| newest < index && index <= applied);
        if !self.snapshot.is_asked_for && applied > newest && (is_due || is_wanted) {
            self.snapshot.is_asked_for = true;
            self.snapshot.is_due = false;
            self.undelivered.push_back(Event::SnapshotWanted { index: wanted.unwrap_or(applied) });
        }
    }

    /// Names a durable snapshot in the log and truncates the log behind it, leaving a tail.
    pub(super) fn compact(&mut self) {
        if self.snapshot.to_name.is_none() || self.links.requests.is_full() {
            return;
        }
        let Some(snapshot) = self.snapshot.to_name.take() else { return };
        if snapshot != self.raw.store().newest_snapshot() {
            return;
        }
        self.members.forget_below(snapshot.index);
        let point = self.compaction_point(snapshot.index);
        let term = self.raw.mut_store().truncate_prefix(point);
        let request = Request::Compact { snapshot, truncate: (point, term) };
        let queued = self.links.requests.try_send(request);
        assert!(!matches!(queued, Err(TrySendError::Full(_))), "room was there before");
    }

    /// The index to truncate at: never above the snapshot, and with a tail behind it for followers
    /// that lag, unless the files are mostly unused. A follower that is alive keeps what it needs,
    /// up to twice the tail's bytes.
    fn compaction_point(&self, snapshot_index: u64) -> u64 {
        let settings = &self.config.settings;
        let table = lock(&self.links.table);
        let tail_bytes = if table.is_sparse() { 0 } else { settings.tail_bytes };
        let by_bytes = table.truncation_for(tail_bytes);
        let is_too_large = table.bytes_on_disk() > 2 * settings.tail_bytes;
        drop(table);
        let by_entries = snapshot_index.saturating_sub(settings.tail_entries);
        let mut point = by_entries.max(by_bytes).min(snapshot_index);
        if !is_too_large && self.raw.raft.state == StateRole::Leader {
            let peers = self.raw.raft.prs().iter().filter(|(_, peer)| peer.recent_active);
            let slowest = peers.map(|(_, peer)| peer.matched).min();
            point = point.min(slowest.unwrap_or(point));
        }
        let (truncated, _) = self.raw.store().bounds();
        let damaged = self.raw.store().damaged_through().min(snapshot_index);
        point.max(damaged).max(truncated)
    }
}
