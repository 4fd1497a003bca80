//! Redis as a secondary store: five operations, each of them on single keys.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::join;
use session_store_core::{
    CacheClass, CacheKey, CacheScope, Error, ErrorKind, Record, Reservation, Result,
    SecondaryPromise, SecondaryStore, SwapTtl, Ttl,
};
use tokio::time::Instant;

use crate::config::{RedisConfig, Rollback, Wait};
use crate::driver::{Command, Reply};
use crate::error::{Effect, NAME};
use crate::key::physical;
use crate::link::Dialer;
use crate::route::{self, Routes};
use crate::script::{RESERVE, SWAP, Script};
use crate::seal::Seal;

/// The largest record. Redis would take 512 MB, at the cost of everybody else.
const MAX_RECORD_BYTES: usize = 1 << 20;
/// How many keys one round trip removes.
const MAX_BATCH: usize = 10_000;
/// The same in a Cluster, where each key is a command, and all of them have one deadline.
const MAX_CLUSTER_BATCH: usize = 1_000;
const NONCE: usize = 8;

/// A cache in Redis or Valkey.
///
/// A clone is another handle on the same connections. Nothing is done while nobody calls: there is no
/// task in the background but those that finish what callers began and may have left: an attempt to
/// connect, a check of who answers, and removals that wait for replicas.
#[derive(Clone, Debug)]
pub struct RedisCache {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    dialer: Arc<Dialer>,
    routes: Routes,
    /// Their own ways, for those that replicas must acknowledge.
    removals: Option<(Routes, Wait)>,
    prefix: String,
    seal: Seal,
    may_roll_back: bool,
    slack: Duration,
}

impl RedisCache {
    /// A cache that connects when it is first used, so that a service starts while Redis is down.
    /// `Configuration` when the configuration can't work.
    pub fn new(config: &RedisConfig) -> Result<Self> {
        let dialer = route::dialer(config)?;
        let routes = Routes::new(&config.servers, &dialer);
        let removals = config.wait.map(|wait| (routes.beside(), wait));
        let inner = Inner {
            routes,
            dialer,
            removals,
            prefix: config.key_prefix.clone(),
            seal: Seal(config.record_keys.clone()),
            may_roll_back: config.rollback == Rollback::Possible,
            slack: config.slack(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The same after [`RedisCache::check`].
    pub async fn connect(config: &RedisConfig) -> Result<Self> {
        let cache = Self::new(config)?;
        cache.check().await?;
        Ok(cache)
    }

    /// Connects, if need be, and finds out whether the servers are what the configuration says.
    /// `Configuration` says what is to be mended; `Unavailable` may pass.
    pub async fn check(&self) -> Result<()> {
        let end = self.inner.dialer.end() + self.inner.dialer.template.connect_timeout;
        let ready = self.inner.routes.ready(end).await;
        ready.map_err(|fault| fault.into_error("CONNECT", Effect::None))?;
        if let Some((routes, wait)) = &self.inner.removals {
            let allowed = routes.may_wait(end + wait.timeout).await;
            allowed.map_err(|fault| fault.into_error("WAIT", Effect::None))?;
        }
        Ok(())
    }

    fn key(&self, key: &CacheKey) -> Vec<u8> {
        physical(&self.inner.prefix, key)
    }

    async fn call(&self, key: &[u8], command: Command<'_>, effect: Effect) -> Result<Reply> {
        let end = self.inner.dialer.end();
        let answer = self.inner.routes.call(key, command, end).await;
        answer.map_err(|fault| fault.into_error(command.name, effect))
    }

    /// Runs `script` on `key`. A server that does not know it yet has not run anything.
    async fn run(
        &self,
        script: &Script,
        key: &[u8],
        values: &[&[u8]],
        end: Instant,
    ) -> Result<Reply> {
        let mut words = vec![script.sha1.as_bytes(), b"1", key];
        words.extend_from_slice(values);
        let short = Command::new("EVALSHA", &words);
        let answer = match self.inner.routes.call(key, short, end).await {
            Err(fault) if fault.is("NOSCRIPT") => {
                words[0] = script.text.as_bytes();
                self.inner.routes.call(key, Command::new("EVAL", &words), end).await
            }
            other => other,
        };
        answer.map_err(|fault| fault.into_error("EVALSHA", Effect::Possible))
    }
}

#[async_trait]
impl SecondaryStore for RedisCache {
    fn promise(&self) -> SecondaryPromise {
        SecondaryPromise {
            name: NAME,
            class: CacheClass::Linearizable,
            scope: CacheScope::Shared,
            may_roll_back: self.inner.may_roll_back,
            min_ttl: Duration::ZERO,
            ttl_granularity: Duration::from_millis(1),
            overrun: Duration::ZERO,
            rollback_slack: self.inner.slack,
            max_record_bytes: MAX_RECORD_BYTES,
            max_batch: match self.inner.routes {
                Routes::One(_) => MAX_BATCH,
                Routes::Cluster(_) => MAX_CLUSTER_BATCH,
            },
        }
    }

    fn epoch(&self) -> u64 {
        self.inner.dialer.watch.epoch()
    }

    async fn get(&self, key: &CacheKey) -> Result<Option<Record>> {
        let key = self.key(key);
        match self.call(&key, Command::new("GET", &[&key]), Effect::None).await? {
            Reply::Nil => Ok(None),
            Reply::Bytes(bytes) => Ok(Some(self.inner.seal.open(&key, bytes))),
            other => Err(unexpected("GET", &other)),
        }
    }

    async fn reserve(&self, key: &CacheKey, ttl: Ttl) -> Result<Reservation> {
        let key = self.key(key);
        let mut token = [Record::LEASE; 1 + NONCE];
        getrandom::fill(&mut token[1..])
            .map_err(|error| Error::new(ErrorKind::Unavailable, NAME).caused_by(error))?;
        let millis = ttl.as_millis().to_string();
        let end = self.inner.dialer.end();
        match self.run(&RESERVE, &key, &[&token, millis.as_bytes()], end).await? {
            Reply::Bytes(bytes) => Ok(Reservation::Occupied(self.inner.seal.open(&key, bytes))),
            Reply::List(mut parts) => match parts.pop() {
                Some(Reply::Bytes(bytes)) => Ok(Reservation::Granted(Record::new(bytes))),
                other => Err(unexpected("EVALSHA", &Reply::List(other.into_iter().collect()))),
            },
            other => Err(unexpected("EVALSHA", &other)),
        }
    }

    async fn swap(
        &self,
        key: &CacheKey,
        expected: &Record,
        new: Option<&Record>,
        ttl: SwapTtl,
    ) -> Result<bool> {
        if new.is_some_and(|record| record.as_bytes().len() > MAX_RECORD_BYTES) {
            let kind = ErrorKind::TooLarge { what: "cache record", limit: MAX_RECORD_BYTES };
            return Err(Error::new(kind, NAME));
        }
        let key = self.key(key);
        let new = new.map(|record| self.inner.seal.close(&key, record)).unwrap_or_default();
        let millis = match ttl {
            SwapTtl::Set(ttl) => ttl.as_millis().to_string(),
            SwapTtl::Keep => "0".to_owned(),
        };
        let end = self.inner.dialer.end();
        // More than one form only while keys of the seal are changed.
        for expected in self.inner.seal.forms(&key, expected) {
            match self.run(&SWAP, &key, &[&expected, &new, millis.as_bytes()], end).await? {
                Reply::Number(0) => {}
                Reply::Number(1) => return Ok(true),
                other => return Err(unexpected("EVALSHA", &other)),
            }
        }
        Ok(false)
    }

    async fn remove(&self, keys: &[CacheKey]) -> Result<()> {
        let keys: Vec<_> = keys.iter().map(|key| self.key(key)).collect();
        let (inner, end) = (&self.inner, self.inner.dialer.end());
        let removed = match &inner.removals {
            None => inner.routes.remove(&keys, None, end).await,
            Some((routes, wait)) => {
                // Beside the other one, which may have to wait for its turn: that what was removed is
                // gone from the master must not take so long.
                let at_once = inner.routes.remove(&keys, None, end);
                let in_turn = routes.remove(&keys, Some(*wait), end + wait.timeout);
                join(at_once, in_turn).await.1
            }
        };
        removed.map_err(|fault| fault.into_error("UNLINK", Effect::Possible))
    }
}

/// A server that answers with something else than Redis would.
fn unexpected(name: &str, reply: &Reply) -> Error {
    let shape = match reply {
        Reply::Nil => "nothing",
        Reply::Number(_) => "a number",
        Reply::Bytes(_) => "a string",
        Reply::List(_) => "a list",
    };
    let what = format!("the server answered {name} with {shape}; is it Redis or Valkey?");
    Error::configuration(NAME, what)
}
