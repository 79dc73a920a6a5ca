//! When a producer wants to hear "yes".

/// A produce request's `acks`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Acks {
    /// 0: never answered.
    None,
    /// 1: once the leader has it on disk.
    Leader,
    /// -1: once every in-sync replica has it on disk.
    All,
}

impl Acks {
    /// Reads the wire's number; `None` for one that means nothing.
    #[must_use]
    pub fn from_wire(acks: i16) -> Option<Acks> {
        match acks {
            0 => Some(Acks::None),
            1 => Some(Acks::Leader),
            -1 => Some(Acks::All),
            _ => None,
        }
    }
}
