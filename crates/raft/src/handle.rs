//! The way to a Raft node from any thread: proposals in, events out, nothing waits.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::Instant,
};

use bytes::Bytes;
use crossbeam::channel::{Receiver, Sender, TrySendError, bounded};
use raft::eraftpb::Message;

use crate::error::{ProposeError, RaftError};

/// Most proposals that may wait for the Raft thread.
const PROPOSALS_MAX: usize = 8192;
/// Most messages of peers that may wait for the Raft thread; the next ones are dropped.
const MESSAGES_MAX: usize = 4096;
/// Most reports about peers that may wait for the Raft thread; the next ones are dropped.
const REPORTS_MAX: usize = 256;

/// What a Raft node tells its owner, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// This node leads, and every entry committed before it did was handed out: it may plan.
    Leader {
        /// The term to plan in.
        term: u64,
    },
    /// This node does not lead (any more): what was planned and not committed may never be.
    Follower {
        /// The current term.
        term: u64,
        /// Who leads, where known.
        leader: Option<u64>,
    },
    /// An entry with data is committed. To be answered with [`RaftHandle::applied`].
    Committed {
        /// Its index.
        index: u64,
        /// The term it was proposed in.
        term: u64,
        /// What was proposed.
        data: Bytes,
    },
    /// The whole state machine is replaced. To be answered with [`RaftHandle::applied`].
    Restore {
        /// The last index that the snapshot includes.
        index: u64,
        /// The term of that index.
        term: u64,
        /// The snapshot, as given to [`RaftHandle::snapshot`] by whoever took it.
        data: Bytes,
    },
    /// A snapshot that includes at least `index` is wanted: [`RaftHandle::snapshot`], when it can.
    SnapshotWanted {
        /// What must be included.
        index: u64,
    },
    /// Proposals that will never be committed. This node drops every proposal until the owner has
    /// called [`RaftHandle::resume`], because what was planned on top of these is void too.
    ProposalDropped {
        /// As given to [`RaftHandle::propose`].
        tickets: Vec<u64>,
    },
}

/// What a node is in its term.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Role {
    /// It follows, or waits for somebody to follow.
    #[default]
    Follower,
    /// It stands for election.
    Candidate,
    /// It leads.
    Leader,
}

/// A node at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RaftStatus {
    /// Its id.
    pub raft_id: u64,
    /// The current term.
    pub term: u64,
    /// What it is in that term.
    pub role: Role,
    /// Who leads, where known.
    pub leader: Option<u64>,
    /// First index on disk.
    pub first_index: u64,
    /// Last index.
    pub last_index: u64,
    /// Highest committed index.
    pub commit_index: u64,
    /// Highest index that the owner has applied.
    pub applied_index: u64,
    /// Index of the newest durable snapshot, 0 without one.
    pub snapshot_index: u64,
    /// Bytes of entries in memory.
    pub memory_bytes: u64,
}

/// The way to a running node. Clones reach the same node.
#[derive(Debug, Clone)]
pub struct RaftHandle {
    pub(crate) shared: Arc<Shared>,
}

impl RaftHandle {
    /// Proposes an entry that was planned in `term`.
    ///
    /// What is accepted is committed as [`Event::Committed`] in the order of proposal, or comes
    /// back in [`Event::ProposalDropped`], or is void with the next [`Event::Follower`].
    ///
    /// # Errors
    /// Where it was not taken; see [`ProposeError`].
    pub fn propose(&self, term: u64, data: Bytes, ticket: u64) -> Result<(), ProposeError> {
        assert!(!data.is_empty(), "an empty entry is Raft's own and is never handed out");
        self.may_propose(term)?;
        let (bytes, limit) = (data.len() as u64, self.shared.entry_bytes_max);
        if bytes > limit {
            return Err(ProposeError::TooLarge { bytes, limit });
        }
        self.reserve(bytes)?;
        let proposal = Proposal { term, data, ticket, at: Instant::now() };
        match self.shared.proposals.try_send(Command::Propose(proposal)) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => {
                self.shared.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
                return Err(self.full());
            }
            Err(TrySendError::Disconnected(_)) => return Err(ProposeError::Stopped),
        }
        self.shared.wake();
        Ok(())
    }

    /// Ends the dropping of proposals that [`Event::ProposalDropped`] announced: what is proposed
    /// from now on was planned without the dropped ones.
    ///
    /// # Errors
    /// [`ProposeError::Full`] where the queue of proposals is full: try again.
    pub fn resume(&self) -> Result<(), ProposeError> {
        self.shared.proposals.try_send(Command::Resume).map_err(|refused| match refused {
            TrySendError::Full(_) => self.full(),
            TrySendError::Disconnected(_) => ProposeError::Stopped,
        })?;
        self.shared.wake();
        Ok(())
    }

    /// Everything up to `index` is applied, or restored.
    pub fn applied(&self, index: u64) {
        self.shared.applied.fetch_max(index, Ordering::AcqRel);
        self.shared.wake();
    }

    /// The state machine as it is after applying exactly `index`. The newest one offered wins.
    pub fn snapshot(&self, index: u64, data: Bytes) {
        let mut offered = lock(&self.shared.snapshot_offered);
        if offered.as_ref().is_none_or(|(newest, _)| *newest < index) {
            *offered = Some((index, data));
        }
        drop(offered);
        self.shared.wake();
    }

    /// A message from a peer. Dropped where too many wait: the peer will ask again.
    pub fn step(&self, message: Message) {
        if self.shared.messages.try_send(message).is_err() {
            self.shared.messages_dropped.fetch_add(1, Ordering::Relaxed);
        }
        self.shared.wake();
    }

    /// What became of a message to a peer that the transport can tell of.
    pub fn report(&self, report: Report) {
        // A lost report costs a timeout (snapshots) or one more lost message (unreachable).
        let _ = self.shared.reports.try_send(report);
        self.shared.wake();
    }

    /// The node as it was when its thread last had nothing left to do.
    #[must_use]
    pub fn status(&self) -> RaftStatus {
        *lock(&self.shared.status)
    }

    /// Stops the node: what is queued for the disk is written and synced, then the threads end.
    ///
    /// # Errors
    /// Where a thread had panicked.
    pub fn shutdown(&self) -> Result<(), RaftError> {
        self.shared.stop.store(true, Ordering::Release);
        self.shared.wake();
        let threads = std::mem::take(&mut *lock(&self.shared.threads));
        for (name, thread) in threads {
            thread.join().map_err(|_| RaftError::Panicked(name))?;
        }
        Ok(())
    }

    fn may_propose(&self, term: u64) -> Result<(), ProposeError> {
        if self.shared.stop.load(Ordering::Acquire) {
            return Err(ProposeError::Stopped);
        }
        let status = self.status();
        match status.role == Role::Leader && status.term == term {
            true => Ok(()),
            false => Err(ProposeError::NotLeader { term, leader: status.leader }),
        }
    }

    /// Takes room for a proposal; one larger than the bound takes it alone.
    fn reserve(&self, bytes: u64) -> Result<(), ProposeError> {
        let unapplied = self.shared.unapplied_bytes.load(Ordering::Relaxed);
        let queued = self.shared.queued_bytes.fetch_add(bytes, Ordering::Relaxed);
        let waiting = unapplied + queued;
        if waiting > 0 && waiting + bytes > self.shared.waiting_bytes_max {
            self.shared.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
            return Err(ProposeError::Full { waiting, limit: self.shared.waiting_bytes_max });
        }
        Ok(())
    }

    fn full(&self) -> ProposeError {
        let unapplied = self.shared.unapplied_bytes.load(Ordering::Relaxed);
        let waiting = unapplied + self.shared.queued_bytes.load(Ordering::Relaxed);
        ProposeError::Full { waiting, limit: self.shared.waiting_bytes_max }
    }
}

/// What a transport knows about a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Report {
    /// A message to it was lost.
    Unreachable {
        /// The peer.
        raft_id: u64,
    },
    /// A snapshot message reached it, or did not.
    Snapshot {
        /// The peer.
        raft_id: u64,
        /// Whether it arrived.
        delivered: bool,
    },
}

/// One proposal on its way to the Raft thread.
#[derive(Debug)]
pub(crate) struct Proposal {
    pub(crate) term: u64,
    pub(crate) data: Bytes,
    pub(crate) ticket: u64,
    pub(crate) at: Instant,
}

/// What the owner asks for, in one queue, because a resume divides the proposals around it.
#[derive(Debug)]
pub(crate) enum Command {
    Propose(Proposal),
    Resume,
}

/// What handles write and the Raft thread reads, and the other way round.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) proposals: Sender<Command>,
    pub(crate) messages: Sender<Message>,
    pub(crate) reports: Sender<Report>,
    pub(crate) applied: AtomicU64,
    pub(crate) snapshot_offered: Mutex<Option<(u64, Bytes)>>,
    /// Highest number of a Ready that the log writer has made durable.
    pub(crate) persisted: AtomicU64,
    pub(crate) queued_bytes: AtomicU64,
    pub(crate) unapplied_bytes: AtomicU64,
    pub(crate) waiting_bytes_max: u64,
    pub(crate) entry_bytes_max: u64,
    pub(crate) messages_dropped: AtomicU64,
    pub(crate) status: Mutex<RaftStatus>,
    pub(crate) stop: AtomicBool,
    pub(crate) threads: Mutex<Vec<(&'static str, JoinHandle<()>)>>,
    wake: Sender<()>,
}

/// The Raft thread's ends of the queues.
#[derive(Debug)]
pub(crate) struct Inbox {
    pub(crate) proposals: Receiver<Command>,
    pub(crate) messages: Receiver<Message>,
    pub(crate) reports: Receiver<Report>,
    pub(crate) wake: Receiver<()>,
}

impl Shared {
    /// `limits`: bytes that may wait to be applied, and bytes of one entry.
    pub(crate) fn new(limits: (u64, u64), status: RaftStatus) -> (Arc<Shared>, Inbox) {
        let (proposals, proposals_in) = bounded(PROPOSALS_MAX);
        let (messages, messages_in) = bounded(MESSAGES_MAX);
        let (reports, reports_in) = bounded(REPORTS_MAX);
        let (wake, wake_in) = bounded(1);
        let shared = Shared {
            proposals,
            messages,
            reports,
            applied: AtomicU64::new(0),
            snapshot_offered: Mutex::new(None),
            persisted: AtomicU64::new(0),
            queued_bytes: AtomicU64::new(0),
            unapplied_bytes: AtomicU64::new(0),
            waiting_bytes_max: limits.0,
            entry_bytes_max: limits.1,
            messages_dropped: AtomicU64::new(0),
            status: Mutex::new(status),
            stop: AtomicBool::new(false),
            threads: Mutex::new(Vec::new()),
            wake,
        };
        let inbox = Inbox {
            proposals: proposals_in,
            messages: messages_in,
            reports: reports_in,
            wake: wake_in,
        };
        (Arc::new(shared), inbox)
    }

    /// Wakes the Raft thread. One token is enough: it looks at everything when it wakes.
    pub(crate) fn wake(&self) {
        let _ = self.wake.try_send(());
    }
}

/// Locks, whatever a panicking thread left: what these locks guard is replaced whole.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
