//! Opens batches on a thread of its own: a small one may take milliseconds, which no connection
//! and no other reader of the log shall wait for.

use std::{io, thread};

use crossbeam::channel::{Receiver, Sender, bounded};

/// Batches that may wait to be opened. A connection asks for one at a time.
const WALKS_MAX: usize = 1024;

/// How much larger than the topic's largest batch one may become while its records are open.
pub(crate) const OPENED_FACTOR: usize = 16;
/// Bytes that no compressed batch may exceed then.
pub(crate) const OPENED_BYTES_MAX: usize = 64 << 20;

/// What a compressed batch may become. Producers count a batch's size before they compress it, so
/// that honest ones stay far below.
pub(crate) fn opened_bytes_max(message_bytes_max: u32) -> usize {
    OPENED_BYTES_MAX.min((message_bytes_max as usize).saturating_mul(OPENED_FACTOR))
}

type Walk = Box<dyn FnOnce() + Send>;

/// The way to the thread, which ends with the last of these.
#[derive(Clone)]
pub(crate) struct RecordWalker {
    walks: Sender<Walk>,
}

impl RecordWalker {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the system gives none.
    pub fn start() -> io::Result<RecordWalker> {
        let (walks, queue): (Sender<Walk>, Receiver<Walk>) = bounded(WALKS_MAX);
        let run = move || queue.into_iter().for_each(|walk| walk());
        thread::Builder::new().name("record-walker".to_owned()).spawn(run)?;
        Ok(RecordWalker { walks })
    }

    /// Has `walk` called on the thread. Never waits: with too many in line it is dropped.
    pub fn queue(&self, walk: impl FnOnce() + Send + 'static) {
        let _ = self.walks.try_send(Box::new(walk));
    }
}
