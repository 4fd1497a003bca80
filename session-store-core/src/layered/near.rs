//! The near cache: entries of the shared cache, kept inside the process for a second or so.
//!
//! An entry's time runs on both clocks from **before** the shared read that brought it, and it is kept only if
//! its key was not purged since: so a revocation on this node is seen at once, and one on another
//! node within the TTL.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;

use crate::host::Moment;
use crate::secondary::CacheKey;
use crate::session::Snapshot;
use crate::time::Ttl;

const GENERATIONS: usize = 1024;
const CAPACITY: usize = 10_000;

/// A bounded map of entries that die young.
#[derive(Debug)]
pub(crate) struct Near {
    ttl: Ttl,
    hasher: RandomState,
    generations: Vec<AtomicU64>,
    entries: RwLock<HashMap<CacheKey, (Moment, Arc<Snapshot>)>>,
}

/// Taken before a shared read, handed back with what it brought.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Permit {
    generation: u64,
    deadline: Moment,
}

impl Near {
    pub(crate) fn new(ttl: Ttl) -> Self {
        Self {
            ttl,
            hasher: RandomState::new(),
            generations: (0..GENERATIONS).map(|_| AtomicU64::new(0)).collect(),
            entries: RwLock::default(),
        }
    }

    fn generation(&self, key: &CacheKey) -> &AtomicU64 {
        let slot = usize::try_from(self.hasher.hash_one(key) % GENERATIONS as u64).unwrap_or(0);
        &self.generations[slot]
    }

    pub(crate) fn get(&self, key: &CacheKey, now: Moment) -> Option<Arc<Snapshot>> {
        let entries = self.entries.read();
        let (deadline, hit) = entries.get(key)?;
        (!now.has_reached(*deadline)).then(|| Arc::clone(hit))
    }

    /// To be called before the shared read.
    pub(crate) fn permit(&self, key: &CacheKey, now: Moment) -> Permit {
        let generation = self.generation(key).load(Ordering::Acquire);
        Permit { generation, deadline: now.plus(self.ttl) }
    }

    /// Keeps `snapshot` unless the key was purged since `permit` was given.
    pub(crate) fn insert(&self, key: &CacheKey, permit: Permit, snapshot: &Arc<Snapshot>) {
        let mut entries = self.entries.write();
        if self.generation(key).load(Ordering::Acquire) != permit.generation {
            return;
        }
        if entries.len() >= CAPACITY {
            // Everything in here dies within a second or so: forgetting it early is cheaper than
            // remembering an order.
            entries.clear();
        }
        entries.insert(key.clone(), (permit.deadline, Arc::clone(snapshot)));
    }

    /// Forgets `keys`, and refuses what reads from before would bring. To be called after the
    /// shared removal.
    pub(crate) fn purge(&self, keys: &[CacheKey]) {
        let mut entries = self.entries.write();
        for key in keys {
            self.generation(key).fetch_add(1, Ordering::AcqRel);
            entries.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::session::{Metadata, Session};
    use crate::time::Timestamp;
    use crate::token::{SecretHash, SessionId};
    use crate::user::CredentialEpoch;

    const SECOND: Moment = at(1_000, 1_000);

    const fn at(wall: i64, monotonic: u64) -> Moment {
        let monotonic = Duration::from_millis(monotonic);
        Moment { wall: Timestamp::from_millis(wall), monotonic }
    }

    fn snapshot() -> Arc<Snapshot> {
        let session = Session {
            id: SessionId::from_bytes([1; 16]),
            user_id: None,
            secret_hash: SecretHash::from_bytes([1; 32]),
            previous: None,
            created_at: Timestamp::EPOCH,
            authenticated_at: None,
            last_seen_at: Timestamp::EPOCH,
            expires_at: Timestamp::MAX,
            absolute_expires_at: None,
            idle_timeout: Ttl::MIN,
            rotated_at: Timestamp::EPOCH,
            metadata: Metadata::default(),
            remember: false,
            aal: None,
            amr: Vec::new(),
            external_sid: None,
            data: crate::json::Json::default(),
            version: 1,
            credential_epoch: CredentialEpoch::default(),
            revoked: None,
        };
        Arc::new(Snapshot { session, user: None })
    }

    fn near() -> Near {
        Near::new(Ttl::new(Duration::from_secs(1)).unwrap())
    }

    fn key(number: usize) -> CacheKey {
        CacheKey::new(number.to_string()).unwrap()
    }

    #[test]
    fn an_entry_lives_for_its_time_from_before_the_read() {
        let (near, key) = (near(), key(1));
        let permit = near.permit(&key, SECOND);
        near.insert(&key, permit, &snapshot());
        assert!(near.get(&key, at(1_999, 1_999)).is_some());
        // The machine slept, or somebody has set the clock back.
        assert!(near.get(&key, at(2_000, 1_999)).is_none());
        assert!(near.get(&key, at(1_000, 2_000)).is_none());
    }

    #[test]
    fn what_was_purged_stays_away() {
        let (near, key) = (near(), key(1));
        let permit = near.permit(&key, SECOND);
        near.insert(&key, permit, &snapshot());
        near.purge(std::slice::from_ref(&key));
        assert!(near.get(&key, SECOND).is_none());
        near.insert(&key, permit, &snapshot());
        assert!(near.get(&key, SECOND).is_none(), "a read of before came back");
        near.insert(&key, near.permit(&key, SECOND), &snapshot());
        assert!(near.get(&key, SECOND).is_some());
    }

    #[test]
    fn there_is_room_for_so_many_and_then_for_new_ones() {
        let (near, snapshot) = (near(), snapshot());
        let put = |number| {
            let key = key(number);
            near.insert(&key, near.permit(&key, SECOND), &snapshot);
        };
        (0..CAPACITY).for_each(put);
        assert!(near.get(&key(0), SECOND).is_some());
        assert_eq!(near.entries.read().len(), CAPACITY);
        put(CAPACITY);
        assert!(near.get(&key(CAPACITY), SECOND).is_some());
        assert_eq!(near.entries.read().len(), 1);
    }
}
