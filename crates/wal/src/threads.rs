//! Runs the bodies of the log's threads. Each body is a `step()`, so that a test or a simulation
//! can run it instead.

use std::{
    io,
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use crate::{
    doorbell::Doorbell,
    env::sched,
    error::{Fatal, die},
    shard::{Bells, Shard},
};

/// How long the queue is empty before an idle frame is written.
const PAUSE: Duration = Duration::from_millis(20);
/// How long a thread sleeps when nobody rings; a full disk is tried again after that.
const SLEEP: Duration = Duration::from_secs(1);

/// What a step did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Something; there may be more.
    Worked,
    /// Nothing; there will be something in a moment even if nobody rings.
    Pause,
    /// Nothing: wait to be woken.
    Idle,
    /// The log is closed and there will never be anything again.
    Done,
}

/// Runs steps on a thread of their own until they are done. A fatal error ends the process.
pub(crate) fn spawn(
    name: &str,
    shard: &Arc<Shard>,
    bell: fn(&Bells) -> &Doorbell,
    step: impl FnMut() -> Result<Step, Fatal> + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    spawn_as(sched::shorten_slice, name, shard, bell, step)
}

/// The same for work that nobody waits for: others get the processor first.
pub(crate) fn spawn_in_background(
    name: &str,
    shard: &Arc<Shard>,
    bell: fn(&Bells) -> &Doorbell,
    step: impl FnMut() -> Result<Step, Fatal> + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    spawn_as(sched::step_back, name, shard, bell, step)
}

fn spawn_as(
    schedule: fn(),
    name: &str,
    shard: &Arc<Shard>,
    bell: fn(&Bells) -> &Doorbell,
    mut step: impl FnMut() -> Result<Step, Fatal> + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    let shard = Arc::clone(shard);
    thread::Builder::new().name(name.to_owned()).spawn(move || {
        schedule();
        let bell = bell(&shard.bells);
        bell.answer_here();
        loop {
            match step() {
                Ok(Step::Worked) => {}
                Ok(Step::Pause) => bell.wait(PAUSE),
                Ok(Step::Idle) => bell.wait(SLEEP),
                Ok(Step::Done) => return,
                Err(fatal) => die(&fatal),
            }
        }
    })
}
