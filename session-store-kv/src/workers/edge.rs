//! The edge of Workers KV, which no simulator imitates: reads are answered from a cache of the
//! location for a minute, misses too, whatever was written or deleted meanwhile.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use session_store_core::{
    CacheKey, Clock, Record, Reservation, Result, SecondaryPromise, SecondaryStore, SwapTtl,
    Timestamp, Ttl,
};

/// How long a location answers from what it has read.
const KEPT: Duration = Duration::from_mins(1);

/// What a location has read of one key, and until when it says so.
type Kept = (Option<Record>, Timestamp);

/// A cache as one location of the edge shows it. Reads are kept for a minute, hits and misses alike;
/// not even the location's own writes change what it has kept, since nobody promises that they do.
#[derive(Debug)]
pub struct EdgeCached<S> {
    inner: S,
    clock: Arc<dyn Clock>,
    kept: Mutex<HashMap<CacheKey, Kept>>,
}

impl<S> EdgeCached<S> {
    /// A location that has read nothing yet.
    pub fn new(inner: S, clock: Arc<dyn Clock>) -> Self {
        Self { inner, clock, kept: Mutex::default() }
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: SecondaryStore> SecondaryStore for EdgeCached<S> {
    fn promise(&self) -> SecondaryPromise {
        self.inner.promise()
    }

    fn epoch(&self) -> u64 {
        self.inner.epoch()
    }

    async fn get(&self, key: &CacheKey) -> Result<Option<Record>> {
        let now = self.clock.now();
        if let Some((record, until)) = self.kept.lock().get(key)
            && now < *until
        {
            return Ok(record.clone());
        }
        let record = self.inner.get(key).await?;
        self.kept.lock().insert(key.clone(), (record.clone(), now.plus(KEPT)));
        Ok(record)
    }

    async fn reserve(&self, key: &CacheKey, ttl: Ttl) -> Result<Reservation> {
        self.inner.reserve(key, ttl).await
    }

    async fn swap(
        &self,
        key: &CacheKey,
        expected: &Record,
        new: Option<&Record>,
        ttl: SwapTtl,
    ) -> Result<bool> {
        self.inner.swap(key, expected, new, ttl).await
    }

    async fn remove(&self, keys: &[CacheKey]) -> Result<()> {
        self.inner.remove(keys).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_executor::block_on;
    use session_store_core::conformance::TestClock;
    use session_store_core::{Error, ErrorKind};

    /// A cache of one record.
    #[derive(Debug, Default)]
    struct One(Mutex<Option<Record>>);

    #[async_trait]
    impl SecondaryStore for One {
        fn promise(&self) -> SecondaryPromise {
            session_store_core::NoCache::new().promise()
        }

        fn epoch(&self) -> u64 {
            0
        }

        async fn get(&self, _: &CacheKey) -> Result<Option<Record>> {
            Ok(self.0.lock().clone())
        }

        async fn reserve(&self, _: &CacheKey, _: Ttl) -> Result<Reservation> {
            Err(Error::new(ErrorKind::Unavailable, "one"))
        }

        async fn swap(
            &self,
            _: &CacheKey,
            _: &Record,
            new: Option<&Record>,
            _: SwapTtl,
        ) -> Result<bool> {
            *self.0.lock() = new.cloned();
            Ok(true)
        }

        async fn remove(&self, _: &[CacheKey]) -> Result<()> {
            *self.0.lock() = None;
            Ok(())
        }
    }

    #[test]
    fn hits_and_misses_stay_for_a_minute() {
        let clock = TestClock::at(Timestamp::EPOCH);
        let edge = EdgeCached::new(One::default(), clock.clone());
        let key = CacheKey::new("k").unwrap();
        let value = Record::new(b"V".as_slice());
        let get = || block_on(edge.get(&key)).unwrap();
        assert_eq!(get(), None);
        block_on(edge.swap(&key, &value, Some(&value), SwapTtl::Keep)).unwrap();
        clock.advance(Duration::from_millis(59_999));
        assert_eq!(get(), None);
        clock.advance(Duration::from_millis(1));
        assert_eq!(get(), Some(value.clone()));
        block_on(edge.remove(std::slice::from_ref(&key))).unwrap();
        assert_eq!(get(), Some(value));
        clock.advance(KEPT);
        assert_eq!(get(), None);
    }
}
