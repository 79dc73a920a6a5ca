//! How a handler asks the metadata thread: one bounded queue, one answer each.

use crossbeam::channel::{Sender, TrySendError};
use tidelog_metadata::{
    AlterConfigs, Controller, ControllerError, ControllerResult, CreatePartitions,
    CreatePartitionsResult, CreateTopic, CreateTopicResult, DeleteTopicResult, FeatureUpdate,
    MetadataRecord, TopicReference,
};
use tidelog_types::{ErrorCode, ProducerId};
use tokio::sync::oneshot;

use crate::broker::random_uuid;

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
    Plan(Box<dyn Planning>),
    NextProducerId { reply: ReplyTo<ProducerId> },
}

/// A request that the controller plans, whatever its answer is made of.
pub(crate) trait Planning: Send {
    /// The records to propose, and who is to be told what became of them.
    fn plan(self: Box<Self>, controller: &Controller) -> (Vec<MetadataRecord>, Settle);

    /// Answers without planning.
    fn refuse(self: Box<Self>, code: ErrorCode);
}

/// Answers a plan: as planned once its records are committed, else with the error.
pub(crate) type Settle = Box<dyn FnOnce(Result<(), ErrorCode>)>;

/// One request: how it is planned, and where its answer goes.
struct Asking<T, P> {
    plan: P,
    reply: ReplyTo<T>,
}

impl<T, P> Planning for Asking<T, P>
where
    T: Send + 'static,
    P: FnOnce(&Controller) -> ControllerResult<T> + Send,
{
    fn plan(self: Box<Self>, controller: &Controller) -> (Vec<MetadataRecord>, Settle) {
        let Asking { plan, reply } = *self;
        let ControllerResult { records, response } = plan(controller);
        (records, Box::new(move |settled| tell(reply, settled.map(|()| response))))
    }

    fn refuse(self: Box<Self>, code: ErrorCode) {
        tell(self.reply, Err(code));
    }
}

impl Command {
    /// Answers without doing it.
    pub fn refuse(self, code: ErrorCode) {
        match self {
            Command::Plan(planning) => planning.refuse(code),
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
        self.plan(move |controller| {
            controller.create_topics(&topics, validate_only, &mut random_uuid)
        })
    }

    pub fn delete_topics(&self, references: Vec<TopicReference>) -> Asked<Vec<DeleteTopicResult>> {
        self.plan(move |controller| controller.delete_topics(&references))
    }

    pub fn create_partitions(
        &self,
        topics: Vec<CreatePartitions>,
        validate_only: bool,
    ) -> Asked<Vec<CreatePartitionsResult>> {
        self.plan(move |controller| controller.create_partitions(&topics, validate_only))
    }

    pub fn alter_configs(
        &self,
        wanted: Vec<AlterConfigs>,
        validate_only: bool,
    ) -> Asked<Vec<Result<(), ControllerError>>> {
        self.plan(move |controller| controller.alter_configs(&wanted, validate_only))
    }

    pub fn update_features(
        &self,
        updates: Vec<FeatureUpdate>,
        validate_only: bool,
    ) -> Asked<Result<(), ControllerError>> {
        self.plan(move |controller| controller.update_features(&updates, validate_only))
    }

    pub fn next_producer_id(&self) -> Asked<ProducerId> {
        let (reply, asked) = oneshot::channel();
        self.send(Command::NextProducerId { reply });
        asked
    }

    fn plan<T: Send + 'static>(
        &self,
        planning: impl FnOnce(&Controller) -> ControllerResult<T> + Send + 'static,
    ) -> Asked<T> {
        let (command, asked) = plan(planning);
        self.send(command);
        asked
    }

    fn send(&self, command: Command) {
        match self.commands.try_send(command) {
            Ok(()) => {}
            Err(TrySendError::Full(command)) => command.refuse(ErrorCode::RequestTimedOut),
            Err(TrySendError::Disconnected(command)) => command.refuse(ErrorCode::NotController),
        }
    }
}

/// The command that has the controller plan something, and where the answer will be.
pub(crate) fn plan<T: Send + 'static>(
    plan: impl FnOnce(&Controller) -> ControllerResult<T> + Send + 'static,
) -> (Command, Asked<T>) {
    let (reply, asked) = oneshot::channel();
    (Command::Plan(Box::new(Asking { plan, reply })), asked)
}
