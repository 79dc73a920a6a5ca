//! An answer that one or many group shards have their say in.

use std::{
    future::Future as _,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use tidelog_coordinator::{GroupRequest, GroupResponse};
use tidelog_net::service::{CloseReason, Handled, PendingReply, Reply};
use tidelog_protocol::Outgoing;
use tidelog_types::ErrorCode;
use tokio::sync::oneshot;

use super::commands::{Ask, Asked, ReplyTo};
use crate::broker::Broker;

/// How long the log may take to make an answer safe. Joins and syncs wait for others besides, and
/// have no such bound: the shard's own timers end them.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// What a shard said, or why it said nothing.
pub(crate) type Said = Result<GroupResponse, ErrorCode>;

/// One thing to ask, or the answer to it if it need not be asked.
pub(crate) enum Question {
    /// For the shard of this group.
    Of(String, GroupRequest),
    /// For this shard.
    At(i32, GroupRequest),
    /// Answered already.
    Known(ErrorCode),
}

/// Asks, and answers with all that was said, in the order of the questions. `patience` is how long
/// that may take; `None` leaves it to the shards.
pub(crate) fn ask<F>(
    broker: &Arc<Broker>,
    questions: Vec<Question>,
    patience: Option<Duration>,
    finish: F,
) -> Handled
where
    F: FnOnce(Vec<Said>) -> Result<Outgoing, CloseReason> + Send + Unpin + 'static,
{
    let mut asks = Vec::with_capacity(questions.len());
    let answers = questions.into_iter().map(|question| {
        let (partition, request) = match question {
            Question::Known(code) => return Answer::Known(Err(code)),
            Question::At(partition, request) => (partition, request),
            Question::Of(group_id, request) => match broker.groups.partition_of(&group_id) {
                Some(partition) => (partition, request),
                // The client looks for the coordinator, which makes the topic.
                None => return Answer::Known(Err(ErrorCode::NotCoordinator)),
            },
        };
        let (sender, receiver) = oneshot::channel();
        asks.push(Ask { partition, request, reply: ReplyTo(sender) });
        Answer::Awaited(receiver)
    });
    let answers = answers.collect();
    let deadline = patience.and_then(|patience| Instant::now().checked_add(patience));
    let reply = GroupReply { answers, known: 0, deadline, finish: Some(finish) };
    let pending = |reply| Handled::Reply(Reply::Pending(Box::new(reply)));
    if asks.is_empty() {
        return pending(reply);
    }
    match broker.groups.handle.try_ask(asks) {
        Ok(()) => pending(reply),
        Err(asks) => {
            let handle = broker.groups.handle.clone();
            Handled::Wait(Box::pin(async move {
                handle.ask(asks).await;
                pending(reply)
            }))
        }
    }
}

enum Answer {
    Known(Said),
    Awaited(Asked<GroupResponse>),
}

struct GroupReply<F> {
    answers: Vec<Answer>,
    /// Answers at the front that are known.
    known: usize,
    deadline: Option<Instant>,
    finish: Option<F>,
}

impl<F> GroupReply<F>
where
    F: FnOnce(Vec<Said>) -> Result<Outgoing, CloseReason>,
{
    /// Answers; what no shard has said until now is told as `silence`.
    fn finish(&mut self, silence: ErrorCode) -> Poll<Result<Outgoing, CloseReason>> {
        let said = self.answers.drain(..).map(|answer| match answer {
            Answer::Known(said) => said,
            Answer::Awaited(_) => Err(silence),
        });
        let finish = self.finish.take().expect("a reply is polled until it is ready, once");
        Poll::Ready(finish(said.collect()))
    }
}

impl<F> PendingReply for GroupReply<F>
where
    F: FnOnce(Vec<Said>) -> Result<Outgoing, CloseReason> + Send + Unpin,
{
    fn poll_reply(&mut self, context: &mut Context<'_>) -> Poll<Result<Outgoing, CloseReason>> {
        while let Some(answer) = self.answers.get_mut(self.known) {
            if let Answer::Awaited(receiver) = answer {
                let Poll::Ready(said) = Pin::new(receiver).poll(context) else {
                    return Poll::Pending;
                };
                // A loop that went away ended with the broker.
                *answer = Answer::Known(said.unwrap_or(Err(ErrorCode::NotCoordinator)));
            }
            self.known += 1;
        }
        self.finish(ErrorCode::NotCoordinator)
    }

    fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    fn expire(&mut self) -> Poll<Result<Outgoing, CloseReason>> {
        self.finish(ErrorCode::CoordinatorNotAvailable)
    }

    /// A member that waits for others must not keep the process from stopping.
    fn hurry(&mut self) {
        self.deadline = Some(Instant::now());
    }
}
