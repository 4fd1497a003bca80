//! The cache: one item per key. It is never repeated by the SDK when it might be applied twice.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::operation::put_item::PutItemError;
use aws_sdk_dynamodb::types::ReturnValuesOnConditionCheckFailure;
use session_store_core::{
    CacheClass, CacheKey, CacheScope, Clock, Error, ErrorKind, Record, Reservation, Result,
    SecondaryPromise, SecondaryStore, SwapTtl, Timestamp, Ttl,
};

use super::call::{Calls, once};
use super::config::DynamoCacheConfig;
use super::error::{Effect, Fault, classify};
use super::key::Key;
use super::row::{FORMAT, Item, Row, bytes, garbage, item, number};
use super::step::Terms;

/// The name that errors and reports use.
const NAME: &str = "dynamodb-cache";
/// What 400 KB leave beside the key and the other attributes.
const MAX_RECORD_BYTES: usize = 390 * 1024;
/// How many keys one call removes.
const MAX_BATCH: usize = 25;
/// An entry whose time is not over, by a clock that is not far off.
const ALIVE: &str = "#end > :now AND #written <= :latest";

/// Entries in one DynamoDB table, shared by every node of one region.
///
/// Reads are consistent and writes conditional, so that operations on one key are linearizable; a
/// global table is not, between its regions. The removal of entries whose time is over is DynamoDB's
/// business and nobody waits for it: an entry ends by the clock of the node that wrote it. Clocks may
/// differ by [`max_skew`](DynamoCacheConfig::max_skew), and a [`Guarantee`](session_store_core::Guarantee)
/// reckons with that.
#[derive(Clone, Debug)]
pub struct DynamoCache {
    calls: Calls,
    clock: Arc<dyn Clock>,
    max_skew: Duration,
    garbage_after: Duration,
}

impl DynamoCache {
    /// The cache in the table that `config` names, over the application's own client; it reads the time
    /// from `clock`.
    ///
    /// Reads one item, so that a missing table, other keys, or refused credentials are noticed now; the
    /// errors are those of [`DynamoStore::connect`](super::DynamoStore::connect).
    pub async fn connect(
        client: Client,
        config: &DynamoCacheConfig,
        clock: Arc<dyn Clock>,
    ) -> Result<Self> {
        config.calls.check(&config.table)?;
        if config.garbage_after <= config.max_skew {
            let what = "garbage_after must be longer than max_skew: a node whose clock is behind still \
                        needs the entry";
            return Err(Error::configuration(NAME, what));
        }
        let calls = Calls::new(client, &config.table, &config.calls);
        let (max_skew, garbage_after) = (config.max_skew, config.garbage_after);
        let cache = Self { calls, clock, max_skew, garbage_after };
        cache.get(&CacheKey::new("connect")?).await?;
        Ok(cache)
    }

    /// The client that the cache was made with.
    pub fn client(&self) -> &Client {
        &self.calls.client
    }

    /// The latest moment at which an entry that counts may have been written.
    fn latest(&self, now: Timestamp) -> Timestamp {
        now.plus(self.max_skew)
    }

    /// The record, if its time is not over. What can't be read is a miss: it came from another version.
    fn alive(&self, item: &Item, now: Timestamp) -> Option<Record> {
        let row = Row::of(item).ok()?;
        let is_over = row.time("end").ok()? <= now;
        let is_from_later = row.time("written").ok()? > self.latest(now);
        if is_over || is_from_later {
            return None;
        }
        Some(Record::new(row.blob("record").ok()?))
    }

    /// What is in the way of a reservation; `None` when it has gone meanwhile.
    async fn put_lease(
        &self,
        key: &CacheKey,
        lease: &Record,
        (now, ttl): (Timestamp, Ttl),
    ) -> Result<Option<Reservation>, Fault> {
        let end = now.plus(ttl.as_duration());
        let mut item = item(Key::cached(key), "cached");
        item.insert("record".to_owned(), bytes(lease.as_bytes()));
        item.insert("end".to_owned(), number(end.as_millis()));
        item.insert("written".to_owned(), number(now.as_millis()));
        item.insert("ttl".to_owned(), garbage(end, self.garbage_after));
        // An entry of another format is a miss to whoever asks, so that it must not be in the way.
        let condition =
            "attribute_not_exists(#pk) OR #v <> :v OR #end <= :now OR #written > :latest";
        let terms = self.terms(Terms::when(condition), now).with(":v", number(FORMAT));
        let put = self.calls.client.put_item().table_name(&*self.calls.table);
        let put = put
            .set_item(Some(item))
            .set_condition_expression(terms.condition_text())
            .set_expression_attribute_names(terms.names())
            .set_expression_attribute_values(terms.values())
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
        let call = put.customize().config_override(once()).send();
        let Err(failed) = self.calls.in_time(call).await? else {
            return Ok(Some(Reservation::Granted(lease.clone())));
        };
        match failed.as_service_error() {
            Some(PutItemError::ConditionalCheckFailedException(refused)) => {
                let there = refused.item().and_then(|item| self.alive(item, now));
                Ok(there.map(Reservation::Occupied))
            }
            _ => Err(classify(Effect::Writes, &failed)),
        }
    }

    fn terms(&self, terms: Terms, now: Timestamp) -> Terms {
        terms
            .with(":now", number(now.as_millis()))
            .with(":latest", number(self.latest(now).as_millis()))
    }
}

#[async_trait]
impl SecondaryStore for DynamoCache {
    fn promise(&self) -> SecondaryPromise {
        SecondaryPromise {
            name: NAME,
            class: CacheClass::Linearizable,
            scope: CacheScope::Shared,
            may_roll_back: false,
            min_ttl: Duration::ZERO,
            ttl_granularity: Duration::from_millis(1),
            // The end of an entry is reckoned by the clock of whoever wrote it.
            overrun: self.max_skew,
            rollback_slack: Duration::ZERO,
            max_record_bytes: MAX_RECORD_BYTES,
            max_batch: MAX_BATCH,
        }
    }

    fn epoch(&self) -> u64 {
        // There is one table, and what it has acknowledged it keeps.
        0
    }

    async fn get(&self, key: &CacheKey) -> Result<Option<Record>> {
        let found = self.calls.get_now(&Key::cached(key)).await.map_err(own)?;
        let now = self.clock.now();
        Ok(found.and_then(|item| self.alive(&item, now)))
    }

    async fn reserve(&self, key: &CacheKey, ttl: Ttl) -> Result<Reservation> {
        // One that finds the key occupied and then free again begins anew, with another lease.
        for _ in 0..3 {
            let now = self.clock.now();
            let lease = mint()?;
            let done = self.put_lease(key, &lease, (now, ttl)).await;
            if let Some(reservation) = done.map_err(|fault| own(fault.into_error()))? {
                return Ok(reservation);
            }
        }
        Err(Error::new(ErrorKind::Unavailable, NAME))
    }

    async fn swap(
        &self,
        key: &CacheKey,
        expected: &Record,
        new: Option<&Record>,
        ttl: SwapTtl,
    ) -> Result<bool> {
        let now = self.clock.now();
        let condition = format!("#record = :expected AND {ALIVE}");
        let Some(new) = new else {
            let terms = self.terms(Terms::when(condition), now);
            let terms = terms.with(":expected", bytes(expected.as_bytes()));
            return self.calls.delete_once(&Key::cached(key), &terms).await.map_err(own);
        };
        if new.as_bytes().len() > MAX_RECORD_BYTES {
            let kind = ErrorKind::TooLarge { what: "cache record", limit: MAX_RECORD_BYTES };
            return Err(Error::new(kind, NAME));
        }
        let mut change = "SET #record = :new, #written = :now".to_owned();
        if let SwapTtl::Set(_) = ttl {
            change.push_str(", #end = :end, #ttl = :ttl");
        }
        let mut terms = self
            .terms(Terms::change(change, condition), now)
            .with(":expected", bytes(expected.as_bytes()))
            .with(":new", bytes(new.as_bytes()));
        if let SwapTtl::Set(ttl) = ttl {
            let end = now.plus(ttl.as_duration());
            terms = terms
                .with(":end", number(end.as_millis()))
                .with(":ttl", garbage(end, self.garbage_after));
        }
        self.calls.update_once(&Key::cached(key), &terms).await.map_err(own)
    }

    async fn remove(&self, keys: &[CacheKey]) -> Result<()> {
        self.calls.delete_all(keys.iter().map(Key::cached).collect()).await.map_err(own)
    }
}

/// A lease with 128 random bits, so that a request that arrives late can't bring an old one back.
fn mint() -> Result<Record> {
    let mut token = [0; 16];
    getrandom::fill(&mut token)
        .map_err(|cause| Error::new(ErrorKind::Unavailable, NAME).caused_by(cause))?;
    Ok(Record::lease(&token))
}

/// The error under the name of the cache.
fn own(failed: Error) -> Error {
    Error::new(failed.kind().clone(), NAME).caused_by(failed)
}
