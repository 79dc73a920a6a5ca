//! Answers that need something from another thread.

use std::{
    future::Future as _,
    pin::Pin,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use tidelog_net::service::{CloseReason, Handled, PendingReply, Reply};
use tidelog_protocol::Outgoing;
use tidelog_types::ErrorCode;
use tokio::sync::oneshot;

/// How long an administrator's request may take that does not say.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// What came of asking another thread.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer<T> {
    /// It answered.
    Got(T),
    /// It did not answer in time, and may still do what it was asked.
    TimedOut,
    /// It went away without an answer.
    Lost,
}

impl<T> Answer<Result<T, ErrorCode>> {
    /// What the controller answered, or what its silence means to the client.
    pub fn settled(self) -> Result<T, ErrorCode> {
        match self {
            Answer::Got(answer) => answer,
            Answer::TimedOut => Err(ErrorCode::RequestTimedOut),
            Answer::Lost => Err(ErrorCode::NotController),
        }
    }
}

/// A reply that is encoded once another thread has answered.
pub(crate) struct Awaited<T, F> {
    receiver: oneshot::Receiver<T>,
    deadline: Option<Instant>,
    finish: Option<F>,
}

/// Parks a reply until `receiver` answers or `timeout` passes.
pub(crate) fn park<T, F>(
    receiver: oneshot::Receiver<T>,
    timeout: Option<Duration>,
    finish: F,
) -> Handled
where
    T: Send + 'static,
    F: FnOnce(Answer<T>) -> Result<Outgoing, CloseReason> + Send + Unpin + 'static,
{
    let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    let awaited = Awaited { receiver, deadline, finish: Some(finish) };
    Handled::Reply(Reply::Pending(Box::new(awaited)))
}

/// A request's `timeout_ms`; a negative one is none at all.
pub(crate) fn timeout(milliseconds: i32) -> Duration {
    Duration::from_millis(u64::try_from(milliseconds).unwrap_or(0))
}

impl<T, F> Awaited<T, F>
where
    F: FnOnce(Answer<T>) -> Result<Outgoing, CloseReason>,
{
    fn finish(&mut self, answer: Answer<T>) -> Poll<Result<Outgoing, CloseReason>> {
        let finish = self.finish.take().expect("a reply is polled until it is ready, once");
        Poll::Ready(finish(answer))
    }
}

impl<T, F> PendingReply for Awaited<T, F>
where
    T: Send,
    F: FnOnce(Answer<T>) -> Result<Outgoing, CloseReason> + Send + Unpin,
{
    fn poll_reply(&mut self, context: &mut Context<'_>) -> Poll<Result<Outgoing, CloseReason>> {
        match Pin::new(&mut self.receiver).poll(context) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(value)) => self.finish(Answer::Got(value)),
            Poll::Ready(Err(_)) => self.finish(Answer::Lost),
        }
    }

    fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    fn expire(&mut self) -> Poll<Result<Outgoing, CloseReason>> {
        self.finish(Answer::TimedOut)
    }
}
