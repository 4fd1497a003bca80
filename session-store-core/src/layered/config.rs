//! How a layered store is configured, and what it may promise.

use std::time::Duration;

use crate::error::{Error, Result};
use crate::primary::CacheName;
use crate::time::Ttl;

/// Who else uses the database.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Topology {
    /// Other processes may create and revoke sessions of the same database.
    #[default]
    ManyProcesses,
    /// This process is the only one. A cache inside it is then as good as a shared one.
    SingleProcess,
}

/// What a revocation does when the cache can't be told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnCacheFailure {
    /// Return at once and say how long the old entry may still be served.
    #[default]
    Report,
    /// Wait until no old entry can be left, in near caches too, then say `Immediate`.
    WaitOut,
    /// Try again for this long, until this node or another one has told the cache.
    WaitDrain(Duration),
}

/// How a layered store works.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LayeredConfig {
    /// Prepended to every cache key. Default: `ss:`.
    pub key_prefix: String,
    /// The name under which this cache is known to the database. Default: `main`.
    pub cache_name: CacheName,
    /// Who else uses the database. Default: `ManyProcesses`.
    pub topology: Topology,
    /// How long an entry may be served. Where it is made shorter, bounds go by the longer one for as
    /// long as that is registered under `cache_name`: another node may still work by it. Default:
    /// `None`, which is 300 s, and 5 s for a cache inside the process unless the topology is
    /// `SingleProcess`.
    pub cache_ttl: Option<Ttl>,
    /// How long a lease may be held. Default: 3 s.
    pub lease_ttl: Ttl,
    /// How long "there is no such session" may be cached; `None` turns that off. Default: 10 s.
    pub negative_ttl: Option<Ttl>,
    /// How long an entry may be served from the near cache inside the process; `None` turns that
    /// off. Default: `None`.
    pub near_ttl: Option<Ttl>,
    /// What a revocation does when the cache can't be told. Default: `Report`.
    pub on_cache_failure: OnCacheFailure,
    /// Refuse to start unless revocation can be immediate. Default: `false`.
    pub require_immediate: bool,
    /// How long one operation of the cache may take. Default: 250 ms.
    pub cache_deadline: Duration,
    /// How long the cache is left alone after it has failed several times in a row; one that can be
    /// read and not written is asked for no leases meanwhile. Default: 1 s.
    pub breaker_pause: Duration,
    /// How far the clocks of any two nodes or servers may differ. Default: 60 s.
    pub max_skew: Duration,
    /// How many reads of the primary may run at once. Default: 64.
    pub max_reads: usize,
    /// How long a read may wait for its turn before it is `Unavailable`. Default: 2 s.
    pub read_wait: Duration,
    /// How long one read of the primary may take before it is a `Timeout`; whoever waits for it
    /// with others waits no longer either. Default: 10 s.
    pub read_deadline: Duration,
    /// How many fills of the cache may run at once; more are dropped. Default: 1024.
    pub max_fills: usize,
    /// How many confirmations of a "no" may run at once. Default: 16.
    pub max_confirms: usize,
    /// How many confirmations one session may cause per second that let nobody in; more are
    /// `Unavailable`. Default: 20.
    pub confirms_per_second: u32,
}

impl Default for LayeredConfig {
    fn default() -> Self {
        Self {
            key_prefix: "ss:".to_owned(),
            cache_name: CacheName::main(),
            topology: Topology::default(),
            cache_ttl: None,
            lease_ttl: Ttl::from_secs_const(3),
            negative_ttl: Some(Ttl::from_secs_const(10)),
            near_ttl: None,
            on_cache_failure: OnCacheFailure::default(),
            require_immediate: false,
            cache_deadline: Duration::from_millis(250),
            breaker_pause: Duration::from_secs(1),
            max_skew: Duration::from_mins(1),
            max_reads: 64,
            read_wait: Duration::from_secs(2),
            read_deadline: Duration::from_secs(10),
            max_fills: 1024,
            max_confirms: 16,
            confirms_per_second: 20,
        }
    }
}

impl LayeredConfig {
    /// Longer ones are mistakes, and could not be added up.
    const LONGEST: Duration = Duration::from_hours(24);

    /// Refuses what can't work.
    pub(super) fn check(&self) -> Result<()> {
        if self.key_prefix.len() > 128 || self.key_prefix.contains('\0') {
            return Err(Error::configuration("core", "key_prefix: at most 128 bytes without NUL"));
        }
        if self.cache_name.as_str().len() > 64 {
            return Err(Error::configuration("core", "cache_name: at most 64 bytes"));
        }
        let counts = [self.max_reads, self.max_fills, self.max_confirms];
        if counts.contains(&0) || self.confirms_per_second == 0 {
            return Err(Error::configuration("core", "bulkheads of the layered store: at least 1"));
        }
        if self.cache_deadline.is_zero() || self.read_deadline.is_zero() {
            let what = "cache_deadline and read_deadline: more than zero";
            return Err(Error::configuration("core", what));
        }
        let patience = match self.on_cache_failure {
            OnCacheFailure::WaitDrain(patience) => patience,
            OnCacheFailure::Report | OnCacheFailure::WaitOut => Duration::ZERO,
        };
        let lengths = [self.breaker_pause, self.max_skew, self.read_wait, patience];
        if lengths.iter().any(|length| *length > Self::LONGEST) {
            let what = "breaker_pause, max_skew, read_wait and WaitDrain: at most a day";
            return Err(Error::configuration("core", what));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_fit(change: impl FnOnce(&mut LayeredConfig)) -> bool {
        let mut config = LayeredConfig::default();
        change(&mut config);
        config.check().is_ok()
    }

    #[test]
    fn what_just_works_is_accepted() {
        let day = LayeredConfig::LONGEST;
        assert!(is_fit(|config| config.key_prefix = "k".repeat(128)));
        assert!(is_fit(|config| config.breaker_pause = day));
        assert!(is_fit(|config| config.max_skew = day));
        assert!(is_fit(|config| config.read_wait = day));
        assert!(is_fit(|config| config.on_cache_failure = OnCacheFailure::WaitDrain(day)));
        assert!(is_fit(|config| {
            config.cache_name = CacheName::new("n".repeat(64)).unwrap();
            (config.max_reads, config.max_fills, config.max_confirms) = (1, 1, 1);
            config.confirms_per_second = 1;
            config.cache_deadline = Duration::from_millis(1);
            config.read_deadline = Duration::from_millis(1);
        }));
    }

    #[test]
    fn what_can_not_work_is_refused() {
        let longer = LayeredConfig::LONGEST + Duration::from_millis(1);
        assert_eq!(longer.as_millis(), 86_400_001);
        let unfit: [fn(&mut LayeredConfig); 9] = [
            |config| config.key_prefix = "k".repeat(129),
            |config| config.key_prefix = "\0".to_owned(),
            |config| config.cache_name = CacheName::new("n".repeat(65)).unwrap(),
            |config| config.max_reads = 0,
            |config| config.max_fills = 0,
            |config| config.max_confirms = 0,
            |config| config.confirms_per_second = 0,
            |config| config.cache_deadline = Duration::ZERO,
            |config| config.read_deadline = Duration::ZERO,
        ];
        for (number, change) in unfit.into_iter().enumerate() {
            assert!(!is_fit(change), "{number}");
        }
        assert!(!is_fit(|config| config.breaker_pause = longer));
        assert!(!is_fit(|config| config.max_skew = longer));
        assert!(!is_fit(|config| config.read_wait = longer));
        assert!(!is_fit(|config| config.on_cache_failure = OnCacheFailure::WaitDrain(longer)));
    }
}
