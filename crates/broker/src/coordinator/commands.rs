//! The way to a coordinator's loop: one bounded queue, one answer for each request.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicI32, Ordering},
};

use tidelog_types::ErrorCode;
use tokio::sync::{
    Notify,
    mpsc::{self, error::TrySendError},
    oneshot,
};

/// Requests that may wait for the loop, each for as many shards as it likes. At the bound the
/// connections that bring more read nothing.
pub(crate) const COMMANDS_MAX: usize = 4096;

/// What one request asks of one shard.
pub(crate) struct Ask<Request, Response> {
    /// The shard.
    pub partition: i32,
    /// What it is asked.
    pub request: Request,
    /// Where its answer goes.
    pub reply: ReplyTo<Response>,
}

/// Where an answer goes, or why there is none.
pub(crate) struct ReplyTo<Response>(pub oneshot::Sender<Result<Response, ErrorCode>>);

/// The answer, once it is known.
pub(crate) type Asked<Response> = oneshot::Receiver<Result<Response, ErrorCode>>;

impl<Response> ReplyTo<Response> {
    /// Answers, if the client has not gone.
    pub fn answer(self, answer: Result<Response, ErrorCode>) {
        let _ = self.0.send(answer);
    }
}

/// Asks that go together.
pub(crate) type Asks<Request, Response> = Vec<Ask<Request, Response>>;

/// A way to the loop that can be cloned. The loop ends with the last of them.
pub(crate) struct CoordinatorHandle<Request, Response> {
    commands: mpsc::Sender<Asks<Request, Response>>,
    shared: Arc<Shared>,
}

impl<Request, Response> Clone for CoordinatorHandle<Request, Response> {
    fn clone(&self) -> Self {
        CoordinatorHandle { commands: self.commands.clone(), shared: Arc::clone(&self.shared) }
    }
}

/// What the loop, its clients and the metadata thread share.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    /// Partitions of the internal topic; 0 while there is none.
    partitions: AtomicI32,
    /// Rung when metadata has changed, or the loop is to stop.
    pub bell: Notify,
    news: Mutex<News>,
}

/// What the metadata thread has to say.
#[derive(Debug, Default)]
pub(crate) struct News {
    /// Topics that were deleted since the loop last looked.
    pub deleted: Vec<String>,
    /// Whether the broker stops.
    pub is_stopping: bool,
}

impl Shared {
    /// How many partitions the internal topic has, 0 while there is none.
    pub fn partitions(&self) -> i32 {
        self.partitions.load(Ordering::Acquire)
    }

    /// The loop follows the topic as it is now.
    pub fn set_partitions(&self, partitions: i32) {
        self.partitions.store(partitions, Ordering::Release);
    }

    /// Metadata has changed; these topics are gone.
    pub fn published(&self, deleted: impl IntoIterator<Item = String>) {
        self.news(|news| news.deleted.extend(deleted));
        self.bell.notify_one();
    }

    /// Has the loop end: whoever waits is told to look for another coordinator.
    pub fn stop(&self) {
        self.news(|news| news.is_stopping = true);
        self.bell.notify_one();
    }

    /// Looks at what happened, or adds to it.
    pub fn news<T>(&self, look: impl FnOnce(&mut News) -> T) -> T {
        // Nothing panics under this lock.
        look(&mut self.news.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The queue from handlers to the loop.
pub(crate) fn commands<Request, Response>(
    shared: Arc<Shared>,
) -> (CoordinatorHandle<Request, Response>, mpsc::Receiver<Asks<Request, Response>>) {
    let (commands, queue) = mpsc::channel(COMMANDS_MAX);
    (CoordinatorHandle { commands, shared }, queue)
}

impl<Request, Response> CoordinatorHandle<Request, Response> {
    /// Partitions of the internal topic; `None` while there is none.
    pub fn partitions(&self) -> Option<i32> {
        Some(self.shared.partitions()).filter(|partitions| *partitions > 0)
    }

    /// Asks, and gives everything back where the queue is full.
    pub fn try_ask(&self, asks: Asks<Request, Response>) -> Result<(), Asks<Request, Response>> {
        match self.commands.try_send(asks) {
            Ok(()) => Ok(()),
            Err(TrySendError::Full(asks)) => Err(asks),
            Err(TrySendError::Closed(asks)) => {
                refuse(asks);
                Ok(())
            }
        }
    }

    /// Asks once there is room.
    pub async fn ask(&self, asks: Asks<Request, Response>) {
        if let Err(mpsc::error::SendError(asks)) = self.commands.send(asks).await {
            refuse(asks);
        }
    }
}

/// The loop has ended with the broker.
fn refuse<Request, Response>(asks: Asks<Request, Response>) {
    asks.into_iter().for_each(|ask| ask.reply.answer(Err(ErrorCode::NotCoordinator)));
}
