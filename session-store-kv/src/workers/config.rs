//! Which namespace is the cache, and how it is read.

use std::time::Duration;

use session_store_core::{Error, Result};

use super::error::NAME;

/// Which namespace is the cache, and how it is read.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct WorkersKvConfig {
    /// The name of the KV binding in the Worker's environment. Default: `AUTH_SESSION_KV`.
    pub binding: String,
    /// How long the edge may keep what it has read, misses included: from 30 s to a day. It shortens
    /// the typical delay of a logout and never the bound, which the entries carry themselves.
    /// Default: `None`, which leaves it to Workers KV (60 s).
    pub edge_ttl: Option<Duration>,
}

impl Default for WorkersKvConfig {
    fn default() -> Self {
        Self { binding: "AUTH_SESSION_KV".to_owned(), edge_ttl: None }
    }
}

impl WorkersKvConfig {
    /// The `cacheTtl` of a read, in seconds.
    pub(crate) fn edge_secs(&self) -> Result<Option<u64>> {
        let Some(length) = self.edge_ttl else { return Ok(None) };
        let secs = length.as_secs();
        if !(30..=86_400).contains(&secs) {
            return Err(Error::configuration(NAME, "edge_ttl: from 30 s to a day"));
        }
        Ok(Some(secs))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secs(edge_ttl: Option<Duration>) -> Result<Option<u64>> {
        WorkersKvConfig { edge_ttl, ..WorkersKvConfig::default() }.edge_secs()
    }

    #[test]
    fn what_the_edge_would_refuse_is_refused_before() {
        assert_eq!(secs(None).unwrap(), None);
        assert_eq!(secs(Some(Duration::from_millis(30_999))).unwrap(), Some(30));
        assert!(secs(Some(Duration::from_millis(29_999))).is_err());
        assert!(secs(Some(Duration::from_secs(86_401))).is_err());
    }
}
