//! How proposals enter the log: many in one message, and only where their plan still holds.

use raft::{
    StateRole,
    eraftpb::{Entry, Message, MessageType},
};

use super::{Node, Told};
use crate::handle::{Command, Event, Proposal};

/// Most proposals that one append message begins with.
const PROPOSALS_A_STEP: usize = 1024;
/// Most bytes of them, more or less one.
const PROPOSAL_BYTES_A_STEP: usize = 1 << 20;

/// What a step took from the queue of proposals.
#[derive(Debug, Default)]
pub(super) struct Drained {
    pub(super) bytes: u64,
    pub(super) is_more: bool,
}

impl Node {
    pub(super) fn take_proposals(&mut self) -> Drained {
        let mut drained = Drained::default();
        let mut batch: Vec<Proposal> = Vec::new();
        let mut dropped: Vec<u64> = Vec::new();
        for _ in 0..PROPOSALS_A_STEP {
            if drained.bytes >= PROPOSAL_BYTES_A_STEP as u64 {
                break;
            }
            match self.inbox.proposals.try_recv() {
                Ok(Command::Propose(proposal)) => {
                    drained.bytes += proposal.data.len() as u64;
                    if self.is_dropping || !self.plans_in(proposal.term) {
                        dropped.push(proposal.ticket);
                    } else {
                        batch.push(proposal);
                    }
                }
                Ok(Command::Resume) => {
                    self.propose(std::mem::take(&mut batch), &mut dropped);
                    self.is_dropping = false;
                }
                Err(_) => break,
            }
        }
        self.propose(batch, &mut dropped);
        if !dropped.is_empty() {
            self.undelivered.push_back(Event::ProposalDropped { tickets: dropped });
        }
        drained.is_more = !self.inbox.proposals.is_empty();
        drained
    }

    /// Whether a plan made in `term` still holds: nothing else was appended meanwhile.
    fn plans_in(&self, term: u64) -> bool {
        self.told == Told { term, leader: self.config.raft_id, may_plan: true }
            && self.raw.raft.state == StateRole::Leader
            && self.raw.raft.term == term
    }

    /// One message with all entries: one append to each follower, one slot of what may be in
    /// flight, one write.
    fn propose(&mut self, batch: Vec<Proposal>, dropped: &mut Vec<u64>) {
        if batch.is_empty() {
            return;
        }
        let entry = |proposal: &Proposal| Entry { data: proposal.data.clone(), ..Entry::default() };
        let entries: Vec<Entry> = batch.iter().map(entry).collect();
        let mut message = Message { from: self.config.raft_id, ..Message::default() };
        message.set_msg_type(MessageType::MsgPropose);
        message.set_entries(entries.into());
        let next = self.raw.raft.raft_log.last_index() + 1;
        match self.raw.step(message) {
            Ok(()) => self.proposed.extend((next..).zip(batch.iter().map(|p| p.at))),
            Err(_) => {
                self.is_dropping = true;
                dropped.extend(batch.iter().map(|proposal| proposal.ticket));
            }
        }
    }
}
