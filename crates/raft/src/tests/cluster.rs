//! Some nodes in one thread: a clock that the test moves, a network that it cuts, and disks that
//! it crashes. Every node has its real log writer and cold worker, stepped in turn.

use std::{
    collections::BTreeSet,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use crossbeam::channel::{Receiver, bounded};
use raft::eraftpb::MessageType;
use rand::{Rng as _, rngs::StdRng};
use tidelog_wal::env::mem::MemFileSystem;

use super::store::machine;
use crate::{
    ChannelTransport, Envelope, Event, ProposeError, RaftConfig, RaftMetrics, RaftStatus, Report,
    Role, Step, SteppedNode,
};

/// A state machine that remembers what it was given, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Machine {
    pub(super) applied: u64,
    /// Entries with data, and a hash over them all.
    pub(super) count: u64,
    pub(super) hash: u64,
}

impl Machine {
    fn apply(&mut self, index: u64, data: &[u8]) {
        assert!(index > self.applied, "entries come once, in order");
        self.applied = index;
        self.count += 1;
        for byte in data {
            self.hash = (self.hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    fn encode(&self) -> Bytes {
        let mut bytes = BytesMut::new();
        bytes.put_u64(self.applied);
        bytes.put_u64(self.count);
        bytes.put_u64(self.hash);
        bytes.freeze()
    }

    fn decode(mut bytes: Bytes) -> Machine {
        let (applied, count, hash) = (bytes.get_u64(), bytes.get_u64(), bytes.get_u64());
        Machine { applied, count, hash }
    }
}

/// One node, its machine and its state machine.
pub(super) struct Peer {
    pub(super) fs: MemFileSystem,
    pub(super) config: RaftConfig,
    pub(super) metrics: RaftMetrics,
    /// `None` while it is down.
    pub(super) running: Option<Running>,
    pub(super) machine: Machine,
    /// The term it may plan in, as it was told.
    pub(super) leads: Option<u64>,
    pub(super) dropped: Vec<u64>,
    pub(super) restored: u64,
    /// Whether it answers a wish for a snapshot.
    pub(super) takes_snapshots: bool,
}

pub(super) struct Running {
    pub(super) parts: SteppedNode,
    events: Receiver<Event>,
    outbox: Receiver<Envelope>,
}

/// A group of peers with ids from 1 on, and the network between them.
pub(super) struct Cluster {
    pub(super) peers: Vec<Peer>,
    pub(super) now: Instant,
    pub(super) isolated: BTreeSet<u64>,
    pub(super) snapshots_sent: u64,
    pub(super) loses_snapshots: bool,
    /// Loses, doubles and delays messages.
    pub(super) trouble: Option<StdRng>,
    delayed: Vec<Envelope>,
    next_ticket: u64,
}

impl Cluster {
    pub(super) fn new(voters: u64, tune: impl Fn(&mut RaftConfig)) -> Cluster {
        let now = Instant::now();
        let ids: Vec<u64> = (1..=voters).collect();
        let peer = |raft_id: &u64| {
            let mut config = RaftConfig::sole_voter(*raft_id, PathBuf::from("/data/raft/group-0"));
            config.voters = ids.clone();
            config.rank = *raft_id as usize - 1;
            config.settings.segment_bytes = 64 << 10;
            tune(&mut config);
            Peer::new(config)
        };
        let peers = ids.iter().map(peer).collect();
        let mut cluster = Cluster {
            peers,
            now,
            isolated: BTreeSet::new(),
            snapshots_sent: 0,
            loses_snapshots: false,
            trouble: None,
            delayed: Vec::new(),
            next_ticket: 0,
        };
        for raft_id in ids {
            cluster.start(raft_id);
        }
        cluster
    }

    pub(super) fn peer(&mut self, raft_id: u64) -> &mut Peer {
        &mut self.peers[raft_id as usize - 1]
    }

    pub(super) fn start(&mut self, raft_id: u64) {
        let now = self.now;
        self.peer(raft_id).start(now);
    }

    /// The process dies; what was written and not synced is on the disk or not, as `seed` says.
    pub(super) fn crash(&mut self, raft_id: u64, seed: u64) {
        let peer = self.peer(raft_id);
        peer.running = None;
        peer.fs.crash(seed);
    }

    /// One millisecond: everybody works, and what was sent arrives.
    pub(super) fn step(&mut self) {
        self.now += Duration::from_millis(1);
        for peer in &mut self.peers {
            peer.step(self.now);
        }
        let mut envelopes = Vec::new();
        for peer in &self.peers {
            let sent = peer.running.iter().flat_map(|running| running.outbox.try_iter());
            envelopes.extend(sent);
        }
        let envelopes = self.upset(envelopes);
        envelopes.into_iter().for_each(|envelope| self.deliver(envelope));
    }

    /// What the network makes of what was sent in this millisecond.
    fn upset(&mut self, envelopes: Vec<Envelope>) -> Vec<Envelope> {
        let mut arriving = std::mem::take(&mut self.delayed);
        let Some(rng) = &mut self.trouble else {
            arriving.extend(envelopes);
            return arriving;
        };
        for envelope in envelopes {
            match rng.random_range(0..100) {
                0..3 => {}
                3..5 => arriving.extend([envelope.clone(), envelope]),
                5..15 => self.delayed.push(envelope),
                _ => arriving.push(envelope),
            }
        }
        arriving
    }

    pub(super) fn run(&mut self, milliseconds: u64) {
        (0..milliseconds).for_each(|_| self.step());
    }

    /// Steps until something holds.
    pub(super) fn until(&mut self, what: &str, mut holds: impl FnMut(&mut Cluster) -> bool) {
        for _ in 0..30_000 {
            if holds(self) {
                return;
            }
            self.step();
        }
        panic!("never: {what}\n{}", self.tell());
    }

    /// The peer that leads and may plan, waiting for one.
    pub(super) fn leader(&mut self) -> u64 {
        let mut found = None;
        self.until("a leader that may plan", |cluster| {
            let reachable = |peer: &&Peer| !cluster.isolated.contains(&peer.config.raft_id);
            let leaders = cluster.peers.iter().filter(reachable).filter(|peer| peer.may_plan());
            found = leaders.max_by_key(|peer| peer.leads).map(|peer| peer.config.raft_id);
            found.is_some()
        });
        found.expect("a leader")
    }

    /// Proposes `count` entries of `bytes` to the leader, and waits for their commitment.
    pub(super) fn propose(&mut self, count: u64, bytes: usize) {
        let leader = self.leader();
        for _ in 0..count {
            self.next_ticket += 1;
            let data = Bytes::from(vec![self.next_ticket as u8; bytes]);
            let ticket = self.next_ticket;
            while let Err(refused) = self.peer(leader).propose(data.clone(), ticket) {
                assert!(matches!(refused, ProposeError::Full { .. }), "{refused}");
                self.step();
            }
        }
        let last = self.peer(leader).machine.count + count;
        let mut seen = 0;
        self.until("the proposals are applied by the leader", |cluster| {
            seen = cluster.peer(leader).machine.count;
            seen >= last || cluster.peer(leader).handle_is_idle()
        });
    }

    /// Everybody up has applied the same, and all of it.
    pub(super) fn converge(&mut self) {
        self.until("everybody has the same state", |cluster| {
            let leader = cluster.leader();
            let status = cluster.peer(leader).status();
            let machine = cluster.peer(leader).machine.clone();
            let mut up = cluster.peers.iter().filter(|peer| peer.running.is_some());
            status.applied_index == status.commit_index && up.all(|peer| peer.machine == machine)
        });
    }

    /// Everybody but one has applied the same.
    pub(super) fn converge_but(&mut self, raft_id: u64) {
        self.until("everybody else has the same state", |cluster| {
            let leader = cluster.leader();
            let machine = cluster.peer(leader).machine.clone();
            let others = cluster.peers.iter().filter(|peer| peer.config.raft_id != raft_id);
            others.into_iter().all(|peer| peer.machine == machine)
        });
    }

    pub(super) fn tell(&self) -> String {
        let tell = |peer: &Peer| {
            let status = peer.running.as_ref().map(|running| running.parts.handle.status());
            format!("{}: {status:?}\n   {:?}", peer.config.raft_id, peer.machine)
        };
        self.peers.iter().map(tell).collect::<Vec<String>>().join("\n")
    }

    fn deliver(&mut self, envelope: Envelope) {
        let (from, to) = (envelope.message.from, envelope.message.to);
        let is_snapshot = envelope.message.get_msg_type() == MessageType::MsgSnapshot;
        self.snapshots_sent += u64::from(is_snapshot);
        if is_snapshot && self.loses_snapshots {
            return;
        }
        let is_cut = self.isolated.contains(&from) || self.isolated.contains(&to);
        let receiver = self.peer(to).running.as_ref().filter(|_| !is_cut);
        let delivered = receiver.is_some();
        if let Some(running) = receiver {
            running.parts.handle.step(envelope.message);
        }
        let Some(sender) = &self.peer(from).running else { return };
        if is_snapshot {
            sender.parts.handle.report(Report::Snapshot { raft_id: to, delivered });
        } else if !delivered {
            sender.parts.handle.report(Report::Unreachable { raft_id: to });
        }
    }
}

impl Peer {
    fn new(config: RaftConfig) -> Peer {
        Peer {
            fs: machine(),
            config,
            metrics: super::metrics(),
            running: None,
            machine: Machine::default(),
            leads: None,
            dropped: Vec::new(),
            restored: 0,
            takes_snapshots: true,
        }
    }

    fn start(&mut self, now: Instant) {
        let (sender, events) = bounded(16);
        let (transport, outbox) = ChannelTransport::new(self.config.group, 1 << 16);
        let fs = Arc::new(self.fs.clone());
        let metrics = self.metrics.clone();
        let parts =
            SteppedNode::open(self.config.clone(), fs, Box::new(transport), sender, metrics, now);
        self.machine = Machine::default();
        self.leads = None;
        self.running = Some(Running { parts: parts.expect("a readable disk"), events, outbox });
    }

    pub(super) fn status(&self) -> RaftStatus {
        self.running.as_ref().expect("a running peer").parts.handle.status()
    }

    pub(super) fn may_plan(&self) -> bool {
        self.running.is_some() && self.leads.is_some()
    }

    pub(super) fn propose(&mut self, data: Bytes, ticket: u64) -> Result<(), ProposeError> {
        let term = self.leads.unwrap_or_default();
        let running = self.running.as_ref().expect("a running peer");
        running.parts.handle.propose(term, data, ticket)
    }

    fn handle_is_idle(&self) -> bool {
        let status = self.status();
        status.role != Role::Leader
    }

    /// Every thread has its turn, and the owner takes what it is told.
    pub(super) fn step(&mut self, now: Instant) {
        let Some(running) = &mut self.running else { return };
        while running.parts.step_raft(now) {}
        let mut written = running.parts.step_log();
        while matches!(written, Ok(Step::Worked)) {
            written = running.parts.step_log();
        }
        let mut read = running.parts.step_cold();
        while matches!(read, Ok(true)) {
            read = running.parts.step_cold();
        }
        if written.is_err() || read.is_err() {
            assert!(self.fs.is_off(), "{written:?} {read:?} on a machine that is on");
            self.running = None;
            return;
        }
        running.parts.step_raft(now);
        let events: Vec<Event> = running.events.try_iter().collect();
        events.into_iter().for_each(|event| self.on_event(event));
    }

    fn on_event(&mut self, event: Event) {
        let Some(running) = &self.running else { return };
        let handle = &running.parts.handle;
        match event {
            Event::Leader { term } => self.leads = Some(term),
            Event::Follower { .. } => self.leads = None,
            Event::Committed { index, data, .. } => {
                self.machine.apply(index, &data);
                handle.applied(index);
            }
            Event::Restore { index, data, .. } => {
                self.machine = Machine::decode(data);
                assert_eq!(self.machine.applied, index);
                self.restored += 1;
                handle.applied(index);
            }
            Event::SnapshotWanted { .. } if !self.takes_snapshots => {}
            Event::SnapshotWanted { .. } => {
                handle.snapshot(self.machine.applied, self.machine.encode());
            }
            Event::ProposalDropped { tickets } => self.dropped.extend(tickets),
        }
    }
}
