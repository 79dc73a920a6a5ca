//! How a handler asks the metadata thread: one bounded queue, one answer each.

use std::sync::Arc;

use crossbeam::channel::{Sender, TrySendError};
use tidelog_metadata::{
    AlterConfigs, Controller, ControllerError, ControllerResult, CreatePartitions,
    CreatePartitionsResult, CreateTopic, CreateTopicResult, DeleteTopicResult, FeatureUpdate,
    MetadataRecord, TopicReference,
};
use tidelog_types::{ErrorCode, ProducerId};
use tokio::sync::oneshot;

use crate::{
    broker::random_uuid,
    waiting_room::{Place, WaitingRoom},
};

/// Requests that may wait for the metadata thread; more are told to ask again.
pub(crate) const COMMANDS_MAX: usize = 1024;
/// Topics, settings and other things that they may be about together: a client that has gone leaves
/// what it asked for, and comes again.
const ITEMS_MAX: usize = 200_000;

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
    _place: Option<Place>,
}

impl<T, P> Planning for Asking<T, P>
where
    T: Send + 'static,
    P: FnOnce(&Controller) -> ControllerResult<T> + Send,
{
    fn plan(self: Box<Self>, controller: &Controller) -> (Vec<MetadataRecord>, Settle) {
        let Asking { plan, reply, _place } = *self;
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
    room: Arc<WaitingRoom>,
}

/// What [`ControllerHandle`] gives back at once.
pub(crate) type Asked<T> = oneshot::Receiver<Result<T, ErrorCode>>;

impl ControllerHandle {
    pub fn new(commands: Sender<Command>) -> ControllerHandle {
        ControllerHandle { commands, room: WaitingRoom::new(ITEMS_MAX) }
    }

    pub fn create_topics(
        &self,
        topics: Vec<CreateTopic>,
        validate_only: bool,
    ) -> Asked<Vec<CreateTopicResult>> {
        let items =
            topics.iter().map(|topic| 1 + topic.assignments.len() + topic.configs.len()).sum();
        self.plan(items, move |controller| {
            controller.create_topics(&topics, validate_only, &mut random_uuid)
        })
    }

    pub fn delete_topics(&self, references: Vec<TopicReference>) -> Asked<Vec<DeleteTopicResult>> {
        let items = references.len();
        self.plan(items, move |controller| controller.delete_topics(&references))
    }

    pub fn create_partitions(
        &self,
        topics: Vec<CreatePartitions>,
        validate_only: bool,
    ) -> Asked<Vec<CreatePartitionsResult>> {
        let items = topics.iter().map(|t| 1 + t.assignments.as_ref().map_or(0, Vec::len)).sum();
        self.plan(items, move |controller| controller.create_partitions(&topics, validate_only))
    }

    pub fn alter_configs(
        &self,
        wanted: Vec<AlterConfigs>,
        validate_only: bool,
    ) -> Asked<Vec<Result<(), ControllerError>>> {
        let items = wanted.iter().map(|wanted| 1 + wanted.alteration.len()).sum();
        self.plan(items, move |controller| controller.alter_configs(&wanted, validate_only))
    }

    pub fn update_features(
        &self,
        updates: Vec<FeatureUpdate>,
        validate_only: bool,
    ) -> Asked<Result<(), ControllerError>> {
        let items = updates.len();
        self.plan(items, move |controller| controller.update_features(&updates, validate_only))
    }

    pub fn next_producer_id(&self) -> Asked<ProducerId> {
        let (reply, asked) = oneshot::channel();
        self.send(Command::NextProducerId { reply });
        asked
    }

    /// Asks for a plan that is about so many things.
    fn plan<T: Send + 'static>(
        &self,
        items: usize,
        planning: impl FnOnce(&Controller) -> ControllerResult<T> + Send + 'static,
    ) -> Asked<T> {
        let place = self.room.enter(items);
        let is_let_in = place.is_some();
        let (command, asked) = asking(planning, place);
        match is_let_in {
            true => self.send(command),
            false => command.refuse(ErrorCode::RequestTimedOut),
        }
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
#[cfg(test)]
pub(crate) fn plan<T: Send + 'static>(
    plan: impl FnOnce(&Controller) -> ControllerResult<T> + Send + 'static,
) -> (Command, Asked<T>) {
    asking(plan, None)
}

fn asking<T: Send + 'static>(
    plan: impl FnOnce(&Controller) -> ControllerResult<T> + Send + 'static,
    place: Option<Place>,
) -> (Command, Asked<T>) {
    let (reply, asked) = oneshot::channel();
    (Command::Plan(Box::new(Asking { plan, reply, _place: place })), asked)
}

#[cfg(test)]
mod tests {
    use crossbeam::channel::bounded;

    use super::*;

    #[test]
    fn what_clients_that_have_gone_left_behind_is_bounded() {
        let (commands, queue) = bounded(COMMANDS_MAX);
        let handle = ControllerHandle::new(commands);
        let ask = |count| {
            let topics = vec![CreateTopic::with_defaults("t"); count];
            let mut asked = handle.create_topics(topics, true);
            asked.try_recv().map(|answer| answer.map(|_| ()))
        };
        // Each of these clients has gone before it is answered.
        assert!(ask(100_000).is_err() && ask(100_000).is_err(), "they wait");
        assert_eq!(ask(1), Ok(Err(ErrorCode::RequestTimedOut)));
        queue.recv().expect("a command").refuse(ErrorCode::NotController);
        assert!(ask(100_000).is_err(), "there is room again");
        assert_eq!(queue.len(), 2);
    }
}
