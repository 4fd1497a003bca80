//! The ways in which the explorer breaks the protocol, to show that it notices.

/// One rule of the protocol that is not kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Quirk {
    /// Everything is as shipped.
    #[default]
    None,
    /// A fill replaces whatever is there.
    NaiveFill,
    /// The removal is sent before the commit.
    RemoveBeforeCommit,
    /// All leases of a session look the same, so that its flights are shared by session.
    FlightsBySession,
    /// A removal that was not applied is reported as done.
    SwallowedRemoveError,
    /// A caller that goes away takes its revocation along.
    RevokeNotSpawned,
    /// A swap is reported as done before it is applied, so that the flight ends early.
    LandsBeforeSwap,
    /// Acknowledging an entry acknowledges every older one too.
    HighWaterMark,
}
