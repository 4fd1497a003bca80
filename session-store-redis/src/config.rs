//! Where Redis is and how it is used.

use std::fmt;
use std::time::Duration;

use session_store_core::{Error, Result};
use zeroize::Zeroizing;

use crate::error::NAME;
use crate::url::{Address, Credentials};

/// Where Redis is and how it is used.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RedisConfig {
    /// The servers.
    pub servers: Servers,
    /// Which client library talks to them. Default: `Redis`.
    pub client: Client,
    /// Prepended to every key, before the prefix of the layered store; any characters. Default:
    /// empty.
    pub key_prefix: String,
    /// How long one operation may take, waiting for a connection included; 1 ms at least, and like
    /// every length of time here a day at most. Default: 200 ms.
    pub deadline: Duration,
    /// How long making a connection may take; 1 ms at least. Default: 1 s.
    pub connect_timeout: Duration,
    /// A connection is replaced when three questions or more have gone unanswered and the first of them
    /// was asked so long ago; 1 ms at least. A check that is due (`identity_interval`) and is not answered
    /// within `connect_timeout` replaces it too. Default: 1 s.
    pub silence: Duration,
    /// How long nobody tries to connect after an attempt has failed; operations fail at once
    /// meanwhile. Default: 200 ms.
    pub connect_pause: Duration,
    /// How often a connection in use is asked whether it is still the same server, and sentinels
    /// whether it is still the master. For so long and one `deadline` a node may take a deposed master
    /// for the real one, which `Guarantee::rollback` reckons with. Default: 1 s.
    pub identity_interval: Duration,
    /// How far the clocks of servers may differ that take over from each other, and how far that of one
    /// may go back: ends of entries are saved and replicated as points in time, and the server judges
    /// them by its clock. Part of `Guarantee::rollback`. A clock that goes back further prolongs every
    /// entry by as much, and nothing tells that. Default: 250 ms.
    pub clock_skew: Duration,
    /// After how long the kernel gives up on bytes that nobody acknowledges. Default: 2 s.
    pub tcp_user_timeout: Duration,
    /// Whether requests leave at once (`TCP_NODELAY`); turned off, many at a time are faster and
    /// each one may wait for a round trip. Default: `true`.
    pub nodelay: bool,
    /// The certificates that are trusted, as PEM. Default: `None`, which is those of the system.
    pub ca_pem: Option<Vec<u8>>,
    /// How to log in to sentinels; the user needs `+sentinel|get-master-addr-by-name`. Default: `None`.
    pub sentinel_credentials: Option<Credentials>,
    /// How many replicas must acknowledge a removal before it counts. Default: `None`.
    pub wait: Option<Wait>,
    /// Whether removed entries may come back. Default: `Possible`, which a server that does not say
    /// who it is (no `master_replid` in its `INFO`) is refused for.
    pub rollback: Rollback,
    /// Keys that authenticate records, for servers that others may write to. Default: `None`.
    pub record_keys: Option<RecordKeys>,
}

impl RedisConfig {
    /// Longer ones are mistakes, and could not be added to a point in time.
    const LONGEST: Duration = Duration::from_hours(24);

    /// These servers, with the defaults.
    pub fn new(servers: Servers) -> Self {
        Self {
            servers,
            client: Client::default(),
            key_prefix: String::new(),
            deadline: Duration::from_millis(200),
            connect_timeout: Duration::from_secs(1),
            silence: Duration::from_secs(1),
            connect_pause: Duration::from_millis(200),
            identity_interval: Duration::from_secs(1),
            clock_skew: Duration::from_millis(250),
            tcp_user_timeout: Duration::from_secs(2),
            nodelay: true,
            ca_pem: None,
            sentinel_credentials: None,
            wait: None,
            rollback: Rollback::default(),
            record_keys: None,
        }
    }

    /// Reads one line: an address is a single server, several with commas between them a Cluster,
    /// and `#name` at the end makes them sentinels of the master of that name. What `,`, `#`, `@` and
    /// `/` there are in a password is percent-encoded.
    ///
    /// ```
    /// use session_store_redis::{RedisConfig, Servers};
    ///
    /// let config = RedisConfig::parse("redis://a:26379,redis://b:26379#mymaster")?;
    /// assert!(matches!(config.servers, Servers::Sentinel { .. }));
    /// # Ok::<(), session_store_core::Error>(())
    /// ```
    pub fn parse(line: &str) -> Result<Self> {
        let (list, master) = match line.rsplit_once('#') {
            Some((list, master)) => (list, Some(master)),
            None => (line, None),
        };
        let addresses = list.split(',').map(Address::parse).collect::<Result<Vec<_>>>()?;
        let servers = match (master, <[Address; 1]>::try_from(addresses)) {
            (Some(master), addresses) => {
                let sentinels = addresses.map_or_else(|list| list, Vec::from);
                Servers::Sentinel { sentinels, master: master.to_owned() }
            }
            (None, Ok([address])) => Servers::Single(address),
            (None, Err(addresses)) => Servers::Cluster(addresses),
        };
        Ok(Self::new(servers))
    }

    /// How long after a failover somebody may still use what was left, and what clocks add to entries.
    pub(crate) fn slack(&self) -> Duration {
        let wait = self.wait.map_or(Duration::ZERO, |wait| wait.timeout);
        let late = self.identity_interval + self.deadline + wait;
        match self.rollback {
            Rollback::Possible => late + self.clock_skew,
            Rollback::Impossible => Duration::ZERO,
        }
    }

    /// Refuses what can't work.
    pub(crate) fn check(&self) -> Result<()> {
        if self.key_prefix.contains('\0') || self.key_prefix.len() > 1024 {
            return Err(refused("key_prefix: at most 1024 bytes without NUL"));
        }
        self.check_times()?;
        let (addresses, is_cluster) = match &self.servers {
            Servers::Single(address) => (std::slice::from_ref(address), false),
            Servers::Cluster(addresses) => (addresses.as_slice(), true),
            Servers::Sentinel { sentinels, master } => {
                if master.is_empty() {
                    return Err(refused("the name of the sentinels' master is missing"));
                }
                (sentinels.as_slice(), false)
            }
        };
        let Some(first) = addresses.first() else {
            return Err(refused("no address of any server"));
        };
        if is_cluster && addresses.iter().any(|address| address.database != 0) {
            return Err(refused("a Cluster has only database 0"));
        }
        let alike = |other: &Address| {
            (&other.credentials, other.is_tls, other.database)
                == (&first.credentials, first.is_tls, first.database)
        };
        if !addresses.iter().all(alike) {
            return Err(refused("all addresses: the same user, password, database and scheme"));
        }
        if self.wait.is_some_and(|wait| wait.replicas == 0) {
            return Err(refused("wait.replicas is 0: at least 1 replica"));
        }
        Ok(())
    }

    /// Servers and kernels are told milliseconds, and take none of them for "for ever".
    fn check_times(&self) -> Result<()> {
        let (least, none) = (Duration::from_millis(1), Duration::ZERO);
        let times = [
            ("deadline", self.deadline, least),
            ("connect_timeout", self.connect_timeout, least),
            ("silence", self.silence, least),
            ("connect_pause", self.connect_pause, none),
            ("identity_interval", self.identity_interval, none),
            ("clock_skew", self.clock_skew, none),
            ("tcp_user_timeout", self.tcp_user_timeout, least),
            ("wait.timeout", self.wait.map_or(least, |wait| wait.timeout), least),
        ];
        for (name, length, least) in times {
            if length < least || length > Self::LONGEST {
                let what = format!("{name} is {length:?}: at least {least:?}, at most a day");
                return Err(Error::configuration(NAME, what));
            }
        }
        Ok(())
    }

    /// What is the same for every server: the first address says it.
    pub(crate) fn first(&self) -> Option<&Address> {
        match &self.servers {
            Servers::Single(address) => Some(address),
            Servers::Cluster(addresses) => addresses.first(),
            Servers::Sentinel { sentinels, .. } => sentinels.first(),
        }
    }
}

fn refused(what: &'static str) -> Error {
    Error::configuration(NAME, what)
}

/// Which servers, and how they belong together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Servers {
    /// One server.
    ///
    /// Where its name is moved to another server while this one lives on, a node that stays connected
    /// goes on here, and its removals count: `Immediate` is said of a server that others have left. End
    /// the old one first, or use sentinels, which are asked who is in charge.
    Single(Address),
    /// Some nodes of a Cluster; the others are found through them: by TLS under the names that they
    /// announce (`cluster-announce-hostname`), else, or without such, by their addresses.
    Cluster(Vec<Address>),
    /// Sentinels that know where the master is. User, password and database are the master's.
    ///
    /// Name all of them. A majority of those that are named must name the same master, at the start
    /// and once in [`RedisConfig::identity_interval`]; without it the cache is `Unavailable`, and
    /// everybody is served from the primary. Of one sentinel, or of two, each is needed.
    Sentinel {
        /// Where the sentinels are.
        sentinels: Vec<Address>,
        /// What they call the master.
        master: String,
    },
}

/// A client library. Each needs the feature of its name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Client {
    /// The crate `redis`.
    #[default]
    Redis,
    /// The crate `fred`.
    Fred,
}

impl Client {
    pub(crate) fn feature(self) -> &'static str {
        match self {
            Self::Redis => "redis",
            Self::Fred => "fred",
        }
    }
}

/// What a removal waits for, so that a failover does not undo it.
///
/// It is gone from the master at once, and `Ok` only when replicas have acknowledged it. That takes
/// one connection more per server; removals that come while replicas are waited for wait together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wait {
    /// How many replicas must have it. Name all that could be promoted.
    pub replicas: u32,
    /// How long to wait for them, beyond the deadline of the operation; 1 ms to a day. The
    /// `cache_deadline` of the layered store leaves room for both.
    pub timeout: Duration,
}

/// Whether a server may come back with entries that had been removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rollback {
    /// By a failover to a replica that lags, or by a restart from a file. A process whose first attempt
    /// to connect fails can't tell a server that was away from one that was never there, and goes past
    /// the cache until whatever could be left of before has died: for `Guarantee::rollback`.
    #[default]
    Possible,
    /// There is no replica, and nothing is saved (`save ""`, `appendonly no`). Nor are slots of a
    /// Cluster moved while nodes are in use: a moved slot may bring back what was removed.
    Impossible,
}

/// Keys that authenticate records: the first signs, all are accepted.
///
/// Records that others wrote, or copied from another session, are then read as if they were not
/// there. What can't be noticed is an older record of the same session, put back by whoever kept it.
#[derive(Clone)]
pub struct RecordKeys(pub(crate) Vec<Zeroizing<Vec<u8>>>);

impl RecordKeys {
    /// The shortest key, in bytes.
    pub const MIN_BYTES: usize = 32;

    /// Signs with `key`, which is random and at least [`RecordKeys::MIN_BYTES`] long.
    pub fn new(key: &[u8]) -> Result<Self> {
        Self(Vec::new()).accepting(key)
    }

    /// Accepts what was signed with `key` too, while keys are changed.
    pub fn accepting(mut self, key: &[u8]) -> Result<Self> {
        if key.len() < Self::MIN_BYTES {
            return Err(refused("record_keys: a key has at least 32 bytes"));
        }
        self.0.push(Zeroizing::new(key.to_vec()));
        Ok(self)
    }
}

impl fmt::Debug for RecordKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RecordKeys({} keys)", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(line: &str) -> String {
        RedisConfig::parse(line).and_then(|config| config.check()).unwrap_err().to_string()
    }

    #[test]
    fn one_line_names_any_topology() {
        let of = |line| RedisConfig::parse(line).unwrap().servers;
        assert!(matches!(of("redis://a"), Servers::Single(_)));
        assert!(
            matches!(of("redis://a,redis://b:7001"), Servers::Cluster(list) if list.len() == 2)
        );
        let Servers::Sentinel { sentinels, master } = of("redis://a:26379#main") else { panic!() };
        assert_eq!((sentinels.len(), master.as_str()), (1, "main"));
    }

    #[test]
    fn what_can_not_work_is_refused_by_name() {
        assert!(refusal("redis://a/1,redis://b/1").contains("database 0"));
        assert!(refusal("redis://a#").contains("master"));
        assert!(refusal("redis://a,rediss://b").contains("same user"));
        assert!(RecordKeys::new(&[1; 31]).is_err());
        let keys = RecordKeys::new(&[7; 32]).unwrap();
        assert_eq!(format!("{keys:?}"), "RecordKeys(1 keys)");
    }

    #[test]
    fn lengths_of_time_that_can_not_work_are_refused_by_name_and_value() {
        type Set = fn(&mut RedisConfig, Duration);
        let all: [(&str, bool, Set); 8] = [
            ("deadline", false, |config, to| config.deadline = to),
            ("connect_timeout", false, |config, to| config.connect_timeout = to),
            ("silence", false, |config, to| config.silence = to),
            ("connect_pause", true, |config, to| config.connect_pause = to),
            ("identity_interval", true, |config, to| config.identity_interval = to),
            ("clock_skew", true, |config, to| config.clock_skew = to),
            ("tcp_user_timeout", false, |config, to| config.tcp_user_timeout = to),
            ("wait.timeout", false, |config, to| {
                config.wait = Some(Wait { replicas: 1, timeout: to });
            }),
        ];
        let day = Duration::from_hours(24);
        for (name, may_be_short, set) in all {
            let checked = |length| {
                let mut config = RedisConfig::parse("redis://a").unwrap();
                set(&mut config, length);
                config.check()
            };
            assert!(checked(Duration::from_millis(1)).is_ok() && checked(day).is_ok(), "{name}");
            let short = [Duration::ZERO, Duration::from_micros(500)];
            assert!(!may_be_short || short.iter().all(|length| checked(*length).is_ok()), "{name}");
            let long = [Duration::MAX, day + Duration::from_nanos(1)];
            let refused = if may_be_short { &[][..] } else { &short }.iter().chain(&long);
            for length in refused {
                let error = checked(*length).unwrap_err();
                let kind = error.kind();
                assert!(matches!(kind, session_store_core::ErrorKind::Configuration { .. }));
                assert!(error.to_string().contains(&format!("{name} is {length:?}")), "{error}");
            }
        }
    }
}
