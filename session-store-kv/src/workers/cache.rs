//! The cache: reads, blind writes and deletions of one KV namespace.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::join_all;
use session_store_core::{
    CacheClass, CacheKey, CacheScope, Clock, Error, ErrorKind, Record, Reservation, Result,
    SecondaryPromise, SecondaryStore, SwapTtl, Ttl,
};
use worker::Env;
use worker::js_sys::Reflect;
use worker::kv::KvStore;
use worker::send::SendFuture;
use worker::wasm_bindgen::JsValue;

use super::config::WorkersKvConfig;
use super::error::{Asked, NAME, check_key, classify, no_binding};
use super::host::{PACE, Pace};
use super::row::{MAX_RECORD, Row};

/// How many deletions run at once: an invocation may have six connections open. The seventh waits for
/// one of them, which must not be on the deadline of the first six.
const BATCH: usize = 6;

/// A KV namespace as a cache of class Eventual.
///
/// KV knows no compare-and-set, and its edge may serve a value, or that there is none, for a minute
/// or more after a change. So leases are blind, and what bounds a logout is the stamp that the
/// layered store puts into each entry: `cache_ttl + max_skew` after the commit no node accepts the
/// session, whatever the edge serves. Over a primary that tells its time, as D1 does, each clock is
/// compared with that. Over one that tells none the stamp is that of the writer's clock and nothing
/// compares it: the bound is as good as the `max_skew` that is declared between any two nodes.
/// `require_immediate` is refused over this cache.
///
/// Entries end exactly when asked, though KV keeps them for a minute at least: the end is inside the
/// record. A record of another version is a miss.
///
/// KV takes one write per second and key; one more is `Unavailable`, which a layered store passes
/// by. So what is removed within a second after it was put is refused too, and ends by the bound. Of
/// the requests of an isolate that miss a key in the same second only one fills it. One invocation may
/// ask KV a thousand times: a logout of more sessions at once ends them in the database, and says by
/// which bound their entries are gone. A handle may not outlive its request.
#[derive(Clone, Debug)]
pub struct WorkersKvCache {
    kv: KvStore,
    clock: Arc<dyn Clock>,
    edge_secs: Option<u64>,
    /// In front of every key: empty, but for the suite, whose cases share a namespace.
    prefix: Arc<str>,
    /// None for the suite, whose cases write as often as they like.
    pace: Option<&'static Pace>,
}

impl WorkersKvCache {
    /// The namespace behind the binding that `config` names, with the time of `clock`.
    ///
    /// A binding that is not there or is something else, or an `edge_ttl` that KV would refuse, is `Configuration`.
    pub fn from_env(env: &Env, config: &WorkersKvConfig, clock: Arc<dyn Clock>) -> Result<Self> {
        let name = config.binding.as_str();
        let kv = env.kv(name).map_err(|error| no_binding(name, &error))?;
        // Whatever is bound passes for a namespace, and each call fails as if KV were down.
        let get = |from: &JsValue, name: &str| Reflect::get(from, &JsValue::from_str(name)).ok();
        let own = get(env, name).and_then(|bound| get(&bound, "getWithMetadata"));
        if !own.is_some_and(|own| own.is_function()) {
            return Err(no_binding(name, &"it is bound to something else"));
        }
        Self::new(kv, config, clock)
    }

    /// The namespace behind a binding that was found already.
    pub fn new(kv: KvStore, config: &WorkersKvConfig, clock: Arc<dyn Clock>) -> Result<Self> {
        let edge_secs = config.edge_secs()?;
        Ok(Self { kv, clock, edge_secs, prefix: "".into(), pace: Some(&PACE) })
    }

    #[cfg(feature = "conformance")]
    pub(crate) fn prefixed(self, prefix: &str) -> Self {
        Self { prefix: prefix.into(), pace: None, ..self }
    }

    /// The key as KV knows it.
    fn name<'a>(&self, key: &'a CacheKey) -> Result<Cow<'a, str>> {
        if self.prefix.is_empty() {
            return check_key(key.as_str()).map(Cow::Borrowed);
        }
        let name = format!("{}{}", self.prefix, key.as_str());
        check_key(&name)?;
        Ok(Cow::Owned(name))
    }

    async fn read(&self, key: &CacheKey) -> Result<Option<Row>> {
        let key = self.name(key)?;
        let bytes = SendFuture::new(async {
            let read = self.kv.get(&key);
            let read = match self.edge_secs {
                Some(secs) => read.cache_ttl(secs),
                None => read,
            };
            read.bytes().await.map_err(|error| classify(Asked::Read, &error))
        });
        let bytes = bytes.await?;
        Ok(bytes.and_then(|bytes| Row::open(&bytes, self.clock.now())))
    }

    async fn put(&self, key: &CacheKey, row: &Row) -> Result<()> {
        let key = self.name(key)?;
        let now = self.clock.now();
        SendFuture::new(async {
            let secs = row.physical_secs(now);
            let put = self.kv.put_bytes(&key, &row.seal(now));
            let put = async { put?.expiration_ttl(secs).execute().await };
            put.await.map_err(|error| classify(Asked::Write, &error))
        })
        .await
    }

    async fn delete(&self, key: &CacheKey) -> Result<()> {
        if let Some(pace) = self.pace {
            pace.removes(key.as_str(), self.clock.now());
        }
        let key = self.name(key)?;
        SendFuture::new(async {
            self.kv.delete(&key).await.map_err(|error| classify(Asked::Write, &error))
        })
        .await
    }

    /// Replaces a value that this node sees. Another one may write at the same time.
    async fn replace(
        &self,
        key: &CacheKey,
        expected: &Record,
        new: Option<&Record>,
        ttl: SwapTtl,
    ) -> Result<bool> {
        let Some(seen) = self.read(key).await?.filter(|seen| seen.record == *expected) else {
            return Ok(false);
        };
        let deadline = match ttl {
            SwapTtl::Set(ttl) => self.clock.now().plus(ttl.as_duration()),
            SwapTtl::Keep => seen.deadline,
        };
        match new {
            Some(record) => self.put(key, &Row { record: record.clone(), deadline }).await?,
            None => self.delete(key).await?,
        }
        Ok(true)
    }
}

#[async_trait]
impl SecondaryStore for WorkersKvCache {
    fn promise(&self) -> SecondaryPromise {
        SecondaryPromise {
            name: NAME,
            class: CacheClass::Eventual,
            scope: CacheScope::Shared,
            // What was removed here may still be served elsewhere.
            may_roll_back: true,
            min_ttl: Duration::ZERO,
            ttl_granularity: Duration::from_millis(1),
            overrun: Duration::ZERO,
            rollback_slack: Duration::ZERO,
            max_record_bytes: MAX_RECORD,
            // Removed at once, and so under one deadline.
            max_batch: BATCH,
        }
    }

    fn epoch(&self) -> u64 {
        0
    }

    async fn get(&self, key: &CacheKey) -> Result<Option<Record>> {
        Ok(self.read(key).await?.map(|row| row.record))
    }

    async fn reserve(&self, key: &CacheKey, _ttl: Ttl) -> Result<Reservation> {
        self.name(key)?;
        let mut token = [0; 16];
        getrandom::fill(&mut token).map_err(|_| Error::new(ErrorKind::Unavailable, NAME))?;
        Ok(Reservation::Granted(Record::lease(&token)))
    }

    async fn swap(
        &self,
        key: &CacheKey,
        expected: &Record,
        new: Option<&Record>,
        ttl: SwapTtl,
    ) -> Result<bool> {
        if new.is_some_and(|record| record.as_bytes().len() > MAX_RECORD) {
            let kind = ErrorKind::TooLarge { what: "cache record", limit: MAX_RECORD };
            return Err(Error::new(kind, NAME));
        }
        if !expected.is_lease() {
            return self.replace(key, expected, new, ttl).await;
        }
        // A blind lease is nowhere: there is nothing to compare, and nothing to delete.
        if let (Some(record), SwapTtl::Set(ttl)) = (new, ttl) {
            let now = self.clock.now();
            if self.pace.is_some_and(|pace| !pace.admits(key.as_str(), now)) {
                return Ok(false);
            }
            let deadline = now.plus(ttl.as_duration());
            self.put(key, &Row { record: record.clone(), deadline }).await?;
        }
        Ok(true)
    }

    async fn remove(&self, keys: &[CacheKey]) -> Result<()> {
        let mut outcome = Ok(());
        // A second removal of one key would be one write too many.
        let keys: Vec<_> = keys.iter().collect::<BTreeSet<_>>().into_iter().collect();
        for batch in keys.chunks(BATCH) {
            for done in join_all(batch.iter().map(|key| self.delete(key))).await {
                outcome = outcome.and(done);
            }
        }
        outcome
    }
}

/// The handle and its futures move between threads wherever the traits ask for it.
const _: () = {
    const fn is_send<T: Send + Sync>() {}
    is_send::<WorkersKvCache>();
};
