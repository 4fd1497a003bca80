//! Crowds: nobody is starved, and no deadlock reaches a caller.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use session_store_core::{ErrorKind, PrimaryStore, Reason, Selection, Touch, User};
use session_store_postgres::PostgresStore;

use crate::fixture::{HOUR, NOW, server, session, store, user};

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

/// Others were faster, which is no deadlock.
fn refused_by_rule<T>(outcome: session_store_core::Result<T>) {
    if let Err(error) = outcome {
        let rules = [ErrorKind::Conflict, ErrorKind::UnknownUser, ErrorKind::StaleCredentials];
        let source = std::error::Error::source(&error);
        assert!(rules.contains(error.kind()), "{error} {source:?}");
    }
}
