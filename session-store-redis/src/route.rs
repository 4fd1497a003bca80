//! Which server a command goes to, and the pieces that commands are sent in.

use std::sync::Arc;

use futures_util::future::{join_all, try_join_all};
use session_store_core::{Error, Result};
use tokio::time::Instant;

use crate::cluster::Cluster;
use crate::config::{RedisConfig, Rollback, Servers, Wait};
use crate::driver::{self, Command, Reply, Target, Tls};
use crate::error::{Fault, NAME};
use crate::identity::{Known, Watch};
use crate::link::{Dialer, Link, Place};
use crate::sentinel::Sentinels;
use crate::url::Node;
use crate::wait;

/// How many keys one `UNLINK` names: a server does nothing else meanwhile.
const KEYS_AT_ONCE: usize = 500;

/// All servers of a cache.
#[derive(Debug)]
pub(crate) enum Routes {
    /// One server has all keys.
    One(Arc<Link>),
    /// Each server has some.
    Cluster(Box<Cluster>),
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
        may_roll_back: config.rollback == Rollback::Possible,
        watch: Watch::default(),
    }))
}

impl Routes {
    /// Connects to nobody yet.
    pub(crate) fn new(servers: &Servers, dialer: &Arc<Dialer>) -> Self {
        let node = |address: &crate::url::Address| address.node.clone();
        let place = match servers {
            Servers::Single(address) => Place::Alone(node(address)),
            Servers::Sentinel { sentinels, master } => {
                Place::MasterOf(Sentinels::new(sentinels.iter().map(node), master))
            }
            Servers::Cluster(addresses) => {
                let seeds: Vec<Node> = addresses.iter().map(node).collect();
                return Self::Cluster(Box::new(Cluster::new(seeds, Arc::clone(dialer))));
            }
        };
        Self::One(Arc::new(Link::new(place, Arc::clone(dialer), Known::default())))
    }

    /// Other ways to the same servers, with connections of their own. What is known of the servers is
    /// known to both, so that a change counts once.
    pub(crate) fn beside(&self) -> Self {
        match self {
            Self::One(link) => Self::One(Arc::new(link.beside())),
            Self::Cluster(cluster) => Self::Cluster(Box::new(cluster.beside())),
        }
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

    /// Asks every server whether it lets this user wait for replicas.
    pub(crate) async fn may_wait(&self, end: Instant) -> std::result::Result<(), Fault> {
        let links = match self {
            Self::One(link) => vec![Arc::clone(link)],
            Self::Cluster(cluster) => cluster.all(end).await?,
        };
        try_join_all(links.iter().map(|link| wait::allowed(link, end))).await.map(drop)
    }

    /// Removes `keys`, with one round trip per server, and waits for replicas if told to. The first
    /// failure is returned after everything was tried.
    pub(crate) async fn remove(
        &self,
        keys: &[Vec<u8>],
        wait: Option<Wait>,
        end: Instant,
    ) -> std::result::Result<(), Fault> {
        if keys.is_empty() {
            return Ok(());
        }
        let cluster = match self {
            Self::One(link) => {
                let elsewhere = unlink(link, keys, KEYS_AT_ONCE, wait, end).await?;
                return if elsewhere.is_empty() { Ok(()) } else { Err(misplaced(link)) };
            }
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

/// A server that was to have all keys says that others have some.
fn misplaced(link: &Link) -> Fault {
    let what = "the server sends removals to other nodes; name the nodes of a Cluster as \
                Servers::Cluster";
    Fault::misconfigured(what, link)
}

/// Removes keys that one server has; which of them it has not, as it says.
async fn unlink(
    link: &Arc<Link>,
    keys: &[Vec<u8>],
    at_once: usize,
    wait: Option<Wait>,
    end: Instant,
) -> std::result::Result<Vec<usize>, Fault> {
    let answers = if let Some(wait) = wait {
        wait::removed(link, keys, at_once, wait, end).await?
    } else {
        let keys: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
        let removals: Vec<_> =
            keys.chunks(at_once).map(|some| Command::new("UNLINK", some)).collect();
        link.all(&removals, end).await?
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
