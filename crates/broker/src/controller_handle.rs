//! How a handler asks the metadata thread: one bounded queue, one answer each.

use crossbeam::channel::{Sender, TrySendError};
use tidelog_metadata::{CreateTopic, CreateTopicResult, DeleteTopicResult, TopicReference};
use tidelog_types::{ErrorCode, ProducerId};
use tokio::sync::oneshot;

/// Requests that may wait for the metadata thread; more are told to ask again.
pub(crate) const COMMANDS_MAX: usize = 1024;

/// Where an answer goes. An error is of the request as a whole.
pub(crate) type ReplyTo<T> = oneshot::Sender<Result<T, ErrorCode>>;

/// Answers, if the client has not gone.
pub(crate) fn tell<T>(reply: ReplyTo<T>, answer: Result<T, ErrorCode>) {
    let _ = reply.send(answer);
}

/// What a handler asks of the metadata thread.
pub(crate) enum Command {
    CreateTopics {
        topics: Vec<CreateTopic>,
        validate_only: bool,
        reply: ReplyTo<Vec<CreateTopicResult>>,
    },
    DeleteTopics {
        references: Vec<TopicReference>,
        reply: ReplyTo<Vec<DeleteTopicResult>>,
    },
    NextProducerId {
        reply: ReplyTo<ProducerId>,
    },
}

impl Command {
    /// Answers without doing it.
    pub fn refuse(self, code: ErrorCode) {
        match self {
            Command::CreateTopics { reply, .. } => tell(reply, Err(code)),
            Command::DeleteTopics { reply, .. } => tell(reply, Err(code)),
            Command::NextProducerId { reply } => tell(reply, Err(code)),
        }
    }
}

/// The way to the metadata thread.
#[derive(Clone)]
pub(crate) struct ControllerHandle {
    commands: Sender<Command>,
}

/// What [`ControllerHandle`] gives back at once.
pub(crate) type Asked<T> = oneshot::Receiver<Result<T, ErrorCode>>;

impl ControllerHandle {
    pub fn new(commands: Sender<Command>) -> ControllerHandle {
        ControllerHandle { commands }
    }

    pub fn create_topics(
        &self,
        topics: Vec<CreateTopic>,
        validate_only: bool,
    ) -> Asked<Vec<CreateTopicResult>> {
        self.ask(|reply| Command::CreateTopics { topics, validate_only, reply })
    }

    pub fn delete_topics(&self, references: Vec<TopicReference>) -> Asked<Vec<DeleteTopicResult>> {
        self.ask(|reply| Command::DeleteTopics { references, reply })
    }

    pub fn next_producer_id(&self) -> Asked<ProducerId> {
        self.ask(|reply| Command::NextProducerId { reply })
    }

    fn ask<T>(&self, command: impl FnOnce(ReplyTo<T>) -> Command) -> Asked<T> {
        let (reply, asked) = oneshot::channel();
        match self.commands.try_send(command(reply)) {
            Ok(()) => {}
            Err(TrySendError::Full(command)) => command.refuse(ErrorCode::RequestTimedOut),
            Err(TrySendError::Disconnected(command)) => command.refuse(ErrorCode::NotController),
        }
        asked
    }
}
