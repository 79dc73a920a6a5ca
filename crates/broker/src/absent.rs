//! Tells the operator, once, what clients ask for that is not there yet.

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicBool, Ordering},
};

use tracing::info;

/// What was told of already.
#[derive(Debug, Default)]
pub(crate) struct Absent {
    transactions: AtomicBool,
}

impl Absent {
    /// A client asks for a transaction, and is refused.
    pub fn transactions_asked_for(&self, peer: SocketAddr) {
        if is_first(&self.transactions) {
            info!(%peer, "a client asks for transactions: refused, they are not served yet");
        }
    }
}

fn is_first(told: &AtomicBool) -> bool {
    // Read first: once told, nobody writes to what every request looks at.
    !told.load(Ordering::Relaxed) && !told.swap(true, Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_first_is_told_of() {
        let told = AtomicBool::new(false);
        assert_eq!([is_first(&told), is_first(&told), is_first(&told)], [true, false, false]);
    }
}
