//! What the memory cache does beyond the contract: bounds, two clocks, and races under load.

use std::collections::HashSet;
use std::sync::{Arc, Barrier, Mutex};
use std::thread;
use std::time::Duration;

use session_store_core::{
    CacheKey, ErrorKind, Record, Reservation, SecondaryStore, SwapTtl, Timestamp, Ttl,
};

use super::{MemoryCache, MemoryCacheConfig};
use crate::host::{Hands, ready};

fn ttl(millis: u64) -> Ttl {
    Ttl::new(Duration::from_millis(millis)).unwrap()
}

fn key(name: impl std::fmt::Display) -> CacheKey {
    CacheKey::new(format!("ss:{name}")).unwrap()
}

fn value(length: usize) -> Record {
    Record::new(vec![b'V'; length])
}

fn cache(edit: impl FnOnce(&mut MemoryCacheConfig)) -> (MemoryCache, Arc<Hands>) {
    let clock = Arc::new(Hands::default());
    let mut config = MemoryCacheConfig::default();
    edit(&mut config);
    (MemoryCache::new(&config, clock.clone()), clock)
}

fn lease(cache: &MemoryCache, key: &CacheKey) -> Record {
    match ready(cache.reserve(key, ttl(60_000))).unwrap() {
        Reservation::Granted(lease) => lease,
        Reservation::Occupied(record) => panic!("{key:?} holds {record:?}"),
    }
}

/// Whether `record` took the place of `lease`.
fn fill(cache: &MemoryCache, key: &CacheKey, lease: &Record, record: &Record) -> bool {
    let set = SwapTtl::Set(ttl(60_000));
    ready(cache.swap(key, lease, Some(record), set)).unwrap()
}

fn put(cache: &MemoryCache, key: &CacheKey, record: &Record) {
    assert!(fill(cache, key, &lease(cache, key), record));
}

fn holds(cache: &MemoryCache, key: &CacheKey) -> bool {
    ready(cache.get(key)).unwrap().is_some()
}

#[test]
fn either_clock_ends_an_entry() {
    let (cache, clock) = cache(|_| ());
    let (sleeper, traveller) = (key("sleeper"), key("traveller"));
    put(&cache, &sleeper, &value(1));
    clock.set_wall(Timestamp::EPOCH.plus(Duration::from_hours(1_000)));
    assert!(!holds(&cache, &sleeper), "the machine slept past the TTL");

    put(&cache, &traveller, &value(1));
    clock.set_wall(Timestamp::EPOCH);
    clock.pass(Duration::from_millis(59_999));
    assert!(holds(&cache, &traveller));
    clock.pass(Duration::from_millis(1));
    clock.set_wall(Timestamp::EPOCH);
    assert!(!holds(&cache, &traveller), "the wall clock was set back");
}

#[test]
fn a_dead_entry_is_reclaimed_by_the_read_that_finds_it() {
    let (cache, clock) = cache(|_| ());
    put(&cache, &key(1), &value(1));
    clock.pass(Duration::from_mins(1));
    assert_eq!(cache.len(), 1);
    assert!(!holds(&cache, &key(1)));
    assert!(cache.is_empty());
}

#[test]
fn as_many_values_fit_as_were_configured() {
    let (cache, _) = cache(|config| config.max_entries = 1_000);
    for name in 0..1_000 {
        put(&cache, &key(name), &value(200));
    }
    let held = (0..1_000).filter(|name| holds(&cache, &key(name))).count();
    assert_eq!(held, 1_000);
}

#[test]
fn entries_and_bytes_stay_within_their_bounds() {
    let (few, _) = cache(|config| config.max_entries = 100);
    let (small, _) = cache(|config| config.max_bytes = 1 << 20);
    for name in 0..5_000 {
        put(&few, &key(name), &value(10));
        put(&small, &key(name), &value(1_000));
        assert!(few.len() <= 100 && small.len() <= 1_048);
    }
    assert_eq!(few.len(), 100);
    assert!(small.len() > 500, "{}", small.len());
}

#[test]
fn a_flood_of_unknown_ids_pushes_out_no_session() {
    let (cache, _) = cache(|config| config.max_entries = 4_000);
    for name in 0..4_000 {
        put(&cache, &key(name), &value(300));
    }
    let negative = Record::new(*b"N");
    for stranger in 0..100_000 {
        put(&cache, &key(format_args!("x{stranger}")), &negative);
        lease(&cache, &key(format_args!("y{stranger}")));
    }
    let lost = (0..4_000).filter(|name| !holds(&cache, &key(name))).count();
    assert_eq!(lost, 0);
    assert!(cache.len() <= 5_000, "{}", cache.len());
}

#[test]
fn a_record_of_the_declared_size_is_kept_whatever_its_kind() {
    for edit in [
        (|_| ()) as fn(&mut MemoryCacheConfig),
        |config| config.max_bytes = 0,
        |config| config.max_bytes = 100_000,
    ] {
        let (cache, _) = cache(edit);
        let limit = cache.promise().max_record_bytes;
        for first in *b"VNLx" {
            let key = key("k".repeat(CacheKey::MAX_BYTES - 3));
            put(&cache, &key, &Record::new(vec![first; limit]));
            assert!(holds(&cache, &key), "{} of {limit}", char::from(first));
            cache.flush();
        }
        let lease = lease(&cache, &key(1));
        let set = SwapTtl::Set(ttl(1));
        let refused = ready(cache.swap(&key(1), &lease, Some(&value(limit + 1)), set));
        assert!(matches!(refused.unwrap_err().kind(), ErrorKind::TooLarge { .. }));
        assert_eq!(ready(cache.get(&key(1))).unwrap(), Some(lease));
    }
}

#[test]
fn a_newcomer_stays_although_everybody_else_was_just_read() {
    let (cache, _) = cache(|config| config.max_entries = 256);
    for name in 0..256 {
        put(&cache, &key(name), &value(1));
    }
    for newcomer in 1_000..1_500 {
        for name in 0..newcomer {
            holds(&cache, &key(name));
        }
        put(&cache, &key(newcomer), &value(1));
        assert!(holds(&cache, &key(newcomer)), "{newcomer}");
    }
}

#[test]
fn what_is_read_outlives_what_is_not() {
    let (cache, _) = cache(|config| config.max_entries = 640);
    for name in 0..640 {
        put(&cache, &key(name), &value(1));
    }
    for newcomer in 1_000..1_300 {
        for popular in 0..100 {
            holds(&cache, &key(popular));
        }
        put(&cache, &key(newcomer), &value(1));
    }
    let kept = (0..100).filter(|name| holds(&cache, &key(name))).count();
    assert_eq!(kept, 100);
}

#[test]
fn evicting_and_flushing_forget_and_a_lease_of_before_fills_nothing() {
    let (cache, _) = cache(|_| ());
    let (one, two) = (lease(&cache, &key(1)), lease(&cache, &key(2)));
    cache.evict(&key(1));
    assert!(holds(&cache, &key(2)) && !holds(&cache, &key(1)));
    cache.flush();
    assert!(cache.is_empty());
    for (name, old) in [(1, one), (2, two)] {
        let fresh = lease(&cache, &key(name));
        assert_ne!(fresh, old);
        assert!(!fill(&cache, &key(name), &old, &value(1)));
    }
}

/// What became of one key: its leases, and the removals and fills that are over.
#[derive(Default)]
struct History {
    leases: Vec<Record>,
    /// How many of `leases` had been granted when the last finished removal began.
    removed: usize,
    filled: Vec<Record>,
}

#[test]
fn no_thread_fills_a_lease_that_another_one_has_removed() {
    const KEYS: usize = 4;
    let (cache, _) = cache(|config| config.max_entries = 64);
    let histories: Vec<Mutex<History>> = (0..KEYS).map(|_| Mutex::default()).collect();
    let start = Barrier::new(32);
    thread::scope(|scope| {
        for thread in 0..32_u64 {
            let (cache, histories, start) = (&cache, &histories, &start);
            scope.spawn(move || {
                start.wait();
                for round in 0..3_000 {
                    let step = mix(thread << 32 | round);
                    let chosen = step % KEYS;
                    hammer(cache, &key(chosen), &histories[chosen], step / KEYS);
                }
            });
        }
    });
    for history in histories {
        let history = history.into_inner().unwrap();
        let (leases, filled) = (history.leases, history.filled);
        let is_busy = leases.len() > 100 && filled.len() > 10 && history.removed > 100;
        assert!(is_busy, "{} leases, {} fills", leases.len(), filled.len());
        assert_eq!(leases.iter().collect::<HashSet<_>>().len(), leases.len());
        assert_eq!(filled.iter().collect::<HashSet<_>>().len(), filled.len());
    }
}

/// One step: reserve and remember, or fill what some thread remembered, or remove.
fn hammer(cache: &MemoryCache, key: &CacheKey, history: &Mutex<History>, step: usize) {
    match step % 3 {
        0 => {
            let reservation = ready(cache.reserve(key, ttl(60_000))).unwrap();
            if let Reservation::Granted(lease) = reservation {
                history.lock().unwrap().leases.push(lease);
            }
        }
        1 => {
            let before = history.lock().unwrap().leases.len();
            ready(cache.remove(std::slice::from_ref(key))).unwrap();
            let mut history = history.lock().unwrap();
            history.removed = history.removed.max(before);
        }
        _ => {
            let (lease, was_removed) = {
                let history = history.lock().unwrap();
                let Some(chosen) = history.leases.len().checked_sub(1 + step / 3 % 2) else {
                    return;
                };
                (history.leases[chosen].clone(), chosen < history.removed)
            };
            if fill(cache, key, &lease, &value(40)) {
                assert!(!was_removed, "a removed lease was filled");
                history.lock().unwrap().filled.push(lease);
            }
        }
    }
}

/// A number that looks like any other.
fn mix(number: u64) -> usize {
    let mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    usize::try_from((mixed ^ mixed >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 40).unwrap()
}
