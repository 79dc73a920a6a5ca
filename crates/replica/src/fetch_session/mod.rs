//! Fetch sessions (KIP-227): what a client need not say again, and what it need not be told again.
//!
//! A session is as much the client's as the broker's: it lives in no connection, and ends when the
//! client closes it, or when another one is worth more to the broker.

mod cache;
mod session;

#[cfg(test)]
mod tests;

pub use cache::{CacheLimits, Created, FetchSessionCache};
pub use session::{FetchSession, Look, Slot};

/// Names a fetch session. Positive; [`SessionId::NONE`] says that there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub i32);

impl SessionId {
    /// No session.
    pub const NONE: SessionId = SessionId(0);
}

/// Counts the requests of one session: 1 after the one that began it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionEpoch(pub i32);

impl SessionEpoch {
    /// Of a full fetch that begins a session.
    pub const INITIAL: SessionEpoch = SessionEpoch(0);
    /// Of a full fetch that wants no session, and ends the one it names.
    pub const FINAL: SessionEpoch = SessionEpoch(-1);

    /// The epoch of the request that follows. After the greatest comes 1, as 0 begins a session.
    #[must_use]
    pub fn next(self) -> SessionEpoch {
        assert!(self >= SessionEpoch::INITIAL, "only requests of a session are counted");
        SessionEpoch(if self.0 == i32::MAX { 1 } else { self.0 + 1 })
    }
}

/// What a request's session id and epoch ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionRequest {
    /// Everything it names, and no session. Ends the session that it names.
    Sessionless(SessionId),
    /// Everything it names, and a session from now on. Ends the session that it names.
    Full(SessionId),
    /// What changed in its session.
    Incremental(SessionId, SessionEpoch),
}

impl SessionRequest {
    /// Reads a request's two fields.
    #[must_use]
    pub fn of(session_id: i32, session_epoch: i32) -> SessionRequest {
        let id = SessionId(session_id);
        match SessionEpoch(session_epoch) {
            SessionEpoch::FINAL => SessionRequest::Sessionless(id),
            SessionEpoch::INITIAL => SessionRequest::Full(id),
            epoch => SessionRequest::Incremental(id, epoch),
        }
    }
}
