//! Crowds: nobody is starved, and no deadlock reaches a caller.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::{FutureExt, join, join_all};
use session_store_core::{
    CacheName, CacheRegistration, CacheScope, ErrorKind, PrimaryStore, Reason, Selection,
    SessionLimit, SweepBounds, Touch, Ttl, User, UserChange,
};
use session_store_postgres::{PostgresHarness, PostgresStore};

use crate::fixture::{HOUR, NOW, address, server, session, store, user};

#[tokio::test]
async fn a_first_login_does_not_slip_past_a_revocation_of_all() {
    let on = server();
    let store = store(&on, "first").await;
    for round in 0..30 {
        let new = session(round, Some("ada"));
        let all = Selection::AllOf(user("ada"));
        let (login, ended) =
            tokio::join!(store.insert(&new, NOW), store.revoke(&all, Reason::Admin, NOW));
        let ended = ended.unwrap();
        match login {
            Ok(_) => {
                let found = store.find(&new.session.id).await.unwrap().snapshot.unwrap();
                let is_ended = found.session.revoked.is_some();
                assert_eq!(is_ended, ended.revoked.contains(&new.session.id));
                // The first one may come before; later ones bring an epoch that is old by then.
                assert!(is_ended, "a login with the epoch of before is active");
            }
            Err(error) => assert_eq!(error.kind(), &ErrorKind::StaleCredentials),
        }
    }
}

#[tokio::test]
async fn overlapping_logins_do_not_starve_a_revocation_of_all() {
    let on = server();
    let store = store(&on, "starve").await;
    let mut many = on.config("starve");
    many.max_connections = 20;
    let many = PostgresStore::connect(&many).await.unwrap();
    // Whoever revokes has a connection of its own; a login is always under way.
    let is_over = Arc::new(AtomicBool::new(false));
    let logins: Vec<_> = (0..100)
        .map(|task: u32| {
            let (many, is_over) = (many.clone(), Arc::clone(&is_over));
            tokio::spawn(async move {
                let mut count = 0;
                while !is_over.load(Ordering::Relaxed) {
                    let new = session(task * 100_000 + count, Some("ada"));
                    if let Err(error) = many.insert(&new, NOW).await {
                        assert_eq!(error.kind(), &ErrorKind::StaleCredentials);
                    }
                    count += 1;
                }
                count
            })
        })
        .collect();
    while store.census(NOW, None).await.unwrap().active < 100 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // It would be `Timeout` after the 30 s that a statement may take.
    let ended = store.revoke(&Selection::AllOf(user("ada")), Reason::Admin, NOW).await.unwrap();
    is_over.store(true, Ordering::Relaxed);
    for login in join_all(logins).await {
        assert!(login.unwrap() > 0);
    }
    let census = store.census(NOW, None).await.unwrap();
    assert_eq!((census.active, census.revoked), (0, ended.revoked.len() as u64));
}

#[tokio::test]
async fn no_deadlock_reaches_a_caller() {
    let on = server();
    let store = store(&on, "spell").await;
    let schema = on.schema("spell");
    for number in 0..20 {
        store.insert(&session(number, Some("ada")), NOW).await.unwrap();
    }
    let end = std::time::Instant::now() + Duration::from_secs(30);
    let touches: Vec<_> = (0..20)
        .map(|number| Touch {
            id: session(number, None).session.id,
            seen_at: NOW,
            expires_at: NOW.plus(2 * HOUR),
        })
        .collect();
    let mut backwards = touches.clone();
    backwards.reverse();
    let touching = async |batch: &[Touch]| {
        while std::time::Instant::now() < end {
            store.touch(batch).await.unwrap();
        }
    };
    let revoking = async {
        while std::time::Instant::now() < end {
            store.revoke(&Selection::AllOf(user("ada")), Reason::Admin, NOW).await.unwrap();
            let ids = touches.iter().rev().map(|touch| touch.id).collect();
            store.revoke(&Selection::Ids(ids), Reason::Admin, NOW).await.unwrap();
        }
    };
    let typing = async {
        while std::time::Instant::now() < end {
            // Locks in an order of its own; a shell may be the victim.
            let sql = format!("DELETE FROM {schema}.users WHERE id = 'ada'");
            let _ = on.run(sql).await;
            let registered = store.insert_user(&User::new(user("ada"), NOW), NOW).await;
            refused_by_rule(registered);
            for number in 0..20 {
                refused_by_rule(store.insert(&session(number, Some("ada")), NOW).await);
            }
        }
    };
    tokio::join!(touching(&touches), touching(&backwards), revoking, typing);
}

/// Does `work` with a database of its own, whose deadlocks are counted apart and which ends with it.
async fn in_own_database(name: &str, work: impl AsyncFnOnce(PostgresHarness)) {
    let url = address();
    let shell = PostgresHarness::new(&url);
    shell.run(format!("DROP DATABASE IF EXISTS {name}")).await.unwrap();
    shell.run(format!("CREATE DATABASE {name}")).await.unwrap();
    let on = PostgresHarness::new(format!("{}/{name}", url.rsplit_once('/').unwrap().0));
    let done = AssertUnwindSafe(work(on)).catch_unwind().await;
    shell.run(format!("DROP DATABASE {name} WITH (FORCE)")).await.unwrap();
    if let Err(panic) = done {
        std::panic::resume_unwind(panic);
    }
}

/// How many deadlocks there were in it. The statistics come when connections end.
async fn deadlocks(store: PostgresStore, name: &str) -> i64 {
    store.pool().close().await;
    let mut shell = <sqlx::PgConnection as sqlx::Connection>::connect(&address()).await.unwrap();
    for is_over in [false, true] {
        let sql = if is_over {
            "SELECT deadlocks FROM pg_stat_database WHERE datname = $1"
        } else {
            "SELECT count(*) FROM pg_stat_activity WHERE datname = $1"
        };
        loop {
            let query = sqlx::query_scalar::<_, i64>(sql).bind(name);
            let found = query.fetch_one(&mut shell).await.unwrap();
            if is_over {
                return found;
            }
            if found == 0 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    unreachable!("the second answer is the last one")
}

/// Ada is registered, logs in on many devices, is changed and deleted, over and over.
async fn lives(store: &PostgresStore, end: std::time::Instant) {
    while std::time::Instant::now() < end {
        refused_by_rule(store.insert_user(&User::new(user("ada"), NOW), NOW).await);
        let Some(account) = store.find_user(&user("ada")).await.unwrap() else { continue };
        for number in 0..40 {
            let mut new = session(number, Some("ada"));
            new.session.credential_epoch = account.credential_epoch;
            // The first ones are the newest, so that an index has them in another order.
            new.session.created_at = NOW.plus(Duration::from_secs(40 - u64::from(number)));
            new.limit = (number % 8 == 7).then_some(SessionLimit { max: 30, evict: true });
            refused_by_rule(store.insert(&new, NOW).await);
        }
        let change = UserChange { is_verified: Some(true), ..UserChange::default() };
        store.update_user(&user("ada"), account.user.version, &change).await.unwrap();
        store.delete_user(&user("ada"), NOW).await.unwrap();
    }
}

/// Another cache is registered, acknowledges all there is, also what is old, and is forgotten.
async fn comes_and_goes(store: &PostgresStore, on: &PostgresHarness, end: std::time::Instant) {
    let name = CacheName::new("other").unwrap();
    let ttl = Ttl::new(HOUR).unwrap();
    let cache = CacheRegistration { name: name.clone(), scope: CacheScope::Shared, ttl };
    let log = format!("{}.session_log", on.schema("storm"));
    // As old as nothing that a cache could need, so that sweeps are after it too.
    let aged = format!(
        "INSERT INTO {log} (session_id, seen_at) \
         SELECT decode(repeat('07', 16), 'hex'), 0 FROM generate_series(1, 200)"
    );
    while std::time::Instant::now() < end {
        store.register(&cache).await.unwrap();
        on.run(aged.clone()).await.unwrap();
        let drained = store.drain(&name, 1_000).await.unwrap();
        let entries: Vec<_> = drained.entries.iter().rev().map(|entry| entry.id).collect();
        store.acknowledge(&name, &entries).await.unwrap();
        store.unregister(&name).await.unwrap();
    }
}

#[tokio::test]
async fn what_the_store_does_locks_in_one_order() {
    let name = format!("storm_{}", std::process::id());
    in_own_database(&name, async |on| storm(&on, &name).await).await;
}

async fn storm(on: &PostgresHarness, name: &str) {
    let store = store(on, "storm").await;
    let cache = CacheRegistration {
        name: CacheName::main(),
        scope: CacheScope::Shared,
        ttl: Ttl::new(HOUR).unwrap(),
    };
    store.register(&cache).await.unwrap();
    let end = std::time::Instant::now() + Duration::from_secs(10);
    let is_over = || std::time::Instant::now() >= end;
    let ids: Vec<_> = (0..40).map(|number| session(number, None).session.id).collect();
    let touching = async {
        let touch = |id| Touch { id, seen_at: NOW, expires_at: NOW.plus(2 * HOUR) };
        while !is_over() {
            store.touch(&ids.iter().map(|id| touch(*id)).collect::<Vec<_>>()).await.unwrap();
            store.touch(&ids.iter().rev().map(|id| touch(*id)).collect::<Vec<_>>()).await.unwrap();
        }
    };
    let ending = async {
        while !is_over() {
            let backwards = ids.iter().rev().take(20).copied().collect();
            store.revoke(&Selection::Ids(backwards), Reason::Admin, NOW).await.unwrap();
            let everyone = Selection::Everyone { created_before: NOW.plus(HOUR), limit: 7 };
            store.revoke(&everyone, Reason::Admin, NOW).await.unwrap();
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let tidying = async {
        while !is_over() {
            let drained = store.drain(&cache.name, 50).await.unwrap();
            let entries: Vec<_> = drained.entries.iter().rev().map(|entry| entry.id).collect();
            let (one, other) = (&entries, entries.iter().rev().copied().collect::<Vec<_>>());
            let (one, other) = tokio::join!(
                store.acknowledge(&cache.name, one),
                store.acknowledge(&cache.name, &other)
            );
            one.and(other).unwrap();
        }
    };
    let sweeping = async || {
        let bounds = SweepBounds { expired_before: NOW, revoked_before: NOW };
        while !is_over() {
            store.sweep(&bounds, 10).await.unwrap();
        }
    };
    let (sweeps, lives) = (join(sweeping(), sweeping()), lives(&store, end));
    tokio::join!(touching, lives, ending, tidying, sweeps, comes_and_goes(&store, on, end));
    assert_eq!(deadlocks(store, name).await, 0);
}

/// Others were faster, which is no deadlock.
fn refused_by_rule<T>(outcome: session_store_core::Result<T>) {
    if let Err(error) = outcome {
        let rules = [ErrorKind::Conflict, ErrorKind::UnknownUser, ErrorKind::StaleCredentials];
        let source = std::error::Error::source(&error);
        assert!(rules.contains(error.kind()), "{error} {source:?}");
    }
}
