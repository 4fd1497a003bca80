//! Which server a command goes to, and the pieces that commands are sent in.

use std::sync::Arc;

use futures_util::future::join_all;
use session_store_core::{Error, Record, Result};
use tokio::time::Instant;

use crate::cluster::Cluster;
use crate::config::{RedisConfig, Servers, Wait};
use crate::driver::{self, Command, Reply, Target, Tls};
use crate::error::{Fault, NAME};
use crate::identity::Watch;
use crate::link::{Dialer, Link, Place};
use crate::sentinel::Sentinels;
use crate::url::Node;

/// How many keys one `UNLINK` names: a server does nothing else meanwhile.
const KEYS_AT_ONCE: usize = 500;

/// All servers of a cache.
#[derive(Debug)]
pub(crate) enum Routes {
    /// One server has all keys.
    One(Link),
    /// Each server has some.
    Cluster(Cluster),
}

/// How to reach the servers of `config`.
pub(crate) fn dialer(config: &RedisConfig) -> Result<Arc<Dialer>> {
    config.check()?;
    let first = config.first().ok_or_else(|| Error::configuration(NAME, "no address"))?;
    if first.is_tls && cfg!(not(feature = "rustls")) {
        let what = "rediss://: build session-store-redis with the feature `rustls`";
        return Err(Error::configuration(NAME, what));
    }
    let tls = first.is_tls.then(|| Tls::of(config));
    Ok(Arc::new(Dialer {
        driver: driver::of(config.client).ok_or_else(|| {
            let name = config.client.feature();
            let what = format!("client: build session-store-redis with the feature `{name}`");
            Error::configuration(NAME, what)
        })?,
        template: Target {
            node: first.node.clone(),
            credentials: first.credentials.clone(),
            database: first.database,
            tls,
            connect_timeout: config.connect_timeout,
            user_timeout: config.tcp_user_timeout,
            nodelay: config.nodelay,
        },
        sentinel_credentials: config.sentinel_credentials.clone(),
        deadline: config.deadline,
        silence: config.silence,
        pause: config.connect_pause,
        identity_interval: config.identity_interval,
        watch: Watch::default(),
    }))
}

impl Routes {
    /// Connects to nobody yet.
    pub(crate) fn new(servers: &Servers, dialer: &Arc<Dialer>) -> Self {
        let node = |address: &crate::url::Address| address.node.clone();
        let place = match servers {
            Servers::Single(address) => Place::Alone(node(address)),
            Servers::Sentinel { sentinels, master } => Place::MasterOf(Sentinels {
                nodes: sentinels.iter().map(node).collect(),
                master: master.as_str().into(),
            }),
            Servers::Cluster(addresses) => {
                let seeds: Vec<Node> = addresses.iter().map(node).collect();
                return Self::Cluster(Cluster::new(seeds, Arc::clone(dialer)));
            }
        };
        Self::One(Link::new(place, Arc::clone(dialer)))
    }

    /// Connects if need be, before `end`.
    pub(crate) async fn ready(&self, end: Instant) -> std::result::Result<(), Fault> {
        match self {
            Self::One(link) => link.ready(end).await,
            Self::Cluster(cluster) => cluster.ready(end).await,
        }
    }

    /// The answer to a command about `key`, before `end`.
    pub(crate) async fn call(
        &self,
        key: &[u8],
        command: Command<'_>,
        end: Instant,
    ) -> std::result::Result<Reply, Fault> {
        match self {
            Self::One(link) => link.call(command, end).await,
            Self::Cluster(cluster) => cluster.call(key, command, end).await,
        }
    }

    /// Removes `keys`, with one round trip per server, and waits for replicas if told to. The first
    /// failure is returned after everything was tried.
    pub(crate) async fn remove(
        &self,
        keys: &[Vec<u8>],
        wait: Option<&Wait>,
        end: Instant,
    ) -> std::result::Result<(), Fault> {
        let cluster = match self {
            Self::One(link) => return unlink(link, keys, KEYS_AT_ONCE, wait, end).await.map(drop),
            Self::Cluster(cluster) => cluster,
        };
        let mut rest: Vec<&[u8]> = Vec::new();
        let (groups, mut outcome) = cluster.owners(keys, end).await?;
        let removals = groups.iter().map(|(link, keys)| unlink(link, keys, 1, wait, end));
        for (answer, (_, keys)) in join_all(removals).await.into_iter().zip(&groups) {
            match answer {
                Ok(redirected) => rest.extend(redirected.into_iter().map(|at| keys[at].as_slice())),
                Err(fault) => {
                    cluster.notice(&fault);
                    outcome = outcome.and(Err(fault));
                }
            }
        }
        // Those that live elsewhere now, one by one: it happens only while slots move.
        for key in rest {
            let removed = cluster.call(key, Command::new("UNLINK", &[key]), end).await;
            // That no replica was waited for must not be hidden.
            let waited = || match wait {
                Some(_) => Err(Fault::Silent("a slot moved: no replica was asked".to_owned())),
                None => Ok(()),
            };
            outcome = outcome.and(removed.and_then(|_| waited()));
        }
        outcome
    }
}

/// Removes keys that one server has; which of them it has not, as it says.
async fn unlink(
    link: &Link,
    keys: &[Vec<u8>],
    at_once: usize,
    wait: Option<&Wait>,
    end: Instant,
) -> std::result::Result<Vec<usize>, Fault> {
    let keys: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
    let removals: Vec<_> = keys.chunks(at_once).map(|some| Command::new("UNLINK", some)).collect();
    let answers = match (wait, keys.last()) {
        (Some(wait), Some(last)) => acknowledged(link, &removals, last, wait, end).await?,
        _ => link.all(&removals, end).await?,
    };
    let mut elsewhere = Vec::new();
    for (at, answer) in answers.into_iter().enumerate() {
        match answer {
            Ok(_) => {}
            Err(fault) if fault.redirects() => elsewhere.push(at),
            Err(fault) => return Err(fault),
        }
    }
    Ok(elsewhere)
}

/// The answers to `removals`, the last of which is that of `last`, when replicas have what they did.
///
/// A server waits for what **this connection** has written, and a removal that finds nothing writes
/// nothing, although what somebody else removed may still be on its way to the replicas. So the last
/// key gets a lease first: there is something to remove then, and nobody believes a lease.
async fn acknowledged(
    link: &Link,
    removals: &[Command<'_>],
    last: &[u8],
    wait: &Wait,
    end: Instant,
) -> std::result::Result<Vec<std::result::Result<Reply, Fault>>, Fault> {
    let mut lease = [Record::LEASE; 17];
    let no_nonce = |_| Fault::Unreachable("no random numbers".to_owned());
    getrandom::fill(&mut lease[1..]).map_err(no_nonce)?;
    let mark: [&[u8]; 4] = [last, &lease, b"PX", b"1000"];
    let (replicas, millis) = (wait.replicas.to_string(), wait.timeout.as_millis().to_string());
    let words = [replicas.as_bytes(), millis.as_bytes()];
    let mut commands = vec![Command::new("SET", &mark)];
    commands.extend_from_slice(removals);
    commands.push(Command::new("WAIT", &words));
    let mut answers = link.all(&commands, end).await?;
    let count = answers.pop().unwrap_or(Ok(Reply::Nil))?;
    let is_marked = answers.remove(0).is_ok();
    // A full server refuses the lease.
    let has_written = matches!(answers.last(), Some(Ok(Reply::Number(gone))) if *gone > 0);
    match count {
        Reply::Number(count) if count >= i64::from(wait.replicas) && (is_marked || has_written) => {
            Ok(answers)
        }
        other => {
            let what =
                format!("{link}: of {} replicas, this many have it: {other:?}", wait.replicas);
            Err(Fault::Silent(what))
        }
    }
}
