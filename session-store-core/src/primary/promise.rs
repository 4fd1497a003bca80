//! What a primary adapter declares about itself; the conformance suite checks every word.

use std::time::Duration;

/// Differences between back ends that a caller or the suite must know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrimaryPromise {
    /// The adapter's name, as errors and reports use it.
    pub name: &'static str,
    /// Deadlines are kept to this precision, rounded down.
    pub precision: Duration,
    /// Who removes the sessions of a deleted user.
    pub cascade: Cascade,
    /// How long a new session may be missing from its user's list; zero: not at all.
    pub list_lag: Duration,
    /// Whether the invalidation log is kept.
    pub log: LogPromise,
    /// The largest `data` document, in bytes.
    pub max_data_bytes: usize,
    /// Whether acknowledged writes survive a crash of the process.
    pub durable: bool,
}

/// Who removes the sessions of a deleted user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cascade {
    /// The database itself, also when the user is deleted by hand.
    Native,
    /// The adapter.
    Emulated,
}

/// Whether the invalidation log is kept, and what writes to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogPromise {
    /// Every change is logged, hand-typed ones included.
    Complete,
    /// Changes made by the adapter are logged.
    OwnWrites,
    /// There is no log: `drain` finds nothing, `acknowledge` does nothing, and caches are
    /// registered all the same. Hard bounds come from TTLs alone.
    None,
}
