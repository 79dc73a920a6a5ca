//! The Raft thread: receives, ticks, proposes, hands out. It owns the `RawNode` and touches no
//! file: the log writer and the cold worker do, each on a thread of its own.

mod proposals;
mod snapshots;

use std::{
    collections::VecDeque,
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use crossbeam::channel::{Receiver, Sender, TrySendError};
use protobuf::Message as _;
use raft::{
    RawNode, SnapshotStatus, StateRole,
    eraftpb::{
        ConfChange, ConfChangeV2, ConfState, Entry, EntryType, Message, MessageType, Snapshot,
    },
};
use tracing::{debug, error, info};

use self::snapshots::SnapshotWork;
use crate::{
    Transport,
    cold_reads::{Answer, READS_MAX, Task},
    config::RaftConfig,
    driver::{
        ApplyProgress, Committed, Effect, Members, Persist, Persisted, Unpersisted, effects, sort,
    },
    handle::{Event, Inbox, RaftStatus, Report, Role, Shared, lock},
    log::{OffsetTable, Request, SnapshotMeta, entry_bytes_max, entry_payload_bytes},
    metrics::RaftMetrics,
    storage::RaftStorage,
};

/// Most messages taken before the node looks at anything else.
const MESSAGES_A_STEP: usize = 1024;
/// Ticks after which a snapshot message of unknown fate counts as lost.
const SNAPSHOT_TICKS_MAX: u64 = 1000;

/// The Raft thread's own things.
pub(crate) struct Node {
    pub(crate) config: RaftConfig,
    pub(crate) raw: RawNode<RaftStorage>,
    pub(crate) transport: Box<dyn Transport>,
    pub(crate) inbox: Inbox,
    pub(crate) shared: Arc<Shared>,
    pub(crate) links: Links,
    pub(crate) metrics: RaftMetrics,
    /// Events that the owner has not taken. Their data is pinned in memory as unapplied, so the
    /// bound of that is the bound of this.
    undelivered: VecDeque<Event>,
    unpersisted: Unpersisted,
    progress: ApplyProgress,
    members: Members,
    /// What the owner was told about leadership.
    told: Told,
    /// Index and time of proposals that are not committed.
    proposed: VecDeque<(u64, Instant)>,
    /// A proposal was dropped: so are all, until the owner says that it knows.
    is_dropping: bool,
    next_tick: Instant,
    ticks: u64,
    /// Peers that a snapshot was sent to, and the tick at which it counts as lost.
    snapshots_out: Vec<(u64, u64)>,
    snapshot: SnapshotWork,
}

/// The node's ends of the channels to its other threads and to its owner.
pub(crate) struct Links {
    pub(crate) events: Sender<Event>,
    pub(crate) requests: Sender<Request>,
    pub(crate) tasks: Sender<Task>,
    pub(crate) answers: Receiver<Answer>,
    pub(crate) table: Arc<std::sync::Mutex<OffsetTable>>,
}

/// Leadership as it was last told.
#[derive(Debug, Default, PartialEq, Clone, Copy)]
struct Told {
    term: u64,
    leader: u64,
    /// Whether [`Event::Leader`] was sent for `term`.
    may_plan: bool,
}

impl Node {
    /// A node over its store. A sole voter waits for nobody.
    pub(crate) fn new(
        config: RaftConfig,
        raw: RawNode<RaftStorage>,
        transport: Box<dyn Transport>,
        (inbox, shared): (Inbox, Arc<Shared>),
        links: Links,
        metrics: RaftMetrics,
        now: Instant,
    ) -> Node {
        let snapshot = raw.store().newest_snapshot();
        let mut node = Node {
            config,
            raw,
            transport,
            inbox,
            shared,
            links,
            metrics,
            undelivered: VecDeque::new(),
            unpersisted: Unpersisted::default(),
            progress: ApplyProgress::new(snapshot.index),
            members: Members::new(snapshot.index, snapshot.conf_state),
            told: Told::default(),
            proposed: VecDeque::new(),
            is_dropping: false,
            next_tick: now,
            ticks: 0,
            snapshots_out: Vec::new(),
            snapshot: SnapshotWork::default(),
        };
        node.snapshot.is_due = lock(&node.links.table).is_sparse();
        node.next_tick = now + node.config.tick();
        if node.is_sole_voter()
            && let Err(error) = node.raw.campaign()
        {
            error!(%error, "a sole voter could not stand for election");
        }
        node
    }

    /// The state machine that the owner begins with.
    pub(crate) fn restore(&mut self, snapshot: Snapshot) {
        let (index, term) = (snapshot.get_metadata().index, snapshot.get_metadata().term);
        self.undelivered.push_back(Event::Restore { index, term, data: snapshot.data });
    }

    /// Looks at everything that waits, once. `true` where more of it waits.
    pub(crate) fn step(&mut self, now: Instant) -> bool {
        self.take_persisted();
        self.take_answers();
        self.take_applied();
        self.take_reports();
        let mut is_more = self.take_messages();
        self.tick(now);
        let drained = self.take_proposals();
        is_more |= drained.is_more;
        while self.raw.has_ready() && !self.links.requests.is_full() {
            self.handle_ready();
        }
        self.take_snapshot_offered();
        self.want_snapshot();
        self.compact();
        self.ask_cold_worker();
        // First the status, then the events: an owner that is told that it may plan proposes at
        // once, and its proposal is judged by the status.
        self.publish(drained.bytes);
        self.deliver();
        is_more
    }

    /// When the node wants to be stepped at the latest.
    pub(crate) fn next_tick(&self) -> Instant {
        self.next_tick
    }

    /// Steps until it is told to stop.
    pub(crate) fn run(mut self) {
        while !self.shared.stop.load(Ordering::Acquire) {
            if !self.step(Instant::now()) {
                // Woken or not: the step looks at everything.
                let _ = self.inbox.wake.recv_deadline(self.next_tick);
            }
        }
        self.step(Instant::now());
    }

    fn take_persisted(&mut self) {
        let Persisted { number, messages, restore } =
            self.unpersisted.take(self.shared.persisted.load(Ordering::Acquire));
        if number == 0 {
            return;
        }
        self.raw.on_persist_ready(number);
        if let Some(snapshot) = restore {
            let meta = SnapshotMeta::of(&snapshot);
            info!(index = meta.index, term = meta.term, "installed a snapshot of the leader");
            self.progress.pass(meta.index, true);
            self.members.change(meta.index, meta.conf_state);
            self.snapshot.bytes_since = 0;
            self.restore(snapshot);
        }
        self.send(messages);
    }

    fn take_answers(&mut self) {
        while let Ok(answer) = self.links.answers.try_recv() {
            if let Answer::SnapshotWritten { meta, is_durable } = answer {
                self.snapshot.is_being_written = false;
                self.snapshot.is_asked_for = false;
                // A leader's snapshot may have overtaken ours.
                let is_newest = meta.index > self.raw.store().newest_snapshot().index;
                if is_durable && is_newest {
                    self.raw.mut_store().set_snapshot(meta.clone());
                    self.snapshot.to_name = Some(meta);
                }
                continue;
            }
            for caller in self.raw.mut_store().on_answer(answer) {
                self.raw.on_entries_fetched(caller);
            }
        }
    }

    fn take_applied(&mut self) {
        let applied = self.progress.applied(self.shared.applied.load(Ordering::Acquire));
        if applied > self.raw.raft.raft_log.applied {
            self.raw.advance_apply_to(applied);
            self.raw.mut_store().evict(applied);
        }
    }

    fn take_reports(&mut self) {
        for report in self.inbox.reports.try_iter().collect::<Vec<Report>>() {
            match report {
                Report::Unreachable { raft_id } => self.raw.report_unreachable(raft_id),
                Report::Snapshot { raft_id, delivered } => self.end_snapshot(raft_id, delivered),
            }
        }
    }

    fn take_messages(&mut self) -> bool {
        for message in self.inbox.messages.try_iter().take(MESSAGES_A_STEP).collect::<Vec<_>>() {
            if self.accepts(&message) {
                // What raft-rs refuses it has no use for: an unknown sender, a local message.
                let _ = self.raw.step(message);
            } else {
                self.shared.messages_dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
        !self.inbox.messages.is_empty()
    }

    /// Whether a peer's message may reach Raft. What is refused is asked for again.
    fn accepts(&self, message: &Message) -> bool {
        if message.to != self.config.raft_id || message.get_msg_type() == MessageType::MsgPropose {
            return false;
        }
        if message.get_msg_type() != MessageType::MsgAppend || message.entries.is_empty() {
            return true;
        }
        let entry_bytes_max = entry_bytes_max(&self.config);
        if message.entries.iter().any(|e| entry_payload_bytes(e) as u64 > entry_bytes_max) {
            error!(from = message.from, entry_bytes_max, "an entry does not fit our log files");
            return false;
        }
        // An owner that does not keep up must not make memory grow.
        let applied = self.raw.raft.raft_log.applied;
        self.raw.store().bytes_above(applied) <= 2 * self.config.settings.entries_memory_bytes
    }

    /// At most one tick a step: a thread that slept too long must not stand for election before
    /// it has seen the heartbeats that waited for it.
    fn tick(&mut self, now: Instant) {
        if now < self.next_tick {
            return;
        }
        let tick = self.config.tick();
        let due = self.next_tick + tick;
        self.next_tick = if due > now { due } else { now + tick };
        self.ticks += 1;
        self.raw.tick();
        let lost: Vec<u64> = self
            .snapshots_out
            .iter()
            .filter(|(_, t)| *t <= self.ticks)
            .map(|(raft_id, _)| *raft_id)
            .collect();
        lost.into_iter().for_each(|raft_id| self.end_snapshot(raft_id, false));
    }

    fn end_snapshot(&mut self, raft_id: u64, delivered: bool) {
        self.snapshots_out.retain(|(peer, _)| *peer != raft_id);
        let status = match delivered {
            true => SnapshotStatus::Finish,
            false => SnapshotStatus::Failure,
        };
        self.raw.report_snapshot(raft_id, status);
        if self.snapshots_out.is_empty() {
            self.raw.mut_store().unload_snapshot();
        }
    }

    fn handle_ready(&mut self) {
        let mut ready = self.raw.ready();
        let mut committed = Vec::new();
        for effect in effects(&mut ready) {
            match effect {
                Effect::Send(messages) => self.send(messages),
                Effect::Persist(persist) => self.persist(persist),
                Effect::HandOut(entries) => committed = entries,
            }
        }
        self.raw.advance_append_async(ready);
        self.tell_role();
        committed.into_iter().for_each(|entry| self.hand_out(entry));
        self.take_persisted();
    }

    /// Makes it visible to Raft, then queues it for the disk.
    fn persist(&mut self, mut persist: Persist) {
        let store = self.raw.mut_store();
        if let Some(snapshot) = &persist.snapshot {
            store.install(snapshot);
        }
        store.append(&persist.entries);
        if let Some(hard_state) = &persist.hard_state {
            store.set_hard_state(hard_state.clone());
        }
        self.unpersisted.push(&mut persist);
        if persist.is_empty() {
            return;
        }
        let Persist { number, entries, hard_state, snapshot, .. } = persist;
        let request = Request::Ready { number, entries, hard_state, snapshot };
        let queued = self.links.requests.try_send(request);
        // A writer that is gone has ended the process, or is about to.
        assert!(!matches!(queued, Err(TrySendError::Full(_))), "room was there before the Ready");
    }

    fn hand_out(&mut self, entry: Entry) {
        let (index, term) = (entry.index, entry.term);
        while self.proposed.front().is_some_and(|(proposed, _)| *proposed <= index) {
            if let Some((_, at)) = self.proposed.pop_front() {
                self.metrics.propose_seconds.observe(at.elapsed().as_secs_f64());
            }
        }
        match sort(entry) {
            Committed::Data(data) => {
                self.progress.pass(index, true);
                self.snapshot.bytes_since += data.len() as u64;
                self.undelivered.push_back(Event::Committed { index, term, data });
            }
            Committed::Change(entry) => {
                let conf_state = self.change_members(&entry);
                conf_state.into_iter().for_each(|members| self.members.change(index, members));
                self.progress.pass(index, false);
            }
            Committed::Empty => {
                self.progress.pass(index, false);
            }
        }
        self.tell_leadership(term);
        if self.progress.is_idle() {
            self.take_applied();
        }
    }

    /// Applies a change of members; one that does not read or does not fit changes nothing.
    fn change_members(&mut self, entry: &Entry) -> Option<ConfState> {
        let changed = match entry.get_entry_type() {
            EntryType::EntryConfChange => {
                let change = ConfChange::parse_from_carllerche_bytes(&entry.data).ok()?;
                self.raw.apply_conf_change(&change)
            }
            _ => {
                let change = ConfChangeV2::parse_from_carllerche_bytes(&entry.data).ok()?;
                self.raw.apply_conf_change(&change)
            }
        };
        match changed {
            Ok(members) => Some(members),
            Err(error) => {
                error!(index = entry.index, %error, "a committed change of members does not fit");
                None
            }
        }
    }

    /// Sends, and remembers whose snapshot is on its way.
    fn send(&mut self, messages: Vec<Message>) {
        if messages.is_empty() {
            return;
        }
        for message in &messages {
            if message.get_msg_type() == MessageType::MsgSnapshot {
                self.metrics.snapshots_sent.inc();
                self.snapshots_out.retain(|(peer, _)| *peer != message.to);
                self.snapshots_out.push((message.to, self.ticks + SNAPSHOT_TICKS_MAX));
            }
        }
        self.transport.send(messages);
    }

    /// Tells of a lost or changed leadership before anything that is committed after it.
    fn tell_role(&mut self) {
        let (term, leader) = (self.raw.raft.term, self.raw.raft.leader_id);
        let is_leader = self.raw.raft.state == StateRole::Leader;
        if (self.told.term, self.told.leader) == (term, leader) {
            return;
        }
        if leader != self.told.leader && leader != 0 {
            self.metrics.leader_changes.inc();
            debug!(group = self.config.group, term, leader, is_leader, "the Raft leader changed");
        }
        // Where this node leads, it may plan only after its term's first entry; what it planned
        // in an older term is void already.
        if !is_leader || self.told.may_plan {
            let leader = Some(leader).filter(|leader| *leader != 0 && !is_leader);
            self.undelivered.push_back(Event::Follower { term, leader });
        }
        self.told = Told { term, leader, may_plan: false };
        self.proposed.clear();
        self.is_dropping = false;
        if !is_leader {
            self.snapshots_out.clear();
            self.raw.mut_store().forget_waits();
            self.raw.mut_store().unload_snapshot();
        }
    }

    /// The first entry of the own term is committed: everything before it was handed out.
    fn tell_leadership(&mut self, term: u64) {
        let leads = self.raw.raft.state == StateRole::Leader && self.raw.raft.term == term;
        if leads && self.told.term == term && !self.told.may_plan {
            self.told.may_plan = true;
            self.undelivered.push_back(Event::Leader { term });
        }
    }

    fn deliver(&mut self) {
        while let Some(event) = self.undelivered.pop_front() {
            match self.links.events.try_send(event) {
                Ok(()) => {}
                Err(TrySendError::Full(event)) => {
                    self.undelivered.push_front(event);
                    return;
                }
                // An owner that is gone needs nothing.
                Err(TrySendError::Disconnected(_)) => {}
            }
        }
    }

    fn ask_cold_worker(&mut self) {
        let tasks = self.raw.mut_store().take_tasks();
        for task in tasks {
            let asked = self.links.tasks.try_send(task);
            assert!(!matches!(asked, Err(TrySendError::Full(_))), "more than {READS_MAX} reads");
        }
    }

    fn publish(&mut self, drained_bytes: u64) {
        let status = self.status();
        let unapplied = self.raw.store().bytes_above(status.applied_index);
        self.shared.unapplied_bytes.store(unapplied, Ordering::Relaxed);
        self.shared.queued_bytes.fetch_sub(drained_bytes, Ordering::Relaxed);
        let mut published = lock(&self.shared.status);
        if *published == status {
            return;
        }
        *published = status;
        drop(published);
        let metrics = &self.metrics;
        metrics.term.set(status.term as i64);
        metrics.is_leader.set(i64::from(status.role == Role::Leader));
        metrics.leader_id.set(status.leader.unwrap_or_default() as i64);
        metrics.first_index.set(status.first_index as i64);
        metrics.last_index.set(status.last_index as i64);
        metrics.commit_index.set(status.commit_index as i64);
        metrics.applied_index.set(status.applied_index as i64);
        metrics.proposals_pending.set(self.proposed.len() as i64);
        let dropped = self.shared.messages_dropped.swap(0, Ordering::Relaxed);
        metrics.messages_dropped.inc_by(dropped);
    }

    fn status(&self) -> RaftStatus {
        let (raft, store) = (&self.raw.raft, self.raw.store());
        let (truncated, last_index) = store.bounds();
        RaftStatus {
            raft_id: raft.id,
            term: raft.term,
            role: match raft.state {
                StateRole::Leader => Role::Leader,
                StateRole::Candidate | StateRole::PreCandidate => Role::Candidate,
                StateRole::Follower => Role::Follower,
            },
            leader: Some(raft.leader_id).filter(|leader| *leader != 0),
            first_index: truncated + 1,
            last_index,
            commit_index: raft.raft_log.committed,
            applied_index: raft.raft_log.applied,
            snapshot_index: store.newest_snapshot().index,
            memory_bytes: store.memory_bytes(),
        }
    }

    fn is_sole_voter(&self) -> bool {
        let members = self.raw.raft.prs().conf().to_conf_state();
        members.voters == [self.config.raft_id] && members.voters_outgoing.is_empty()
    }
}
