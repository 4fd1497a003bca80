//! Which table it is and how it is used.

use std::time::Duration;

use session_store_core::{Error, Result};

use super::error::NAME;

/// Which table a [`DynamoStore`](super::DynamoStore) is in and how it is used.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct DynamoConfig {
    /// The table; [`create_table`](super::create_table) makes it. It holds nothing but this store.
    pub table: String,
    /// Whether a session's reader learns the user's e-mail address. Default: `false`.
    pub project_email: bool,
    /// How calls are made.
    pub calls: CallConfig,
    /// How long after its deadline DynamoDB itself may remove a session that no sweep has removed.
    /// Longer than the policy's retention. Default: 60 days.
    pub garbage_after: Duration,
}

impl DynamoConfig {
    /// The table called `table`, with the defaults.
    pub fn new(table: impl Into<String>) -> Self {
        Self {
            table: table.into(),
            project_email: false,
            calls: CallConfig::default(),
            garbage_after: Duration::from_hours(60 * 24),
        }
    }
}

/// Which table a [`DynamoCache`](super::DynamoCache) is in and how it is used.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct DynamoCacheConfig {
    /// The table; [`create_table`](super::create_table) makes it. Better not that of the store.
    pub table: String,
    /// How calls are made. Default: a timeout of 1 s, the rest as for the store.
    pub calls: CallConfig,
    /// How far the clocks of two nodes may differ. An entry may be served that much longer than asked,
    /// which is a part of the bound that a revocation tells when the cache could not be; one that was
    /// written later than that from now is absent: a clock that was wrong must not keep it alive.
    /// Default: 60 s.
    pub max_skew: Duration,
    /// How long after its end DynamoDB itself may remove an entry; longer than `max_skew`.
    /// Default: 1 h.
    pub garbage_after: Duration,
}

impl DynamoCacheConfig {
    /// The table called `table`, with the defaults.
    pub fn new(table: impl Into<String>) -> Self {
        let calls = CallConfig { timeout: Duration::from_secs(1), ..CallConfig::default() };
        Self {
            table: table.into(),
            calls,
            max_skew: Duration::from_mins(1),
            garbage_after: Duration::from_hours(1),
        }
    }
}

/// How calls to DynamoDB are made. The retries and timeouts of the client itself are overridden: what
/// may be repeated safely is known here and not there.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct CallConfig {
    /// How long one call may take, its repetitions included, before `Timeout`. Default: 3 s.
    pub timeout: Duration,
    /// How often a call is tried that can be repeated without harm: reads, removals, touches, and
    /// transactions, which carry a token. Reads are repeated by the SDK, writes never. Default: 3.
    pub attempts: u32,
    /// How long an operation goes on against throttling, conflicts and unprocessed items, with
    /// growing pauses, before `Unavailable`. Default: 10 s.
    pub patience: Duration,
    /// How many calls one operation has in flight at once. Default: 8.
    pub parallel: usize,
}

impl CallConfig {
    /// Checks the numbers, and `table`; `Configuration` when they can't work.
    pub(super) fn check(&self, table: &str) -> Result<()> {
        let is_named = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
        if !(3..=255).contains(&table.len()) || !table.chars().all(is_named) {
            let what = "table: a name has 3 to 255 letters, digits, dots, dashes and underscores";
            return Err(Error::configuration(NAME, what));
        }
        if self.timeout.is_zero() || self.attempts == 0 || self.parallel == 0 {
            let what = "calls: timeout, attempts and parallel are more than zero";
            return Err(Error::configuration(NAME, what));
        }
        Ok(())
    }
}

impl Default for CallConfig {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(3),
            attempts: 3,
            patience: Duration::from_secs(10),
            parallel: 8,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_not_work_is_refused() {
        let calls = CallConfig::default();
        assert!(calls.check("sessions.v1_a-b").is_ok());
        for wrong in ["", "ab", "a/b/c", "tablé", &"t".repeat(256)] {
            assert!(calls.check(wrong).is_err(), "{wrong}");
        }
        let never = CallConfig { timeout: Duration::ZERO, ..calls.clone() };
        assert!(never.check("sessions").is_err());
        assert!(CallConfig { attempts: 0, ..calls.clone() }.check("sessions").is_err());
        assert!(CallConfig { parallel: 0, ..calls }.check("sessions").is_err());
    }
}
