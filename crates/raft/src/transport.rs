//! How messages leave a node: envelopes with a group id, and queues that end.
//!
//! A transport never waits. What does not fit is dropped, as the network might have; raft-rs asks
//! again. One ordered stream a peer: a reordered rejection costs a needless read of old entries.

use crossbeam::channel::{Receiver, Sender, TrySendError, bounded};
use raft::eraftpb::Message;

/// Where the Raft thread puts what it wants sent.
pub trait Transport: Send + 'static {
    /// Takes messages in order, without waiting. Some may never arrive.
    fn send(&mut self, messages: Vec<Message>);
}

/// One message and the group it belongs to.
#[derive(Debug, Clone)]
pub struct Envelope {
    /// The Raft group.
    pub group: u32,
    /// raft-rs's message; `to` and `from` are Raft ids.
    pub message: Message,
}

/// The transport of a sole voter: there is nobody to send to.
#[derive(Debug, Default, Clone, Copy)]
pub struct NoTransport;

impl Transport for NoTransport {
    fn send(&mut self, messages: Vec<Message>) {
        assert!(messages.is_empty(), "a sole voter has nobody to write to");
    }
}

/// Messages over one bounded channel, for tests and for a sender thread on the other side.
#[derive(Debug)]
pub struct ChannelTransport {
    group: u32,
    queue: Sender<Envelope>,
    dropped: u64,
}

impl ChannelTransport {
    /// A transport of one group and the queue that it fills, at most `messages_max` long.
    #[must_use]
    pub fn new(group: u32, messages_max: usize) -> (ChannelTransport, Receiver<Envelope>) {
        let (queue, receiver) = bounded(messages_max);
        (ChannelTransport { group, queue, dropped: 0 }, receiver)
    }
}

impl Transport for ChannelTransport {
    fn send(&mut self, messages: Vec<Message>) {
        for message in messages {
            let envelope = Envelope { group: self.group, message };
            match self.queue.try_send(envelope) {
                Ok(()) => {}
                Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => self.dropped += 1,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_queue_drops_and_never_waits() {
        let (mut transport, queue) = ChannelTransport::new(7, 2);
        let messages: Vec<Message> =
            (1..=3).map(|to| Message { to, ..Message::default() }).collect();
        transport.send(messages);
        let arrived: Vec<(u32, u64)> = queue.try_iter().map(|e| (e.group, e.message.to)).collect();
        assert_eq!(arrived, [(7, 1), (7, 2)]);
        assert_eq!(transport.dropped, 1);
    }
}
