//! Who waits for whom: each race that the locks are for, with the other side held where it hurts.

use std::time::Duration;

use futures_util::future::join_all;
use session_store_core::{
    CacheName, CacheRegistration, CacheScope, CredentialEpoch, Edit, ErrorKind, PasswordHash,
    PrimaryStore, Promotion, Reason, Selection, SessionChange, Touch, Ttl, User, UserChange,
    UserUpdate,
};
use session_store_postgres::PostgresHarness;
use sqlx::{AssertSqlSafe, Connection, Executor, Row};

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
    let logins = (0..100).map(|number| {
        let store = store.clone();
        tokio::spawn(async move { store.insert(&session(number, Some("ada")), NOW).await })
    });
    let logins: Vec<_> = logins.collect();
    let ended = store.revoke(&Selection::AllOf(user("ada")), Reason::Admin, NOW).await.unwrap();
    for login in join_all(logins).await {
        if let Err(error) = login.unwrap() {
            assert_eq!(error.kind(), &ErrorKind::StaleCredentials);
        }
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
            let _ = store.insert_user(&User::new(user("ada"), NOW), NOW).await;
            for number in 0..20 {
                let _ = store.insert(&session(number, Some("ada")), NOW).await;
            }
        }
    };
    tokio::join!(touching(&touches), touching(&backwards), revoking, typing);
}

/// A transaction of somebody else, held open until it is told what to do.
async fn shell(on: &PostgresHarness, namespace: &str) -> sqlx::PgConnection {
    let mut shell = sqlx::PgConnection::connect(&address()).await.unwrap();
    let path = format!("SET search_path TO {}; BEGIN", on.schema(namespace));
    shell.execute(sqlx::raw_sql(AssertSqlSafe(path))).await.unwrap();
    shell
}

async fn say(shell: &mut sqlx::PgConnection, sql: &str) {
    shell.execute(sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))).await.unwrap();
}

/// Waits until somebody waits for a lock that `shell` holds.
async fn is_waited_for(shell: &mut sqlx::PgConnection) {
    let row = sqlx::query("SELECT pg_backend_pid()").fetch_one(shell).await.unwrap();
    let holder: i32 = row.get(0);
    let mut other = sqlx::PgConnection::connect(&address()).await.unwrap();
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE $1 = ANY(pg_blocking_pids(pid))";
    for _ in 0..2000 {
        let row = sqlx::query(sql).bind(holder).fetch_one(&mut other).await.unwrap();
        if row.get::<i64, _>(0) > 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("nobody waits for the lock");
}

#[tokio::test]
async fn nobody_registers_past_a_deletion_that_is_under_way() {
    let on = server();
    let store = store(&on, "past").await;
    store.insert_user(&User::new(user("eve"), NOW), NOW).await.unwrap();
    // Never logged in, and another node deletes her: the commit is still to come.
    let mut other = shell(&on, "past").await;
    let until = NOW.plus(HOUR).as_millis();
    say(
        &mut other,
        &format!(
            "INSERT INTO session_users AS k (user_id, credential_epoch, deleted_until) \
             VALUES ('eve', 1, {until}) ON CONFLICT (user_id) DO UPDATE SET \
             deleted_until = {until}; DELETE FROM users WHERE id = 'eve'"
        ),
    )
    .await;
    let again = tokio::spawn({
        let store = store.clone();
        async move { store.insert_user(&User::new(user("eve"), NOW), NOW).await }
    });
    is_waited_for(&mut other).await;
    say(&mut other, "COMMIT").await;
    assert_eq!(again.await.unwrap().unwrap_err().kind(), &ErrorKind::UnknownUser);
}

#[tokio::test]
async fn a_password_and_its_epoch_are_of_one_moment() {
    let on = server();
    let store = store(&on, "moment").await;
    let mut ada = User::new(user("ada2"), NOW);
    ada.password_hash = Some(PasswordHash::new("0").unwrap());
    store.insert_user(&ada, NOW).await.unwrap();
    let end = std::time::Instant::now() + Duration::from_secs(2);
    let changing = async {
        let mut version = ada.version;
        for number in 1_u64.. {
            if std::time::Instant::now() > end {
                break;
            }
            let hash = PasswordHash::new(number.to_string()).unwrap();
            let change = UserChange { password_hash: Edit::Set(hash), ..UserChange::default() };
            let updated = store.update_user(&ada.id, version, &change).await.unwrap();
            let UserUpdate::Updated { user, .. } = updated else { panic!("{updated:?}") };
            version = user.version;
        }
    };
    let reading = async {
        while std::time::Instant::now() < end {
            let account = store.find_user(&ada.id).await.unwrap().unwrap();
            let hash = account.user.password_hash.unwrap().expose().to_owned();
            assert_eq!(hash, account.credential_epoch.0.to_string());
        }
    };
    tokio::join!(changing, reading);
}

#[tokio::test]
async fn a_promotion_does_not_slip_past_a_revocation_of_all() {
    let on = server();
    let store = store(&on, "promote").await;
    let guest = session(1, None);
    store.insert(&guest, NOW).await.unwrap();
    let mut other = shell(&on, "promote").await;
    // Another node logs Ada out everywhere; its commit is still to come.
    say(
        &mut other,
        "INSERT INTO session_users AS k (user_id, credential_epoch) VALUES ('ada', 1) \
         ON CONFLICT (user_id) DO UPDATE SET credential_epoch = k.credential_epoch + 1",
    )
    .await;
    let promotion = tokio::spawn({
        let store = store.clone();
        async move {
            let promotion = Promotion {
                user_id: user("ada"),
                credential_epoch: CredentialEpoch(0),
                limit: None,
                remember: false,
                idle_timeout: Ttl::new(HOUR).unwrap(),
                absolute_expires_at: None,
                external_sid: None,
            };
            let change = SessionChange { promotion: Some(promotion), ..SessionChange::default() };
            store.update(&session(1, None).session.id, 1, &change, NOW).await
        }
    });
    is_waited_for(&mut other).await;
    say(&mut other, "COMMIT").await;
    // The password was verified before the revocation.
    assert_eq!(promotion.await.unwrap().unwrap_err().kind(), &ErrorKind::StaleCredentials);
    let found = store.find(&guest.session.id).await.unwrap().snapshot.unwrap();
    assert_eq!(found.session.user_id, None);
}

#[tokio::test]
async fn a_login_waits_for_a_role_typed_by_hand() {
    let on = server();
    let store = store(&on, "role").await;
    let cache = CacheRegistration {
        name: CacheName::new("main").unwrap(),
        scope: CacheScope::Shared,
        ttl: Ttl::new(Duration::from_mins(5)).unwrap(),
    };
    store.register(&cache).await.unwrap();
    let mut other = shell(&on, "role").await;
    say(&mut other, "UPDATE users SET role = 'admin' WHERE id = 'ada'").await;
    let new = session(9, Some("ada"));
    let login = tokio::spawn({
        let (store, new) = (store.clone(), new.clone());
        async move { store.insert(&new, NOW).await }
    });
    is_waited_for(&mut other).await;
    say(&mut other, "COMMIT").await;
    login.await.unwrap().unwrap();
    let found = store.find(&new.session.id).await.unwrap().snapshot.unwrap();
    assert_eq!(found.user.unwrap().role.as_str(), "admin");
    // The entry was written before the session was there, and names it all the same.
    let drained = store.drain(&cache.name, 100).await.unwrap();
    let ids: Vec<_> = drained.entries.iter().flat_map(|entry| entry.sessions.clone()).collect();
    assert!(ids.contains(&new.session.id), "{drained:?}");
}
